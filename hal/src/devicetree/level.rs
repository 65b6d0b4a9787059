//! A node together with the buses above it.

use super::{Fault, Problem};
use crate::addr::{PhysAddr, PhysRange};
use core::ops::ControlFlow;
use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

/// Cells of an address where a bus does not say (Devicetree Specification v0.4, 2.3.5).
const DEFAULT_ADDRESS_CELLS: u32 = 2;
/// Cells of a size where a bus does not say.
const DEFAULT_SIZE_CELLS: u32 = 1;
/// The most cells 64 bits can hold.
const MAX_CELLS: u32 = 2;

/// The value of a `compatible` property: strings, each with its end.
#[derive(Clone, Copy)]
pub(super) struct Compatible<'a>(&'a [u8]);

impl Compatible<'_> {
    /// Whether one of `names` is listed.
    pub(super) fn lists(self, names: &[&str]) -> bool {
        self.0
            .split(|&byte| byte == 0)
            .any(|entry| names.iter().any(|name| name.as_bytes() == entry))
    }
}

/// A node on the path from the root to wherever a walk is.
pub(super) struct Level<'p, 'a> {
    node: FdtNode<'a>,
    pub(super) parent: Option<&'p Level<'p, 'a>>,
    /// Nodes above this one.
    pub(super) depth: usize,
}

