#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes the files a Raspberry Pi 4 boots from, and copies them to a card.
#
#   tools/sdcard.sh image     kernel8.img only
#   tools/sdcard.sh sdcard    everything for the boot partition
#   tools/sdcard.sh flash     copy that folder to the FAT partition DEV=
#
# Values come through the environment; empty means unset:
#   BOARD     rpi4
#   OUT       the folder to make (default: target/sdcard)
#   CMDLINE   the kernel command line (default: boards/rpi4/cmdline.txt)
#   FIRMWARE  the Pi's own files: "debian" downloads them, a folder's name copies them from there
#   DEBIAN_MIRROR, DEBIAN_SUITE   where FIRMWARE=debian looks
#   DEV       flash: the partition, such as /dev/sdb1
#   FORCE     flash: 1 accepts a device that does not call itself removable
#
# Nothing is installed and no setting of the system's package manager is read or written, except
# the proxy it uses.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
elf=$target/aarch64-unknown-none-softfloat/release/rpi4
templates=$root/boards/rpi4
out=${OUT:-$target/sdcard}
debian=$target/debian
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${DEBIAN_SUITE:-trixie}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

own_files=(kernel8.img config.txt cmdline.txt)
dtb=bcm2711-rpi-4-b.dtb
pi_files=(start4.elf fixup4.dat "$dtb")
# Licences of the Pi's own files, under the names this script and Raspberry Pi's own releases use.
licence_files=(LICENCE.raspi-firmware LICENCE.dtb LICENCE.broadcom COPYING.linux)
# Opens the config.txt this project writes; any other is somebody else's.
config_mark='# dmaproof'

die() {
    printf 'sdcard: %s\n' "$@" >&2
    exit 1
}

# need TOOL PACKAGE
need() {
    command -v "$1" >/dev/null || die "$1 is not installed; on Debian and Ubuntu it is in the package $2"
}

# llvm_tool NAME: the tool of the pinned toolchain
llvm_tool() {
    local found
    found=$(compgen -G "$(cd "$root" && rustc --print sysroot)/lib/rustlib/*/bin/$1" | head -n 1) ||
        die "no $1 in the Rust toolchain; run: rustup component add llvm-tools"
    printf '%s\n' "$found"
}

# config_value KEY: what config.txt sets it to
config_value() {
    sed -n "s/^$1=//p" "$templates/config.txt"
}

# load_address ELF: the lowest physical address of a segment with contents
load_address() {
    # Columns: Type Offset VirtAddr PhysAddr FileSiz MemSiz ...; equal widths sort as text.
    "$readobj" --program-headers --elf-output-style=GNU "$1" |
        awk '$1 == "LOAD" && $5 !~ /^0x0+$/ { print $4 }' | sort | head -n 1
}

# word64 FILE OFFSET: eight bytes, in hex as they lie in the file
word64() {
    od -An -v -tx1 -j "$2" -N 8 "$1" | tr -d ' \n'
}

# The Pi's loader puts the file at kernel_address and jumps to its first byte, whatever it is. A wrong
# file would be dead without a word, so an image that is linked for another address or has no arm64
# Image header (newer loaders and QEMU go by it) is refused here.
make_image() {
    local objcopy readobj image=$out/kernel8.img found wanted
    [ -f "$elf" ] || die "no firmware at $elf" \
        "build it first: make image BOARD=rpi4, or cargo build --release --bin rpi4"
    objcopy=$(llvm_tool llvm-objcopy)
    readobj=$(llvm_tool llvm-readobj)

    found=$(load_address "$elf")
    wanted=$(config_value kernel_address)
    [ -n "$found" ] || die "$elf has no segment to load"
    ((found == wanted)) || die "$elf is linked at $found, but config.txt has kernel_address=$wanted"

    mkdir -p "$out"
    "$objcopy" -O binary "$elf" "$image.part"
    # Linux Documentation/arch/arm64/booting.rst: text_offset at 8, the magic "ARM\x64" at 56.
    [[ $(word64 "$image.part" 56) == 41524d64* ]] || die "$elf does not begin with an arm64 Image header"
    [ "$(word64 "$image.part" 8)" = 0000000000000000 ] || die "$elf has a text_offset other than 0"
    mv "$image.part" "$image"
    printf '%s: %s bytes, loads at %s\n' "$image" "$(stat -c %s "$image")" "$wanted"
}

write_cmdline() {
    local line=${CMDLINE:-}
    if [ -z "$line" ]; then
        cp "$templates/cmdline.txt" "$out/cmdline.txt"
    elif [[ $line == *$'\n'* ]]; then
        die "CMDLINE has more than one line; the Pi's loader passes on only the first"
    else
        printf '%s\n' "$line" >"$out/cmdline.txt"
    fi
}

# missing_in FOLDER FILE...: the files that are not there, in one line
missing_in() {
    local folder=$1 file missing=
    shift
    for file; do
        [ -s "$folder/$file" ] || missing+="${missing:+ }$file"
    done
    printf '%s' "$missing"
}

