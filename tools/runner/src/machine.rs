//! Turns settings into a QEMU command line and the files it names.

mod file;
mod tree;
mod watch;

pub(crate) use watch::{FINDINGS, Watch};

use crate::firmware::Firmware;
use crate::paths;
use crate::settings::{Board, Dtb, Guest, Image, Settings};
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// The program that is run.
pub(crate) const QEMU: &str = "qemu-system-aarch64";

/// File in the capture behind RAM, for a run that needs one. As large as the machine's memory.
pub(crate) const RAM: &str = "ram.bin";

/// What fills RAM when asked for: neither zero nor a valid pointer, instruction or flag.
const FILL: u8 = 0xA5;

/// QEMU's arguments for one boot. Files it needs are made in `scratch`.
///
/// `QEMU_EXTRA` comes last, so that its `-cpu`, `-dtb` and `-machine` keys win.
pub(crate) fn arguments(
    settings: &Settings,
    firmware: &Firmware,
    scratch: &Path,
) -> Result<Vec<OsString>> {
    let mut args = Arguments::default();
    match (settings.guest, settings.board) {
        (Guest::Foreign, board) => foreign(board, settings, firmware, &mut args),
        (Guest::Own, Board::QemuVirt) => virt(settings, firmware, scratch, &mut args)?,
        (Guest::Own, Board::Rpi4) => rpi4(settings, firmware, scratch, &mut args)?,
    }
    args.add(&["-nic", "none", "-display", "none", "-monitor", "none"]);
    args.add(&["-serial", "stdio", "-no-reboot"]);
    args.add(&["-semihosting-config", "enable=on,target=native"]);
    if settings.icount {
        args.add(&["-icount", "shift=0,sleep=off"]);
    }
    if let Some(watch) = &settings.watch {
        watch.add(settings.board, settings.mem_mib, scratch, &mut args)?;
    }
    args.add(&settings.qemu_extra);
    Ok(args.0)
}

/// The arguments collected so far.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, words: &[impl AsRef<OsStr>]) {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.0.extend(words);
    }

    fn pair(&mut self, option: &str, value: impl AsRef<OsStr>) {
        self.add(&[option.as_ref(), value.as_ref()]);
    }

    /// Makes `path`, of `mib` MiB, the machine's RAM; what the machine writes shows in the file if it is
    /// `shared`.
    fn ram_file(&mut self, mib: u64, path: &Path, shared: bool) {
        let share = if shared { "on" } else { "off" };
        let path = in_option(path);
        let backend =
            format!("memory-backend-file,id=ram,share={share},size={mib}M,mem-path={path}");
        self.pair("-object", backend);
        self.pair("-machine", "memory-backend=ram");
    }

    fn kernel(&mut self, settings: &Settings, firmware: &Firmware) {
        match settings.image {
            Image::Elf => self.pair("-kernel", &firmware.elf),
            Image::Raw => self.pair("-kernel", &firmware.raw),
        }
    }

    /// What travels in the device tree's /chosen.
    fn chosen(&mut self, settings: &Settings) {
        self.pair("-append", settings.kernel_command_line());
        if let Some(payload) = &settings.payload {
            self.pair("-initrd", payload);
        }
    }
}

fn virt(
    settings: &Settings,
    firmware: &Firmware,
    scratch: &Path,
    args: &mut Arguments,
) -> Result<()> {
    args.pair("-machine", "virt,dtb-randomness=off");
    args.pair("-cpu", "cortex-a72");
    args.pair("-smp", settings.smp.to_string());
    args.pair("-m", format!("{}M", settings.mem_mib));
    args.kernel(settings, firmware);
    args.chosen(settings);
    args.pair("-device", format!("edu,{}", settings.edu));
    args.pair("-fw_cfg", file::make(scratch)?);

    // QEMU passes a tree in any case, its own or one it is given, except one too large to fit between
    // the start of RAM and the image. Then RAM's start is free for the tree, if any, the firmware
    // shall find.
    let blob = match settings.dtb {
        Dtb::Auto => None,
        Dtb::Areas => {
            let own = dump_tree(settings, args, scratch)?;
            let with_areas = scratch.join("areas.dtb");
            std::fs::write(&with_areas, tree::with_areas(&own)?)?;
            args.pair("-dtb", &with_areas);
            None
        }
        Dtb::None | Dtb::Truncated | Dtb::Lying => {
            let own = dump_tree(settings, args, scratch)?;
            let oversized = scratch.join("oversized.dtb");
            std::fs::write(&oversized, tree::oversized(&own)?)?;
            args.pair("-dtb", &oversized);
            match settings.dtb {
                Dtb::Truncated => Some(tree::truncated(&own)),
                Dtb::Lying => Some(tree::lying(&own)?),
                Dtb::Auto | Dtb::Areas | Dtb::None => None,
            }
        }
    };
    if settings.ram_filled || blob.is_some() {
        let path = scratch.join(RAM);
        let fill = settings.ram_filled.then_some(FILL);
        write_ram(&path, settings.mem_mib, fill, &blob.unwrap_or_default())
            .with_context(|| format!("cannot write {}", path.display()))?;
        args.ram_file(settings.mem_mib, &path, settings.watch.is_some());
    }
    Ok(())
}

