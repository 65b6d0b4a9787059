//! Who uses which registers.

use crate::addr::PhysRange;
use crate::sync::IrqLock;

/// Most ranges claimed at once.
const MAX_CLAIMS: usize = 64;

/// Why a range was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The range holds no byte.
    #[error("{0} is empty")]
    Empty(PhysRange),
    /// Somebody else has part of it.
    #[error("cannot claim {range}: {holder} has {held}")]
    Busy {
        /// The range asked for.
        range: PhysRange,
        /// What is claimed already.
        held: PhysRange,
        /// By whom.
        holder: &'static str,
    },
    /// There are as many claims as can be noted.
    #[error("{0} ranges are claimed, the limit")]
    TooMany(usize),
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    range: PhysRange,
    owner: &'static str,
}

static CLAIMS: IrqLock<heapless::Vec<Claim, MAX_CLAIMS>> = IrqLock::new(heapless::Vec::new());

/// A range of device memory that belongs to one driver, until dropped. Linux: `struct resource`.
///
/// It keeps nobody from mapping the registers; drivers that all claim what they map find out when
/// two of them think that a device is theirs.
#[derive(Debug)]
#[must_use = "the claim ends when it is dropped"]
pub struct Resource(Claim);

impl Resource {
    /// What is claimed.
    pub const fn range(&self) -> PhysRange {
        self.0.range
    }

    /// By whom.
    pub const fn owner(&self) -> &'static str {
        self.0.owner
    }
}

/// Claims the device memory `range` for `owner`. May be called in any context. Linux:
/// `request_mem_region`.
///
/// # Errors
///
/// [`ResourceError::Busy`] names who has part of it already.
pub fn request_mem_region(
    range: PhysRange,
    owner: &'static str,
) -> Result<Resource, ResourceError> {
    if range.is_empty() {
        return Err(ResourceError::Empty(range));
    }
    let mut claims = CLAIMS.lock();
    if let Some(other) = claims.iter().find(|claim| claim.range.overlaps(&range)) {
        return Err(ResourceError::Busy {
            range,
            held: other.range,
            holder: other.owner,
        });
    }
    let claim = Claim { range, owner };
    let noted = claims.push(claim);
    noted.map_err(|_| ResourceError::TooMany(MAX_CLAIMS))?;
    Ok(Resource(claim))
}

/// The ranges that are claimed and by whom, in the order they were claimed. Any context. Linux:
/// `/proc/iomem`.
#[doc(alias = "iomem")]
pub fn claimed_regions() -> impl Iterator<Item = (PhysRange, &'static str)> {
    let claims = CLAIMS.lock().clone();
    claims.into_iter().map(|claim| (claim.range, claim.owner))
}

/// Gives the range up. Linux: `release_mem_region`.
impl Drop for Resource {
    fn drop(&mut self) {
        // Claims do not overlap and are not empty, so the range names one.
        CLAIMS.lock().retain(|claim| claim.range != self.0.range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;

    fn range(start: u64, size: u64) -> PhysRange {
        PhysRange::from_size(PhysAddr::new(start), size).unwrap()
    }

    #[test]
    fn a_second_claim_that_overlaps_names_the_holder() {
        let uart = range(0x0900_0000, 0x1000);
        let first = request_mem_region(uart, "uart").unwrap();
        assert_eq!((first.range(), first.owner()), (uart, "uart"));
        for other in [uart, range(0x0900_0FFF, 1), range(0x08FF_FFFF, 2)] {
            let busy = ResourceError::Busy {
                range: other,
                held: uart,
                holder: "uart",
            };
            assert_eq!(request_mem_region(other, "spi").err(), Some(busy));
        }
        let behind = request_mem_region(range(0x0900_1000, 1), "rtc").unwrap();
        let both = [(uart, "uart"), (range(0x0900_1000, 1), "rtc")];
        assert!(claimed_regions().eq(both));
        drop(first);
        drop(request_mem_region(uart, "spi").unwrap());
        drop(behind);
        assert_eq!(claimed_regions().count(), 0);
        let empty = range(0x0900_0000, 0);
        assert_eq!(
            request_mem_region(empty, "none").err(),
            Some(ResourceError::Empty(empty))
        );
    }
}