# The package manager's files, all of them below $apt: its configuration is read first and points
# everything else there, so that the system's sources, state and hooks are out of the picture.
prepare_apt() {
    mkdir -p "$apt"/{etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d},log} \
        "$apt/var/lib/apt/lists/partial" "$apt/var/cache/apt/archives/partial"
    : >"$apt/status"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main non-free-firmware\nArchitectures: arm64\nSigned-By: %s\n' \
        "$mirror" "$suite" "$keyring" >"$apt/etc/apt/sources.list.d/debian.sources"
    {
        printf 'Dir "%s/";\n' "$apt"
        printf 'Dir::State::status "%s/status";\n' "$apt"
        printf 'Dir::Log "%s/log";\n' "$apt"
        printf 'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\n'
        printf 'Acquire::Languages "none";\n'
        # An index that cannot be fetched or verified is an error, not a warning.
        printf 'APT::Update::Error-Mode "any";\n'
        # As root, apt would fetch as _apt, who need not be able to enter this folder.
        printf 'APT::Sandbox::User "root";\n'
        apt-config dump | grep -E '^Acquire::https?::' || true
    } >"$apt/apt.conf.part"
    mv "$apt/apt.conf.part" "$apt/apt.conf"
}

# fetch_package NAME: prints the path of its .deb, downloaded and verified unless it is there already
fetch_package() {
    local name=$1 kept fetching=$debian/fetching
    if ! kept=$(compgen -G "$debian/packages/${name}_*_*.deb"); then
        rm -rf "$fetching"
        mkdir -p "$fetching" "$debian/packages"
        echo "sdcard: downloading $name from $mirror ($suite)" >&2
        (cd "$fetching" && apt-get -q download "$name") >&2 || die "could not download $name"
        mv "$fetching"/*.deb "$debian/packages/"
        rmdir "$fetching"
        kept=$(compgen -G "$debian/packages/${name}_*_*.deb")
    fi
    printf '%s\n' "$kept" | tail -n 1
}

# unpack_file PACKAGE PATTERN FILE: that one member and nothing else
unpack_file() {
    dpkg-deb --fsys-tarfile "$1" | tar --extract --to-stdout --wildcards "$2" >"$3.part" ||
        die "no $2 in $(basename "$1")"
    mv "$3.part" "$3"
}

# Fills $debian/boot. Complete, it is used as it is, without the network.
fetch_from_debian() {
    local boot=$debian/boot apt=$debian/apt kernel package
    [ -n "$(missing_in "$boot" "${pi_files[@]}" LICENCE.raspi-firmware LICENCE.dtb)" ] || return 0
    need apt-get apt
    need dpkg-deb dpkg
    [ -r "$keyring" ] || die "no $keyring to check Debian's signature with" \
        "it is in the package debian-archive-keyring"

    mkdir -p "$boot"
    prepare_apt
    export APT_CONFIG=$apt/apt.conf
    apt-get -q update >&2 || die "the package index of $mirror $suite could not be fetched and verified"

    package=$(fetch_package raspi-firmware)
    unpack_file "$package" './usr/lib/raspi-firmware/start4.elf' "$boot/start4.elf"
    unpack_file "$package" './usr/lib/raspi-firmware/fixup4.dat' "$boot/fixup4.dat"
    unpack_file "$package" './usr/share/doc/raspi-firmware/copyright' "$boot/LICENCE.raspi-firmware"

    # linux-image-arm64 is empty and depends on the kernel of the day, which carries the device trees.
    kernel=$(apt-cache depends --important linux-image-arm64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || die "linux-image-arm64 of $suite depends on no kernel"
    package=$(fetch_package "$kernel")
    unpack_file "$package" "./usr/lib/linux-image-*/broadcom/$dtb" "$boot/$dtb"
    unpack_file "$package" "./usr/share/doc/$kernel/copyright" "$boot/LICENCE.dtb"
    rm -rf "$apt"
}

# copy_pi_files FOLDER: start4.elf and the rest of the Pi's own, with their licences
copy_pi_files() {
    local from=$1 missing file
    [ -d "$from" ] || die "FIRMWARE=$from is neither \"debian\" nor a folder"
    missing=$(missing_in "$from" "${pi_files[@]}")
    [ -z "$missing" ] || die "$from lacks: $missing"
    [ ! "$from" -ef "$out" ] || return 0
    for file in "${pi_files[@]}"; do
        cp "$from/$file" "$out/$file"
    done
    for file in "${licence_files[@]}"; do
        rm -f "$out/$file"
        [ ! -f "$from/$file" ] || cp "$from/$file" "$out/$file"
    done
}

make_sdcard() {
    local missing
    make_image
    cp "$templates/config.txt" "$out/config.txt"
    write_cmdline
    case ${FIRMWARE:-} in
        '') ;;
        debian)
            fetch_from_debian
            copy_pi_files "$debian/boot"
            ;;
        *) copy_pi_files "$FIRMWARE" ;;
    esac

    missing=$(missing_in "$out" "${pi_files[@]}")
    if [ -z "$missing" ]; then
        echo "$out: complete; copy its files to the card's first FAT partition, or: make flash BOARD=rpi4 DEV=/dev/..."
    else
        cat <<END
