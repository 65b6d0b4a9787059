//! The firmware configuration device of the machine.

use crate::{DMA_COHERENT, WINDOWS};
use hal::addr::{PhysAddr, PhysRange};
use hal::board::Platform;
use hal::dma::{Device, DmaMask};
use hal::drivers::fw_cfg::{FwCfg, FwCfgError, REGISTERS_SIZE};
use hal::drivers::mmio::Mmio;
use hal::mm::IoremapError;
use hal::sync::Once;
use thiserror::Error;

/// What its node in a device tree is compatible with.
const COMPATIBLE: &str = "qemu,fw-cfg-mmio";

/// Where QEMU puts it, for when no device tree says (`hw/arm/virt.c`).
const BUILT_IN: PhysAddr = PhysAddr::new(0x0902_0000);

// SAFETY: the device takes addresses of 64 bits and sees memory where the CPU does.
static DEVICE: Device = unsafe { Device::new("fw_cfg", DmaMask::new::<64>(), &WINDOWS) };

static FW_CFG: Once<FwCfg> = Once::new();

#[derive(Debug, Error)]
pub(crate) enum BringUpError {
    #[error("registers cannot be mapped: {0}")]
    Ioremap(#[from] IoremapError),
    #[error("the device tree puts the registers at {0}")]
    BadAddress(PhysAddr),
    #[error(transparent)]
    Probe(#[from] FwCfgError),
}

/// Finds the device and looks whether it answers.
pub(crate) fn bring_up(platform: &Platform<'_>) -> Result<&'static FwCfg, BringUpError> {
    let in_tree = platform.tree.and_then(|tree| tree.registers(COMPATIBLE));
    let base = in_tree.map_or(BUILT_IN, |registers| registers.start);
    let registers = PhysRange::from_size(base, REGISTERS_SIZE as u64);
    let registers = registers.ok_or(BringUpError::BadAddress(base))?;
    let va = (platform.ioremap)(registers, "fw_cfg")?;
    // SAFETY: the device tree or QEMU's map says that the device is there; its registers were just
    // mapped as Device memory for good, and nothing else uses them.
    let io = unsafe { Mmio::new(va, REGISTERS_SIZE) };
    let coherent = platform
        .dma_coherent
        .or_else(|| platform.tree?.dma_coherent(COMPATIBLE))
        .unwrap_or(DMA_COHERENT);
    DEVICE.set_coherent(coherent);
    let fw_cfg = FwCfg::probe(io, &DEVICE, platform.pool, platform.timer)?;
    (platform.note)(format_args!(
        "fw_cfg registers={base} dma=yes coherent={}",
        if coherent { "yes" } else { "no" }
    ));
    Ok(FW_CFG.call_once(|| fw_cfg))
}
