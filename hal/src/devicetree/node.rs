//! What each kind of node contributes to a [`Description`].

use super::level::Level;
use super::{
    BcmDma, CmaNode, CmaPlace, Cpu, Description, EnableMethod, Fault, InterruptController, PciHost,
    PciWindow, Problem, PsciConduit, ReservedRange, Timer,
};
use crate::addr::{PhysAddr, PhysRange};
use crate::sync::MAX_CPUS;

/// The longest command line taken: arm64 Linux's `COMMAND_LINE_SIZE`.
const MAX_BOOTARGS: usize = 2048;

/// The affinity fields of `MPIDR_EL1` (Arm ARM D24.2.114): Aff3, Aff2, Aff1, Aff0.
const MPIDR_AFFINITY: u64 = 0xFF_00FF_FFFF;

/// Bytes of configuration space per PCI bus: 32 devices, 8 functions, 4 KiB (PCI Express Base
/// Specification, 7.2.2).
const ECAM_BUS_SIZE: u64 = 1 << 20;

/// `ss` bits of the first cell of a PCI address (IEEE Std 1275 PCI bus binding, 2.2.1.1).
const PCI_SPACE_SHIFT: u32 = 24;
const PCI_SPACE_MASK: u64 = 0b11;
/// Memory space below 4 GiB.
const PCI_SPACE_MEMORY32: u64 = 0b10;

/// Cells of an interrupt of the GIC: type, number, flags (Linux `arm,gic.yaml`).
const GIC_INTERRUPT_CELLS: [u32; 3] = [1, 1, 1];
/// The type of a private peripheral interrupt.
const GIC_PPI: u64 = 1;
/// The interrupt ID of the first private peripheral interrupt (GIC architecture, 2.2.1).
const GIC_FIRST_PPI: u64 = 16;
/// Private peripheral interrupts.
const GIC_PPIS: u64 = 16;

const GIC_V2: &[&str] = &["arm,cortex-a15-gic", "arm,gic-400"];
const GIC_V3: &[&str] = &["arm,gic-v3"];
const PSCI: &[&str] = &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
const PCI: &[&str] = &["pci-host-ecam-generic"];
const BCM2835_DMA: &[&str] = &["brcm,bcm2835-dma"];
const BCM2711_DMA: &[&str] = &["brcm,bcm2711-dma"];
/// Where an area may be allocated, pairs of address and size.
const ALLOC_RANGES: &str = "alloc-ranges";
const CMA: &[&str] = &["shared-dma-pool"];
const TIMER: &[&str] = &["arm,armv8-timer"];

/// Adds what the node says. The error is a problem with memory; any other is reported in the
/// description.
pub(super) fn read<'a>(
    description: &mut Description<'a>,
    level: &Level<'_, 'a>,
) -> Result<(), Problem<'a>> {
    match level.parent {
        None => return Ok(()),
        Some(root) if root.depth == 0 => {
            if level.value("device_type") == Some(b"memory\0") {
                return memory(description, level);
            }
            if level.base_name() == "chosen" {
                chosen(description, level);
                return Ok(());
            }
        }
        Some(parent) if parent.depth == 1 => match parent.base_name() {
            "reserved-memory" => return reserved_memory(description, level),
            "cpus" if level.base_name() == "cpu" => {
                if let Err(problem) = cpu(description, level) {
                    description.report(problem);
                }
                return Ok(());
            }
            _ => {}
        },
        Some(_) => {}
    }
    if let Err(problem) = device(description, level) {
        description.report(problem);
    }
    Ok(())
}

/// An entry of the memory reservation block.
pub(super) fn memory_reservation<'a>(
    description: &mut Description<'a>,
    base: u64,
    size: u64,
) -> Result<(), Problem<'a>> {
    let problem = |fault| Problem {
        node: "/",
        property: "/memreserve/",
        fault,
    };
    let range = PhysRange::from_size(PhysAddr::new(base), size)
        .ok_or_else(|| problem(Fault::Wraps { base, size }))?;
    let entry = ReservedRange {
        range,
        no_map: false,
    };
    let entries = &mut description.reserved;
    let capacity = entries.capacity();
    entries
        .push(entry)
        .map_err(|_| problem(Fault::TooMany(capacity)))
}