$out: holds ${own_files[*]}
Still missing for a card of its own: $missing
They are the Pi's own and not part of this project. Get them in one of these ways:
  make sdcard BOARD=rpi4 FIRMWARE=debian   downloads them from Debian (about 100 MB, once; installs nothing)
  make sdcard BOARD=rpi4 FIRMWARE=DIR      copies them from DIR, such as a Raspberry Pi OS boot partition
or copy the files above onto a card that already boots a Raspberry Pi 4.
END
    fi
}

# check_device: DEV is a FAT partition nobody else needs; prints where it is mounted, if it is
check_device() {
    local dev=$1 type fstype removable hotplug mounted
    [ -b "$dev" ] || die "DEV=$dev is not a block device" \
        "see which appears when the card goes in: lsblk -o NAME,SIZE,TYPE,FSTYPE,LABEL,MOUNTPOINT"
    type=$(lsblk --nodeps --noheadings --raw --output TYPE "$dev")
    fstype=$(lsblk --nodeps --noheadings --raw --output FSTYPE "$dev")
    # lsblk asks udev, which need not run; root may ask the device itself.
    [ -n "$fstype" ] || fstype=$(blkid -p -s TYPE -o value "$dev" 2>/dev/null || true)
    removable=$(lsblk --nodeps --noheadings --raw --output RM "$dev")
    hotplug=$(lsblk --nodeps --noheadings --raw --output HOTPLUG "$dev")

    # FORCE does not reach this far: a Pi cannot boot from anything else, and this script never formats.
    [ "$fstype" = vfat ] || die "DEV=$dev holds ${fstype:-no file system}, not FAT; this never formats" \
        "name the card's FAT partition, or make one on it first"
    if [ "${FORCE:-}" != 1 ]; then
        [ "$type" = part ] || die "DEV=$dev is a ${type:-unknown device}, not a partition; FORCE=1 takes it nevertheless"
        [[ "$removable$hotplug" == *1* ]] || die "DEV=$dev does not call itself removable; FORCE=1 takes it nevertheless"
    fi
    mounted=$(findmnt --noheadings --first-only --output TARGET --source "$dev" || true)
    case $mounted in
        / | /boot | /boot/* | /efi) die "DEV=$dev is mounted on $mounted: this machine boots from it" ;;
    esac
    printf '%s' "$mounted"
}

# copy_to_card FOLDER: what was there under the same names and is not ours is kept as NAME.orig
copy_to_card() {
    local card=$1 file missing
    missing=$(missing_in "$out" "${own_files[@]}")
    [ -z "$missing" ] || die "$out lacks: $missing; run: make sdcard BOARD=rpi4"
    for file in "${pi_files[@]}"; do
        [ -s "$out/$file" ] || [ -s "$card/$file" ] ||
            die "neither $out nor the card has $file; run: make sdcard BOARD=rpi4 FIRMWARE=debian"
    done
    if [ -f "$card/config.txt" ] && ! head -n 1 "$card/config.txt" | grep -q "^$config_mark"; then
        for file in "${own_files[@]}" "${pi_files[@]}"; do
            if [ -f "$card/$file" ] && [ -f "$out/$file" ] && [ ! -e "$card/$file.orig" ]; then
                cp "$card/$file" "$card/$file.orig"
                echo "kept the card's $file as $file.orig"
            fi
        done
    fi
    for file in "${own_files[@]}" "${pi_files[@]}" "${licence_files[@]}"; do
        [ ! -f "$out/$file" ] || cp "$out/$file" "$card/$file"
    done
    sync -f "$card"
}

flash() {
    local dev=${DEV:-} mounted card
    [ -n "$dev" ] || die "name the card's FAT partition, for example: make flash BOARD=rpi4 DEV=/dev/sdb1"
    need lsblk util-linux
    need findmnt util-linux
    mounted=$(check_device "$dev")
    if [ -n "$mounted" ]; then
        copy_to_card "$mounted"
        echo "copied to $mounted; unmount $dev before you take the card out"
        return
    fi
    [ "$(id -u)" = 0 ] || die "$dev is not mounted, and mounting needs root" \
        "mount it (udisksctl mount -b $dev) and run this again"
    card=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now, also when the shell ends elsewhere
    trap "umount '$card' 2>/dev/null || true; rmdir '$card'" EXIT
    mount -t vfat "$dev" "$card"
    copy_to_card "$card"
    umount "$card"
    echo "copied to $dev; the card can be taken out"
}

[ "${BOARD:-rpi4}" = rpi4 ] || die "BOARD=$BOARD boots from no card; allowed: BOARD=rpi4"
case ${1:-} in
    image) make_image ;;
    sdcard) make_sdcard ;;
    flash) flash ;;
    *) die "usage: tools/sdcard.sh image|sdcard|flash" ;;
esac
