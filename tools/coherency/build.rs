//! Leaves QEMU's symbols to the process that loads the plugin.

fn main() {
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,undefs");
}