fn memory<'a>(description: &mut Description<'a>, level: &Level<'_, 'a>) -> Result<(), Problem<'a>> {
    if !level.is_enabled() {
        // For example the secure world's own memory.
        return Ok(());
    }
    for (base, size) in level.reg()? {
        let range = level.range("reg", base, size)?;
        description
            .ram
            .push(range)
            .map_err(|_| level.problem("reg", Fault::TooMany(description.ram.capacity())))?;
    }
    Ok(())
}

fn reserved_memory<'a>(
    description: &mut Description<'a>,
    level: &Level<'_, 'a>,
) -> Result<(), Problem<'a>> {
    let reusable = level.value("reusable").is_some() && level.value("no-map").is_none();
    if reusable && level.is_enabled() && level.compatible().lists(CMA) {
        match cma(level) {
            Ok(node) => {
                if description.cma.push(node).is_err() {
                    let capacity = description.cma.capacity();
                    description.report(level.problem("reusable", Fault::TooMany(capacity)));
                }
            }
            // What is left out is ordinary memory.
            Err(problem) => description.report(problem),
        }
        return Ok(());
    }
    // A node without `reg` asks for memory to be allocated; nothing is reserved yet.
    if !level.is_enabled() || level.value("reg").is_none() {
        return Ok(());
    }
    let no_map = level.value("no-map").is_some();
    for (base, size) in level.reg()? {
        let range = level.range("reg", base, size)?;
        let entries = &mut description.reserved;
        let capacity = entries.capacity();
        entries
            .push(ReservedRange { range, no_map })
            .map_err(|_| level.problem("reg", Fault::TooMany(capacity)))?;
    }
    Ok(())
}

/// A contiguous memory area. Without `reg` it may lie anywhere in the first of `alloc-ranges`.
fn cma<'a>(level: &Level<'_, 'a>) -> Result<CmaNode<'a>, Problem<'a>> {
    let place = if level.value("reg").is_some() {
        let entry = level.reg()?.next();
        let (base, size) = entry.ok_or_else(|| level.problem("reg", Fault::Length(0)))?;
        CmaPlace::Fixed(level.range("reg", base, size)?)
    } else {
        let within = match level.value(ALLOC_RANGES) {
            None => None,
            Some(value) => {
                let Some(parent) = level.parent else {
                    return Err(level.problem(ALLOC_RANGES, Fault::Missing));
                };
                let cells = [parent.address_cells()?, parent.size_cells()?];
                match level.entries(ALLOC_RANGES, value, cells)?.next() {
                    Some([base, size]) => Some(level.range(ALLOC_RANGES, base, size)?),
                    None => None,
                }
            }
        };
        CmaPlace::Anywhere {
            size: level.number("size")?,
            align: match level.value("alignment") {
                Some(_) => level.number("alignment")?,
                None => 0,
            },
            within,
        }
    };
    Ok(CmaNode {
        name: level.name(),
        place,
        is_default: level.value("linux,cma-default").is_some(),
    })
}

fn chosen<'a>(description: &mut Description<'a>, level: &Level<'_, 'a>) {
    match bootargs(level) {
        Ok(bootargs) => description.bootargs = bootargs,
        Err(problem) => description.report(problem),
    }
    match level.text("stdout-path") {
        Ok(path) => description.stdout_path = path,
        Err(problem) => description.report(problem),
    }
    match initrd(level) {
        Ok(initrd) => description.initrd = initrd,
        Err(problem) => description.report(problem),
    }
}

fn bootargs<'a>(level: &Level<'_, 'a>) -> Result<Option<&'a str>, Problem<'a>> {
    let text = level.text("bootargs")?;
    match text {
        Some(text) if text.len() > MAX_BOOTARGS => Err(level.problem(
            "bootargs",
            Fault::Exceeds {
                value: text.len() as u64,
                limit: MAX_BOOTARGS as u64,
            },
        )),
        _ => Ok(text),
    }
}

