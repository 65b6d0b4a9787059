//! What goes wrong without the library's help: each sequence here is wrong for some seed, and for
//! none with the call that it lacks.

use super::check;
use hal::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use hal::arch::{barrier, cache};
use hal::dma::streaming::map_slice;
use hal::dma::{Bidirectional, BusWindow, Device, DmaMask, DmaSegment, FromDevice, ToDevice};
use hal::testkit::{Access, Buffer, Machine, Master, Wrong, bytes_of};

const LINE: usize = 64;

const LEN: usize = 2 * LINE;

const WRONG: &str = "wrong data";

/// Adversaries each sequence runs under.
const SEEDS: u64 = 300;

/// What a sequence has to work with.
struct Scene {
    master: Master,
    cached: Buffer,
    uncached: Buffer,
    /// Two pages, cached.
    pages: Buffer,
}

impl Scene {
    fn new(machine: &Machine) -> Self {
        Self {
            master: machine.master(),
            cached: machine.buffer(LEN),
            uncached: machine.buffer_as(LEN, Access::Uncached),
            pages: machine.buffer(2 * PAGE_SIZE),
        }
    }

    /// The bus address of the cached buffer, obtained without handing it over.
    fn raw(&self) -> DmaAddr {
        address(&self.master, self.cached.pa())
    }

    fn lines(&self) -> impl Iterator<Item = hal::addr::VirtAddr> {
        let first = self.cached.va();
        (0..LEN).step_by(LINE).map(move |line| first + line)
    }

    /// The device reads all of the cached buffer.
    fn device_reads(&self) -> Vec<u8> {
        self.master.start_read(DmaSegment {
            addr: self.raw(),
            len: LEN,
        });
        self.master.finish()
    }

    /// The device writes all of the cached buffer.
    fn device_writes(&self, seed: u64) {
        self.master.start_write(self.raw(), &bytes_of(seed, LEN));
        self.master.finish();
    }

    fn clean(&self) {
        self.lines().for_each(|line| cache::clean_line(line));
        barrier::dsb_sy();
    }

    fn invalidate(&self) {
        // SAFETY: the lines are the buffer's alone, and what was stored to them was cleaned.
        self.lines()
            .for_each(|line| unsafe { cache::invalidate_line(line) });
        barrier::dsb_sy();
    }
}

fn address(master: &Master, pa: PhysAddr) -> DmaAddr {
    master.device().dma_addr(pa, LEN).unwrap()
}

/// A sequence, which does what it lacks if it is told to.
type Sequence = fn(&Machine, &mut Scene, bool) -> Result<(), Wrong>;

const SEQUENCES: &[(&str, Sequence)] = &[
    ("H1 dirty line not cleaned", not_cleaned),
    ("H2 stale line not invalidated", not_invalidated),
    ("H3 dirty line evicted over data", evicted_over),
    ("H4 neighbours in one line", neighbours),
    ("H5 prefetch during the transfer", prefetch),
    ("H6 mismatched alias", alias),
    ("H7 no barrier before the doorbell", no_barrier),
    ("H8 not physically contiguous", not_contiguous),
    ("H9 outside the mask", outside_the_mask),
    ("H10 touched while owned", touched),
    ("H10 freed while owned", freed),
];

#[test]
fn wrong_sequences_read_wrong_data() {
    for (name, sequence) in SEQUENCES {
        let machine = Machine::new();
        let mut scene = Scene::new(&machine);
        // Wrong for another reason than wrong data is wrong in the test.
        let mut wrong = |rightly| {
            let results = (0..SEEDS)
                .map(|seed| machine.run(seed, |machine| sequence(machine, &mut scene, rightly)));
            let wrong = results.filter(|result| result.is_err());
            let wrong = wrong.inspect(|result| assert_eq!(*result, Err(Wrong(WRONG)), "{name}"));
            wrong.count()
        };
        let (without, with) = (wrong(false), wrong(true));
        println!("{name:<36} wrong for {without:>3} of {SEEDS} seeds, done rightly for {with}");
        assert!(without > 0 && with == 0, "{name}: {without} {with}");
    }
}

fn not_cleaned(_: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    if rightly {
        scene.clean();
    }
    check(scene.device_reads() == bytes_of(1, LEN), WRONG)
}

fn not_invalidated(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    scene.clean();
    machine.pass();
    scene.device_writes(2);
    if rightly {
        scene.invalidate();
    }
    check(scene.cached.is_filled(2), WRONG)
}

fn evicted_over(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    if rightly {
        scene.clean();
    }
    scene.device_writes(2);
    machine.pass();
    check(scene.device_reads() == bytes_of(2, LEN), WRONG)
}

