//! QEMU's firmware configuration device, by its DMA interface (QEMU `docs/specs/fw_cfg.rst`).
//!
//! All its numbers are big-endian.
//!
//! QEMU's device works inside the doorbell and writes the control word at the end: who looks then finds
//! what the device left of it. The model remembers what the CPU stores to a descriptor that was used
//! before; what the first one asked for is inferred.

use super::found::{Found, Jobs};
use super::{Access, Device, Does, Event, JobId, Memory, registers};
use crate::kind::Kind;
use std::ops::Range;

/// The address of a descriptor, 64 bits. A store of all of it or of the low half starts the transfer.
const DMA_ADDRESS: u64 = 0x10;
const DMA_ADDRESS_LOW: u64 = 0x14;
const DMA_ADDRESS_SIZE: u64 = 8;

/// Bytes of a descriptor: control word, length, address.
const DESCRIPTOR_SIZE: u64 = 16;
/// Bytes of its control word, which comes first. The device writes it at the end.
const CONTROL_SIZE: u64 = 4;

const CONTROL_ERROR: u32 = 1 << 0;
/// From the selected item to memory.
const CONTROL_READ: u32 = 1 << 1;
/// From memory to the selected item.
const CONTROL_WRITE: u32 = 1 << 4;

/// The device.
#[derive(Debug)]
pub struct FwCfg {
    base: u64,
    jobs: Jobs,
    /// The half of the address that was stored first.
    high: u32,
    /// The descriptor that was used last.
    descriptor: Option<Descriptor>,
    /// A transfer whose end the CPU has not seen.
    running: Option<JobId>,
}

/// A descriptor, and its control word as it must be by now.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    at: u64,
    /// `None` for a byte that was stored unseen.
    control: [Option<u8>; CONTROL_SIZE as usize],
}

impl Descriptor {
    /// A descriptor that the device was told of: what it asked for is done.
    fn used(at: u64) -> Self {
        Self {
            at,
            control: [Some(0); CONTROL_SIZE as usize],
        }
    }

    fn range(&self) -> Range<u64> {
        self.at..self.at + DESCRIPTOR_SIZE
    }

    /// Takes over the bytes of a store.
    fn store(&mut self, access: &Access) {
        let bytes = access.value.to_le_bytes();
        for (at, byte) in (self.at..).zip(&mut self.control) {
            let stored = at
                .checked_sub(access.pa)
                .filter(|&at| at < access.size.into());
            if let Some(at) = stored {
                *byte = bytes.get(at as usize).copied();
            }
        }
    }

    /// What the control word asks for, if all stores to it were seen.
    fn control(&self) -> Option<u32> {
        let [Some(a), Some(b), Some(c), Some(d)] = self.control else {
            return None;
        };
        Some(u32::from_be_bytes([a, b, c, d]))
    }
}

impl FwCfg {
    /// The device whose registers are at `base`.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            jobs: Jobs::default(),
            high: 0,
            descriptor: None,
            running: None,
        }
    }

    fn start(&mut self, descriptor: u64, memory: &dyn Memory, events: &mut Vec<Event>) {
        // It takes the next descriptor when it is done with one.
        self.complete(events);
        self.high = 0;
        let job = self.jobs.next();
        let mut found = Found::default();
        let known = self.descriptor.filter(|known| known.at == descriptor);
        let control = known.and_then(|known| known.control());
        let is_read = follow(descriptor, control, memory, &mut found);
        found.start(job, events);
        if is_read {
            self.descriptor = Some(Descriptor::used(descriptor));
            self.running = Some(job);
            events.push(Event::Moved);
        } else {
            // Nobody can see the end of this.
            events.push(Event::Completed { job });
        }
    }

    /// The CPU has loaded `access`; if that was a control word that reads as done, it has seen the end.
    fn look(&mut self, access: &Access, events: &mut Vec<Event>) {
        let Some(descriptor) = self.descriptor else {
            return;
        };
        let bytes = access.value.to_le_bytes();
        let control = descriptor.at.checked_sub(access.pa).and_then(|at| {
            let loaded = &bytes[..usize::from(access.size).min(bytes.len())];
            loaded.get(usize::try_from(at).ok()?..)?.first_chunk()
        });
        if let Some(&control) = control
            && u32::from_be_bytes(control) & !CONTROL_ERROR == 0
        {
            self.complete(events);
        }
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        let ended = self.running.take();
        events.extend(ended.map(|job| Event::Completed { job }));
    }
}