fn initrd<'a>(level: &Level<'_, 'a>) -> Result<Option<PhysRange>, Problem<'a>> {
    const START: &str = "linux,initrd-start";
    const END: &str = "linux,initrd-end";
    if level.value(START).is_none() && level.value(END).is_none() {
        return Ok(None);
    }
    let (start, end) = (level.number(START)?, level.number(END)?);
    let range = PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
    if range.is_empty() {
        return Err(level.problem(END, Fault::Backwards { start, end }));
    }
    Ok(Some(range))
}

fn cpu<'a>(description: &mut Description<'a>, level: &Level<'_, 'a>) -> Result<(), Problem<'a>> {
    // "disabled" means not yet started; only "fail" and "fail-..." mean unusable (Devicetree
    // Specification v0.4, 3.8.1).
    if level
        .text("status")?
        .is_some_and(|status| status.starts_with("fail"))
    {
        return Ok(());
    }
    let (mpidr, _) = level
        .reg()?
        .next()
        .ok_or_else(|| level.problem("reg", Fault::Missing))?;
    if mpidr & !MPIDR_AFFINITY != 0 {
        return Err(level.problem(
            "reg",
            Fault::Exceeds {
                value: mpidr,
                limit: MPIDR_AFFINITY,
            },
        ));
    }
    if description.cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
        return Err(level.problem("reg", Fault::Duplicate(mpidr)));
    }
    let enable_method = match level.text("enable-method")? {
        None => EnableMethod::None,
        Some("psci") => EnableMethod::Psci,
        Some("spin-table") => EnableMethod::SpinTable {
            release: release_address(level)?,
        },
        Some(other) => return Err(level.problem("enable-method", Fault::Unknown(other))),
    };
    let cpu = Cpu {
        mpidr,
        enable_method,
    };
    description
        .cpus
        .push(cpu)
        .map_err(|_| level.problem("reg", Fault::TooMany(MAX_CPUS)))
}

fn release_address<'a>(level: &Level<'_, 'a>) -> Result<PhysAddr, Problem<'a>> {
    const RELEASE: &str = "cpu-release-addr";
    let address = PhysAddr::new(level.number(RELEASE)?);
    if !address.is_aligned(8) {
        return Err(level.problem(RELEASE, Fault::Unaligned(address.get())));
    }
    Ok(address)
}

/// Reads a device that is recognised by `compatible`. The first of each kind counts.
fn device<'a>(description: &mut Description<'a>, level: &Level<'_, 'a>) -> Result<(), Problem<'a>> {
    let compatible = level.compatible();
    let wanted = |names| compatible.lists(names) && level.is_enabled();
    if description.interrupt_controller.is_none() && wanted(GIC_V2) {
        let [distributor, cpu_interface] = level.registers()?;
        description.interrupt_controller = Some(InterruptController::GicV2 {
            distributor,
            cpu_interface,
        });
    } else if description.interrupt_controller.is_none() && wanted(GIC_V3) {
        let [distributor, redistributors] = level.registers()?;
        description.interrupt_controller = Some(InterruptController::GicV3 {
            distributor,
            redistributors,
        });
    } else if description.psci.is_none() && wanted(PSCI) {
        description.psci = Some(psci(level)?);
    } else if description.pci.is_none() && wanted(PCI) {
        description.pci = Some(pci_host(level)?);
    } else if description.bcm2835_dma.is_none() && wanted(BCM2835_DMA) {
        description.bcm2835_dma = Some(bcm_dma(level)?);
    } else if description.bcm2711_dma.is_none() && wanted(BCM2711_DMA) {
        description.bcm2711_dma = Some(bcm_dma(level)?);
    } else if description.timer.is_none() && wanted(TIMER) {
        description.timer = Some(timer(level)?);
    }
    Ok(())
}

fn psci<'a>(level: &Level<'_, 'a>) -> Result<PsciConduit, Problem<'a>> {
    match level.text("method")? {
        Some("hvc") => Ok(PsciConduit::Hvc),
        Some("smc") => Ok(PsciConduit::Smc),
        Some(other) => Err(level.problem("method", Fault::Unknown(other))),
        None => Err(level.problem("method", Fault::Missing)),
    }
}

