//! The order in which the machine comes up.

use crate::boot::image::Image;
use crate::boot::memory::{self, MemoryFault};
use crate::boot::secondary::{self, StartError};
use crate::cmdline::{CmdLine, DmaCoherent, Exit};
use crate::machine::{self, Machine};
use crate::{boot, clock, console, dma_debug, exit, report, run, trace};
use hal::addr::{PhysAddr, PhysRange};
use hal::arch::{counter, cpu};
use hal::board::{Board, EarlyPlatform, MapRegisters, Platform, SecondaryStart};
use hal::devicetree::{Cpu, Description, EnableMethod, InterruptController};
use hal::dma::coherent;
use hal::drivers::gic::{Gic, GicError, Line};
use hal::drivers::irq::{self, Interrupts, IrqHandler};
use hal::drivers::psci::Psci;
use hal::drivers::timer::{DeadlineInterrupt, Timer, VIRTUAL_TIMER};
use hal::drivers::uart::Uart;
use hal::mm::{self, IoKind, IoremapError};
use hal::sync::{MAX_CPUS, PerCpu, percpu};
use hal::{mmu, smp};

/// The seed when the command line has none: any fixed number, so that two runs are alike.
const DEFAULT_SEED: u64 = 0x5EED;

/// The register blocks that are mapped before anything says how large they are.
const PAGE: usize = hal::addr::PAGE_SIZE;
/// GICv2 CPU interface; GICv3 distributor; one GICv3 redistributor (IHI 0048B 4.3, IHI 0069 12.8).
const GICC_SIZE: usize = 2 * PAGE;
const GICV3_GICD_SIZE: usize = 0x1_0000;
const GICR_SIZE: usize = 0x2_0000;

/// Wakes a core out of `WFI`; its handler has nothing to do.
const KICK: Option<Line> = Line::sgi(0);

unsafe extern "Rust" {
    /// The board the binary was built for (see [`crate::board!`]).
    safe static BOARD: &'static dyn Board;
}

/// Names the board a binary is for. Used once in each binary.
#[macro_export]
macro_rules! board {
    ($board:expr) => {
        #[unsafe(no_mangle)]
        static BOARD: &'static dyn hal::board::Board = &$board;
    };
}

struct Kick;

impl IrqHandler for Kick {
    fn handle(&self, _line: Line) {}
}

/// The first Rust function, on the core that boots: MMU and caches on, at EL1, on its own stack,
/// IRQs masked.
#[unsafe(no_mangle)]
extern "C" fn primary_main(x0: u64, entry_level: u64, image: u64) -> ! {
    // SAFETY: this is the boot core's first Rust, and the other cores wait for it.
    unsafe { percpu::init() };
    let image = Image::new(PhysAddr::new(image));
    match bring_up(x0, entry_level as u8, image) {
        Ok((machine, cmdline)) => run::run(machine, &cmdline),
        Err(fault) => panic!("{fault}"),
    }
}

/// The first Rust function on every other core.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(_index: usize) -> ! {
    if let Some(Err(error)) = irq::interrupts().map(set_up_core) {
        panic!("interrupts of core {}: {error}", PerCpu::current().index());
    }
    smp::set_online();
    smp::idle()
}

