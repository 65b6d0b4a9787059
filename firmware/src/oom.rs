//! Which errors say that memory has run out: only they may follow from an allocation that was made
//! to fail (see [`failslab`](crate::failslab)). Any other error fails its test.

use crate::dmatest::BadOptions;
use crate::handed::Fault;
use crate::memory::contiguous::Retype;
use crate::pattern::Mismatch;
use core::fmt;
use hal::addr::VirtAddr;
use hal::alloc::{AllocError as ContainerError, PushError, RemoveError};
use hal::arch::exception::FaultReport;
use hal::dma::coherent::RunError;
use hal::dma::mask::BadMaskWidth;
use hal::dma::pool::PoolCreateError;
use hal::dma::{DmaError, DmaPoolError};
use hal::drivers::fw_cfg::FwCfgError;
use hal::drivers::gic::GicError;
use hal::drivers::irq::IrqError;
use hal::drivers::mailbox::MailboxError;
use hal::drivers::timer::TimerError;
use hal::mm::{
    AllocError, CacheError, CmaError, DestroyError, FreeError, IoremapError, KmapError,
    KvmallocError, ListError, MemoryTypeError, ObjectError, ReallocError, ResourceError,
    ShrinkerError, TooManyOwners, VmallocError,
};
use hal::mmu::MapError;
use hal::smp::SmpError;

/// An error of an operation that a test needs.
pub(crate) trait OutOfMemory {
    /// Whether it says that memory has run out.
    fn is_out_of_memory(&self) -> bool {
        false
    }
}

impl OutOfMemory for AllocError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::NoMemory { .. })
    }
}

impl OutOfMemory for MapError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfTables(_))
    }
}

impl OutOfMemory for VmallocError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Map(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl OutOfMemory for KvmallocError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Kmalloc(error) => error.is_out_of_memory(),
            Self::Vmalloc(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl OutOfMemory for ContainerError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Kmalloc(error) => error.is_out_of_memory(),
            Self::Vmalloc(error) => error.is_out_of_memory(),
            Self::Kvmalloc(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl OutOfMemory for ReallocError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Alloc(error) if error.is_out_of_memory())
    }
}

impl OutOfMemory for CmaError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::NoTarget(error) if error.is_out_of_memory())
    }
}

impl OutOfMemory for KmapError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Map(error) if error.is_out_of_memory())
    }
}

impl OutOfMemory for IoremapError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Map(error) if error.is_out_of_memory())
    }
}

impl OutOfMemory for DmaError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::NoMemory(error) => error.is_out_of_memory(),
            Self::Run(RunError::Contiguous(error)) => error.is_out_of_memory(),
            Self::Run(RunError::Tables(error)) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl OutOfMemory for DmaPoolError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Memory(error) => error.is_out_of_memory(),
            Self::Notes(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl OutOfMemory for Fault {
    fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Dma(error) => error.is_out_of_memory(),
            Self::Kmalloc(error) => error.is_out_of_memory(),
            Self::Vmalloc(error) => error.is_out_of_memory(),
            Self::Pool(error) => error.is_out_of_memory(),
            Self::Create(error) => error.is_out_of_memory(),
            Self::Cma(error) => error.is_out_of_memory(),
            Self::Unended { .. } => false,
        }
    }
}

impl OutOfMemory for Retype {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Tables(error) if error.is_out_of_memory())
    }
}

/// What has other reasons, whatever was made to fail.
macro_rules! other_reasons {
    ($($error:ty),* $(,)?) => { $(impl OutOfMemory for $error {})* };
}

other_reasons!(
    BadMaskWidth,
    BadOptions,
    CacheError,
    DestroyError,
    ListError,
    FaultReport,
    FreeError,
    FwCfgError,
    GicError,
    IrqError,
    MailboxError,
    MemoryTypeError,
    Mismatch,
    ObjectError,
    PoolCreateError,
    RemoveError,
    ResourceError,
    ShrinkerError,
    SmpError,
    TimerError,
    VirtAddr,
    fmt::Error,
    TooManyOwners,
    str,
);

impl<T> OutOfMemory for PushError<T> {}

impl<E: OutOfMemory + ?Sized> OutOfMemory for &E {
    fn is_out_of_memory(&self) -> bool {
        (**self).is_out_of_memory()
    }
}