fn bcm_dma<'a>(level: &Level<'_, 'a>) -> Result<BcmDma, Problem<'a>> {
    const MASK: &str = "brcm,dma-channel-mask";
    let [registers] = level.registers()?;
    let mask = level.number(MASK)?;
    let channel_mask = u32::try_from(mask).map_err(|_| {
        level.problem(
            MASK,
            Fault::Exceeds {
                value: mask,
                limit: u32::MAX.into(),
            },
        )
    })?;
    Ok(BcmDma {
        registers,
        channel_mask,
    })
}

fn pci_host<'a>(level: &Level<'_, 'a>) -> Result<PciHost, Problem<'a>> {
    let [ecam] = level.registers()?;
    let (first_bus, last_bus) = bus_range(level)?;
    let held = (ecam.size() / ECAM_BUS_SIZE).min(256);
    let buses = u64::from(last_bus - first_bus) + 1;
    if buses > held {
        return Err(level.problem(
            "bus-range",
            Fault::Exceeds {
                value: buses,
                limit: held,
            },
        ));
    }
    Ok(PciHost {
        ecam,
        first_bus,
        last_bus,
        memory: pci_memory(level)?,
    })
}

fn bus_range<'a>(level: &Level<'_, 'a>) -> Result<(u8, u8), Problem<'a>> {
    const PROPERTY: &str = "bus-range";
    let Some(value) = level.value(PROPERTY) else {
        return Ok((0, u8::MAX));
    };
    let [start, end] = level
        .entries(PROPERTY, value, [1, 1])?
        .next()
        .ok_or_else(|| level.problem(PROPERTY, Fault::Length(0)))?;
    match (u8::try_from(start), u8::try_from(end)) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(level.problem(PROPERTY, Fault::Backwards { start, end })),
    }
}

/// The first window of 32-bit memory space.
fn pci_memory<'a>(level: &Level<'_, 'a>) -> Result<PciWindow, Problem<'a>> {
    const PROPERTY: &str = "ranges";
    let parent_cells = match level.parent {
        Some(parent) => parent.address_cells()?,
        None => return Err(level.problem(PROPERTY, Fault::Missing)),
    };
    // A PCI address is one cell of flags and two of address.
    let cells = [1, 2, parent_cells, level.size_cells()?];
    let [_, bus, cpu, size] = level
        .entries(PROPERTY, level.required(PROPERTY)?, cells)?
        .find(|[flags, ..]| flags >> PCI_SPACE_SHIFT & PCI_SPACE_MASK == PCI_SPACE_MEMORY32)
        .ok_or_else(|| level.problem(PROPERTY, Fault::Missing))?;
    let limit = 1 << 32;
    if bus.checked_add(size).is_none_or(|end| end > limit) {
        return Err(level.problem(PROPERTY, Fault::Wraps { base: bus, size }));
    }
    Ok(PciWindow {
        cpu: level.translate(PROPERTY, cpu, size)?,
        bus,
    })
}

fn timer<'a>(level: &Level<'_, 'a>) -> Result<Timer, Problem<'a>> {
    const PROPERTY: &str = "interrupts";
    let value = level.required(PROPERTY)?;
    let mut entries = level.entries(PROPERTY, value, GIC_INTERRUPT_CELLS)?;
    let mut next = || match entries.next() {
        Some([GIC_PPI, number, _]) if number < GIC_PPIS => Ok((GIC_FIRST_PPI + number) as u32),
        Some([_, number, _]) => Err(level.problem(
            PROPERTY,
            Fault::Exceeds {
                value: number,
                limit: GIC_PPIS - 1,
            },
        )),
        None => Err(level.problem(PROPERTY, Fault::Length(value.len()))),
    };
    Ok(Timer {
        secure_physical: next()?,
        physical: next()?,
        virtual_timer: next()?,
        hypervisor: next()?,
    })
}
