use super::*;
use crate::device::testing::{Bench, Ram, reads, started, writes};
use crate::kind::Kind as WrongKind;

const BASE: u64 = 0xFE00_7000;

const CS: u64 = 0;
const POINTER: u64 = 4;
const LEGACY_NEXT: u64 = 0x1C;
const ACTIVE: u32 = 1;
const END: u32 = 1 << 1;
const INT: u32 = 1 << 2;
const PAUSED: u32 = 1 << 4;
const ABORT: u32 = 1 << 30;
const TOP: u32 = 1 << 31;

const INTEN: u32 = 1;
const TDMODE: u32 = 1 << 1;
/// Both sides increment, 128 bits at a time.
const COPY: u32 = 0x330;
const ALIAS: u32 = 0xC000_0000;

const BLOCK: &str = "control block";

fn bench() -> Bench<Bcm2711Dma> {
    Bench {
        device: Bcm2711Dma::new(BASE),
        ram: Ram::new(0..0x20_0000),
        base: BASE,
    }
}

fn block(bench: &Bench<Bcm2711Dma>, at: u32, words: [u32; 6]) {
    bench.ram.put_words(at.into(), &words);
}

/// A block at `at` that copies 0x100 bytes from 0x1000 to 0x2000.
fn copy(bench: &Bench<Bcm2711Dma>, at: u32, ti: u32, next: u32) {
    block(
        bench,
        at,
        [ti, ALIAS | 0x1000, ALIAS | 0x2000, 0x100, 0, next],
    );
}

fn start(bench: &mut Bench<Bcm2711Dma>, channel: u64, first: u32) -> Vec<Event> {
    assert_eq!(bench.store(channel * STRIDE + POINTER, first), []);
    bench.store(channel * STRIDE + CS, 0x10F1_0000 | ACTIVE)
}

fn wrong(kind: WrongKind, address: u64, role: &'static str) -> Event {
    Event::Wrong {
        kind,
        address,
        role,
    }
}

#[test]
fn a_copy_runs_until_its_end_is_seen() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY | INTEN, 0);
    let events = start(&mut bench, 5, ALIAS | 0x100);
    assert_eq!(events.len(), 1);
    let (job, spans) = started(&events);
    assert_eq!(
        spans,
        [
            reads(0x100..0x120, BLOCK),
            reads(0x1000..0x1100, "source"),
            writes(0x2000..0x2100, "destination"),
        ]
    );
    assert_eq!(bench.load(5 * STRIDE + CS, ACTIVE), []);
    assert_eq!(bench.load(4 * STRIDE + CS, END), [], "another channel");
    let end = [Event::Completed { job }];
    assert_eq!(bench.load(5 * STRIDE + CS, END | INT | PAUSED), end);
    assert_eq!(bench.load(5 * STRIDE + CS, END | INT | PAUSED), []);
    assert_eq!(bench.store(5 * STRIDE + CS, END | INT), []);
}

#[test]
fn every_way_to_learn_of_the_end_counts() {
    type Look = fn(&mut Bench<Bcm2711Dma>) -> Vec<Event>;
    let looks: [(&str, Look); 5] = [
        ("idle", |bench| bench.load(POINTER, 0)),
        ("interrupt status", |bench| bench.load(INT_STATUS, 1)),
        ("acknowledged", |bench| bench.store(CS, INT)),
        ("reset", |bench| bench.store(CS, TOP)),
        ("error", |bench| bench.load(CS, 1 << 8)),
    ];
    for (name, look) in looks {
        let mut bench = bench();
        copy(&bench, 0x100, COPY | INTEN, 0);
        let (job, _) = started(&start(&mut bench, 0, ALIAS | 0x100));
        assert_eq!(bench.load(INT_STATUS, 2), [], "another channel");
        assert_eq!(bench.load(POINTER, ALIAS | 0x100), []);
        assert_eq!(look(&mut bench), [Event::Completed { job }], "{name}");
    }
}

#[test]
fn what_is_not_followed_of_a_chain_is_told() {
    const FIRST: u32 = 0x1_0000;
    for (blocks, ring, left_out) in [
        (channel::MAX_BLOCKS, false, false),
        (channel::MAX_BLOCKS, true, false),
        (channel::MAX_BLOCKS + 1, false, true),
    ] {
        let mut bench = bench();
        let at = |index: usize| FIRST + index as u32 * 0x20;
        for index in 0..blocks {
            let next = match index + 1 == blocks {
                true if ring => ALIAS | FIRST,
                true => 0,
                false => ALIAS | at(index + 1),
            };
            copy(&bench, at(index), COPY, next);
        }
        let events = start(&mut bench, 0, ALIAS | FIRST);
        assert_eq!(events.contains(&Event::LeftOut { count: 1 }), left_out);
    }
}

