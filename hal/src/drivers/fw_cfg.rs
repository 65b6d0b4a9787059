//! QEMU's firmware configuration device, by its DMA interface (QEMU `docs/specs/fw_cfg.rst`).
//!
//! The device holds named files, among them those of QEMU's option `-fw_cfg name=..,file=..`, and
//! copies any part of one to memory. It is told by a descriptor in memory, whose address goes into
//! one register, and clears the descriptor's control word when it is done. All its numbers are
//! big-endian.
//!
//! What the device does beyond the end of a file - it writes zeros - is never asked of it: lengths
//! are compared with the directory first.

mod file;

pub use file::{File, FileName};

use super::mmio::{Mmio, RegisterIo};
use super::timer::Timer;
use crate::addr::DmaAddr;
use crate::arch::barrier;
use crate::dma::engine::{Destination, Source};
use crate::dma::streaming::map_slice;
use crate::dma::{Coherent, CoherentPool, Device, DmaError, DmaSegment, FromDevice};
use crate::sync::IrqLock;
use core::mem::ManuallyDrop;
use file::{ENTRY_WORDS, Entry};

/// Bytes of registers.
pub const REGISTERS_SIZE: usize = 0x18;

/// The address of a descriptor, 64 bits; the store starts the transfer. Reads [`SIGNATURE`].
const DMA_ADDRESS: usize = 0x10;
const SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

/// The item that every device has, and what it holds.
const ITEM_SIGNATURE: u16 = 0x0000;
const ITEM_SIGNATURE_BYTES: [u8; 4] = *b"QEMU";
/// The item with the device's revision, a little-endian word, and its bit for the DMA interface.
const ITEM_REVISION: u16 = 0x0001;
const REVISION_DMA: u32 = 1 << 1;
/// The item with the number of files, followed by an entry for each.
const ITEM_DIRECTORY: u16 = 0x0019;
/// Items whose number has this bit are of the architecture; 14 bits number the others.
const MAX_FILES: u32 = 1 << 14;

/// The control word: the transfer failed.
const CONTROL_ERROR: u32 = 1 << 0;
/// From the selected item to memory.
const CONTROL_READ: u32 = 1 << 1;
/// Over bytes of the selected item.
const CONTROL_SKIP: u32 = 1 << 2;
/// Selects the item in the upper half first, from its start.
const CONTROL_SELECT: u32 = 1 << 3;
/// From memory to the selected item.
const CONTROL_WRITE: u32 = 1 << 4;

/// The driver's coherent page: the descriptor at its start, and what it reads for itself.
const SCRATCH: usize = 64;

/// How long a transfer may take. QEMU ends it inside the store that starts it.
const TIMEOUT_NS: u64 = 100_000_000;

/// Why the device cannot be used, or a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// The DMA register does not hold what it must.
    #[error("fw_cfg's DMA register reads {0:#018x}")]
    Signature(u64),
    /// The first item is not QEMU's.
    #[error("fw_cfg's first item holds {0:x?}")]
    NotQemu([u8; 4]),
    /// The revision lacks the DMA interface.
    #[error("fw_cfg revision {0:#x} has no DMA interface")]
    NoDma(u32),
    /// The directory promises more files than there are items.
    #[error("fw_cfg has a directory of {0} files")]
    Directory(u32),
    /// No file has that name.
    #[error("fw_cfg has no file {0}")]
    NotFound(FileName),
    /// Longer than a name can be.
    #[error("a name of {0} bytes, which no fw_cfg file has")]
    NameLength(usize),
    /// The bytes do not lie in the file.
    #[error("{len:#x} bytes at offset {offset:#x} of a file of {size:#x} bytes")]
    PastEnd {
        /// The first byte.
        offset: u32,
        /// Bytes.
        len: usize,
        /// Bytes in the file.
        size: u32,
    },
    /// The device refused the transfer: it does not reach the memory, or the item is not writable.
    #[error("fw_cfg refused a transfer, control {0:#x}")]
    Refused(u32),
    /// The device did not clear the control word in time. It may still access memory.
    #[error("fw_cfg did not end a transfer within {TIMEOUT_NS} ns")]
    Timeout,
    /// An earlier transfer has not ended yet.
    #[error("fw_cfg still owes the end of a transfer")]
    Lost,
    /// The memory cannot be used for DMA.
    #[error(transparent)]
    Dma(#[from] DmaError),
}

/// The device.
///
/// Dropping it gives the driver's page back, unless a transfer has not ended: then the page is leaked.
#[derive(Debug)]
pub struct FwCfg<Io = Mmio> {
    device: &'static Device,
    inner: IrqLock<Inner<Io>>,
}

/// What the lock protects. The lock is taken last: no other is taken under it.
#[derive(Debug)]
struct Inner<Io> {
    io: Io,
    page: ManuallyDrop<Coherent>,
    timer: Timer,
    /// The transfer started last had not ended when it was looked at last.
    lost: bool,
}

