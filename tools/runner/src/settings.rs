//! What the user asks for, read from the environment and checked before anything is built.

use crate::machine::Watch;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A value that makes no sense, with what is allowed instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The value is outside what its key takes.
    #[error("{key}={value}: allowed is {allowed}")]
    Value {
        /// Name of the setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would have been right.
        allowed: &'static str,
    },
    /// The value is right in itself, but not on this board.
    #[error("{key}={value} with BOARD={board}: allowed is {allowed}")]
    Board {
        /// Name of the setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// The board it was combined with.
        board: Board,
        /// What this board takes.
        allowed: &'static str,
    },
    /// The value is right in itself, but not beside another setting.
    #[error("{key}={value} with {with}: allowed is {allowed}")]
    Together {
        /// Name of the setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What it was combined with.
        with: &'static str,
        /// What is right instead.
        allowed: &'static str,
    },
    /// A file named by a setting cannot be used.
    #[error("{key}={path}: {cause}")]
    File {
        /// Name of the setting.
        key: &'static str,
        /// The path as given.
        path: String,
        /// Why it cannot be used.
        cause: String,
    },
}

/// The machines the firmware is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Board {
    /// QEMU's `virt` machine.
    QemuVirt,
    /// Raspberry Pi 4, under QEMU the `raspi4b` machine.
    Rpi4,
}

impl Board {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::QemuVirt, Self::Rpi4];

    /// Name of the board and of the firmware binary built for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::QemuVirt => "qemu-virt",
            Self::Rpi4 => "rpi4",
        }
    }

    /// The board called `name`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|board| board.name() == name)
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which form of the firmware QEMU loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// The linked ELF file.
    Elf,
    /// The raw image with its arm64 Image header.
    Raw,
}

/// Which device tree the firmware finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtb {
    /// The machine's own.
    Auto,
    /// None at all: no command line and no payload reach the firmware.
    None,
    /// One whose header promises more than is there.
    Truncated,
    /// A well-formed one that promises memory the machine does not have.
    Lying,
    /// The machine's own, which asks for contiguous memory areas as well.
    Areas,
}

/// Whose the firmware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// This repository's: it is given what it expects, and reports.
    Own,
    /// Anybody's: it is given nothing, and ends when it likes.
    Foreign,
}

/// Everything one boot under QEMU depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The machine.
    pub(crate) board: Board,
    /// Number of CPUs.
    pub(crate) smp: u32,
    /// RAM in MiB.
    pub(crate) mem_mib: u64,
    /// Form of the firmware.
    pub(crate) image: Image,
    /// File handed over as initrd.
    pub(crate) payload: Option<PathBuf>,
    /// Kernel command line as the user wrote it.
    pub(crate) cmdline: String,
    /// Arguments appended to QEMU's command line.
    pub(crate) qemu_extra: Vec<String>,
    /// Options of the `edu` device.
    pub(crate) edu: String,
    /// Longest time the boot may take.
    pub(crate) timeout: Duration,
    /// Whether the guest's clock counts its instructions.
    pub(crate) icount: bool,
    /// Device tree handed over.
    pub(crate) dtb: Dtb,
    /// Whether RAM is full of 0xA5 at reset instead of zero.
    pub(crate) ram_filled: bool,
    /// Whose the firmware is.
    pub(crate) guest: Guest,
    /// What watches the run, if anything.
    pub(crate) watch: Option<Watch>,
}

/// Longest run in seconds when TIMEOUT is not given.
const DEFAULT_TIMEOUT: u64 = 60;

/// edu's own default clamps every address to 28 bits, below virt's RAM.
const DEFAULT_EDU: &str = "dma_mask=0xffffffffffffffff";

/// RAM of QEMU's raspi4b; it takes no other size.
const RPI4_MEM_MIB: u64 = 2048;

impl Settings {
    /// Reads the settings through `variable`, which returns what the named variable holds.
    ///
    /// An empty variable counts as absent. `board` is used when BOARD is absent.
    pub(crate) fn read(
        board: Board,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let get = |key: &str| variable(key).filter(|value| !value.is_empty());
        let board = match get("BOARD") {
            None => board,
            Some(name) => Board::from_name(&name).ok_or(SettingsError::Value {
                key: "BOARD",
                value: name,
                allowed: "qemu-virt or rpi4",
            })?,
        };
        let settings = Self {
            board,
            smp: choice(get, "SMP", "a number from 1 to 8", 4, |v| {
                v.parse().ok().filter(|n| (1..=8).contains(n))
            })?,
            mem_mib: choice(
                get,
                "MEM",
                "a size from 64M to 64G, such as 512M or 2G",
                match board {
                    Board::QemuVirt => 1024,
                    Board::Rpi4 => RPI4_MEM_MIB,
                },
                mem_mib,
            )?,
            image: choice(
                get,
                "IMAGE",
                "elf or raw",
                match board {
                    // QEMU loads a payload beside a raw image only.
                    Board::QemuVirt if get("PAYLOAD").is_none() => Image::Elf,
                    Board::QemuVirt | Board::Rpi4 => Image::Raw,
                },
                |v| match v {
                    "elf" => Some(Image::Elf),
                    "raw" => Some(Image::Raw),
                    _ => None,
                },
            )?,
            payload: get("PAYLOAD").map(payload).transpose()?,
            cmdline: get("CMDLINE").unwrap_or_default(),
            qemu_extra: choice(
                get,
                "QEMU_EXTRA",
                "QEMU arguments with balanced quotes",
                Vec::new(),
                |v| shell_words::split(v).ok(),
            )?,
            edu: get("EDU").unwrap_or_else(|| DEFAULT_EDU.into()),
            timeout: choice(
                get,
                "TIMEOUT",
                "a number of seconds from 1 to 86400",
                Duration::from_secs(DEFAULT_TIMEOUT),
                |v| {
                    let seconds = v.parse().ok().filter(|n| (1..=86_400).contains(n))?;
                    Some(Duration::from_secs(seconds))
                },
            )?,
            icount: choice(get, "ICOUNT", "on or off", board == Board::QemuVirt, on_off)?,
            dtb: choice(
                get,
                "DTB",
                "auto, none, truncated, lying or areas",
                Dtb::Auto,
                |v| match v {
                    "auto" => Some(Dtb::Auto),
                    "none" => Some(Dtb::None),
                    "truncated" => Some(Dtb::Truncated),
                    "lying" => Some(Dtb::Lying),
                    "areas" => Some(Dtb::Areas),
                    _ => None,
                },
            )?,
            ram_filled: choice(get, "RAMFILL", "on or off", false, on_off)?,
            guest: Guest::Own,
            watch: None,
        };
        settings.check_board(get)?;
        Ok(settings)
    }