fn rpi4(
    settings: &Settings,
    firmware: &Firmware,
    scratch: &Path,
    args: &mut Arguments,
) -> Result<()> {
    args.pair("-machine", "raspi4b");
    args.pair("-smp", settings.smp.to_string());
    args.pair("-m", format!("{}M", settings.mem_mib));
    args.kernel(settings, firmware);
    if settings.passes_command_line() {
        let blob = scratch.join("rpi4.dtb");
        tree::compile(&paths::root().join("boards/rpi4/qemu.dts"), &blob)?;
        args.pair("-dtb", &blob);
        args.chosen(settings);
    }
    Ok(())
}

/// Any kernel image on the plain machine: what else it needs is in `QEMU_EXTRA`.
fn foreign(board: Board, settings: &Settings, firmware: &Firmware, args: &mut Arguments) {
    match board {
        Board::QemuVirt => {
            args.pair("-machine", "virt,dtb-randomness=off");
            args.pair("-cpu", "cortex-a72");
        }
        Board::Rpi4 => args.pair("-machine", "raspi4b"),
    }
    args.pair("-smp", settings.smp.to_string());
    args.pair("-m", format!("{}M", settings.mem_mib));
    args.pair("-kernel", &firmware.elf);
    if !settings.cmdline.is_empty() {
        args.pair("-append", &settings.cmdline);
    }
}

/// `path` as a part of an option: QEMU's parser takes a doubled comma for one.
fn in_option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// The tree QEMU would pass with these arguments.
fn dump_tree(settings: &Settings, args: &Arguments, scratch: &Path) -> Result<Vec<u8>> {
    let path = scratch.join("own.dtb");
    let mut dump = OsString::from("dumpdtb=");
    dump.push(in_option(&path));
    let output = Command::new(QEMU)
        .args(&args.0)
        .args(["-nic", "none", "-display", "none", "-serial", "null"])
        .args(&settings.qemu_extra)
        .arg("-machine")
        .arg(dump)
        .output()
        .with_context(|| format!("cannot start {QEMU}"))?;
    std::fs::read(&path).with_context(|| {
        let message = String::from_utf8_lossy(&output.stderr);
        format!("{QEMU} did not write its device tree: {message}")
    })
}

