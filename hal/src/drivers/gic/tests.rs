//! The register contents are compared with what IHI 0048B and IHI 0069H ask for; the blocks are
//! plain memory, so write-one-to-clear registers just keep the last write.

use super::*;
use crate::drivers::irq::{Handlers, Interrupts, IrqError, IrqHandler};
use std::sync::atomic::{AtomicU32, Ordering};

const GICD_CTLR: usize = 0x000;
const GICD_TYPER: usize = 0x004;
const GICD_IGROUPR: usize = 0x080;
const GICD_ISENABLER: usize = 0x100;
const GICD_ICENABLER: usize = 0x180;
const GICD_IPRIORITYR: usize = 0x400;
const GICD_ITARGETSR: usize = 0x800;
const GICD_ICFGR: usize = 0xC00;
const GICD_SGIR: usize = 0xF00;
const GICC_CTLR: usize = 0x00;
const GICC_PMR: usize = 0x04;
const GICC_IAR: usize = 0x0C;
const GICC_EOIR: usize = 0x10;

/// A block of registers, addressed by byte offset.
struct Block(&'static [AtomicU32]);

impl Block {
    fn new(bytes: usize) -> Self {
        // Registers of 64 bits need their alignment.
        let words = vec![0u64; bytes / 8].leak();
        let words = VirtAddr::from_ptr(words.as_ptr()).as_ptr::<AtomicU32>();
        // SAFETY: the memory is leaked, aligned and zeroed.
        Self(unsafe { core::slice::from_raw_parts(words, bytes / 4) })
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.0.as_ptr())
    }

    fn read(&self, offset: usize) -> u32 {
        self.0[offset / 4].load(Ordering::Relaxed)
    }

    fn write(&self, offset: usize, value: u32) {
        self.0[offset / 4].store(value, Ordering::Relaxed);
    }
}

struct FakeV2 {
    gicd: Block,
    gicc: Block,
}

/// `GICD_TYPER` of QEMU's Pi: 224 lines, 4 cores; the silicon adds `SecurityExtn`.
const TYPER_QEMU: u32 = 0x66;
const TYPER_SILICON: u32 = TYPER_QEMU | 1 << 10;

fn v2(typer: u32) -> (FakeV2, Gic) {
    let fake = FakeV2 {
        gicd: Block::new(0x1000),
        gicc: Block::new(0x2000),
    };
    fake.gicd.write(GICD_TYPER, typer);
    // The reader is interface 2, so that an index is not mistaken for a mask.
    for offset in 0..8 {
        fake.gicd.write(GICD_ITARGETSR + 4 * offset, 0x0404_0404);
    }
    // Group 1 everywhere, as the code that ran at EL3 left it.
    for offset in 0..32 {
        fake.gicd.write(GICD_IGROUPR + 4 * offset, u32::MAX);
    }
    // SAFETY: the blocks are leaked and as large as the registers.
    let gic = unsafe { Gic::v2(fake.gicd.base(), fake.gicc.base()) };
    (fake, gic)
}

fn line(intid: u32) -> Line {
    Line::new(intid).unwrap()
}

#[test]
fn lines_by_kind() {
    assert_eq!(Line::sgi(15).map(Line::intid), Some(15));
    assert_eq!(Line::sgi(16), None);
    assert_eq!(Line::ppi(11).map(Line::intid), Some(27));
    assert_eq!(Line::ppi(16), None);
    assert_eq!(Line::spi(121).map(Line::intid), Some(153));
    assert_eq!(Line::spi(988), None);
    assert_eq!(Line::spi(u32::MAX), None);
    for intid in 0..1020 {
        assert_eq!(IntId::from(line(intid)).raw_value(), intid);
    }
    assert_eq!(
        [line(3), line(27), line(153)].map(|line| line.to_string()),
        ["SGI 3", "PPI 11", "SPI 121"]
    );
}

#[test]
fn v2_uses_the_group_that_bit_0_enables() {
    for (typer, groups) in [(TYPER_QEMU, 0), (TYPER_SILICON, u32::MAX)] {
        let (fake, gic) = v2(typer);
        gic.init().unwrap();
        assert_eq!(fake.gicd.read(GICD_IGROUPR), groups);
        assert_eq!(fake.gicd.read(GICD_IGROUPR + 4 * 6), groups);
        assert_eq!(fake.gicd.read(GICD_CTLR), 1);
        assert_eq!(fake.gicc.read(GICC_CTLR), 1);
        assert_eq!(fake.gicc.read(GICC_PMR), 0xF0);
    }
}

