//! What QEMU calls.

use super::qemu::{self, PluginId};
use super::{Handles, MemInfo};
use crate::board;
use crate::checker::{Checker, Cores, Machine, Who};
use crate::decode::{self, Operation};
use crate::memory::RamFile;
use crate::options::Options;
use crate::register::{Register, Registers};
use crate::report::{Finding, Suppressions};
use crate::watch::Watch;
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::thread::ThreadId;

/// QEMU looks for the version of the interface that a plugin was made for.
#[unsafe(no_mangle)]
static qemu_plugin_version: c_int = qemu::VERSION;

/// What the plugin knows between callbacks.
enum State {
    /// QEMU has not yet made the machine.
    Installed(Options),
    /// The machine runs.
    Running(Box<Running>),
    /// Everything was reported.
    Ended,
}

struct Running {
    watch: Watch,
    registers: Handles,
    /// Operations by the number that their callbacks carry.
    operations: Vec<(u64, Operation)>,
    known: HashMap<(u64, u32), usize>,
    options: Options,
}

struct Global(UnsafeCell<Option<State>>);

// SAFETY: QEMU calls from one thread at a time. With `thread=single` all CPUs are one thread: `vcpu_init`
// ends the process on any other before that executes or gets here, by `OWNER`, which threads may ask at
// the same time. The other callbacks are made while that thread waits or has ended.
unsafe impl Sync for Global {}

static STATE: Global = Global(UnsafeCell::new(None));

/// The thread that all CPUs are on.
static OWNER: OnceLock<ThreadId> = OnceLock::new();

/// The state.
///
/// # Safety
///
/// No other reference to it is in use: callbacks do not nest.
unsafe fn state() -> &'static mut Option<State> {
    // SAFETY: the caller has the only reference.
    unsafe { &mut *STATE.0.get() }
}

/// The running machine.
///
/// # Safety
///
/// Called in a callback of QEMU's, once and without [`state`], and what it returns is used no longer than
/// that callback runs.
#[inline(always)]
unsafe fn running<'callback>() -> Option<&'callback mut Running> {
    // SAFETY: callbacks do not nest, so the one that the caller is in has the only reference.
    match unsafe { state() } {
        Some(State::Running(running)) => Some(running),
        _ => None,
    }
}

/// Ends QEMU.
fn refuse(reason: &str) -> ! {
    eprintln!("coherency: {reason}");
    // SAFETY: ends the process.
    unsafe { qemu::_exit(1) }
}

/// Called by QEMU when it loads the plugin.
///
/// # Safety
///
/// `info` and the `count` strings at `words` are as QEMU's manual says.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const qemu::Info,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: both are valid during this call.
    let (target, is_system, words) = unsafe {
        let words: Vec<_> = (0..usize::try_from(count).unwrap_or(0))
            .map(|index| {
                CStr::from_ptr(*words.add(index))
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let target = CStr::from_ptr((*info).target_name).to_string_lossy();
        (target.into_owned(), (*info).is_system, words)
    };
    if target != "aarch64" || !is_system {
        eprintln!("coherency: for qemu-system-aarch64, not {target}");
        return 1;
    }
    let options = match Options::parse(words.iter().map(String::as_str)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("coherency: {what}");
            return 1;
        }
    };
    // SAFETY: nothing else runs while plugins are loaded; the callbacks live as long as the process.
    unsafe {
        *state() = Some(State::Installed(options));
        qemu::qemu_plugin_register_vcpu_init_cb(id, vcpu_init);
        qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
        qemu::qemu_plugin_register_atexit_cb(id, end, std::ptr::null_mut());
    }
    0
}