/// The device writes the first half of a line, the neighbour in the other half is stored to
/// meanwhile.
fn neighbours(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    const HALF: usize = LINE / 2;

    scene.cached.fill(1);
    scene.clean();
    // Rightly the neighbour has a line of its own.
    let neighbour = if rightly { LINE } else { HALF };
    scene.cached.bytes()[neighbour..][..HALF].fill(7);
    machine.pass();
    let written = bytes_of(2, HALF);
    scene.master.start_write(scene.raw(), &written);
    scene.master.finish();
    // SAFETY: the bytes are a test's, and losing them is what it is about.
    unsafe { cache::invalidate_line(scene.cached.va()) };
    barrier::dsb_sy();
    check(scene.cached.bytes()[..HALF] == written, WRONG)?;
    check(
        scene.cached.bytes()[neighbour..][..HALF] == [7; HALF],
        WRONG,
    )
}

/// Invalidated before the transfer, and not behind it.
fn prefetch(_: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    scene.clean();
    scene.invalidate();
    scene.device_writes(2);
    if rightly {
        scene.invalidate();
    }
    check(scene.cached.is_filled(2), WRONG)
}

/// Lines of a cached alias stay behind under non-cacheable memory.
fn alias(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    if !rightly {
        let start = scene.uncached.pa();
        machine.leave_lines(hal::addr::PhysRange::new(start, start + LEN));
    }
    scene.uncached.fill(1);
    barrier::dsb_sy();
    let addr = address(&scene.master, scene.uncached.pa());
    scene.master.write(addr, &bytes_of(2, LEN));
    machine.pass();
    machine.settle();
    check(scene.uncached.is_filled(2), WRONG)
}

fn no_barrier(_: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.uncached.fill(1);
    if rightly {
        barrier::dmb_oshst();
    }
    let addr = address(&scene.master, scene.uncached.pa());
    scene.master.start_read(DmaSegment { addr, len: LEN });
    check(scene.master.finish() == bytes_of(1, LEN), WRONG)
}

/// A buffer of two lines that do not follow one another, given as one segment.
fn not_contiguous(_: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    scene.uncached.fill(2);
    scene.clean();
    let first = scene.raw();
    let second = match rightly {
        true => address(&scene.master, scene.uncached.pa()),
        false => first + LINE,
    };
    for addr in [first, second] {
        scene.master.start_read(DmaSegment { addr, len: LINE });
    }
    check(
        scene.master.finish() == [bytes_of(1, LINE), bytes_of(2, LINE)].concat(),
        WRONG,
    )
}

/// A device that drops the upper bits of an address reaches other memory, whichever way the bytes
/// go; a map refuses.
fn outside_the_mask(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    /// The device tells the addresses of one page apart.
    const BITS: u32 = 12;

    let Scene { master, pages, .. } = scene;
    pages.fill(1);
    let start = pages.pa();
    let (_, second) = pages.bytes().split_at_mut(PAGE_SIZE);
    if rightly {
        // SAFETY: no hardware is told an address of this device.
        let window = unsafe { BusWindow::new(start, 0, 2 * PAGE_SIZE as u64) };
        let windows: &[BusWindow] = Box::leak(Box::new([window.unwrap()]));
        // SAFETY: as above.
        let narrow = unsafe { Device::new("narrow", DmaMask::new::<BITS>(), windows) };
        let narrow = narrow.without_bouncing();
        let is_refused = map_slice::<ToDevice>(&narrow, second).is_err()
            && map_slice::<FromDevice>(&narrow, second).is_err();
        return check(is_refused, WRONG);
    }
    let line = &mut second[..LINE];
    let stored = line.to_vec();
    let written = bytes_of(2, LINE);
    let both = map_slice::<Bidirectional>(master.device(), line);
    let both = both.map_err(|_| Wrong("refused"))?;
    // The second page's address without the bit that the device lacks.
    let truncated = address(master, start);
    let read: [u8; LINE] = master.read(truncated);
    master.write(truncated, &written);
    both.unmap();
    machine.pass();
    check(
        read[..] == stored && pages.bytes()[PAGE_SIZE..][..LINE] == written,
        WRONG,
    )
}

/// The core stores to a buffer that the device is writing.
fn touched(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    let Scene { master, cached, .. } = scene;
    let va = cached.va();
    let device = master.device();
    let mapping = map_slice::<FromDevice>(device, cached.bytes());
    let mapping = mapping.map_err(|_| Wrong("refused"))?;
    if !rightly {
        // SAFETY: the bytes are a test's; that they are the device's is what it is about.
        unsafe { va.as_ptr::<u8>().write_volatile(0xFF) };
        machine.pass();
    }
    master.start_write(mapping.dma_addr(), &bytes_of(2, LEN));
    master.finish();
    machine.pass();
    mapping.unmap();
    let read = scene.device_reads();
    check(scene.cached.is_filled(2) && read == bytes_of(2, LEN), WRONG)
}

/// Memory is somebody else's before the device that writes it is done.
fn freed(machine: &Machine, scene: &mut Scene, rightly: bool) -> Result<(), Wrong> {
    scene.cached.fill(1);
    scene.clean();
    scene.master.start_write(scene.raw(), &bytes_of(2, LEN));
    if rightly {
        scene.master.finish();
        scene.invalidate();
    }
    // The next owner keeps to all the rules.
    scene.cached.fill(3);
    scene.clean();
    machine.pass();
    check(scene.device_reads() == bytes_of(3, LEN), WRONG)
}