#[test]
fn v2_resets_every_line_it_has_and_no_more() {
    let (fake, gic) = v2(TYPER_SILICON);
    gic.init().unwrap();
    assert_eq!(gic.lines(), 224);
    for (register, value, last) in [
        (GICD_ICENABLER, u32::MAX, 6),
        (GICD_IPRIORITYR, 0x8080_8080, 55),
        (GICD_ITARGETSR, 0x0404_0404, 55),
    ] {
        for index in 0..=last {
            assert_eq!(fake.gicd.read(register + 4 * index), value, "{register:#x}");
        }
        assert_eq!(fake.gicd.read(register + 4 * (last + 1)), 0);
    }
}

#[test]
fn v2_changes_one_line_only() {
    let (fake, gic) = v2(TYPER_QEMU);
    gic.init().unwrap();
    let spi = line(101);
    gic.enable(spi).unwrap();
    assert_eq!(fake.gicd.read(GICD_ISENABLER + 12), 1 << 5);
    gic.set_priority(spi, 0x40).unwrap();
    assert_eq!(fake.gicd.read(GICD_IPRIORITYR + 100), 0x8080_4080);
    gic.set_trigger(spi, Trigger::Edge).unwrap();
    gic.set_trigger(line(102), Trigger::Edge).unwrap();
    gic.set_trigger(spi, Trigger::Level).unwrap();
    assert_eq!(fake.gicd.read(GICD_ICFGR + 24), 0b10 << 12);
    fake.gicd.write(GICD_ITARGETSR + 100, 0x0101_0101);
    gic.set_target(spi, PerCpu::current().index()).unwrap();
    assert_eq!(fake.gicd.read(GICD_ITARGETSR + 100), 0x0101_0401);
}

#[test]
fn what_cannot_be_is_refused() {
    let (_, gic) = v2(TYPER_QEMU);
    gic.init().unwrap();
    let beyond = GicError::NoSuchLine {
        line: line(224),
        lines: 224,
    };
    let other = (PerCpu::current().index() + 1) % 8;
    assert_eq!(gic.enable(line(224)), Err(beyond));
    assert_eq!(
        gic.set_trigger(line(1), Trigger::Edge),
        Err(GicError::FixedTrigger(line(1)))
    );
    assert_eq!(
        gic.set_target(line(27), other),
        Err(GicError::Private(line(27)))
    );
    assert_eq!(
        gic.set_target(line(40), other),
        Err(GicError::CoreNotReady { core: other })
    );
    assert_eq!(
        gic.send_sgi(line(40), 0),
        Err(GicError::NotSoftware(line(40)))
    );
    assert_eq!(
        gic.send_sgi(line(1), 99),
        Err(GicError::CoreNotReady { core: 99 })
    );
}

#[test]
fn v2_sgis_go_to_one_core_and_end_with_their_sender() {
    let (fake, gic) = v2(TYPER_QEMU);
    gic.init().unwrap();
    gic.send_sgi(line(3), PerCpu::current().index()).unwrap();
    assert_eq!(fake.gicd.read(GICD_SGIR), 0x0004_0003);
    // SGI 3 sent by interface 2.
    fake.gicc.write(GICC_IAR, 2 << 10 | 3);
    let interrupt = gic.acknowledge().unwrap();
    assert_eq!(interrupt.line(), line(3));
    gic.end(interrupt);
    assert_eq!(fake.gicc.read(GICC_EOIR), 2 << 10 | 3);
    for spurious in [1023, 1022] {
        fake.gicc.write(GICC_IAR, spurious);
        assert_eq!(gic.acknowledge(), None);
    }
}

#[test]
fn a_single_core_v2_has_no_targets() {
    let (fake, gic) = v2(TYPER_QEMU);
    for offset in 0..8 {
        fake.gicd.write(GICD_ITARGETSR + 4 * offset, 0);
    }
    gic.init().unwrap();
    gic.send_sgi(line(3), PerCpu::current().index()).unwrap();
    assert_eq!(fake.gicd.read(GICD_SGIR), 0x0001_0003);
}

/// Notes the line, and lets the next acknowledgement find nothing.
struct Recorder {
    iar: &'static AtomicU32,
    seen: AtomicU32,
}

impl IrqHandler for Recorder {
    fn handle(&self, line: Line) {
        assert_eq!(PerCpu::current().irq_depth(), 1);
        assert_eq!(PerCpu::current().locks_held(), 0);
        self.seen.store(line.intid(), Ordering::Relaxed);
        self.iar.store(1023, Ordering::Relaxed);
    }
}

