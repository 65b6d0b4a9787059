use super::submission::{LOOK_INTERVAL_NS, LOOK_PART, Progress, look_until};
use super::*;
use crate::addr::PhysAddr;
use crate::dma::DmaMask;
use crate::dma::device::fake;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

type Sleep = Box<dyn Fn() + Send>;

/// A clock whose time passes only in `sleep_until`, where a test may let a device act.
pub(crate) struct FakeClock {
    now: AtomicU64,
    on_sleep: Mutex<Option<Sleep>>,
}

impl FakeClock {
    pub(crate) fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            now: AtomicU64::new(0),
            on_sleep: Mutex::new(None),
        }))
    }

    /// Runs `f` in every sleep, as interrupts would: while the sleeper holds no lock.
    pub(crate) fn on_sleep(&self, f: impl Fn() + Send + 'static) {
        *self.on_sleep.lock().unwrap() = Some(Box::new(f));
    }
}

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn sleep_until(&self, deadline_ns: u64) {
        assert!(cpu::irqs_masked());
        self.now.fetch_max(deadline_ns, Ordering::Relaxed);
        if let Some(f) = &*self.on_sleep.lock().unwrap() {
            f();
        }
    }
}

/// A device that sees all memory at its physical address.
pub(crate) fn identity_device(width: DmaMask) -> &'static Device {
    fake("test", width, [0, 0, 1 << 40])
}

struct Segments(&'static Device, Vec<DmaSegment>);

// SAFETY: the segments are only computed with.
unsafe impl Source for Segments {
    fn device(&self) -> &Device {
        self.0
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.1.get(index).copied()
    }
}

// SAFETY: the segments are only computed with.
unsafe impl Destination for Segments {
    fn device(&self) -> &Device {
        self.0
    }

    fn segment(&self, index: usize) -> Option<DmaSegment> {
        self.1.get(index).copied()
    }
}

fn segments(engine: &Recorder, list: &[(u64, usize)]) -> Segments {
    let device = engine.device;
    let segment = |&(addr, len): &(u64, usize)| DmaSegment {
        addr: device.dma_addr(PhysAddr::new(addr), len).unwrap(),
        len,
    };
    Segments(device, list.iter().map(segment).collect())
}

/// Records what is submitted and finishes it at once.
pub(crate) struct Recorder {
    device: &'static Device,
    log: Mutex<Vec<(u64, u64, usize)>>,
    /// The time limit of each wait.
    limits: Mutex<Vec<u64>>,
    batches: AtomicU64,
    fail_batch: Option<u64>,
}

impl Recorder {
    pub(crate) fn new(fail_batch: Option<u64>) -> Self {
        Self {
            device: identity_device(DmaMask::new::<36>()),
            log: Mutex::new(Vec::new()),
            limits: Mutex::new(Vec::new()),
            batches: AtomicU64::new(0),
            fail_batch,
        }
    }
}

// SAFETY: it accesses no memory.
unsafe impl DmaEngine for Recorder {
    fn device(&self) -> &'static Device {
        self.device
    }
    fn length_granule(&self) -> usize {
        4
    }
    fn max_len(&self) -> usize {
        0x100
    }
    fn max_transfers(&self) -> usize {
        2
    }
    fn timeout_ns(&self, len: usize) -> u64 {
        len as u64
    }
    unsafe fn submit(&self, transfers: &[Transfer]) -> Result<Ticket, DmaError> {
        self.check(transfers)?;
        let mut log = self.log.lock().unwrap();
        log.extend(transfers.iter().map(|t| (t.src.get(), t.dst.get(), t.len)));
        Ok(Ticket(self.batches.fetch_add(1, Ordering::Relaxed) as u32))
    }
    fn on_interrupt(&self) -> bool {
        false
    }
    fn interrupts(&self) -> u64 {
        0
    }
    fn lost_interrupts(&self) -> u64 {
        0
    }
    fn wait_by(&self, _: Completion, ticket: Ticket, timeout_ns: u64) -> Result<(), DmaError> {
        self.limits.lock().unwrap().push(timeout_ns);
        if self.fail_batch == Some(u64::from(ticket.0)) {
            return Err(DmaError::Bus { flags: 2 });
        }
        Ok(())
    }
    fn abort(&self) {}
}

#[test]
fn segments_are_cut_where_either_side_ends_or_the_engine_must() {
    let engine = Recorder::new(None);
    let src = segments(&engine, &[(0x1000, 0x180), (0x9000, 0x80)]);
    let mut dst = segments(&engine, &[(0x20_0000, 0x40), (0x30_0000, 0x1C0)]);
    copy(&engine, &src, &mut dst).unwrap();
    assert_eq!(
        *engine.log.lock().unwrap(),
        [
            (0x1000, 0x20_0000, 0x40),
            (0x1040, 0x30_0000, 0x100),
            (0x1140, 0x30_0100, 0x40),
            (0x9000, 0x30_0140, 0x80),
        ]
    );
    assert_eq!(engine.batches.load(Ordering::Relaxed), 2);
}

#[test]
fn a_failing_batch_ends_the_copy() {
    let engine = Recorder::new(Some(1));
    let src = segments(&engine, &[(0x1000, 0x1000)]);
    let mut dst = segments(&engine, &[(0x20_0000, 0x1000)]);
    assert_eq!(
        copy(&engine, &src, &mut dst),
        Err(DmaError::Bus { flags: 2 })
    );
    assert_eq!(engine.batches.load(Ordering::Relaxed), 2);
}

