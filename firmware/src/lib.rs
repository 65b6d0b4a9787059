#![no_std]
pub mod boot;
use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    semihosting::println!("{info}");
    semihosting::process::exit(1)
}
#[unsafe(no_mangle)]
extern "C" fn primary_main(dtb: u64, el: u64, pa: u64) -> ! {
    semihosting::println!("dtb {dtb:#x} el {el} pa {pa:#x}");
    let x = unsafe { (0xFFFFFFF000000000usize as *const u64).read_volatile() };
    semihosting::println!("{x:x}");
    unsafe { (0xFFFFFFF000000000usize as *mut u64).write_volatile(0) };
    semihosting::process::exit(0)
}
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! { loop {} }
#[unsafe(no_mangle)]
static SECONDARY_INDEX: u64 = 0;
#[unsafe(no_mangle)]
extern "C" fn exception_sync(f: &[u64; 36]) -> ! { semihosting::println!("sync {f:x?}"); semihosting::process::exit(2) }
#[unsafe(no_mangle)]
extern "C" fn exception_irq(f: &[u64; 36]) -> ! { semihosting::println!("irq {f:x?}"); semihosting::process::exit(2) }
#[unsafe(no_mangle)]
extern "C" fn exception_fiq(f: &[u64; 36]) -> ! { semihosting::println!("fiq {f:x?}"); semihosting::process::exit(2) }
#[unsafe(no_mangle)]
extern "C" fn exception_serror(f: &[u64; 36]) -> ! { semihosting::println!("sync {f:x?}"); semihosting::process::exit(2) }
#[unsafe(no_mangle)]
extern "C" fn exception_nested(f: &[u64; 36], kind: u64) -> ! { semihosting::println!("nested {kind} {f:x?}"); semihosting::process::exit(2) }
