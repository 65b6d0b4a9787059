//! The DMA controller of a BCM2711 (BCM2711 ARM Peripherals, chapter 4): legacy channels 0 to 10, of
//! which 7 to 10 are lite ones, and DMA4 channels 11 to 14.
//!
//! The channels are modelled as silicon has them. QEMU's have the registers of a legacy channel all.

mod channel;
mod dma4;
mod legacy;
#[cfg(test)]
mod tests;

use super::found::Jobs;
use super::{Access, Device, Event, Memory, registers};
use channel::Channel;
use dma4::Dma4;
use legacy::{Kind, Legacy};
use std::ops::Range;

/// Bytes of registers.
const SIZE: u64 = 0x1000;
/// Bytes from one channel's registers to the next one's.
const STRIDE: u64 = 0x100;
/// Channels with the legacy layout: the first ones.
const LEGACY_CHANNELS: usize = 11;
/// The first lite channel.
const FIRST_LITE: usize = 7;
/// Channels with DMA4's layout: those that follow.
const DMA4_CHANNELS: usize = 4;

/// Interrupts of all channels, one bit each.
const INT_STATUS: u64 = 0xFE0;
/// Enabled channels, one bit each, and the GiB of RAM that they see.
const ENABLE: u64 = 0xFF0;
const ENABLE_PAGE_SHIFT: u32 = 24;
const ENABLE_PAGELITE_SHIFT: u32 = 28;
const ENABLE_PAGE_MASK: u32 = 0xF;
/// After a reset all channels are enabled, and see the first GiB.
const ENABLE_RESET: u32 = 0x7FFF;

/// The controller.
#[derive(Debug)]
pub struct Bcm2711Dma {
    base: u64,
    enable: u32,
    jobs: Jobs,
    legacy: [Channel; LEGACY_CHANNELS],
    dma4: [Channel; DMA4_CHANNELS],
}

impl Bcm2711Dma {
    /// The controller whose registers are at `base`.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            enable: ENABLE_RESET,
            jobs: Jobs::default(),
            legacy: Default::default(),
            dma4: Default::default(),
        }
    }

    fn is_enabled(&self, number: usize) -> bool {
        self.enable >> number & 1 != 0
    }

    fn legacy_of(&self, number: usize) -> Legacy {
        let (kind, shift) = match number {
            0..FIRST_LITE => (Kind::Full, ENABLE_PAGE_SHIFT),
            _ => (Kind::Lite, ENABLE_PAGELITE_SHIFT),
        };
        Legacy {
            kind,
            // CAST: four bits.
            page: (self.enable >> shift & ENABLE_PAGE_MASK) as u8,
        }
    }

    fn store(&mut self, offset: u64, value: u32, memory: &dyn Memory, events: &mut Vec<Event>) {
        if offset == ENABLE {
            self.enable = value;
            return;
        }
        let (number, register) = channel_of(offset);
        let is_enabled = self.is_enabled(number);
        let legacy = self.legacy_of(number);
        let jobs = &mut self.jobs;
        if let Some(channel) = self.legacy.get_mut(number) {
            channel.store(&legacy, is_enabled, register, value, jobs, memory, events);
        } else if let Some(channel) = self.dma4.get_mut(number - LEGACY_CHANNELS) {
            channel.store(&Dma4, is_enabled, register, value, jobs, memory, events);
        }
    }

    fn load(&mut self, offset: u64, value: u32, events: &mut Vec<Event>) {
        if offset == INT_STATUS {
            for (number, channel) in self.legacy.iter_mut().chain(&mut self.dma4).enumerate() {
                if value >> number & 1 != 0 {
                    channel.interrupted(events);
                }
            }
            return;
        }
        let (number, register) = channel_of(offset);
        let mut channels = self.legacy.iter_mut().chain(&mut self.dma4);
        if let Some(channel) = channels.nth(number) {
            channel.load(register, value, events);
        }
    }
}

/// The channel of a register, and the register's offset in it.
fn channel_of(offset: u64) -> (usize, u64) {
    // CAST: fewer than 16 in the controller's registers.
    ((offset / STRIDE) as usize, offset % STRIDE)
}

impl Device for Bcm2711Dma {
    fn name(&self) -> &str {
        "bcm2835-dma"
    }

    fn windows(&self) -> Vec<Range<u64>> {
        registers::window(self.base, SIZE)
    }

    fn watched(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn access(&mut self, access: &Access, memory: &dyn Memory, events: &mut Vec<Event>) {
        for (offset, value) in registers::covered(access, self.base) {
            match access.is_store {
                true => self.store(offset, value, memory, events),
                false => self.load(offset, value, events),
            }
        }
    }
}