    /// Refuses what the board's machine cannot do.
    fn check_board(&self, get: impl Fn(&str) -> Option<String>) -> Result<(), SettingsError> {
        let refuse = |key: &'static str, allowed: &'static str| {
            Err(SettingsError::Board {
                key,
                value: get(key).unwrap_or_default(),
                board: self.board,
                allowed,
            })
        };
        match self.board {
            Board::QemuVirt if self.image == Image::Elf && self.payload.is_some() => refuse(
                "IMAGE",
                "raw when there is a PAYLOAD: QEMU passes an ELF file none",
            ),
            Board::QemuVirt if self.image == Image::Raw && self.dtb != Dtb::Auto => refuse(
                "DTB",
                "auto when IMAGE=raw, as with a PAYLOAD: QEMU passes a raw image its tree",
            ),
            Board::QemuVirt => Ok(()),
            Board::Rpi4 if self.smp != 4 => refuse("SMP", "4, as on the board"),
            Board::Rpi4 if self.mem_mib != RPI4_MEM_MIB => refuse("MEM", "2G, as QEMU demands"),
            Board::Rpi4 if self.image == Image::Elf => refuse(
                "IMAGE",
                "raw: with an ELF file QEMU passes neither tree nor spin table",
            ),
            Board::Rpi4 if get("EDU").is_some() => refuse("EDU", "nothing: the Pi has no edu"),
            Board::Rpi4 if !matches!(self.dtb, Dtb::Auto | Dtb::None) => {
                refuse("DTB", "auto or none")
            }
            Board::Rpi4 if self.ram_filled => refuse("RAMFILL", "off"),
            Board::Rpi4 => Ok(()),
        }
    }

    /// Whether a device tree brings command line and payload to the firmware.
    pub(crate) fn passes_command_line(&self) -> bool {
        !matches!(self.dtb, Dtb::None | Dtb::Truncated)
    }

    /// The kernel command line including what a run under QEMU adds.
    ///
    /// `exit=semihosting` ends QEMU with the verdict as its status. `dma.coherent=no` is safe
    /// under TCG, which has no caches, and exercises the pool and every maintenance operation.
    pub(crate) fn kernel_command_line(&self) -> String {
        let mut words = vec![];
        if !self.has_key("exit") {
            words.push("exit=semihosting");
        }
        if !self.has_key("dma.coherent") && self.under_tcg() {
            words.push("dma.coherent=no");
        }
        if !self.cmdline.is_empty() {
            words.push(&self.cmdline);
        }
        words.join(" ")
    }

    /// Whether the firmware is told to end QEMU itself, or may for all that is known.
    pub(crate) fn exits_by_itself(&self) -> bool {
        if self.guest == Guest::Foreign {
            return true;
        }
        self.passes_command_line()
            && self
                .kernel_command_line()
                .split_whitespace()
                .any(|word| word == "exit=semihosting")
    }

    /// Whether the user's command line has a word `key` or `key=...`.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.cmdline
            .split_whitespace()
            .any(|word| word.split('=').next() == Some(key))
    }

    fn under_tcg(&self) -> bool {
        !self.qemu_extra.iter().any(|arg| arg.contains("kvm"))
    }
}

/// The value of `key`, `default` when absent, refused when `parse` does not take it.
pub(crate) fn choice<T>(
    get: impl Fn(&str) -> Option<String>,
    key: &'static str,
    allowed: &'static str,
    default: T,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, SettingsError> {
    match get(key) {
        None => Ok(default),
        Some(value) => match parse(&value) {
            Some(parsed) => Ok(parsed),
            None => Err(SettingsError::Value {
                key,
                value,
                allowed,
            }),
        },
    }
}

fn on_off(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn mem_mib(value: &str) -> Option<u64> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let factor = match unit {
        "M" | "m" => 1,
        "G" | "g" => 1024,
        _ => return None,
    };
    let mib = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (64..=64 * 1024).contains(&mib).then_some(mib)
}

fn payload(path: String) -> Result<PathBuf, SettingsError> {
    let refuse = |cause: String| SettingsError::File {
        key: "PAYLOAD",
        path: path.clone(),
        cause,
    };
    let meta = std::fs::metadata(&path).map_err(|error| refuse(error.to_string()))?;
    if !meta.is_file() {
        return Err(refuse("not a regular file".into()));
    }
    if meta.len() == 0 {
        return Err(refuse("empty, and QEMU passes no empty initrd".into()));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests;
