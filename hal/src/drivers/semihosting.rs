//! Ending an emulated run with a status code (Arm semihosting 2.0, `SYS_EXIT`).

/// Ends the emulator with exit status `code`.
///
/// The request is `HLT #0xF000`. Where nobody listens for it, as on silicon without a debugger,
/// the instruction is undefined: call this only when the command line says `exit=semihosting`.
/// May be called in any context.
pub fn exit(code: u8) -> ! {
    semihosting::process::exit(code.into())
}
