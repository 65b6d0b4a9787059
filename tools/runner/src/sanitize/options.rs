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
}

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
        Ok(Self {
            shadow,
            coherent,
            suppress,
        })
    }

    /// What a run is watched by: `plugin`, in shadow mode if that was asked for or, unless it was asked
    /// not to be, `shadow` says so.
    pub(super) fn watch(&self, plugin: &Path, shadow: bool) -> Watch {
        Watch {
            plugin: plugin.into(),
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
    fn values_without_sense_are_refused() {
        for (key, value) in [
            ("SHADOW", "yes"),
            ("COHERENT", "on"),
            ("SUPPRESS", "/nonexistent"),
        ] {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{key}={value}: allowed is ")),
                "{error}"
            );
        }
    }
}
