//! The firmware for one board.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
firmware::board!(board_rpi4::RaspberryPi4);

#[cfg(not(target_os = "none"))]
fn main() {
    println!("the firmware runs on the board or in an emulator: make run");
}