#[test]
fn each_submission_has_the_engines_time_or_the_callers() {
    let engine = Recorder::new(None);
    let long = [(0x1000, 0x284)];
    let (src, mut dst) = (segments(&engine, &long), segments(&engine, &long));
    copy(&engine, &src, &mut dst).unwrap();
    let by = Completion::Interrupt;
    copy_within(&engine, &src, &mut dst, by, Some(7)).unwrap();
    assert_eq!(*engine.limits.lock().unwrap(), [0x200, 0x84, 7, 7]);
}

#[test]
fn different_lengths_do_not_start() {
    let engine = Recorder::new(None);
    let src = segments(&engine, &[(0x1000, 8)]);
    let mut dst = segments(&engine, &[(0x2000, 4)]);
    let error = DmaError::LengthMismatch { src: 8, dst: 4 };
    assert_eq!(copy(&engine, &src, &mut dst), Err(error));
    assert!(engine.log.lock().unwrap().is_empty());
}

#[test]
fn memory_lent_to_another_device_is_refused() {
    let (engine, other) = (Recorder::new(None), Recorder::new(None));
    let refused = Err(DmaError::OtherDevice {
        lent_to: "test",
        used_by: "test",
    });
    let (own, foreign) = (&[(0x1000, 8)], &[(0x2000, 8)]);
    let mut dst = segments(&engine, own);
    assert_eq!(copy(&engine, &segments(&other, foreign), &mut dst), refused);
    let mut dst = segments(&other, foreign);
    assert_eq!(copy(&engine, &segments(&engine, own), &mut dst), refused);
    assert!(engine.log.lock().unwrap().is_empty());
}

#[test]
fn masked_irqs_are_refused_before_anything_starts() {
    let engine = Recorder::new(None);
    let src = segments(&engine, &[(0x1000, 8)]);
    let mut dst = segments(&engine, &[(0x2000, 8)]);
    let irq = cpu::irq_save();
    assert_eq!(copy(&engine, &src, &mut dst), Err(DmaError::IrqsMasked));
    cpu::irq_restore(irq);
    assert!(engine.log.lock().unwrap().is_empty());
}

#[test]
fn submissions_are_checked() {
    let engine = Recorder::new(None);
    let transfer = |src, dst, len| Transfer {
        src: DmaAddr::new(src),
        dst: DmaAddr::new(dst),
        len,
    };
    let good = transfer(0, 0x1000, 8);
    assert_eq!(engine.check(&[good]), Ok(()));
    assert_eq!(engine.check(&[]), Err(DmaError::ZeroLength));
    assert_eq!(
        engine.check(&[transfer(0, 0, 0)]),
        Err(DmaError::ZeroLength)
    );
    assert_eq!(
        engine.check(&[good; 3]),
        Err(DmaError::TooManyTransfers { count: 3, max: 2 })
    );
    assert_eq!(
        engine.check(&[good, transfer(0, 0x1000, 6)]),
        Err(DmaError::LengthGranule { len: 6, granule: 4 })
    );
    assert_eq!(
        engine.check(&[transfer(0, 0x1000, 0x104)]),
        Err(DmaError::SegmentTooLong {
            len: 0x104,
            max: 0x100
        })
    );
    let addr = DmaAddr::new((1 << 36) - 4);
    assert_eq!(
        engine.check(&[transfer(0, addr.get(), 8)]),
        Err(DmaError::ForeignAddress { addr, len: 8 })
    );
}

#[test]
fn tickets_are_collected_once() {
    let mut progress = Progress::new();
    let first = progress.start();
    assert_eq!(progress.collect(first), None);
    assert!(progress.is_taken());
    progress.finish(Err(DmaError::Bus { flags: 1 }));
    progress.finish(Ok(()));
    assert!(progress.is_taken(), "nobody has seen the result yet");
    assert_eq!(
        progress.collect(first),
        Some(Err(DmaError::Bus { flags: 1 }))
    );
    assert!(!progress.is_taken());
    assert_eq!(progress.collect(first), Some(Err(DmaError::StaleTicket(1))));
    let second = progress.start();
    assert_eq!(progress.collect(first), Some(Err(DmaError::StaleTicket(1))));
    progress.finish(Ok(()));
    assert_eq!(progress.collect(second), Some(Ok(())));
}

#[test]
fn waiting_looks_often_and_ends_at_the_deadline() {
    let clock = FakeClock::leaked();
    let mut looks = 0;
    let result = look_until(clock, 10 * LOOK_INTERVAL_NS, || {
        looks += 1;
        None::<()>
    });
    assert_eq!(result, None);
    assert_eq!(looks, 11);
    assert_eq!(clock.now_ns(), 10 * LOOK_INTERVAL_NS);
    assert!(!cpu::irqs_masked());
}

#[test]
fn a_long_wait_looks_seldom_but_never_late() {
    let clock = FakeClock::leaked();
    let (mut looks, mut last) = (0, 0);
    let timeout = 1_000_000 * LOOK_INTERVAL_NS;
    let result = look_until(clock, timeout, || {
        let now = clock.now_ns();
        assert!(now - last <= LOOK_INTERVAL_NS.max(last / LOOK_PART));
        (looks, last) = (looks + 1, now);
        None::<()>
    });
    assert_eq!(result, None);
    assert_eq!(clock.now_ns(), timeout);
    assert!(looks < 150, "{looks}");
}