#[test]
fn an_interrupt_in_the_middle_is_no_end() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY | INTEN, ALIAS | 0x120);
    copy(&bench, 0x120, COPY | INTEN, 0);
    let (job, _) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(bench.load(INT_STATUS, 1), []);
    assert_eq!(bench.store(CS, INT | ACTIVE), []);
    assert_eq!(bench.load(CS, END | INT), [Event::Completed { job }]);
}

#[test]
fn a_pause_is_no_end_and_no_start() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY, 0);
    let (job, _) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(bench.store(CS, 0), []);
    assert_eq!(bench.load(CS, PAUSED), []);
    assert_eq!(bench.store(CS, ACTIVE), []);
    assert_eq!(bench.store(CS, ABORT), []);
    assert_eq!(bench.load(CS, PAUSED), [Event::Completed { job }]);
}

#[test]
fn a_chain_is_followed_and_its_spans_joined() {
    let mut bench = bench();
    for index in 0..4 {
        let at = 0x100 + index * 0x20;
        let next = if index == 3 { 0 } else { ALIAS | (at + 0x20) };
        let (source, destination) = (0x1000 + index * 0x40, 0x2000 + index * 0x80);
        let words = [
            COPY,
            ALIAS | source,
            ALIAS | destination,
            0x40,
            0x7777_7777,
            next,
        ];
        block(&bench, at, words);
    }
    let (_, spans) = started(&start(&mut bench, 7, ALIAS | 0x100));
    assert_eq!(spans[0], reads(0x100..0x180, BLOCK));
    assert_eq!(spans[1], reads(0x1000..0x1100, "source"));
    assert_eq!(spans[2], writes(0x2000..0x2040, "destination"));
    assert_eq!(spans.len(), 2 + 4);
}

#[test]
fn a_chain_without_end_is_followed_once() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY | INTEN, ALIAS | 0x120);
    copy(&bench, 0x120, COPY, ALIAS | 0x140);
    copy(&bench, 0x140, COPY | INTEN, ALIAS | 0x140);
    let (job, spans) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(spans.len(), 3);
    assert_eq!(bench.load(INT_STATUS, 1), [], "it goes on");
    assert_eq!(bench.store(CS, TOP), [Event::Completed { job }]);
}

#[test]
fn the_last_block_may_be_its_own_next() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY, ALIAS | 0x120);
    copy(&bench, 0x120, COPY | INTEN, ALIAS | 0x120);
    started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(bench.load(INT_STATUS, 1), [], "it goes on");
}

#[test]
fn the_lowest_bits_of_a_pointer_are_dropped() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY, 0);
    let (_, spans) = started(&start(&mut bench, 0, ALIAS | 0x11F));
    assert_eq!(spans[0], reads(0x100..0x120, BLOCK));
    assert_eq!(spans.len(), 3);
}

#[test]
fn a_chain_grows_while_it_is_paused() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY | INTEN, 0);
    copy(&bench, 0x200, COPY | INTEN, 0);
    let (job, _) = started(&start(&mut bench, 0, ALIAS | 0x100));
    bench.store(CS, 0);
    let events = bench.store(LEGACY_NEXT, ALIAS | 0x200);
    let [
        Event::Extended {
            job: extended,
            spans,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*extended, &spans[0]), (job, &reads(0x200..0x220, BLOCK)));
}

#[test]
fn rows_are_spans_of_their_own_unless_they_touch() {
    let mut bench = bench();
    // Two more rows of 0x40 bytes; 0x10 between those read, 0x80 back between those written.
    let words = [
        COPY | TDMODE,
        ALIAS | 0x1000,
        ALIAS | 0x2000,
        0x0002_0040,
        0xFF80_0010,
        0,
    ];
    block(&bench, 0x100, words);
    let (_, spans) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(
        spans[1..],
        [
            reads(0x1000..0x1040, "source"),
            reads(0x1050..0x1090, "source"),
            reads(0x10A0..0x10E0, "source"),
            writes(0x1F80..0x2040, "destination"),
        ]
    );
    let (_, spans) = started(&start(&mut bench, 8, ALIAS | 0x100));
    assert_eq!(
        spans[1..],
        [
            reads(0x1000..0x1040, "source"),
            writes(0x2000..0x2040, "destination")
        ],
        "a lite channel has no rows"
    );
}

