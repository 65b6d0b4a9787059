use super::*;
use crate::device::testing::{Bench, Ram, reads, writes};
use crate::device::{JobId, Span};
use crate::kind::Kind;

const BASE: u64 = 0x0A00_3E00;
const RAM: u64 = 0x4000_0000;
const TABLE: u64 = RAM + 0x1000;
const AVAILABLE: u64 = RAM + 0x2000;
const USED: u64 = RAM + 0x3000;
const BUFFER: u64 = RAM + 0x4000;
const SIZE: u16 = 8;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A transport, and what the driver and the device of its queue 0 do to memory.
fn bare() -> Bench<VirtioMmio> {
    Bench {
        device: VirtioMmio::new(0x0A00_0000, 31),
        ram: Ram::new(RAM..RAM + 0x1_0000),
        base: BASE,
    }
}

fn bench() -> Bench<VirtioMmio> {
    let mut bench = bare();
    bench.set_up(TABLE, AVAILABLE, USED);
    bench
}

impl Bench<VirtioMmio> {
    fn set_up(&mut self, table: u64, available: u64, used: u64) {
        assert_eq!(self.store(QUEUE_SEL, 0), []);
        assert_eq!(self.store(QUEUE_NUM, SIZE.into()), []);
        for (register, address) in [
            (QUEUE_DESC, table),
            (QUEUE_DRIVER, available),
            (QUEUE_DEVICE, used),
        ] {
            assert_eq!(self.store(register, address as u32), []);
            assert_eq!(self.store(register + 4, (address >> 32) as u32), []);
        }
        assert_eq!(self.store(QUEUE_READY, 1), [Event::Moved]);
    }

    fn descriptor(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.ram.put(at, &address.to_le_bytes());
        self.ram.put(at + 8, &len.to_le_bytes());
        self.ram.put(at + 12, &flags.to_le_bytes());
        self.ram.put(at + 14, &next.to_le_bytes());
    }

