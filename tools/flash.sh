#!/bin/sh
# Copies a boot partition's files to DEV: the FAT partition of an SD card, or the folder it is
# mounted on. FILES is the folder `make sdcard` made.
set -eu

fail() {
	printf 'flash: %s\n' "$*" >&2
	exit 1
}

copy() {
	# FAT knows no owners or modes.
	cp -R --no-preserve=all "$FILES/." "$1/"
	sync
}

[ -n "${DEV-}" ] || fail "DEV=: allowed is a mounted boot partition or its device, /dev/sdX1"
[ -f "$FILES/kernel8.img" ] || fail "$FILES has no kernel8.img: run make sdcard first"
if [ -d "$DEV" ]; then
	copy "$DEV"
elif [ -b "$DEV" ]; then
	type=$(lsblk --nodeps --noheadings --output FSTYPE "$DEV")
	[ "$type" = vfat ] || fail "DEV=$DEV holds '$type', allowed is a FAT partition such as ${DEV}1"
	mount=$(mktemp -d)
	trap 'umount "$mount" 2>/dev/null; rmdir "$mount"' EXIT
	mount "$DEV" "$mount" || fail "DEV=$DEV cannot be mounted; mount it and pass its folder"
	copy "$mount"
else
	fail "DEV=$DEV is neither a folder nor a block device"
fi
echo "flash: $FILES is on $DEV"