/// Follows the descriptor, whose control word is `control` if that is known. Returns whether the device
/// can read it.
fn follow(descriptor: u64, control: Option<u32>, memory: &dyn Memory, found: &mut Found) -> bool {
    let mut bytes = [0; DESCRIPTOR_SIZE as usize];
    let end = descriptor.checked_add(DESCRIPTOR_SIZE);
    let Some(end) = end.filter(|_| memory.read(descriptor, &mut bytes)) else {
        found.wrong(Kind::DmaOutsideMemory, descriptor, "descriptor");
        return false;
    };
    let descriptor_word = u128::from_be_bytes(bytes);
    // CAST: control word, length and address in turn.
    let left = (descriptor_word >> 96) as u32;
    let len = (descriptor_word >> 64) as u32;
    let address = descriptor_word as u64;
    found.span(descriptor..end, Does::Reads, "descriptor");
    let status = descriptor..descriptor + CONTROL_SIZE;
    found.span(status, Does::Writes, "control word");
    let asked = control.unwrap_or(left);
    let transfer = if asked & CONTROL_READ != 0 {
        Some((Does::Writes, "destination"))
    } else if asked & CONTROL_WRITE != 0 {
        Some((Does::Reads, "source"))
    } else {
        let has_ended = control.is_none() && ended(left, len, address, memory);
        has_ended.then_some((Does::Writes, "destination"))
    };
    let Some((does, role)) = transfer else {
        return true;
    };
    match address.checked_add(len.into()) {
        Some(end) => found.span(address..end, does, role),
        None => found.wrong(Kind::DmaOutsideMemory, address, role),
    }
    true
}