impl<Io> Drop for Inner<Io> {
    /// The device may still access the page of a transfer that has not ended.
    fn drop(&mut self) {
        if !self.lost || self.is_over() {
            // SAFETY: it is dropped here only, and used nowhere afterwards.
            unsafe { ManuallyDrop::drop(&mut self.page) };
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

impl<Io: RegisterIo> FwCfg<Io> {
    /// Takes over the device with the registers `io` ([`REGISTERS_SIZE`] bytes), which is `device`
    /// on its bus, and looks whether it is what it should be.
    ///
    /// # Errors
    ///
    /// [`FwCfgError::Signature`], [`FwCfgError::NotQemu`], [`FwCfgError::NoDma`], those of the pool
    /// and of a transfer. After [`FwCfgError::Timeout`] the driver's page is leaked.
    pub fn probe(
        io: Io,
        device: &'static Device,
        pool: &'static CoherentPool,
        timer: Timer,
    ) -> Result<Self, FwCfgError> {
        let signature = u64::from_be(io.read64(DMA_ADDRESS));
        if signature != SIGNATURE {
            return Err(FwCfgError::Signature(signature));
        }
        let page = pool.alloc(device, SCRATCH + size_of::<[u32; ENTRY_WORDS]>())?;
        let mut inner = Inner {
            io,
            page: ManuallyDrop::new(page),
            timer,
            lost: false,
        };
        inner.check()?;
        Ok(Self {
            device,
            inner: IrqLock::new(inner),
        })
    }

    /// The device on its bus: whose memory is read into.
    pub const fn device(&self) -> &'static Device {
        self.device
    }

    /// Finds the file called `name`.
    ///
    /// # Errors
    ///
    /// [`FwCfgError::NotFound`], [`FwCfgError::NameLength`], [`FwCfgError::Directory`],
    /// [`FwCfgError::Refused`], [`FwCfgError::Timeout`], [`FwCfgError::Lost`].
    pub fn find(&self, name: &str) -> Result<File, FwCfgError> {
        let name = FileName::new(name).ok_or(FwCfgError::NameLength(name.len()))?;
        let mut inner = self.inner.lock();
        let [count] = inner.fetch(Some(ITEM_DIRECTORY))?;
        let count = u32::from_be(count);
        if count > MAX_FILES {
            return Err(FwCfgError::Directory(count));
        }
        for _ in 0..count {
            let entry = Entry::new(inner.fetch(None)?);
            if entry.name() == name {
                return Ok(entry.file());
            }
        }
        Err(FwCfgError::NotFound(name))
    }

    /// Reads the bytes at `offset` of `file` over all of `buffer`, by a streaming map.
    ///
    /// # Errors
    ///
    /// As for [`read_into`](Self::read_into), and those of [`map_slice`].
    ///
    /// # Panics
    ///
    /// As for [`read_into`](Self::read_into).
    pub fn read(&self, file: &File, offset: u32, buffer: &mut [u8]) -> Result<(), FwCfgError> {
        let mut mapping = map_slice::<FromDevice>(self.device, buffer)?;
        self.read_into(file, offset, &mut mapping)?;
        mapping.unmap();
        Ok(())
    }

    /// Reads the bytes at `offset` of `file` over all of `destination`, which was lent to
    /// [`device`](Self::device).
    ///
    /// May be called in any context. After an error some of the destination may have been written.
    ///
    /// # Errors
    ///
    /// [`FwCfgError::PastEnd`] with nothing read, [`FwCfgError::Refused`], [`FwCfgError::Lost`], and
    /// of [`DmaError`] `ZeroLength`, `OtherDevice`, `PartOfCpu` and `ForeignAddress`.
    ///
    /// # Panics
    ///
    /// If the device does not end the transfer: returning would give back memory that it may still
    /// write.
    pub fn read_into(
        &self,
        file: &File,
        offset: u32,
        destination: &mut dyn Destination,
    ) -> Result<(), FwCfgError> {
        let destination = &*destination;
        self.check_lent_to(destination.device())?;
        destination.check_lent()?;
        self.transfer(Way::Read, file, offset, &|index| destination.segment(index))
    }

    /// Writes all of `source`, which was lent to [`device`](Self::device), over the bytes at
    /// `offset` of `file`. QEMU refuses it for all but a few files of its own.
    ///
    /// May be called in any context.
    ///
    /// # Errors
    ///
    /// As for [`read_into`](Self::read_into).
    ///
    /// # Panics
    ///
    /// As for [`read_into`](Self::read_into).
    pub fn write_from(
        &self,
        file: &File,
        offset: u32,
        source: &dyn Source,
    ) -> Result<(), FwCfgError> {
        self.check_lent_to(source.device())?;
        source.check_lent()?;
        self.transfer(Way::Write, file, offset, &|index| source.segment(index))
    }

    fn check_lent_to(&self, lent_to: &Device) -> Result<(), DmaError> {
        if core::ptr::eq(lent_to, self.device) {
            return Ok(());
        }
        Err(DmaError::OtherDevice {
            lent_to: lent_to.name(),
            used_by: self.device.name(),
        })
    }

    /// Moves the bytes of all segments, each checked before the device is told of the first.
    fn transfer(
        &self,
        way: Way,
        file: &File,
        offset: u32,
        segment: &dyn Fn(usize) -> Option<DmaSegment>,
    ) -> Result<(), FwCfgError> {
        let segments = || (0..).map_while(segment);
        let mut len = 0_usize;
        for DmaSegment { addr, len: bytes } in segments() {
            self.device.check(addr, bytes)?;
            len = len.saturating_add(bytes);
        }
        if len == 0 {
            return Err(DmaError::ZeroLength.into());
        }
        let left = file.size().checked_sub(offset);
        if left.is_none_or(|left| len > left as usize) {
            return Err(FwCfgError::PastEnd {
                offset,
                len,
                size: file.size(),
            });
        }
        let control = match way {
            Way::Read => CONTROL_READ,
            Way::Write => CONTROL_WRITE,
        };
        let mut inner = self.inner.lock();
        let mut moved = inner.select(file.item(), offset);
        for DmaSegment { addr, len } in segments() {
            // No segment is longer than the file, whose size has 32 bits.
            moved = moved.and_then(|()| inner.run(control, addr.get(), len as u32));
        }
        drop(inner);
        if moved == Err(FwCfgError::Timeout) {
            panic!("fw_cfg does not end a transfer and may still access the memory it was given");
        }
        moved
    }
}

impl<Io: RegisterIo> Inner<Io> {
    /// Looks whether the device is QEMU's and has the DMA interface.
    fn check(&mut self) -> Result<(), FwCfgError> {
        let [signature] = self.fetch(Some(ITEM_SIGNATURE))?;
        let signature = signature.to_ne_bytes();
        if signature != ITEM_SIGNATURE_BYTES {
            return Err(FwCfgError::NotQemu(signature));
        }
        let [revision] = self.fetch(Some(ITEM_REVISION))?;
        let revision = u32::from_le(revision);
        if revision & REVISION_DMA == 0 {
            return Err(FwCfgError::NoDma(revision));
        }
        Ok(())
    }

    /// Selects `item` and skips `offset` bytes of it.
    fn select(&mut self, item: u16, offset: u32) -> Result<(), FwCfgError> {
        self.run(
            u32::from(item) << 16 | CONTROL_SELECT | CONTROL_SKIP,
            0,
            offset,
        )
    }

    /// Reads words of `item` from its start, or of the selected one from where it stands.
    fn fetch<const N: usize>(&mut self, item: Option<u16>) -> Result<[u32; N], FwCfgError> {
        const { assert!(N <= ENTRY_WORDS) };
        if let Some(item) = item {
            self.select(item, 0)?;
        }
        let scratch = self.page.dma_addr() + SCRATCH;
        self.run(CONTROL_READ, scratch.get(), size_of::<[u32; N]>() as u32)?;
        Ok(core::array::from_fn(|index| {
            self.word(SCRATCH + index * size_of::<u32>())
        }))
    }

    /// Runs one descriptor and waits for its end.
    fn run(&mut self, control: u32, addr: u64, len: u32) -> Result<(), FwCfgError> {
        if self.lost && !self.is_over() {
            return Err(FwCfgError::Lost);
        }
        self.lost = false;
        let words = [control, len, (addr >> 32) as u32, addr as u32];
        self.page.write_words(0, &words.map(u32::to_be))?;
        // The descriptor, and the maintenance of the buffer, are complete before the device looks.
        barrier::dsb_sy();
        let descriptor: DmaAddr = self.page.dma_addr();
        self.io.write64(DMA_ADDRESS, descriptor.get().to_be());
        let timer = self.timer;
        if !timer.poll_until(TIMEOUT_NS, || self.is_over()) {
            self.lost = true;
            return Err(FwCfgError::Timeout);
        }
        // Loads of what the device wrote come after the look that saw it done.
        barrier::dmb_oshld();
        match u32::from_be(self.word(0)) {
            0 => Ok(()),
            error => Err(FwCfgError::Refused(error)),
        }
    }
}

impl<Io> Inner<Io> {
    /// Whether the device is done with the descriptor.
    fn is_over(&self) -> bool {
        u32::from_be(self.word(0)) & !CONTROL_ERROR == 0
    }

    /// The word at byte `offset` of the page, as the device left it.
    fn word(&self, offset: usize) -> u32 {
        debug_assert!(offset.is_multiple_of(size_of::<u32>()) && offset < self.page.len());
        // SAFETY: the word lies in the page, which is aligned, mapped and this driver's.
        unsafe {
            self.page
                .as_ptr()
                .as_ptr()
                .add(offset)
                .cast::<u32>()
                .read_volatile()
        }
    }
}

#[cfg(test)]
mod tests;