impl<'a> Level<'_, 'a> {
    pub(super) fn root(node: FdtNode<'a>) -> Self {
        Self {
            node,
            parent: None,
            depth: 0,
        }
    }

    /// Visits this node and everything below it. The recursion is as deep as the nodes are nested,
    /// which [`MAX_DEPTH`](super::MAX_DEPTH) bounds.
    pub(super) fn walk<B>(
        &self,
        visit: &mut dyn FnMut(&Level<'_, 'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        visit(self)?;
        for node in self.node.children() {
            let child = Level {
                node,
                parent: Some(self),
                depth: self.depth + 1,
            };
            child.walk(visit)?;
        }
        ControlFlow::Continue(())
    }

    /// The node's name with its unit address.
    pub(super) fn name(&self) -> &'a str {
        self.node.name()
    }

    /// The node's name without its unit address.
    pub(super) fn base_name(&self) -> &'a str {
        self.node.name_without_address()
    }

    /// A problem with one of the node's properties.
    pub(super) fn problem(&self, property: &'static str, fault: Fault<'a>) -> Problem<'a> {
        Problem {
            node: self.name(),
            property,
            fault,
        }
    }

    /// A property's bytes.
    pub(super) fn value(&self, property: &str) -> Option<&'a [u8]> {
        self.node.property(property)?.value_as::<&'a [u8]>().ok()
    }

    /// A property's bytes; its absence is a problem.
    pub(super) fn required(&self, property: &'static str) -> Result<&'a [u8], Problem<'a>> {
        self.value(property)
            .ok_or_else(|| self.problem(property, Fault::Missing))
    }

    /// A property's first string.
    pub(super) fn text(&self, property: &'static str) -> Result<Option<&'a str>, Problem<'a>> {
        let Some(value) = self.value(property) else {
            return Ok(None);
        };
        core::ffi::CStr::from_bytes_until_nul(value)
            .ok()
            .and_then(|text| text.to_str().ok())
            .map(Some)
            .ok_or_else(|| self.problem(property, Fault::Text))
    }

    /// A number of one or two cells, however many the property has.
    pub(super) fn number(&self, property: &'static str) -> Result<u64, Problem<'a>> {
        let value = self.required(property)?;
        if let Ok(cell) = <[u8; 4]>::try_from(value) {
            Ok(u32::from_be_bytes(cell).into())
        } else if let Ok(cells) = <[u8; 8]>::try_from(value) {
            Ok(u64::from_be_bytes(cells))
        } else {
            Err(self.problem(property, Fault::Length(value.len())))
        }
    }

    /// What the node is compatible with.
    pub(super) fn compatible(&self) -> Compatible<'a> {
        Compatible(self.value("compatible").unwrap_or_default())
    }

    /// Whether `status` is absent or okay; a disabled device is not there for us.
    pub(super) fn is_enabled(&self) -> bool {
        match self.value("status") {
            None => true,
            Some(status) => status == b"okay\0" || status == b"ok\0",
        }
    }

    /// Whether the device snoops the caches: the nearest node that says so, upwards, decides.
    pub(super) fn is_dma_coherent(&self) -> bool {
        self.upwards()
            .find_map(|level| {
                if level.value("dma-coherent").is_some() {
                    Some(true)
                } else {
                    level.value("dma-noncoherent").map(|_| false)
                }
            })
            .unwrap_or(false)
    }

    /// This node, its parent and so on up to the root.
    fn upwards(&self) -> impl Iterator<Item = &Level<'_, 'a>> {
        core::iter::successors(Some(self), |level| level.parent)
    }

    /// `#address-cells` of the addresses of this node's children.
    pub(super) fn address_cells(&self) -> Result<u32, Problem<'a>> {
        self.cell_count("#address-cells", DEFAULT_ADDRESS_CELLS)
    }

    /// `#size-cells` of the sizes of this node's children.
    pub(super) fn size_cells(&self) -> Result<u32, Problem<'a>> {
        self.cell_count("#size-cells", DEFAULT_SIZE_CELLS)
    }

    fn cell_count(&self, property: &'static str, default: u32) -> Result<u32, Problem<'a>> {
        match self.value(property) {
            None => Ok(default),
            Some(value) => <[u8; 4]>::try_from(value)
                .map(u32::from_be_bytes)
                .map_err(|_| self.problem(property, Fault::Length(value.len()))),
        }
    }

    /// The entries of `reg` on the bus above, untranslated.
    pub(super) fn reg(&self) -> Result<impl Iterator<Item = (u64, u64)> + use<'a>, Problem<'a>> {
        let (address, size) = match self.parent {
            Some(bus) => (bus.address_cells()?, bus.size_cells()?),
            None => (DEFAULT_ADDRESS_CELLS, DEFAULT_SIZE_CELLS),
        };
        let entries = self.entries("reg", self.required("reg")?, [address, size])?;
        Ok(entries.map(|[address, size]| (address, size)))
    }

    /// The first `N` entries of `reg` as the CPU addresses them.
    pub(super) fn registers<const N: usize>(&self) -> Result<[PhysRange; N], Problem<'a>> {
        let mut ranges = [PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)); N];
        let mut entries = self.reg()?;
        for range in &mut ranges {
            let (base, size) = entries
                .next()
                .ok_or_else(|| self.problem("reg", Fault::Missing))?;
            *range = self.translate("reg", base, size)?;
        }
        Ok(ranges)
    }

    /// Translates an address on the bus above this node into one of the CPU's, through the
    /// `ranges` of every bus up to the root.
    pub(super) fn translate(
        &self,
        property: &'static str,
        base: u64,
        size: u64,
    ) -> Result<PhysRange, Problem<'a>> {
        let lost = || self.problem(property, Fault::Untranslatable(base));
        let mut address = base;
        let mut level = self.parent;
        while let Some(bus) = level
            && let Some(above) = bus.parent
        {
            // A bus without `ranges` passes nothing on, an empty `ranges` everything unchanged.
            let ranges = bus.value("ranges").ok_or_else(lost)?;
            if !ranges.is_empty() {
                let cells = [
                    bus.address_cells()?,
                    above.address_cells()?,
                    bus.size_cells()?,
                ];
                address = bus
                    .entries("ranges", ranges, cells)?
                    .find_map(|[child, parent, length]| {
                        let offset = address.checked_sub(child)?;
                        let end = offset.checked_add(size)?;
                        if end <= length {
                            parent.checked_add(offset)
                        } else {
                            None
                        }
                    })
                    .ok_or_else(lost)?;
            }
            level = Some(above);
        }
        let range = self.range(property, address, size)?;
        if range.is_empty() {
            return Err(self.problem(
                property,
                Fault::Backwards {
                    start: address,
                    end: address,
                },
            ));
        }
        Ok(range)
    }

    /// The `size` bytes from `base`; a range that wraps is a problem.
    pub(super) fn range(
        &self,
        property: &'static str,
        base: u64,
        size: u64,
    ) -> Result<PhysRange, Problem<'a>> {
        PhysRange::from_size(PhysAddr::new(base), size)
            .ok_or_else(|| self.problem(property, Fault::Wraps { base, size }))
    }

    /// Splits `value` into entries of `N` numbers of `cells` cells each.
    pub(super) fn entries<const N: usize>(
        &self,
        property: &'static str,
        value: &'a [u8],
        cells: [u32; N],
    ) -> Result<impl Iterator<Item = [u64; N]> + use<'a, N>, Problem<'a>> {
        if let Some(&count) = cells.iter().find(|&&count| count > MAX_CELLS) {
            return Err(self.problem(property, Fault::Cells(count)));
        }
        let entry = 4 * cells.iter().sum::<u32>() as usize;
        if entry == 0 {
            return Err(self.problem(property, Fault::Cells(0)));
        }
        if !value.len().is_multiple_of(entry) {
            return Err(self.problem(property, Fault::Length(value.len())));
        }
        Ok(value.chunks_exact(entry).map(move |entry| {
            let (words, _) = entry.as_chunks::<4>();
            let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
            cells.map(|count| {
                words
                    .by_ref()
                    .take(count as usize)
                    .fold(0, |number, cell| number << 32 | u64::from(cell))
            })
        }))
    }
}