#[test]
fn dispatch_reaches_the_handler() {
    let (fake, gic) = v2(TYPER_QEMU);
    gic.init().unwrap();
    static HANDLERS: Handlers = Handlers::new();
    let interrupts = Interrupts::new(gic, &HANDLERS);
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder {
        iar: &fake.gicc.0[GICC_IAR / 4],
        seen: AtomicU32::new(0),
    }));
    interrupts.register(line(101), recorder).unwrap();
    assert_eq!(
        interrupts.register(line(101), recorder),
        Err(IrqError::Taken(line(101)))
    );
    fake.gicc.write(GICC_IAR, 101);
    assert_eq!(interrupts.handle(), None);
    assert_eq!(recorder.seen.load(Ordering::Relaxed), 101);
    assert_eq!(fake.gicc.read(GICC_EOIR), 101);
    assert_eq!(PerCpu::current().irq_depth(), 0);

    // Spurious: nothing runs and nothing is ended.
    fake.gicc.write(GICC_EOIR, 0);
    assert_eq!(interrupts.handle(), None);
    assert_eq!(fake.gicc.read(GICC_EOIR), 0);

    assert_eq!(interrupts.silenced().next(), None);
    for intid in [33, 101] {
        interrupts.silence(line(intid));
        let word = GICD_ICENABLER + 4 * (intid as usize / 32);
        assert_eq!(fake.gicd.read(word), 1 << (intid % 32));
    }
    assert!(interrupts.silenced().eq([line(33), line(101)]));
}

const REDISTRIBUTOR: usize = 0x2_0000;
const GICR_TYPER: usize = 0x0008;
const GICR_PIDR2: usize = 0xFFE8;
const GICR_SGI: usize = 0x1_0000;
const GICD_IROUTER: usize = 0x6000;

#[test]
fn v3_finds_the_redistributor_by_affinity() {
    let gicd = Block::new(0x1_0000);
    let gicr = Block::new(3 * REDISTRIBUTOR);
    gicd.write(GICD_TYPER, 7); // 256 lines
    gicr.write(GICR_PIDR2, 3 << 4);
    // The host's core has affinity 0; its redistributor is the last.
    for (index, affinity) in [2, 1, 0].into_iter().enumerate() {
        gicr.write(index * REDISTRIBUTOR + GICR_TYPER + 4, affinity);
    }
    gicr.write(2 * REDISTRIBUTOR + GICR_TYPER, 1 << 4);
    // SAFETY: the blocks are leaked and as large as the registers.
    let gic = unsafe { Gic::v3(gicd.base(), gicr.base()) }.unwrap();
    assert_eq!(gic.lines(), 256);
    assert_eq!(
        gic.enable(line(27)),
        Err(GicError::CoreNotReady {
            core: PerCpu::current().index()
        })
    );
    gicd.write(GICD_IROUTER + 8 * 255, u32::MAX);
    gic.init().unwrap();
    // ARE and group 1.
    assert_eq!(gicd.read(GICD_CTLR), 0x12);
    assert_eq!(gicd.read(GICD_IROUTER + 8 * 255), 0);

    gic.enable(line(27)).unwrap();
    for (index, enabled) in [0, 0, 1 << 27].into_iter().enumerate() {
        let sgi = index * REDISTRIBUTOR + GICR_SGI;
        assert_eq!(gicr.read(sgi + GICD_ISENABLER), enabled);
    }
    gic.set_priority(line(27), 0x40).unwrap();
    let priorities = 2 * REDISTRIBUTOR + GICR_SGI + GICD_IPRIORITYR;
    assert_eq!(gicr.read(priorities + 24), 0x4080_8080);
    gic.set_trigger(line(101), Trigger::Edge).unwrap();
    assert_eq!(gicd.read(GICD_ICFGR + 24), 0b10 << 10);
}

#[test]
fn v3_without_the_cores_redistributor() {
    let gicd = Block::new(0x1_0000);
    let gicr = Block::new(REDISTRIBUTOR);
    gicd.write(GICD_TYPER, 7);
    gicr.write(GICR_PIDR2, 3 << 4);
    gicr.write(GICR_TYPER, 1 << 4);
    gicr.write(GICR_TYPER + 4, 0x0100);
    // SAFETY: as above.
    let gic = unsafe { Gic::v3(gicd.base(), gicr.base()) }.unwrap();
    assert_eq!(gic.init(), Err(GicError::NoRedistributor { affinity: 0 }));
}
