#!/bin/sh
# Installs what building and running needs and is not there yet; quick when nothing is missing.
#
#   tools/setup.sh        the Rust toolchain, QEMU, the device tree compiler
#   tools/setup.sh gdb    the debugger as well
#
# Distribution packages need root or a sudo that asks no password. Otherwise the commands to run
# are printed and the exit status is 1.
set -eu
cd "$(dirname "$0")/.."

QEMU=qemu-system-aarch64
QEMU_MAJOR=10 # the first version the boards' models were checked against
BACKPORTS=/etc/apt/sources.list.d/backports-for-qemu.list

fail() {
	printf 'setup: %s\n' "$*" >&2
	exit 1
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# The value of KEY = "VALUE" or KEY = ["A", "B"] in rust-toolchain.toml, as words.
toolchain_key() {
	sed -n "s/^$1 *= *//p" rust-toolchain.toml | tr -d '[]",'
}

# ---- Rust --------------------------------------------------------------------------------------

rust_is_complete() {
	# Asking rustc could start a download; the list of toolchains does not.
	rustup toolchain list | grep -q "^$channel-" || return 1
	rustlib=$(rustc "+$channel" --print sysroot)/lib/rustlib
	for target in $targets; do
		[ -d "$rustlib/$target/lib" ] || return 1
	done
	for component in $components; do
		# Components that depend on the host carry its triple in their manifest's name.
		set -- "$rustlib/manifest-$component"*
		[ -e "$1" ] || return 1
	done
}

setup_rust() {
	have rustup || fail "rustup is missing: see https://rustup.rs"
	channel=$(toolchain_key channel)
	components=$(toolchain_key components)
	targets=$(toolchain_key targets)
	rust_is_complete && return
	set -- --profile minimal --no-self-update
	for component in $components; do
		set -- "$@" --component "$component"
	done
	for target in $targets; do
		set -- "$@" --target "$target"
	done
	echo "setup: rustup toolchain install $channel"
	rustup toolchain install "$channel" "$@"
}

# ---- Distribution packages ---------------------------------------------------------------------

qemu_version() {
	"$QEMU" --version | sed -n 's/^QEMU emulator version \([0-9][0-9.]*\).*/\1/p'
}

qemu_is_new_enough() {
	have "$QEMU" && version=$(qemu_version) && [ "${version%%.*}" -ge "$QEMU_MAJOR" ] 2>/dev/null
}

# Runs a command as root, or adds it to what the user is told to run.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo && sudo -n true 2>/dev/null; then
		sudo "$@"
	else
		todo="$todo
  sudo"
		for word; do
			case $word in
			*' '*) todo="$todo '$word'" ;;
			*) todo="$todo $word" ;;
			esac
		done
	fi
}

add_backports() {
	# Any configured source of this suite will do.
	grep -rqs "^[^#]*$codename-backports" /etc/apt/sources.list /etc/apt/sources.list.d && return
	as_root sh -c "echo deb http://deb.debian.org/debian $codename-backports main > $BACKPORTS"
}

setup_packages() {
	packages=
	have cc || packages="$packages gcc libc6-dev"
	have dtc || packages="$packages device-tree-compiler"
	if [ "$want" = gdb ]; then
		have gdb-multiarch || packages="$packages gdb-multiarch"
	fi
	qemu=
	if ! qemu_is_new_enough; then
		qemu=qemu-system-arm
		if have "$QEMU"; then
			found="$(command -v "$QEMU") is $(qemu_version)"
		else
			found="there is no $QEMU"
		fi
		echo "setup: QEMU $QEMU_MAJOR.0 or newer is needed, but $found" >&2
	fi
	[ -n "$packages$qemu" ] || return 0

	have apt-get || fail "needed: QEMU $QEMU_MAJOR.0 or newer, dtc, a C compiler; missing:$packages $qemu"
	todo=
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
	release=
	if [ -n "$qemu" ] && [ "$codename" = bookworm ]; then
		release="--target-release $codename-backports"
		add_backports
	fi
	as_root apt-get update --quiet
	# shellcheck disable=SC2086 # lists of words
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet \
		--no-install-recommends $release $packages $qemu
	[ -z "$todo" ] || fail "root is needed to install$packages $qemu; please run:$todo"
	[ -z "$qemu" ] || qemu_is_new_enough ||
		fail "$(command -v "$QEMU") is still $(qemu_version);" \
			"see https://www.qemu.org/download/ for QEMU $QEMU_MAJOR.0 or newer"
}

want=${1-}
setup_rust
setup_packages