#[test]
fn registers_are_no_memory() {
    let mut bench = bench();
    // From a UART's FIFO to memory, and a fill from one word.
    block(
        &bench,
        0x100,
        [0x10, 0x7E20_1000, ALIAS | 0x2000, 0x100, 0, ALIAS | 0x120],
    );
    block(
        &bench,
        0x120,
        [0x10, ALIAS | 0x3000, ALIAS | 0x4000, 0x100, 0, 0],
    );
    let (_, spans) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(
        spans[1..],
        [
            writes(0x2000..0x2100, "destination"),
            reads(0x3000..0x3004, "source"),
            writes(0x4000..0x4100, "destination"),
        ]
    );
    // A word of 128 bits, and memory at the end of the window.
    block(
        &bench,
        0x100,
        [COPY ^ 0x100, ALIAS | 0x3000, 0xFF00_0000, 0x100, 0, 0],
    );
    let events = start(&mut bench, 0, ALIAS | 0x100);
    assert_eq!(events.len(), 2, "the end of the one before: {events:?}");
    assert_eq!(
        started(&events).1[1..],
        [
            reads(0x3000..0x3010, "source"),
            writes(0x3F00_0000..0x3F00_0100, "destination")
        ]
    );
    // The UART where the Arm sees it.
    block(
        &bench,
        0x100,
        [0x100, ALIAS | 0x3000, 0xFE20_1000, 0x100, 0, 0],
    );
    let events = start(&mut bench, 0, ALIAS | 0x100);
    let kind = WrongKind::WrongBusAlias;
    assert!(events.contains(&wrong(kind, 0xFE20_1000, "destination")));
}

#[test]
fn a_side_may_be_left_out() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY | 1 << 7 | 1 << 11, 0);
    let (_, spans) = started(&start(&mut bench, 0, ALIAS | 0x100));
    assert_eq!(spans, [reads(0x100..0x120, BLOCK)]);
    let (_, spans) = started(&start(&mut bench, 10, ALIAS | 0x100));
    assert_eq!(spans.len(), 3, "not on a lite channel");
}

#[test]
fn addresses_of_the_cpu_are_the_wrong_alias() {
    let mut bench = bench();
    block(&bench, 0x100, [COPY, 0x1000, 0x8000_2000, 0x100, 0, 0]);
    let events = start(&mut bench, 0, 0x100);
    let (job, spans) = started(&events);
    assert_eq!(spans, []);
    let kind = WrongKind::WrongBusAlias;
    assert_eq!(
        events[1..],
        [
            wrong(kind, 0x100, BLOCK),
            wrong(kind, 0x1000, "source"),
            wrong(kind, 0x8000_2000, "destination"),
        ]
    );
    assert_eq!(bench.load(CS, END), [Event::Completed { job }]);
}

#[test]
fn addresses_without_memory_are_outside() {
    let mut bench = bench();
    let words = [
        COPY,
        0x5000_0000,
        ALIAS | 0x3FFF_FFF0,
        0x100,
        0,
        ALIAS | 0x3F00_0000,
    ];
    block(&bench, 0x100, words);
    let events = start(&mut bench, 0, ALIAS | 0x100);
    let kind = WrongKind::DmaOutsideMemory;
    assert_eq!(
        events[1..],
        [
            wrong(kind, 0x5000_0000, "source"),
            wrong(kind, 0xFFFF_FFF0, "destination"),
            wrong(kind, 0xFF00_0000, BLOCK),
        ]
    );
}

#[test]
fn the_window_moves_and_channels_are_switched_off() {
    let mut bench = bench();
    bench.ram = Ram::new(0x4000_0000..0x4000_1000);
    let words = [COPY, ALIAS | 0x200, ALIAS | 0x300, 0x10, 0, 0];
    bench.ram.put_words(0x4000_0100, &words);
    bench.store(ENABLE, 1 << 24 | 0x7FFE);
    assert_eq!(start(&mut bench, 0, ALIAS | 0x100), [], "switched off");
    let (_, spans) = started(&start(&mut bench, 1, ALIAS | 0x100));
    assert_eq!(spans[1], reads(0x4000_0200..0x4000_0210, "source"));
    let events = start(&mut bench, 7, ALIAS | 0x100);
    let kind = WrongKind::DmaOutsideMemory;
    assert_eq!(events[1], wrong(kind, 0xC000_0100, BLOCK), "another page");
}

#[test]
fn another_chain_ends_the_one_before() {
    let mut bench = bench();
    copy(&bench, 0x100, COPY, 0);
    let (first, _) = started(&start(&mut bench, 0, ALIAS | 0x100));
    let events = start(&mut bench, 0, ALIAS | 0x100);
    assert_eq!(events[0], Event::Completed { job: first });
    assert_ne!(started(&events).0, first);
}

