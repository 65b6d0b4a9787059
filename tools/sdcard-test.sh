#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Tests tools/sdcard.sh without network, card or root, on an image of its own making.
# Prints one line a check and "N passed, N failed"; ends with 1 if any failed.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
card=$work/card
pi=$work/pi
passed=0
failed=0

# sdcard COMMAND [NAME=VALUE...]: runs it with only these values set; its output goes to $work/log
sdcard() {
    local command=$1
    shift
    env -u BOARD -u FIRMWARE -u CMDLINE -u DEV -u FORCE CARGO_TARGET_DIR="$work/target" OUT="$card" \
        "$@" "$root/tools/sdcard.sh" "$command" >"$work/log" 2>&1
}

says() { grep -qF -- "$1" "$work/log"; }

# refused TEXT COMMAND [NAME=VALUE...]: it fails, and says why
refused() {
    local text=$1
    shift
    if sdcard "$@"; then return 1; fi
    says "$text"
}

check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok - $name"
    else
        failed=$((failed + 1))
        echo "not ok - $name"
        [ ! -f "$work/log" ] || sed 's/^/    /' "$work/log"
    fi
}

# link ADDRESS MAGIC: an ELF file of one 64-byte arm64 Image header, where the build puts the firmware
link() {
    cat >"$work/image.rs" <<END
#![no_std]
#![no_main]
core::arch::global_asm!(
    ".section .head, \"ax\"", ".global _start", "_start: b _start", ".word 0", ".quad 0, 64, 10, 0, 0, 0",
    ".ascii \"$2\"", ".word 0",
);
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
END
    cat >"$work/image.ld" <<END
ENTRY(_start)
PHDRS { text PT_LOAD FLAGS(5); }
SECTIONS {
    . = 0xffffffff80000000;
    .head : AT($1) { *(.head) } :text
    /DISCARD/ : { *(.text*) *(.eh_frame*) *(.comment) }
}
END
    (cd "$root" && rustc --target aarch64-unknown-none-softfloat -C opt-level=1 \
        -C "link-arg=-T$work/image.ld" -o "$work/target/aarch64-unknown-none-softfloat/release/rpi4" "$work/image.rs")
}

own_files_only() {
    sdcard sdcard && [ "$(cd "$card" && echo *)" = "cmdline.txt config.txt kernel8.img" ] &&
        [ "$(stat -c %s "$card/kernel8.img")" = 64 ] && says 'start4.elf fixup4.dat bcm2711-rpi-4-b.dtb'
}

firmware_folder() {
    sdcard sdcard FIRMWARE="$pi" && says complete && cmp -s "$pi/start4.elf" "$card/start4.elf" &&
        [ -f "$card/LICENCE.broadcom" ]
}

own_command_line() {
    sdcard sdcard CMDLINE='suite=dma iters=3' && [ "$(cat "$card/cmdline.txt")" = 'suite=dma iters=3' ] &&
        sdcard sdcard && cmp -s "$root/boards/rpi4/cmdline.txt" "$card/cmdline.txt"
}

# The loader passes on only the first line, and older ones cut the lines of config.txt at 80 characters.
templates_fit_the_loader() {
    [ "$(wc -l <"$root/boards/rpi4/cmdline.txt")" = 1 ] && ! grep -q '.\{81\}' "$root/boards/rpi4/config.txt"
}

mkdir -p "$work/target/aarch64-unknown-none-softfloat/release" "$pi"
check 'without a firmware it says how to build one' refused 'make image' image
link 0x80000 'ARM\x64'
check 'an image linked elsewhere is refused' refused 'is linked at 0x0000000000080000' image
link 0x200000 'none'
check 'an image without the arm64 header is refused' refused 'Image header' image
check 'nothing refused is left behind' [ ! -e "$card/kernel8.img" ]
link 0x200000 'ARM\x64'
check 'own files alone, with the missing ones named' own_files_only
check 'a folder that does not exist is refused' refused 'neither "debian" nor a folder' sdcard FIRMWARE="$work/none"
echo start >"$pi/start4.elf"
check 'what a folder lacks is named' refused 'lacks: fixup4.dat bcm2711-rpi-4-b.dtb' sdcard FIRMWARE="$pi"
for file in fixup4.dat bcm2711-rpi-4-b.dtb LICENCE.broadcom; do echo "$file" >"$pi/$file"; done
check 'a complete folder is copied with its licence' firmware_folder
check 'a second run changes nothing' firmware_folder
check 'CMDLINE replaces the template, and only then' own_command_line
check 'a second command line is refused' refused 'more than one line' sdcard CMDLINE=$'one\ntwo'
check 'another board is refused' refused 'allowed: BOARD=rpi4' image BOARD=qemu-virt
check 'flash wants a device' refused 'name the card' flash
check 'flash refuses what is no block device, forced or not' refused 'not a block device' flash DEV="$card" FORCE=1
check 'the templates fit the loader' templates_fit_the_loader

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