/// A CPU is there, and this is its thread.
extern "C" fn vcpu_init(_: PluginId, cpu: c_uint) {
    // Before anything that threads share is touched.
    let thread = std::thread::current().id();
    if *OWNER.get_or_init(|| thread) != thread {
        refuse(
            "More than one thread runs guest code: the order of their accesses cannot be seen; use \
             -accel tcg,thread=single or -icount",
        );
    }
    // SAFETY: callbacks do not nest.
    let state = unsafe { state() };
    if let Some(State::Installed(options)) = state {
        let running = start(options.clone()).unwrap_or_else(|what| refuse(&what));
        *state = Some(State::Running(Box::new(running)));
    }
    if let Some(State::Running(running)) = state {
        running.watch.add_cpu(cpu);
    }
}

/// Makes what [`Options`] say, now that QEMU has made RAM.
fn start(options: Options) -> Result<Running, String> {
    let named =
        |path: &std::path::Path, what: std::io::Error| format!("{}: {what}", path.display());
    // First, so that no report of an earlier run is left when this one is refused.
    let mut out = File::create(&options.out).map_err(|what| named(&options.out, what))?;
    let mut registers = Handles::find()?;
    let board = board::find(&options.board).ok_or_else(|| {
        format!(
            "board={}: unknown; there are {}",
            options.board,
            board::NAMES
        )
    })?;
    let ram =
        RamFile::open(&options.ram, board.ram_base).map_err(|what| named(&options.ram, what))?;
    let suppressions = match &options.suppress {
        None => Suppressions::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|what| named(path, what))?;
            Suppressions::parse(&text).map_err(|what| format!("{}: {what}", path.display()))?
        }
    };
    let machine = Machine {
        ram: board.ram(ram.range()),
        readable: board.readable(registers.read(Register::Sctlr(3)).is_some()),
        memory: Box::new(ram),
        devices: board.devices,
        uart: board.uart,
        coherent: options.coherent,
        shadow: options.shadow,
    };
    let show = move |finding: &Finding| {
        // What cannot be written now is written at the end, or that fails and QEMU with it.
        let _ = writeln!(out, "{}", finding.to_json()).and_then(|()| out.flush());
    };
    let mut checker = Checker::new(machine, suppressions, show);
    // CTR_EL0 (Arm ARM D24.2.34): DIC, IDC and DminLine.
    let ctr = registers.read(Register::Ctr);
    let ctr = ctr.ok_or("QEMU does not let CTR_EL0 be read")?;
    checker.set_cores(Cores {
        sees_stores: ctr >> 28 & 1 == 1,
        sees_memory: ctr >> 29 & 1 == 1,
    });
    let line = 4 << (ctr >> 16 & 0xF);
    if line != crate::lines::LINE {
        return Err(format!("the CPU's lines have {line} bytes, not 64"));
    }
    Ok(Running {
        watch: Watch::new(checker),
        registers,
        operations: Vec::new(),
        known: HashMap::new(),
        options,
    })
}

/// A block of instructions is being translated.
extern "C" fn translate(_: PluginId, block: qemu::TranslationBlock) {
    // SAFETY: once in this callback.
    let Some(running) = (unsafe { running() }) else {
        return;
    };
    // SAFETY: the block and its instructions are valid during this callback. Callbacks carry numbers
    // in place of pointers.
    unsafe {
        let count = qemu::qemu_plugin_tb_n_insns(block);
        let pcs = (0..count)
            .map(|index| qemu::qemu_plugin_insn_vaddr(qemu::qemu_plugin_tb_get_insn(block, index)));
        running.watch.fetch(pcs, &mut running.registers);
        for index in 0..count {
            instrument(running, qemu::qemu_plugin_tb_get_insn(block, index));
        }
    }
}