    /// Makes `head` the buffer that brings the index to `index`.
    fn offer(&self, head: u16, index: u16) {
        let slot = u64::from(index.wrapping_sub(1) % SIZE);
        self.ram.put(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
        self.ram.put(AVAILABLE + 2, &index.to_le_bytes());
    }

    /// The device is done with `head`, which brings its index to `index`.
    fn consume(&self, head: u16, index: u16) {
        let slot = u64::from(index.wrapping_sub(1) % SIZE);
        self.ram
            .put(USED + 4 + 8 * slot, &u32::from(head).to_le_bytes());
        self.ram.put(USED + 2, &index.to_le_bytes());
    }

    fn look(&mut self, index: u16) -> Vec<Event> {
        self.access(USED + 2, 2, false, index.into())
    }

    fn notify(&mut self) -> Vec<Event> {
        self.store(QUEUE_NOTIFY, 0)
    }
}

/// The look at the available ring, and the buffers.
fn jobs(events: &[Event]) -> (Vec<Span>, Vec<(JobId, Vec<Span>)>) {
    let mut looks = events.iter().filter_map(|event| match event {
        Event::Read { spans } => Some(spans.clone()),
        _ => None,
    });
    let jobs = events.iter().filter_map(|event| match event {
        Event::Started { job, spans } => Some((*job, spans.clone())),
        _ => None,
    });
    (looks.next().unwrap(), jobs.collect())
}

fn outside(address: u64, role: &'static str) -> Event {
    Event::Wrong {
        kind: Kind::DmaOutsideMemory,
        address,
        role,
    }
}

#[test]
fn a_chain_is_lent_until_the_used_index_is_loaded() {
    let mut bench = bench();
    bench.descriptor(TABLE + 0x20, BUFFER, 0x10, NEXT, 5);
    bench.descriptor(TABLE + 0x50, BUFFER + 0x100, 0x200, WRITE, 0);
    bench.offer(2, 1);
    let (look, buffers) = jobs(&bench.notify());
    assert_eq!(look, [reads(AVAILABLE..AVAILABLE + 6, "available ring")]);
    let [(job, spans)] = &buffers[..] else {
        panic!("{buffers:?}");
    };
    assert_eq!(
        spans[..],
        [
            reads(TABLE + 0x20..TABLE + 0x30, "descriptor table"),
            reads(BUFFER..BUFFER + 0x10, "source"),
            reads(TABLE + 0x50..TABLE + 0x60, "descriptor table"),
            writes(BUFFER + 0x100..BUFFER + 0x300, "destination"),
            writes(USED..USED + 12, "used ring"),
        ]
    );
    assert_eq!(bench.notify(), [], "nothing new");
    assert_eq!(bench.look(0), []);
    bench.consume(2, 1);
    assert_eq!(bench.access(USED, 2, false, 1), [], "the flags");
    assert_eq!(bench.access(USED + 4, 4, false, 2), [], "an element");
    assert_eq!(bench.access(USED + 2, 2, true, 1), [], "a store");
    let end = [Event::Completed { job: *job }];
    // Flags and index at once.
    assert_eq!(bench.access(USED, 4, false, 1 << 16), end);
    assert_eq!(bench.look(1), []);
}

#[test]
fn buffers_come_back_in_any_order() {
    let mut bench = bench();
    for head in 0..3 {
        let at = TABLE + u64::from(head) * 16;
        bench.descriptor(at, BUFFER + u64::from(head) * 0x100, 0x40, WRITE, 0);
        bench.offer(head, head + 1);
    }
    let (_, buffers) = jobs(&bench.notify());
    assert_eq!(buffers.len(), 3);
    let last = buffers[2].1.last().unwrap();
    assert_eq!(last, &writes(USED + 20..USED + 28, "used ring"));
    bench.consume(2, 1);
    let end = |index: usize| Event::Completed {
        job: buffers[index].0,
    };
    assert_eq!(bench.look(1), [end(2)]);
    bench.consume(0, 2);
    bench.consume(1, 3);
    assert_eq!(bench.look(3), [end(0), end(1)]);
}

#[test]
fn rings_go_round() {
    let mut bench = bench();
    bench.descriptor(TABLE, BUFFER, 0x40, 0, 0);
    for index in 1..=u16::MAX {
        bench.offer(0, index);
        let (_, buffers) = jobs(&bench.notify());
        bench.consume(0, index);
        assert_eq!(bench.look(index), [Event::Completed { job: buffers[0].0 }]);
    }
    bench.offer(0, 0);
    assert_eq!(jobs(&bench.notify()).1.len(), 1);
}

#[test]
fn tables_may_be_indirect_once() {
    let mut bench = bench();
    let (inner, innermost) = (RAM + 0x5000, RAM + 0x6000);
    bench.descriptor(innermost, BUFFER, 0x10, 0, 0);
    bench.descriptor(TABLE, inner, 0x30, INDIRECT, 0);
    bench.descriptor(inner, BUFFER, 0x10, NEXT, 2);
    bench.descriptor(inner + 0x20, innermost, 0x30, INDIRECT, 0);
    bench.offer(0, 1);
    let (_, buffers) = jobs(&bench.notify());
    assert_eq!(buffers[0].1.len(), 5);
    assert_eq!(
        buffers[0].1[..4],
        [
            reads(TABLE..TABLE + 0x10, "descriptor table"),
            reads(inner..inner + 0x10, "indirect table"),
            reads(BUFFER..BUFFER + 0x10, "source"),
            reads(inner + 0x20..inner + 0x30, "indirect table"),
        ]
    );
}

#[test]
fn a_legacy_queue_is_one_run() {
    let mut bench = bare();
    bench.store(GUEST_PAGE_SIZE, 4096);
    bench.store(QUEUE_SEL, 0);
    bench.store(QUEUE_NUM, SIZE.into());
    bench.store(QUEUE_ALIGN, 64);
    let moved = [Event::Moved];
    assert_eq!(bench.store(QUEUE_PFN, (TABLE >> 12) as u32), moved);
    // 8 descriptors, the available ring of 22 bytes, and up to the next 64.
    let used = TABLE + 0x80 + 0x40;
    assert_eq!(bench.device.watched()[0], used..used + 4 + 64 + 2);
    bench.descriptor(TABLE, BUFFER, 4, 0, 0);
    bench.ram.put(TABLE + 0x82, &[1, 0]);
    let (look, buffers) = jobs(&bench.notify());
    assert_eq!(look[0].pa, TABLE + 0x80..TABLE + 0x86);
    let end = Event::Completed { job: buffers[0].0 };
    assert_eq!(bench.store(QUEUE_PFN, 0), [end, Event::Moved]);
    assert!(bench.device.watched().is_empty());
}

#[test]
fn a_legacy_used_ring_is_aligned() {
    // After the available ring of 22 bytes.
    for (align, used) in [
        (None, TABLE + 0x1000),
        (Some(4), TABLE + 0x98),
        (Some(0), TABLE + 0x96),
    ] {
        let mut bench = bare();
        bench.store(GUEST_PAGE_SIZE, 4096);
        bench.store(QUEUE_NUM, SIZE.into());
        if let Some(align) = align {
            bench.store(QUEUE_ALIGN, align);
        }
        bench.store(QUEUE_PFN, (TABLE >> 12) as u32);
        assert_eq!(bench.device.watched()[0].start, used);
    }
}

#[test]
fn notifications_may_say_more_than_the_queue() {
    let mut bench = bench();
    bench.offer(0, 1);
    let events = bench.store(QUEUE_NOTIFY, 0x8001_0000);
    assert_eq!(jobs(&events).1.len(), 1);
}

#[test]
fn a_reset_forgets_features() {
    let mut bench = bare();
    bench.store(DRIVER_FEATURES_SEL, 1);
    bench.store(DRIVER_FEATURES, FEATURE_RING_PACKED);
    bench.store(STATUS, 0);
    bench.set_up(TABLE, AVAILABLE, USED);
}

#[test]
fn what_is_followed_at_once_is_bounded() {
    let mut bench = bare();
    // Chains that go through all of a large table, each from a start of its own.
    const LARGE: u16 = 1 << 10;
    bench.ram = Ram::new(RAM..RAM + 0x10_0000);
    let (table, available) = (RAM, RAM + 0x8_0000);
    for index in 0..LARGE {
        let next = (index + 1) % LARGE;
        bench.descriptor(table + u64::from(index) * 16, BUFFER, 4, NEXT, next);
        let element = available + 4 + u64::from(index) * 2;
        bench.ram.put(element, &index.to_le_bytes());
    }
    bench.ram.put(available + 2, &LARGE.to_le_bytes());
    bench.store(QUEUE_NUM, LARGE.into());
    for (register, address) in [
        (QUEUE_DESC, table),
        (QUEUE_DRIVER, available),
        (QUEUE_DEVICE, RAM + 0xC_0000),
    ] {
        bench.store(register, address as u32);
    }
    bench.store(QUEUE_READY, 1);
    let events = bench.notify();
    assert!(events.contains(&Event::LeftOut { count: 1 }));
    let (_, buffers) = jobs(&events);
    let followed = |(_, spans): &&(JobId, Vec<Span>)| spans[0].role == "descriptor table";
    assert_eq!(buffers.len(), usize::from(LARGE));
    // As many as have 2^16 descriptors together.
    assert_eq!(buffers.iter().filter(followed).count(), 64);
}

#[test]
fn events_are_asked_for_in_the_rings() {
    let mut bench = bare();
    bench.store(DRIVER_FEATURES_SEL, 0);
    bench.store(DRIVER_FEATURES, FEATURE_EVENT_IDX);
    bench.set_up(TABLE, AVAILABLE, USED);
    bench.offer(0, 1);
    let (look, buffers) = jobs(&bench.notify());
    assert_eq!(look[1].pa, AVAILABLE + 20..AVAILABLE + 22);
    assert_eq!(buffers[0].1.last().unwrap().pa, USED + 68..USED + 70);
}

#[test]
fn buffers_that_were_not_notified_are_found_when_used() {
    let mut bench = bench();
    bench.descriptor(TABLE, BUFFER, 0x40, WRITE, 0);
    bench.offer(0, 1);
    assert_eq!(bench.look(0), [], "not used yet");
    bench.consume(0, 1);
    let events = bench.look(1);
    let (_, buffers) = jobs(&events);
    assert_eq!(events.last(), Some(&Event::Completed { job: buffers[0].0 }));
}

#[test]
fn resets_end_everything() {
    for (register, value) in [(STATUS, 0), (QUEUE_READY, 0), (QUEUE_RESET, 1)] {
        let mut bench = bench();
        bench.offer(3, 1);
        let (_, buffers) = jobs(&bench.notify());
        let end = Event::Completed { job: buffers[0].0 };
        assert_eq!(bench.store(register, value), [end, Event::Moved]);
        assert_eq!(bench.notify(), []);
        assert!(bench.device.watched().is_empty());
    }
}

#[test]
fn packed_rings_are_left_alone() {
    let mut bench = bare();
    bench.store(DRIVER_FEATURES_SEL, 1);
    bench.store(DRIVER_FEATURES, FEATURE_RING_PACKED);
    bench.store(QUEUE_NUM, 8);
    assert_eq!(bench.store(QUEUE_READY, 1), []);
    assert_eq!(bench.notify(), []);
}

#[test]
fn what_is_malformed_is_left_out() {
    let mut bench = bench();
    // Itself the next; a next beyond the table; more than there is room for.
    bench.descriptor(TABLE, BUFFER, 4, NEXT, 0);
    bench.descriptor(TABLE + 0x10, BUFFER, 4, NEXT, SIZE);
    bench.offer(0, 1);
    bench.offer(1, 2);
    let (_, buffers) = jobs(&bench.notify());
    assert_eq!(buffers[0].1.len(), 3);
    assert_eq!(buffers[1].1.len(), 4, "its element is apart");
    bench.offer(0, 100);
    assert_eq!(bench.notify(), []);
    assert_eq!(bench.look(100), []);
    // The same buffer again.
    bench.offer(0, 101);
    let events = bench.notify();
    assert!(events.contains(&Event::Completed { job: buffers[0].0 }));
}

#[test]
fn addresses_without_memory_are_told() {
    let mut bench = bare();
    bench.set_up(0x1000, AVAILABLE, USED);
    bench.offer(1, 1);
    assert!(
        bench
            .notify()
            .contains(&outside(0x1010, "descriptor table"))
    );

    let mut bench = bare();
    bench.set_up(TABLE, 0x1000, USED);
    assert_eq!(bench.notify(), [outside(0x1000, "available ring")]);

    let mut bench = self::bench();
    bench.descriptor(TABLE, u64::MAX, 4, WRITE, 0);
    bench.descriptor(TABLE + 0x10, 0x1000, 0x10, INDIRECT, 0);
    bench.offer(0, 1);
    bench.offer(1, 2);
    let events = bench.notify();
    assert!(events.contains(&outside(u64::MAX, "destination")));
    assert!(events.contains(&outside(0x1000, "indirect table")));

    let mut bench = bare();
    bench.store(QUEUE_NUM, 8);
    bench.store(QUEUE_DEVICE, u32::MAX);
    bench.store(QUEUE_DEVICE + 4, u32::MAX);
    let wrong = [outside(u64::MAX, "used ring")];
    assert_eq!(bench.store(QUEUE_READY, 1), wrong);
}

#[test]
fn transports_are_apart() {
    let bench = bare();
    assert_eq!(bench.device.name(), "virtio-mmio@a003e00");
    assert_eq!(bench.device.windows()[0], BASE..BASE + 0x200);
    let mut bench = bench;
    assert_eq!(bench.store(QUEUE_SEL, MAX_QUEUES), []);
    assert_eq!(bench.store(QUEUE_NUM, 8), []);
    assert!(bench.device.queues.is_empty());
}
