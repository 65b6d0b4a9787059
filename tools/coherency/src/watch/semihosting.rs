//! Calls that QEMU answers in the place of a debugger, and what it writes then (Arm, Semihosting for
//! AArch32 and AArch64).

use super::{Watch, general};
use crate::checker::Who;
use crate::lines::{PAGE, parts};
use crate::register::Registers;
use std::ops::Range;

/// Operations that write memory.
const SYS_READ: u32 = 0x06;
const SYS_TMPNAM: u32 = 0x0D;
const SYS_GET_CMDLINE: u32 = 0x15;
const SYS_HEAPINFO: u32 = 0x16;
const SYS_ELAPSED: u32 = 0x30;

/// Bytes of a field of the block of parameters, of which no operation has more than this many.
const FIELD: u64 = 8;
const FIELDS: usize = 4;

impl Watch {
    /// `HLT #0xF000` is about to be executed: the operation is in `W0`, and `X1` points to its parameters.
    pub(super) fn semihosting(&mut self, who: Who, registers: &mut impl Registers) {
        let operation = self.readable(general(0, registers));
        let block = self.readable(general(1, registers));
        let (Some(operation), Some(block)) = (operation, block) else {
            return;
        };
        // CAST: the upper half is not looked at.
        for range in self.written_by(who, operation as u32, block, registers) {
            self.host_wrote(who, range, registers);
        }
    }

    /// What QEMU may write, as virtual addresses.
    fn written_by(
        &mut self,
        who: Who,
        operation: u32,
        block: u64,
        registers: &mut impl Registers,
    ) -> Vec<Range<u64>> {
        let mut fields = [0; FIELDS];
        for (index, field) in (0..).zip(&mut fields) {
            let at = block.wrapping_add(index * FIELD);
            *field = self.word(who, at, registers).unwrap_or(0);
        }
        let range = |start: u64, len: u64| start..start.saturating_add(len);
        let [first, second, third, _] = fields;
        match operation {
            SYS_READ => vec![range(second, third)],
            SYS_TMPNAM => vec![range(first, third)],
            // The length that was there goes into the block.
            SYS_GET_CMDLINE => vec![range(first, second), range(block, 2 * FIELD)],
            SYS_HEAPINFO => vec![range(first, FIELDS as u64 * FIELD)],
            SYS_ELAPSED => vec![range(block, FIELD)],
            _ => Vec::new(),
        }
    }

    fn word(&mut self, who: Who, va: u64, registers: &mut impl Registers) -> Option<u64> {
        let mut bytes = [0; FIELD as usize];
        // A field is aligned, and so in one page.
        let pa = self.walk(who.cpu, va / FIELD * FIELD, registers)?.pa;
        let is_ram = self.checker.memory().read(pa, &mut bytes);
        is_ram.then(|| u64::from_le_bytes(bytes))
    }

    /// Follows `range` as far as it is mapped RAM.
    fn host_wrote(&mut self, who: Who, range: Range<u64>, registers: &mut impl Registers) {
        for part in parts(range, PAGE) {
            let Some(found) = self.walk(who.cpu, part.start, registers) else {
                return;
            };
            let pa = found.pa..found.pa + (part.end - part.start);
            if self.checker.lines().find(pa.start).is_none() {
                return;
            }
            self.checker.host_wrote(&pa);
        }
    }
}
