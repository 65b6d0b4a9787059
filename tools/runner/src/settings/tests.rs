use super::*;

/// The variables [`Settings::read`] looks at.
const KEYS: [&str; 12] = [
    "BOARD",
    "SMP",
    "MEM",
    "IMAGE",
    "PAYLOAD",
    "CMDLINE",
    "QEMU_EXTRA",
    "EDU",
    "TIMEOUT",
    "ICOUNT",
    "DTB",
    "RAMFILL",
];

fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::read(Board::QemuVirt, |key| {
        assert!(KEYS.contains(&key), "{key} is missing in KEYS");
        let found = pairs.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| (*value).into())
    })
}

#[test]
fn defaults_are_those_of_the_reference_machine() {
    let settings = read(&[("SMP", "")]).unwrap();
    assert_eq!(settings.board, Board::QemuVirt);
    assert_eq!((settings.smp, settings.mem_mib), (4, 1024));
    assert!(settings.icount);
    assert_eq!(settings.timeout, Duration::from_secs(60));
    let pi = read(&[("BOARD", "rpi4")]).unwrap();
    assert_eq!((pi.smp, pi.mem_mib, pi.icount), (4, 2048, false));
    assert_eq!(pi.image, Image::Raw);
}

#[test]
fn nonsense_is_refused_with_what_is_allowed() {
    for (key, value, allowed) in [
        ("BOARD", "x", "qemu-virt or rpi4"),
        ("SMP", "banana", "1 to 8"),
        ("SMP", "0", "1 to 8"),
        ("SMP", "9", "1 to 8"),
        ("SMP", "-1", "1 to 8"),
        ("MEM", "1", "64M to 64G"),
        ("MEM", "63M", "64M to 64G"),
        ("MEM", "1T", "64M to 64G"),
        ("MEM", "18446744073709551615G", "64M to 64G"),
        ("MEM", "1\u{b5}", "64M to 64G"),
        ("IMAGE", "ELF", "elf or raw"),
        ("QEMU_EXTRA", "-M 'virt", "balanced quotes"),
        ("TIMEOUT", "0", "1 to 86400"),
        ("TIMEOUT", "1.5", "1 to 86400"),
        ("ICOUNT", "1", "on or off"),
        ("DTB", "no", "auto, none"),
        ("RAMFILL", "yes", "on or off"),
        ("PAYLOAD", "/nonexistent", "No such file"),
        ("PAYLOAD", "/", "not a regular file"),
        ("PAYLOAD", "/dev/null", "not a regular file"),
    ] {
        let error = read(&[(key, value)]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}={value}")), "{error}");
        assert!(error.contains(allowed), "{error}");
    }
}

#[test]
fn the_pi_takes_only_what_the_board_has() {
    for (key, value) in [
        ("SMP", "2"),
        ("MEM", "1G"),
        ("IMAGE", "elf"),
        ("EDU", "dma_mask=1"),
        ("DTB", "lying"),
        ("RAMFILL", "on"),
    ] {
        let error = read(&[("BOARD", "rpi4"), (key, value)]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{key}={value} with BOARD=rpi4")));
    }
    assert!(read(&[("BOARD", "rpi4"), ("SMP", "4"), ("MEM", "2G")]).is_ok());
}

#[test]
fn a_payload_on_virt_comes_with_a_raw_image() {
    let file = ("PAYLOAD", "Cargo.toml");
    assert_eq!(read(&[file]).unwrap().image, Image::Raw);
    assert!(read(&[file, ("IMAGE", "raw")]).is_ok());
    let error = read(&[file, ("IMAGE", "elf")]).unwrap_err().to_string();
    assert!(error.contains("raw when there is a PAYLOAD"), "{error}");
}

#[test]
fn a_raw_image_on_virt_always_has_a_tree() {
    assert!(read(&[("IMAGE", "raw"), ("DTB", "none")]).is_err());
    assert!(read(&[("IMAGE", "raw")]).is_ok());
}

#[test]
fn command_line_gains_only_absent_keys() {
    let line = |cmdline| read(&[("CMDLINE", cmdline)]).unwrap().kernel_command_line();
    assert_eq!(line(""), "exit=semihosting dma.coherent=no");
    assert_eq!(
        line("dma.coherent=yes a='$b c'"),
        "exit=semihosting dma.coherent=yes a='$b c'"
    );
    assert_eq!(line("exit=halt"), "dma.coherent=no exit=halt");
    let kvm = read(&[("QEMU_EXTRA", "-accel kvm")]).unwrap();
    assert_eq!(kvm.kernel_command_line(), "exit=semihosting");
}

#[test]
fn without_a_tree_nothing_tells_the_firmware_to_exit() {
    assert!(read(&[]).unwrap().exits_by_itself());
    assert!(!read(&[("DTB", "none")]).unwrap().exits_by_itself());
    assert!(!read(&[("CMDLINE", "exit=halt")]).unwrap().exits_by_itself());
}

#[test]
fn extra_arguments_split_as_a_shell_would() {
    let settings = read(&[("QEMU_EXTRA", "-append 'a  b' -d x\\ y")]).unwrap();
    assert_eq!(settings.qemu_extra, ["-append", "a  b", "-d", "x y"]);
}

#[test]
fn the_makefile_hands_every_setting_over() {
    let makefile = std::fs::read_to_string(crate::paths::root().join("Makefile")).unwrap();
    let list = makefile
        .lines()
        .find_map(|line| line.strip_prefix("SETTINGS := "))
        .unwrap();
    let names: Vec<_> = list.split_whitespace().collect();
    let others = ["FIRMWARE", "SHADOW", "COHERENT", "SUPPRESS", "PAIRS"];
    for key in KEYS.into_iter().chain(others) {
        assert!(names.contains(&key), "{key}");
    }
}
