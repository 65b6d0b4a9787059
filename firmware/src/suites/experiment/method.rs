//! Memory by method.

use crate::experiment::Method;
use crate::handed::{Bare, Fault, Handed};
use crate::memory::contiguous::Contiguous;
use crate::memory::hoard::LOWEST_ZONE;
use crate::memory::{Area, Object, reachable};
use hal::addr::PAGE_SIZE;
use hal::dma::{Device, DmaPool, coherent};
use hal::mm::{self, Gfp};

/// Calls `f` with `len` zeroed bytes or more for `device`, handed over as `method` does it. `None`
/// where there is no contiguous memory area.
pub(super) fn with<T>(
    method: Method,
    device: &'static Device,
    len: usize,
    f: impl FnOnce(&mut dyn Handed) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    if method.is_raw() {
        return maintained(method, device, len, |memory| f(&mut Bare(memory)));
    }
    maintained(method, device, len, f)
}

/// As [`with`], but what is handed over bare is maintained all the same.
pub(super) fn maintained<T>(
    method: Method,
    device: &'static Device,
    len: usize,
    f: impl FnOnce(&mut dyn Handed) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let result = match method {
        Method::KmallocRaw | Method::KmallocMap => f(&mut Object::zeroed(len, reachable(device))?)?,
        Method::VmallocRaw | Method::VmallocSg => {
            f(&mut Area::alloc_with(len, LOWEST_ZONE | Gfp::ZERO)?)?
        }
        Method::Coherent => f(&mut coherent::alloc(device, len, Gfp::KERNEL)?)?,
        Method::Pool => {
            let pool = DmaPool::create("experiment", device, len, 0, 0)?;
            f(&mut pool.alloc(Gfp::KERNEL | Gfp::ZERO)?)?
        }
        Method::Cma => {
            let Some(cma) = mm::default_cma() else {
                return Ok(None);
            };
            let mut memory = Contiguous::alloc(cma, len.div_ceil(PAGE_SIZE) as u32, 0)?;
            // `cma_alloc` does not.
            memory.fill(0);
            f(&mut memory)?
        }
    };
    Ok(Some(result))
}
