//! Virtio devices behind registers in memory (Virtual I/O Device 1.2, 4.2): both register layouts, any
//! device. Queues with split rings only.

mod queue;
#[cfg(test)]
mod tests;

use super::found::Jobs;
use super::{Access, Device, Event, Memory, registers};
use queue::{Queue, Rings};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of registers of a transport on QEMU's `virt`.
const SIZE: u64 = 0x200;

const DRIVER_FEATURES: u64 = 0x20;
/// Which 32 of the features the register before shows.
const DRIVER_FEATURES_SEL: u64 = 0x24;
/// The unit of QUEUE_PFN, in bytes; legacy.
const GUEST_PAGE_SIZE: u64 = 0x28;
/// Which queue the registers of a queue show.
const QUEUE_SEL: u64 = 0x30;
/// Descriptors in it.
const QUEUE_NUM: u64 = 0x38;
/// What the used ring is aligned to, in bytes; legacy.
const QUEUE_ALIGN: u64 = 0x3C;
/// The page that the queue starts on, 0 for none; legacy.
const QUEUE_PFN: u64 = 0x40;
/// Whether the queue is in use.
const QUEUE_READY: u64 = 0x44;
/// Rings: the queue has new buffers.
const QUEUE_NOTIFY: u64 = 0x50;
/// 0 resets the device.
const STATUS: u64 = 0x70;
/// Addresses of the queue's parts, each in two halves.
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xA0;
/// 1 takes the queue out of use.
const QUEUE_RESET: u64 = 0xC0;
/// The upper half of an address follows the lower.
const HIGH: u64 = 4;

/// Features: bits of the first 32, and of the second.
const FEATURE_EVENT_IDX: u32 = 1 << 29;
const FEATURE_RING_PACKED: u32 = 1 << 2;

/// Queues of a device. QEMU has fewer than 1024.
const MAX_QUEUES: u32 = 1024;
/// The queue in a notification; more may be beside it.
const NOTIFY_QUEUE_MASK: u32 = 0xFFFF;

/// One transport, with or without a device behind it.
#[derive(Debug)]
pub struct VirtioMmio {
    base: u64,
    name: String,
    jobs: Jobs,
    features: [u32; 2],
    features_selected: u32,
    page_size: u32,
    selected: u32,
    queues: BTreeMap<u32, Configured>,
}

/// A queue as the registers describe it, and what it is while in use.
#[derive(Debug, Default)]
struct Configured {
    size: u32,
    align: Option<u32>,
    descriptors: u64,
    driver: u64,
    device: u64,
    in_use: Option<Queue>,
}

impl VirtioMmio {
    /// The transport number `index` of those that follow each other from `first` on.
    pub fn new(first: u64, index: u64) -> Self {
        let base = first + index * SIZE;
        Self {
            base,
            name: format!("virtio-mmio@{base:x}"),
            jobs: Jobs::default(),
            features: [0; 2],
            features_selected: 0,
            page_size: 0,
            selected: 0,
            queues: BTreeMap::new(),
        }
    }

    fn store(&mut self, offset: u64, value: u32, memory: &dyn Memory, events: &mut Vec<Event>) {
        match offset {
            DRIVER_FEATURES => {
                if let Some(features) = self.features.get_mut(self.features_selected as usize) {
                    *features = value;
                }
            }
            DRIVER_FEATURES_SEL => self.features_selected = value,
            GUEST_PAGE_SIZE => self.page_size = value,
            QUEUE_SEL => self.selected = value,
            QUEUE_NOTIFY => {
                let queue = self.queues.get_mut(&(value & NOTIFY_QUEUE_MASK));
                if let Some(queue) = queue.and_then(|queue| queue.in_use.as_mut()) {
                    queue.notify(&mut self.jobs, memory, events);
                }
            }
            STATUS if value == 0 => self.reset(events),
            _ if self.selected < MAX_QUEUES => self.configure(offset, value, events),
            _ => {}
        }
    }

    /// A store to a register of the selected queue.
    fn configure(&mut self, offset: u64, value: u32, events: &mut Vec<Event>) {
        let has_events = self.features[0] & FEATURE_EVENT_IDX != 0;
        let is_packed = self.features[1] & FEATURE_RING_PACKED != 0;
        let queue = self.queues.entry(self.selected).or_default();
        let rings = match offset {
            QUEUE_NUM => {
                queue.size = value;
                return;
            }
            QUEUE_ALIGN => {
                queue.align = Some(value);
                return;
            }
            QUEUE_PFN if value != 0 => {
                let start = u64::from(value)
                    .checked_shl(self.page_size.trailing_zeros())
                    .unwrap_or(0);
                Rings::legacy(start, queue.size, queue.align, has_events)
            }
            QUEUE_READY if value != 0 => {
                let &mut Configured {
                    size,
                    descriptors,
                    driver,
                    device,
                    ..
                } = queue;
                Rings::new(size, descriptors, driver, device, has_events)
            }
            QUEUE_PFN | QUEUE_READY | QUEUE_RESET => {
                queue.end(events);
                return;
            }
            _ => {
                queue.set_address(offset, value);
                return;
            }
        };
        // A queue that is in use stays as it is.
        if queue.in_use.is_some() || is_packed {
            return;
        }
        match rings {
            Ok(rings) => {
                queue.in_use = Some(Queue::new(rings));
                events.push(Event::Moved);
            }
            Err(wrong) => events.extend(wrong),
        }
    }

    fn reset(&mut self, events: &mut Vec<Event>) {
        for queue in self.queues.values_mut() {
            queue.end(events);
        }
        self.queues.clear();
        self.features = [0; 2];
        self.features_selected = 0;
        self.page_size = 0;
        self.selected = 0;
    }
}

impl Configured {
    fn set_address(&mut self, offset: u64, value: u32) {
        const UPPER: u64 = !0 << 32;
        let half = |address: &mut u64, shift| {
            *address = *address & (UPPER >> shift) | u64::from(value) << shift;
        };
        match offset {
            QUEUE_DESC => half(&mut self.descriptors, 0),
            QUEUE_DRIVER => half(&mut self.driver, 0),
            QUEUE_DEVICE => half(&mut self.device, 0),
            _ => match offset.wrapping_sub(HIGH) {
                QUEUE_DESC => half(&mut self.descriptors, 32),
                QUEUE_DRIVER => half(&mut self.driver, 32),
                QUEUE_DEVICE => half(&mut self.device, 32),
                _ => {}
            },
        }
    }

    /// Takes the queue out of use.
    fn end(&mut self, events: &mut Vec<Event>) {
        if let Some(mut queue) = self.in_use.take() {
            queue.forget(events);
            events.push(Event::Moved);
        }
    }
}

impl Device for VirtioMmio {
    fn name(&self) -> &str {
        &self.name
    }

    fn windows(&self) -> Vec<Range<u64>> {
        registers::window(self.base, SIZE)
    }

    fn watched(&self) -> Vec<Range<u64>> {
        let in_use = self
            .queues
            .values()
            .filter_map(|queue| queue.in_use.as_ref());
        in_use.map(Queue::used_ring).collect()
    }

    fn access(&mut self, access: &Access, memory: &dyn Memory, events: &mut Vec<Event>) {
        let offset = access.pa.wrapping_sub(self.base);
        if offset >= SIZE {
            for queue in self.queues.values_mut() {
                if let Some(queue) = &mut queue.in_use {
                    queue.look(access, &mut self.jobs, memory, events);
                }
            }
        } else if access.is_store {
            for (offset, value) in registers::covered(access, self.base) {
                self.store(offset, value, memory, events);
            }
        }
    }
}
