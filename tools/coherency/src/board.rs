//! What is where on a machine: RAM, the console, and the bus masters.

use crate::device::Device;
use crate::device::bcm2711_dma::Bcm2711Dma;
use crate::device::edu::Edu;
use crate::device::fw_cfg::FwCfg;
use crate::device::mailbox::Mailbox;
use crate::device::virtio_mmio::VirtioMmio;
use std::ops::Range;

/// A machine of QEMU's.
pub struct Board {
    /// Where RAM starts.
    pub ram_base: u64,
    /// Where registers hide RAM, however much there is.
    ram_limit: u64,
    /// Where a device can read, but not write, besides RAM; on a machine with EL3, and on one without.
    readable: [Vec<Range<u64>>; 2],
    /// The data register of the PL011 that the console is on, if that is known: its first register.
    pub uart: Option<u64>,
    /// The bus masters. A master without a model is found by what it changes behind the caches, which
    /// shadow mode sees.
    pub devices: Vec<Box<dyn Device>>,
}

/// All of them. The last is any other machine, by where its RAM starts.
pub const NAMES: &str = "virt, raspi4b, ram@0xADDRESS";

/// Addresses of `virt` (QEMU `hw/arm/virt.c`).
mod virt {
    use std::ops::Range;

    pub(super) const RAM: u64 = 0x4000_0000;
    /// Two banks. With EL3 only the CPU in Secure state finds the first one, as it does Secure RAM.
    pub(super) const FLASH: [Range<u64>; 2] = [0..0x0400_0000, 0x0400_0000..0x0800_0000];
    /// Nothing hides RAM: configuration space and PCI memory move up behind it.
    pub(super) const RAM_LIMIT: u64 = u64::MAX;
    pub(super) const UART0: u64 = 0x0900_0000;
    pub(super) const FW_CFG: u64 = 0x0902_0000;
    pub(super) const VIRTIO: u64 = 0x0A00_0000;
    pub(super) const VIRTIO_TRANSPORTS: u64 = 32;
    /// PCI Express configuration space, where it is by default and with `highmem=off`.
    pub(super) const ECAM: [Range<u64>; 2] =
        [0x40_1000_0000..0x40_2000_0000, 0x3F00_0000..0x4000_0000];
    /// Address bits of edu. Its option `dma_mask` is not to be seen from outside: nothing is known of it.
    pub(super) const EDU_MASK: u64 = u64::MAX;
}

/// Addresses of a Raspberry Pi 4, where its firmware puts the peripherals below 4 GiB (BCM2711 ARM
/// Peripherals, 1.2.3).
mod raspi4b {
    pub(super) const RAM: u64 = 0;
    pub(super) const REGISTERS: u64 = 0xFC00_0000;
    pub(super) const UART0: u64 = 0xFE20_1000;
    pub(super) const DMA: u64 = 0xFE00_7000;
    pub(super) const MAILBOX: u64 = 0xFE00_B880;
}

/// The one of that name.
pub fn find(name: &str) -> Option<Board> {
    match name {
        "virt" => Some(virt()),
        "raspi4b" => Some(raspi4b()),
        _ => {
            let address = name.strip_prefix("ram@0x")?;
            u64::from_str_radix(address, 16).ok().map(unknown)
        }
    }
}

/// A machine of which nothing is known but RAM. Shadow mode finds what is stale there; what a device
/// would have read, nobody knows.
fn unknown(ram_base: u64) -> Board {
    Board {
        ram_base,
        ram_limit: u64::MAX,
        readable: [const { Vec::new() }; 2],
        uart: None,
        devices: Vec::new(),
    }
}