/// DMA4's words: TI, SRC, SRCI, DEST, DESTI, LEN, NEXT_CB.
fn dma4(bench: &Bench<Bcm2711Dma>, at: u64, words: [u32; 7]) {
    bench.ram.put_words(at, &words);
}

const SIDE: u32 = 0x5F00;

#[test]
fn dma4_takes_addresses_of_the_machine() {
    let mut bench = bench();
    bench.ram = Ram::new(0x1_0000_0000..0x1_0001_0000);
    let pointer = (0x1_0000_0100_u64 >> 5) as u32;
    dma4(
        &bench,
        0x1_0000_0100,
        [INTEN, 0x1000, SIDE | 1, 0x2001, SIDE | 1, 0x123, 0],
    );
    let (job, spans) = started(&start(&mut bench, 11, pointer));
    assert_eq!(
        spans,
        [
            reads(0x1_0000_0100..0x1_0000_0120, BLOCK),
            reads(0x1_0000_1000..0x1_0000_1123, "source"),
            writes(0x1_0000_2001..0x1_0000_2124, "destination"),
        ]
    );
    let end = [Event::Completed { job }];
    assert_eq!(bench.load(INT_STATUS, 1 << 11), end);
}

#[test]
fn dma4_has_ram_where_the_other_bus_has_its_window() {
    let mut bench = bench();
    bench.ram = Ram::new(0xC000_0000..0xC001_0000);
    let words = [0, 0xC000_1000, SIDE, 0xC000_2000, SIDE, 0x100, 0];
    dma4(&bench, 0xC000_0100, words);
    let events = start(&mut bench, 12, 0xC000_0100 >> 5);
    assert_eq!(events.len(), 1);
    assert_eq!(started(&events).1.len(), 3);
}

#[test]
fn dma4_stops_when_told_to() {
    let mut bench = bench();
    dma4(&bench, 0x100, [0, 0x1000, SIDE, 0x2000, SIDE, 0x100, 0]);
    let (job, _) = started(&start(&mut bench, 14, 0x100 >> 5));
    assert_eq!(bench.store(14 * STRIDE + CS, TOP | ACTIVE), []);
    assert_eq!(bench.load(14 * STRIDE + CS, TOP | ACTIVE), []);
    let end = [Event::Completed { job }];
    assert_eq!(bench.load(14 * STRIDE + CS, 0), end);
    let (job, _) = started(&start(&mut bench, 14, 0x100 >> 5));
    let end = [Event::Completed { job }];
    assert_eq!(bench.store(14 * STRIDE + 0xC, 1 << 23), end);
}

#[test]
fn dma4_has_rows_and_leaves_sides_out() {
    let mut bench = bench();
    let source = 0xFFFF_0000 | SIDE;
    let words = [
        TDMODE,
        0x1000,
        source,
        0x2000,
        SIDE | 1 << 15,
        0x0001_0010,
        0,
    ];
    dma4(&bench, 0x100, words);
    let (_, spans) = started(&start(&mut bench, 12, 0x100 >> 5));
    assert_eq!(spans[1..], [reads(0x1000..0x101F, "source")]);
    // A register, 32 bits at a time, and one word of memory.
    let words = [0, 0x7E20_1000, 4, 0x2000, 0, 0x100, 0];
    dma4(&bench, 0x100, words);
    let (_, spans) = started(&start(&mut bench, 12, 0x100 >> 5));
    assert_eq!(spans[1..], [writes(0x2000..0x2004, "destination")]);
}

#[test]
fn dma4_is_told_what_is_not_its() {
    let mut bench = bench();
    // An address of the other bus, and one through the VideoCore's cache.
    let words = [0, ALIAS | 0x1000, SIDE, 0x2000, SIDE | 4, 0x100, 0];
    dma4(&bench, 0x100, words);
    let events = start(&mut bench, 12, 0x100 >> 5);
    let kind = WrongKind::WrongBusAlias;
    assert_eq!(
        events[1..],
        [
            wrong(kind, 0xC000_1000, "source"),
            wrong(kind, 0x4_0000_2000, "destination")
        ]
    );
    // Behind everything, and a pointer that was not divided.
    let words = [0, 0x1000, SIDE | 0xFF, 0x2000, SIDE, 0x100, 0x20_0100];
    dma4(&bench, 0x100, words);
    let events = start(&mut bench, 12, 0x100 >> 5);
    let kind = WrongKind::DmaOutsideMemory;
    assert_eq!(
        events[2..],
        [
            wrong(kind, 0xFF_0000_1000, "source"),
            wrong(kind, 0x400_2000, BLOCK)
        ]
    );
}