/// Writes the file behind RAM: `fill` everywhere, or a hole, and `start` at its beginning.
fn write_ram(path: &Path, mib: u64, fill: Option<u8>, start: &[u8]) -> std::io::Result<()> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::create(path)?;
    match fill {
        None => file.set_len(mib << 20)?,
        Some(byte) => {
            let chunk = vec![byte; 1 << 20];
            for _ in 0..mib {
                file.write_all(&chunk)?;
            }
        }
    }
    file.rewind()?;
    file.write_all(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments_of(pairs: &[(&str, &str)]) -> Vec<String> {
        let settings = Settings::read(Board::QemuVirt, |key| {
            let found = pairs.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).into())
        })
        .unwrap();
        let firmware = Firmware {
            elf: "fw.elf".into(),
            raw: "fw.img".into(),
        };
        let scratch = std::env::temp_dir().join(format!("runner-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let args = arguments(&settings, &firmware, &scratch).unwrap();
        args.into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    fn value<'a>(args: &'a [String], option: &str) -> Vec<&'a str> {
        let pairs = args.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn virt_by_default_is_the_reference_machine() {
        let args = arguments_of(&[]);
        assert_eq!(value(&args, "-machine"), ["virt,dtb-randomness=off"]);
        assert_eq!(value(&args, "-cpu"), ["cortex-a72"]);
        assert_eq!(value(&args, "-smp"), ["4"]);
        assert_eq!(value(&args, "-m"), ["1024M"]);
        assert_eq!(value(&args, "-kernel"), ["fw.elf"]);
        assert_eq!(value(&args, "-icount"), ["shift=0,sleep=off"]);
        assert_eq!(value(&args, "-device"), ["edu,dma_mask=0xffffffffffffffff"]);
        let [file] = value(&args, "-fw_cfg")[..] else {
            panic!("{args:?}")
        };
        let path = file
            .strip_prefix("name=opt/dmaproof/pattern,file=")
            .unwrap();
        assert_eq!(std::fs::read(path).unwrap().len(), 12_345);
    }

    #[test]
    fn the_command_line_is_one_argument_untouched() {
        let args = arguments_of(&[("CMDLINE", "a='$HOME `x`' \"b,c\"")]);
        assert_eq!(
            value(&args, "-append"),
            ["exit=semihosting dma.coherent=no a='$HOME `x`' \"b,c\""]
        );
    }

    #[test]
    fn extra_arguments_come_last() {
        let args = arguments_of(&[
            ("QEMU_EXTRA", "-cpu max -M gic-version=3"),
            ("IMAGE", "raw"),
            ("ICOUNT", "off"),
            ("EDU", "dma_mask=0xffff"),
        ]);
        assert!(args.ends_with(&["-cpu", "max", "-M", "gic-version=3"].map(String::from)));
        assert_eq!(value(&args, "-kernel"), ["fw.img"]);
        assert_eq!(value(&args, "-icount"), [""; 0]);
        assert_eq!(value(&args, "-device"), ["edu,dma_mask=0xffff"]);
    }

    #[test]
    fn the_pi_without_a_tree_gets_neither_command_line_nor_payload() {
        let args = arguments_of(&[("BOARD", "rpi4"), ("DTB", "none")]);
        assert_eq!(value(&args, "-machine"), ["raspi4b"]);
        assert_eq!(value(&args, "-kernel"), ["fw.img"]);
        for option in ["-dtb", "-append", "-initrd", "-icount", "-fw_cfg"] {
            assert_eq!(value(&args, option), [""; 0], "{option}");
        }
    }

    #[test]
    fn a_watched_machine_has_ram_that_the_plugin_reads() {
        let mut settings = Settings::read(Board::Rpi4, |_| None).unwrap();
        settings.guest = Guest::Foreign;
        settings.watch = Some(Watch {
            plugin: Some("a,b.so".into()),
            has_threads: false,
            shadow: true,
            coherent: false,
            suppress: Some("list".into()),
        });
        let firmware = Firmware {
            elf: "kernel8.img".into(),
            raw: "kernel8.img".into(),
        };
        let scratch = std::env::temp_dir().join(format!("runner-watch-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let args = arguments(&settings, &firmware, &scratch).unwrap();
        let size = std::fs::metadata(scratch.join(RAM)).unwrap().len();
        if let Some(watch) = &mut settings.watch {
            watch.plugin = None;
        }
        let bare = arguments(&settings, &firmware, &scratch).unwrap();
        std::fs::remove_dir_all(&scratch).unwrap();
        let at = args.iter().position(|word| word == "-plugin").unwrap();
        assert_eq!([&args[..at], &args[at + 2..]].concat(), bare);
        let args: Vec<_> = args.into_iter().map(|a| a.into_string().unwrap()).collect();
        assert_eq!(value(&args, "-accel"), ["tcg,thread=single"]);
        let path = scratch.display();
        assert_eq!(size, 2 << 30);
        assert_eq!(value(&args, "-machine"), ["raspi4b", "memory-backend=ram"]);
        assert_eq!(value(&args, "-kernel"), ["kernel8.img"]);
        assert_eq!(
            value(&args, "-object"),
            [format!(
                "memory-backend-file,id=ram,share=on,size=2048M,mem-path={path}/ram.bin"
            )]
        );
        assert_eq!(
            value(&args, "-plugin"),
            [format!(
                "a,,b.so,board=raspi4b,ram={path}/ram.bin,out={path}/findings.jsonl,shadow=on,\
                 coherent=off,suppress=list"
            )]
        );
        assert_eq!(value(&args, "-append"), [""; 0]);
    }

    #[test]
    fn ram_is_filled_around_the_tree() {
        let path = std::env::temp_dir().join(format!("runner-ram-{}", std::process::id()));
        write_ram(&path, 1, Some(FILL), b"tree").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.starts_with(b"tree\xA5") && bytes.ends_with(&[FILL]));
    }
}
