# The front door. `make help` lists what there is.

# What the runner reads from its environment. The values are taken as they were written, without
# expanding a `$` in them, and never become part of a recipe: they may hold quotes and spaces.
SETTINGS := BOARD SMP MEM IMAGE PAYLOAD CMDLINE QEMU_EXTRA EDU TIMEOUT ICOUNT DTB RAMFILL PORT DEV FORCE FIRMWARE OUT SHADOW COHERENT SUPPRESS PAIRS
$(foreach name,$(SETTINGS),$(eval override $(name) := $$(value $(name))))
export $(SETTINGS)

.DEFAULT_GOAL := help
.PHONY: help run test bench sanitize debug monitor image sdcard flash setup clean

run: setup
	@tools/run-qemu run

test: setup
	@tools/run-qemu test

bench: setup
	@tools/run-qemu bench

sanitize: setup
	@tools/run-qemu sanitize

debug: setup-gdb
	@tools/run-qemu debug

monitor: setup
	@tools/run-qemu monitor

image sdcard: setup
	@cargo build --release --package firmware --bin rpi4
	@tools/sdcard.sh $@

flash:
	@tools/sdcard.sh flash

setup:
	@tools/setup.sh

.PHONY: setup-gdb
setup-gdb:
	@tools/setup.sh gdb

clean:
	@cargo clean

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: make run       build, boot under QEMU, print the report; status 0 only if all passed
#:     BOARD=qemu-virt|rpi4    SMP=1..8 (rpi4: 4)    MEM=64M..64G (rpi4: 2G)
#:     IMAGE=elf|raw           the form QEMU loads (rpi4: raw)
#:     PAYLOAD=FILE            copied by the DMA engine, its SHA-256 reported and compared
#:     CMDLINE='suite=dma'     the firmware's command line
#:     QEMU_EXTRA='-cpu max'   appended to QEMU's arguments
#:     TIMEOUT=60              seconds until a run is cut
#:     ICOUNT=on|off           count instructions as time (off: cores run in parallel)
#:     EDU='dma_mask=0xff'     options of virt's edu device
#:     DTB=auto|none|truncated|lying|areas    RAMFILL=on|off    what is in RAM at reset
#: make test      everything continuous integration runs, with a total at the end
#: make bench     BOARD=qemu-virt|rpi4: instructions per operation beside Linux and crates, and as
#:                target/report/bench.json; CMDLINE='bench=kmalloc*' measures these only
#: make sanitize  QEMU with a plugin that finds what only silicon shows: the whole run, and seeded bugs
#:     FIRMWARE=FILE           any other kernel image instead, ELF or raw; status 0 if nothing is found
#:     SHADOW=on|off    COHERENT=1    SUPPRESS=FILE    (docs/sanitizer.md)
#:     PAIRS=5                 the slow-down: the whole run so often with the plugin and without
#: make debug     QEMU stopped at the first instruction with gdb attached; settings as for run
#: make image     BOARD=rpi4: kernel8.img in a folder, OUT=DIR or target/sdcard
#: make sdcard    BOARD=rpi4: all of a boot partition; FIRMWARE=debian|DIR adds the Pi's own files
#: make flash     DEV=/dev/sdX1: copy that folder to the FAT partition of a card
#: make monitor   PORT=/dev/ttyUSB0: read and judge the report of a board
#: make setup     install what is missing (the others do so themselves)
#: make clean     remove what was built