fn virt() -> Board {
    let mut devices: Vec<Box<dyn Device>> = vec![
        Box::new(Edu::new(&virt::ECAM, virt::EDU_MASK)),
        Box::new(FwCfg::new(virt::FW_CFG)),
    ];
    for index in 0..virt::VIRTIO_TRANSPORTS {
        devices.push(Box::new(VirtioMmio::new(virt::VIRTIO, index)));
    }
    Board {
        ram_base: virt::RAM,
        ram_limit: virt::RAM_LIMIT,
        readable: [
            vec![virt::FLASH[1].clone()],
            vec![virt::FLASH[0].start..virt::FLASH[1].end],
        ],
        uart: Some(virt::UART0),
        devices,
    }
}

/// The Pi's 32-bit masters see RAM behind an alias and no more than a GiB of it, its DMA4 channels see
/// all of it where the Arm does: the models know.
fn raspi4b() -> Board {
    Board {
        ram_base: raspi4b::RAM,
        ram_limit: raspi4b::REGISTERS,
        readable: [const { Vec::new() }; 2],
        uart: Some(raspi4b::UART0),
        devices: vec![
            Box::new(Bcm2711Dma::new(raspi4b::DMA)),
            Box::new(Mailbox::new(raspi4b::MAILBOX)),
        ],
    }
}

impl Board {
    /// The physical addresses of RAM, of those that a file at [`ram_base`](Self::ram_base) would have.
    pub fn ram(&self, file: Range<u64>) -> Vec<Range<u64>> {
        let ram = file.start..file.end.min(self.ram_limit);
        vec![ram]
    }

    /// Where a device can read, but not write, besides.
    pub fn readable(&self, has_el3: bool) -> Vec<Range<u64>> {
        let [with_el3, without] = &self.readable;
        if has_el3 { with_el3 } else { without }.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn known() -> impl Iterator<Item = &'static str> {
        NAMES.split(", ").filter(|name| !name.contains('@'))
    }

    #[test]
    fn every_name_is_a_board() {
        for name in known() {
            assert!(find(name).is_some_and(|board| !board.devices.is_empty()));
        }
        assert!(find("raspi3b").is_none());
    }

    #[test]
    fn any_machine_has_ram_somewhere() {
        let board = find("ram@0x80000000").unwrap();
        assert_eq!(board.ram_base, 0x8000_0000);
        assert!(board.devices.is_empty() && board.uart.is_none());
        // As it is told to somebody whose name is none.
        let told = NAMES.replace("ADDRESS", "80000000");
        let any = told.split(", ").last().and_then(find);
        assert_eq!(any.map(|board| board.ram_base), Some(0x8000_0000));
        for name in ["ram", "ram@", "ram@80000000", "ram@0x", "ram@0xG"] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn registers_hide_ram() {
        let pi = find("raspi4b").unwrap();
        assert_eq!(pi.ram(0..0x8000_0000), vec![0..0x8000_0000]);
        assert_eq!(pi.ram(0..0x1_0000_0000), vec![0..0xFC00_0000]);
    }

    #[test]
    fn devices_read_flash_that_is_not_secure() {
        let virt = find("virt").unwrap();
        assert_eq!(virt.readable(false), vec![0..0x800_0000]);
        assert_eq!(virt.readable(true), vec![0x400_0000..0x800_0000]);
        assert_eq!(find("raspi4b").unwrap().readable(true), vec![]);
    }

    #[test]
    fn nothing_is_in_two_windows() {
        for name in known() {
            let board = find(name).unwrap();
            let windows = board.devices.iter().flat_map(|device| device.windows());
            let mut windows: Vec<_> = windows.collect();
            windows.extend(board.uart.map(|uart| uart..uart + 1));
            windows.sort_by_key(|window| window.start);
            assert!(windows.is_sorted_by(|a, b| a.end <= b.start), "{name}");
        }
    }

    #[test]
    fn devices_have_names_of_their_own() {
        for name in known() {
            let board = find(name).unwrap();
            let names: BTreeSet<_> = board.devices.iter().map(|device| device.name()).collect();
            assert_eq!(names.len(), board.devices.len());
        }
    }
}
