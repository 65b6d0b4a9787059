//! What the plugin is told, from the environment.

use crate::machine::Watch;
use crate::settings::{SettingsError, choice};
use std::path::{Path, PathBuf};

/// The settings of `make sanitize` beyond those of every run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether loads are compared with what the CPU had seen: SHADOW. What is right unless it is given
    /// depends on the firmware.
    shadow: Option<bool>,
    /// Whether the machine's devices snoop: COHERENT.
    coherent: bool,
    /// What is not to be reported: SUPPRESS.
    suppress: Option<PathBuf>,
    /// How often a run with the plugin is compared with one without, if at all: PAIRS.
    pub(super) pairs: Option<usize>,
}

/// What the machine of any kernel image is not given, and is refused beside FIRMWARE.
const OWN: [(&str, &str); 6] = [
    ("IMAGE", "what QEMU's -kernel takes"),
    ("PAYLOAD", "QEMU_EXTRA='-initrd FILE'"),
    ("EDU", "QEMU_EXTRA='-device edu,...'"),
    ("DTB", "QEMU_EXTRA='-dtb FILE'"),
    ("RAMFILL", "nothing: RAM is zeros"),
    (
        "PAIRS",
        "nothing: the slow-down is that of this repository's firmware",
    ),
];

/// What is refused without FIRMWARE.
const FOREIGN: [(&str, &str); 2] = [
    (
        "COHERENT",
        "nothing: the devices of this repository's boards do not snoop, and its seeds count on that",
    ),
    (
        "SUPPRESS",
        "nothing: what this repository's firmware does wrong on purpose, it says itself",
    ),
];

impl Options {
    /// Reads them through `get`, which returns what a variable holds, if anything.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let shadow = choice(&get, "SHADOW", "on or off", None, |value| match value {
            "on" => Some(Some(true)),
            "off" => Some(Some(false)),
            _ => None,
        })?;
        let coherent = choice(&get, "COHERENT", "1 or 0", false, |value| match value {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        })?;
        let suppress = choice(&get, "SUPPRESS", "a file", None, |value| {
            let path = Path::new(value).canonicalize().ok()?;
            path.is_file().then_some(Some(path))
        })?;
        let pairs = choice(&get, "PAIRS", "a number from 1 to 99", None, |value| {
            let pairs = value
                .parse()
                .ok()
                .filter(|pairs| (1..=99).contains(pairs))?;
            Some(Some(pairs))
        })?;
        let (with, refused): (_, &[(_, _)]) = match get("FIRMWARE") {
            Some(_) => ("FIRMWARE", &OWN),
            None => ("no FIRMWARE", &FOREIGN),
        };
        for &(key, allowed) in refused {
            if let Some(value) = get(key) {
                return Err(SettingsError::Together {
                    key,
                    value,
                    with,
                    allowed,
                });
            }
        }
        Ok(Self {
            shadow,
            coherent,
            suppress,
            pairs,
        })
    }

    /// What a run is watched by: `plugin`, in shadow mode if that was asked for or, unless it was asked
    /// not to be, `shadow` says so.
    pub(super) fn watch(&self, plugin: &Path, shadow: bool) -> Watch {
        Watch {
            plugin: Some(plugin.into()),
            has_threads: false,
            shadow: self.shadow.unwrap_or(shadow),
            coherent: self.coherent,
            suppress: self.suppress.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, SettingsError> {
        Options::read(|key| {
            let found = pairs.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn shadow_mode_is_the_callers_choice_unless_it_is_given() {
        let plugin = Path::new("plugin.so");
        assert!(read(&[]).unwrap().watch(plugin, true).shadow);
        assert!(!read(&[]).unwrap().watch(plugin, false).shadow);
        assert!(
            !read(&[("SHADOW", "off")])
                .unwrap()
                .watch(plugin, true)
                .shadow
        );
        assert!(
            read(&[("SHADOW", "on")])
                .unwrap()
                .watch(plugin, false)
                .shadow
        );
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let image = ("FIRMWARE", "kernel.elf");
        for (pairs, start) in [
            (vec![("COHERENT", "1")], "COHERENT=1 with no FIRMWARE: "),
            (vec![("COHERENT", "0")], "COHERENT=0 with no FIRMWARE: "),
            (
                vec![("SUPPRESS", "Cargo.toml")],
                "SUPPRESS=Cargo.toml with no FIRMWARE: ",
            ),
            (vec![image, ("PAIRS", "5")], "PAIRS=5 with FIRMWARE: "),
            (vec![image, ("DTB", "none")], "DTB=none with FIRMWARE: "),
        ] {
            let error = read(&pairs).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{start}allowed is ")), "{error}");
        }
        let options = read(&[image, ("COHERENT", "1"), ("SUPPRESS", "Cargo.toml")]).unwrap();
        assert!(options.coherent && options.suppress.is_some());
        assert_eq!(read(&[("PAIRS", "5")]).unwrap().pairs, Some(5));
        assert_eq!(read(&[]).unwrap().pairs, None);
    }

    #[test]
    fn values_without_sense_are_refused() {
        for (key, value) in [
            ("SHADOW", "yes"),
            ("COHERENT", "on"),
            ("SUPPRESS", "/nonexistent"),
            ("PAIRS", "0"),
            ("PAIRS", "many"),
            ("PAIRS", "100"),
        ] {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{key}={value}: allowed is ")),
                "{error}"
            );
        }
    }
}