#[derive(Debug, thiserror::Error)]
enum BootFault {
    #[error("the kernel's tables were handed over twice")]
    Tables,
    #[error(transparent)]
    Memory(#[from] MemoryFault),
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error("interrupt controller: {0}")]
    Gic(#[from] GicError),
    #[error("interrupt handler: {0}")]
    Irq(#[from] irq::IrqError),
    #[error("clock: {0}")]
    Timer(#[from] hal::drivers::timer::TimerError),
}

fn bring_up(
    x0: u64,
    entry_level: u8,
    image: Image,
) -> Result<(&'static Machine, CmdLine<'static>), BootFault> {
    let board = BOARD;
    let tables =
        mmu::init_kernel_tables(boot::kernel_mapper(&image)).map_err(|_| BootFault::Tables)?;
    mm::init_ioremap(tables);
    let ioremap = |range, driver| {
        let claim = mm::request_mem_region(range, driver)?;
        let va = mm::ioremap(range, IoKind::Posted)?;
        // For good, as the mapping.
        core::mem::forget(claim);
        Ok(va)
    };
    let timer = Timer::new()?;
    start_console(board, &ioremap)?;

    let (mut map, tree, description) = memory::survey(tables, board, &image, x0)?;
    mm::set_ram(map.ram());
    let cmdline = CmdLine::parse(description.bootargs.unwrap_or_default());
    if cmdline.exit == Exit::Semihosting {
        exit::use_semihosting();
    }
    if cmdline.defmt {
        trace::enable();
    }
    if let Some(level) = cmdline.loglevel {
        report::set_level(level);
    }
    let pool = memory::build(tables, board, &mut map, &description, &cmdline)?;
    mm::init_vmalloc(tables);
    coherent::init(pool, tables);
    mm::set_failure_hook(report::allocation_failure);
    mm::set_misuse_hook(report::misuse);
    #[cfg(feature = "slab-debug")]
    mm::set_slab_hook(report::slab_fault);

    let interrupts = irq::install(find_gic(board, &description, &ioremap)?);
    interrupts.register(VIRTUAL_TIMER, &DeadlineInterrupt)?;
    if let Some(kick) = KICK {
        interrupts.register(kick, &Kick)?;
    }
    set_up_core(interrupts)?;
    smp::set_kick(kick);
    smp::set_online();
    let clock = clock::install(timer);

    let in_ram = |pa| map.direct_map_ranges().any(|ram| ram.contains(pa));
    let absent_cores = start_cores(board, &image, entry_level, &description, in_ram, &timer);

    report::begin();
    report::note(format_args!("boot ns={}", timer.now_ns()));
    dma_debug::start(&cmdline);
    let devices = board.bring_up(&Platform {
        ioremap: &ioremap,
        tree: tree.as_ref().ok(),
        description: &description,
        interrupts,
        pool,
        clock,
        timer,
        dma_coherent: match cmdline.dma_coherent {
            DmaCoherent::Auto => None,
            DmaCoherent::Yes => Some(true),
            DmaCoherent::No => Some(false),
        },
        note: &report::note,
    });
    let payload = description.initrd.filter(|_| tree.is_ok());
    let seed = cmdline.seed.unwrap_or(DEFAULT_SEED);
    let machine = machine::install(Machine {
        board,
        image,
        entry_level,
        map,
        tree,
        description,
        tables,
        pool,
        interrupts,
        timer,
        engines: devices.engines,
        absent_engines: devices.absent_engines,
        unmodelled_engines: devices.unmodelled_engines,
        mailbox: devices.mailbox,
        fw_cfg: devices.fw_cfg,
        absent_cores,
        payload,
        seed,
        dmatest: cmdline.dmatest,
    });
    Ok((machine, cmdline))
}

/// Who has the registers that no board's driver has.
const CONSOLE: &str = "console";
const GIC: &str = "interrupt controller";

/// The console UART. Without one there is nobody to tell; the run goes on.
fn start_console(board: &dyn Board, ioremap: &MapRegisters) -> Result<(), BootFault> {
    board.prepare_console(&EarlyPlatform { ioremap });
    let description = board.uart();
    let registers = PhysRange::new(description.base, description.base + PAGE);
    let base = ioremap(registers, CONSOLE)?;
    // SAFETY: the board says that a PL011 is there; it is mapped as Device memory for good and
    // handed to nobody else.
    let mut uart = unsafe { Uart::new(base) };
    if let Some((hz, baud)) = description.clock {
        // A UART that cannot be set up may still work as it was left.
        let _ = uart.configure(hz, baud);
    }
    console::install(uart);
    Ok(())
}

fn find_gic(
    board: &dyn Board,
    description: &Description<'_>,
    ioremap: &MapRegisters,
) -> Result<Gic, BootFault> {
    let built_in = board.gic();
    let at = |base: PhysAddr, size| PhysRange::new(base, base + size);
    let controller = description.interrupt_controller.unwrap_or_else(|| {
        // The CPU knows whether it has the system register interface of a GICv3.
        match built_in
            .redistributors
            .filter(|_| cpu::has_gic_system_registers())
        {
            Some(redistributors) => InterruptController::GicV3 {
                distributor: at(built_in.distributor, GICV3_GICD_SIZE),
                redistributors: at(redistributors, MAX_CPUS * GICR_SIZE),
            },
            None => InterruptController::GicV2 {
                distributor: at(built_in.distributor, PAGE),
                cpu_interface: at(built_in.cpu_interface, GICC_SIZE),
            },
        }
    });
    let gic = match controller {
        InterruptController::GicV2 {
            distributor,
            cpu_interface,
        } => {
            let (distributor, cpu_interface) =
                (ioremap(distributor, GIC)?, ioremap(cpu_interface, GIC)?);
            // SAFETY: the device tree or the board says that a GICv2 is there.
            unsafe { Gic::v2(distributor, cpu_interface) }
        }
        InterruptController::GicV3 {
            distributor,
            redistributors,
        } => {
            let (distributor, redistributors) =
                (ioremap(distributor, GIC)?, ioremap(redistributors, GIC)?);
            // SAFETY: as above, of a GICv3.
            unsafe { Gic::v3(distributor, redistributors) }?
        }
    };
    gic.init()?;
    Ok(gic)
}

/// What every core does for itself: its interrupt interface, timer and events, then SErrors and
/// IRQs on.
fn set_up_core(interrupts: &Interrupts) -> Result<(), GicError> {
    interrupts.gic().init_core()?;
    for line in KICK.into_iter().chain([VIRTUAL_TIMER]) {
        interrupts.gic().enable(line)?;
    }
    counter::enable_event_stream();
    // A bus error after the fact is reported at once, not at the next reset.
    cpu::serror_enable();
    cpu::irq_enable();
    Ok(())
}

fn kick(core: usize) {
    if let (Some(interrupts), Some(line)) = (irq::interrupts(), KICK) {
        // A core without an interrupt interface is not online and never kicked.
        let _ = interrupts.gic().send_sgi(line, core);
    }
}

/// Starts every other core; returns those that stay away.
fn start_cores(
    board: &dyn Board,
    image: &Image,
    entry_level: u8,
    description: &Description<'_>,
    in_ram: impl Fn(PhysAddr) -> bool,
    timer: &Timer,
) -> heapless::Vec<StartError, MAX_CPUS> {
    let own = cpu::affinity();
    // At EL3 nobody has started the other cores one by one: they came in together.
    let parked = entry_level == 3;
    let mut cores = description.cpus.clone();
    let is_guess = cores.is_empty();
    if is_guess {
        cores = match board.secondary_start() {
            SecondaryStart::SpinTable(words) => words
                .iter()
                .zip(0..MAX_CPUS as u64)
                .map(|(&release, mpidr)| Cpu {
                    mpidr,
                    enable_method: EnableMethod::SpinTable { release },
                })
                .collect(),
            // Who came in with us shows when it answers.
            SecondaryStart::ParkedOnly if parked => (0..MAX_CPUS as u64)
                .map(|mpidr| Cpu {
                    mpidr,
                    enable_method: EnableMethod::None,
                })
                .collect(),
            SecondaryStart::ParkedOnly => cores,
        };
    }
    // SAFETY: the device tree has a PSCI node.
    let psci = description
        .psci
        .map(|conduit| unsafe { Psci::new(conduit) });
    let mut absent = heapless::Vec::new();
    let others = cores.iter().filter(|core| core.mpidr != own);
    for (number, core) in others.enumerate() {
        let index = number + 1;
        let started = secondary::start(image, index, core, parked, psci.as_ref(), &in_ram, timer);
        if let Err(error) = started {
            let is_silent = matches!(error, StartError::Silent(_));
            if !(is_silent && is_guess) {
                // As many entries as cores at most.
                let _ = absent.push(error);
            }
            if is_silent {
                // Should it wake up late, it must not find another core's number.
                break;
            }
        }
    }
    absent
}