/// Whether the first transfer by a descriptor went to memory, by what the device left of the control
/// word. Bytes arrived if there were any to move, to memory that is there; items that could be written
/// from memory are left out. Where the device found no memory it says so.
fn ended(control: u32, len: u32, address: u64, memory: &dyn Memory) -> bool {
    let is_ram = |at: u64| memory.read(at, &mut [0]);
    let last = address.checked_add(u64::from(len).saturating_sub(1));
    let all_is_ram = is_ram(address) && last.is_some_and(is_ram);
    let has_failed = match control {
        0 => false,
        CONTROL_ERROR => true,
        _ => return false,
    };
    len != 0 && all_is_ram != has_failed
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg"
    }

    fn windows(&self) -> Vec<Range<u64>> {
        registers::window(self.base + DMA_ADDRESS, DMA_ADDRESS_SIZE)
    }

    fn watched(&self) -> Vec<Range<u64>> {
        // All of the descriptor: a load may be wider than the control word. And for good, for what is
        // stored to it before the next doorbell.
        let watched = self.descriptor.as_ref().map(Descriptor::range);
        watched.into_iter().collect()
    }

    fn access(&mut self, access: &Access, memory: &dyn Memory, events: &mut Vec<Event>) {
        let Access { size, value, .. } = *access;
        if !access.is_store {
            self.look(access, events);
            return;
        }
        // CAST: a store of 4 bytes has a value of 32 bits.
        let half = (value as u32).swap_bytes();
        match (access.pa.wrapping_sub(self.base), size) {
            (DMA_ADDRESS, 8) => self.start(value.swap_bytes(), memory, events),
            (DMA_ADDRESS, 4) => self.high = half,
            (DMA_ADDRESS_LOW, 4) => {
                let descriptor = u64::from(self.high) << 32 | u64::from(half);
                self.start(descriptor, memory, events);
            }
            _ => {
                if let Some(descriptor) = &mut self.descriptor {
                    descriptor.store(access);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, Ram, reads, started, writes};
    use super::*;

    const BASE: u64 = 0x0902_0000;
    const RAM: u64 = 0x4000_0000;
    const DESCRIPTOR: u64 = RAM + 0x100;
    const SELECT: u32 = 1 << 3;

    fn bench(control: u32, len: u32, address: u64) -> Bench<FwCfg> {
        let ram = Ram::new(RAM..RAM + 0x1_0000);
        ram.put(DESCRIPTOR, &control.to_be_bytes());
        ram.put(DESCRIPTOR + 4, &len.to_be_bytes());
        ram.put(DESCRIPTOR + 8, &address.to_be_bytes());
        Bench {
            device: FwCfg::new(BASE),
            ram,
            base: BASE,
        }
    }

    impl Bench<FwCfg> {
        fn ring(&mut self) -> Vec<Event> {
            self.access(BASE + DMA_ADDRESS, 8, true, DESCRIPTOR.swap_bytes())
        }

        fn control(&mut self, control: u32) -> Vec<Event> {
            self.access(DESCRIPTOR, 4, false, control.swap_bytes().into())
        }
    }

    #[test]
    fn bytes_are_written_until_the_control_word_reads_done() {
        let mut bench = bench(CONTROL_READ | SELECT, 0x123, RAM + 0x1001);
        let events = bench.ring();
        let (job, spans) = started(&events);
        assert_eq!(
            spans,
            [
                reads(DESCRIPTOR..DESCRIPTOR + 16, "descriptor"),
                writes(DESCRIPTOR..DESCRIPTOR + 4, "control word"),
                writes(RAM + 0x1001..RAM + 0x1124, "destination"),
            ]
        );
        assert_eq!(events[1..], [Event::Moved]);
        let watched = bench.device.watched();
        assert_eq!(watched.len(), 1);
        assert_eq!(watched[0], DESCRIPTOR..DESCRIPTOR + 16);
        assert_eq!(bench.control(CONTROL_READ | SELECT), []);
        assert_eq!(bench.access(DESCRIPTOR + 4, 4, false, 0), [], "the length");
        assert_eq!(bench.access(DESCRIPTOR, 2, false, 0), [], "a half");
        assert_eq!(bench.control(0), [Event::Completed { job }]);
        assert_eq!(bench.control(0), []);
    }

    #[test]
    fn an_error_is_an_end() {
        let mut bench = bench(CONTROL_WRITE, 0x10, RAM + 0x1000);
        let (job, spans) = started(&bench.ring());
        assert_eq!(spans[2], reads(RAM + 0x1000..RAM + 0x1010, "source"));
        let end = [Event::Completed { job }];
        let loaded = u64::from(CONTROL_ERROR.swap_bytes()) | 0x5555_5555 << 32;
        assert_eq!(bench.access(DESCRIPTOR, 8, false, loaded), end);
    }

    #[test]
    fn nothing_is_moved_by_a_selection() {
        let mut bench = bench(SELECT | 1 << 2, 0x10, RAM + 0x1000);
        assert_eq!(started(&bench.ring()).1.len(), 2);
    }

    #[test]
    fn a_transfer_that_is_over_within_the_doorbell() {
        let written = RAM + 0x1000..RAM + 0x1010;
        let spans = |control, len, address| {
            let events = bench(control, len, address).ring();
            started(&events).1.split_off(2)
        };
        assert_eq!(
            spans(0, 0x10, written.start),
            [writes(written.clone(), "destination")]
        );
        // A selection, a skip, and a write that was refused.
        assert_eq!(spans(0, 0, written.start), []);
        assert_eq!(spans(0, 0x10, 0), []);
        assert_eq!(spans(CONTROL_ERROR, 0x10, written.start), []);
        let end = RAM + 0x1_0000;
        let beyond = writes(end - 8..end + 8, "destination");
        assert_eq!(spans(CONTROL_ERROR, 0x10, end - 8), [beyond]);
    }

    #[test]
    fn a_descriptor_that_is_used_again_is_known() {
        let mut bench = bench(0, 0x10, RAM + 0x1000);
        assert_eq!(started(&bench.ring()).1.len(), 3, "inferred");
        assert_eq!(started(&bench.ring()).1.len(), 2, "nothing is asked for");
        let store = |control: u32| u64::from(control.swap_bytes());
        // A skip and a write that are over; the first is stored with the length at once.
        let skip = store(SELECT | 1 << 2) | 0x1000_0000 << 32;
        bench.access(DESCRIPTOR, 8, true, skip);
        assert_eq!(started(&bench.ring()).1.len(), 2);
        bench.access(DESCRIPTOR, 4, true, store(CONTROL_WRITE | SELECT));
        let source = reads(RAM + 0x1000..RAM + 0x1010, "source");
        assert_eq!(started(&bench.ring()).1[2], source);
        bench.access(DESCRIPTOR + 3, 1, true, CONTROL_READ.into());
        let destination = writes(RAM + 0x1000..RAM + 0x1010, "destination");
        assert_eq!(started(&bench.ring()).1[2], destination);
        // Another descriptor is inferred, whatever was stored to the first.
        let words = [0, 0x10, 0, (RAM + 0x1000) as u32].map(u32::swap_bytes);
        bench.ram.put_words(DESCRIPTOR + 0x20, &words);
        let other = (DESCRIPTOR + 0x20).swap_bytes();
        let events = bench.access(BASE + DMA_ADDRESS, 8, true, other);
        assert_eq!(started(&events).1[2], destination);
        bench.ring();
        // More than is told of at once: inferred again.
        bench.access(DESCRIPTOR - 8, 16, true, 0);
        assert_eq!(started(&bench.ring()).1[2], destination);
    }

    #[test]
    fn the_address_may_come_in_halves() {
        let mut bench = bench(CONTROL_READ, 4, RAM);
        let half = |half: u64| (half as u32).swap_bytes();
        assert_eq!(bench.store(DMA_ADDRESS, half(DESCRIPTOR >> 32)), []);
        let events = bench.store(DMA_ADDRESS_LOW, half(DESCRIPTOR));
        assert_eq!(started(&events).1.len(), 3);
        // The high half is used once.
        bench.store(DMA_ADDRESS, half(7));
        bench.ring();
        assert_eq!(bench.device.high, 0);
    }

    #[test]
    fn the_next_doorbell_ends_a_transfer_nobody_looked_at() {
        let mut bench = bench(CONTROL_READ, 4, RAM);
        let (job, _) = started(&bench.ring());
        let events = bench.ring();
        assert_eq!(events[0], Event::Completed { job });
        assert_ne!(started(&events).0, job);
    }

    #[test]
    fn addresses_without_memory_are_told() {
        let mut bench = bench(CONTROL_READ, 0x10, u64::MAX - 4);
        let wrong = |address, role| Event::Wrong {
            kind: Kind::DmaOutsideMemory,
            address,
            role,
        };
        assert!(bench.ring().contains(&wrong(u64::MAX - 4, "destination")));
        for descriptor in [0x1000, RAM + 0xFFF8, u64::MAX] {
            let events = bench.access(BASE + DMA_ADDRESS, 8, true, descriptor.swap_bytes());
            assert!(events.contains(&wrong(descriptor, "descriptor")));
            let (job, spans) = started(&events);
            assert_eq!(spans, []);
            assert_eq!(events.last(), Some(&Event::Completed { job }));
        }
    }
}