/// Asks to be told when `instruction` is executed.
///
/// # Safety
///
/// In the callback of its translation.
unsafe fn instrument(running: &mut Running, instruction: qemu::Instruction) {
    let mut bytes = [0; 4];
    // SAFETY: as the caller says; QEMU writes no more than four bytes.
    let (pc, symbol) = unsafe {
        let count =
            qemu::qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), bytes.len());
        if count != bytes.len() {
            return;
        }
        let symbol = qemu::qemu_plugin_insn_symbol(instruction);
        let symbol = (!symbol.is_null()).then(|| CStr::from_ptr(symbol));
        (qemu::qemu_plugin_insn_vaddr(instruction), symbol)
    };
    let word = u32::from_le_bytes(bytes);
    if let Some(symbol) = symbol {
        running.watch.checker().name(pc, &symbol.to_string_lossy());
    }
    let data = pc as *mut c_void;
    // SAFETY: as the caller says. The data of the callbacks is a number.
    unsafe {
        qemu::qemu_plugin_register_vcpu_mem_cb(
            instruction,
            loaded,
            qemu::READS_REGISTERS,
            qemu::LOADS,
            data,
        );
        let stored = if decode::is_uncertain_store(word) {
            perhaps_stored
        } else {
            stored
        };
        qemu::qemu_plugin_register_vcpu_mem_cb(
            instruction,
            stored,
            qemu::READS_REGISTERS,
            qemu::STORES,
            data,
        );
    }
    let Some(operation) = decode::decode(word) else {
        return;
    };
    let number = *running.known.entry((pc, word)).or_insert_with(|| {
        running.operations.push((pc, operation));
        running.operations.len() - 1
    });
    let flags = match operation {
        Operation::Line(..) | Operation::Level | Operation::Semihosting => qemu::READS_REGISTERS,
        _ => qemu::NO_REGISTERS,
    };
    // SAFETY: as above.
    unsafe {
        qemu::qemu_plugin_register_vcpu_insn_exec_cb(
            instruction,
            executed,
            flags,
            number as *mut c_void,
        );
    }
}

extern "C" fn loaded(cpu: c_uint, info: u32, va: u64, pc: *mut c_void) {
    // SAFETY: once in this callback.
    if let Some(running) = unsafe { running() } {
        let pc = pc as u64;
        running
            .watch
            .load(Who { cpu, pc }, va, &MemInfo(info), &mut running.registers);
    }
}

extern "C" fn stored(cpu: c_uint, info: u32, va: u64, pc: *mut c_void) {
    // SAFETY: all that this callback does.
    unsafe { store(cpu, info, va, pc as u64, true) }
}

extern "C" fn perhaps_stored(cpu: c_uint, info: u32, va: u64, pc: *mut c_void) {
    // SAFETY: all that this callback does.
    unsafe { store(cpu, info, va, pc as u64, false) }
}

/// # Safety
///
/// As of [`running`].
#[inline(always)]
unsafe fn store(cpu: c_uint, info: u32, va: u64, pc: u64, is_certain: bool) {
    // SAFETY: as the caller says.
    if let Some(running) = unsafe { running() } {
        let (who, registers) = (Who { cpu, pc }, &mut running.registers);
        running
            .watch
            .store(who, va, &MemInfo(info), is_certain, registers);
    }
}

extern "C" fn executed(cpu: c_uint, number: *mut c_void) {
    // SAFETY: once in this callback.
    let Some(running) = (unsafe { running() }) else {
        return;
    };
    if let Some(&(pc, operation)) = running.operations.get(number as usize) {
        let who = Who { cpu, pc };
        running
            .watch
            .execute(who, operation, &mut running.registers);
    }
}

/// QEMU ends.
extern "C" fn end(_: PluginId, _: *mut c_void) {
    // SAFETY: callbacks do not nest, and no CPU executes any more.
    let state = unsafe { state() };
    if let Some(State::Running(mut running)) = state.replace(State::Ended) {
        let report = running.watch.end();
        if let Err(what) = std::fs::write(&running.options.out, report) {
            refuse(&format!("{}: {what}", running.options.out.display()));
        }
        if let Some(why) = running.watch.blind() {
            refuse(&format!("{why}; nothing is proved"));
        }
    }
}
