//! The firmware for one board.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
firmware::board!(board_qemu_virt::QemuVirt);

#[cfg(not(target_os = "none"))]
fn main() {
    println!("the firmware runs on the board or in an emulator: make run");
}
