//! The plugin's arguments.

use std::path::PathBuf;

/// What the user said after the plugin's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `board=`: the name of the machine.
    pub board: String,
    /// `ram=`: the file behind its RAM.
    pub ram: PathBuf,
    /// `out=`: where the findings go.
    pub out: PathBuf,
    /// `shadow=`: whether bytes are compared as well.
    pub shadow: bool,
    /// `coherent=`: whether the devices snoop the caches.
    pub coherent: bool,
    /// `suppress=`: a file of findings that are known.
    pub suppress: Option<PathBuf>,
}

impl Options {
    /// Reads `key=value` words.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for the user.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let (mut board, mut ram, mut out, mut suppress) = (None, None, None, None);
        let (mut shadow, mut coherent) = (false, false);
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("{word}: not of the form key=value"))?;
            match key {
                "board" => board = Some(value.to_owned()),
                "ram" => ram = Some(PathBuf::from(value)),
                "out" => out = Some(PathBuf::from(value)),
                "suppress" => suppress = Some(PathBuf::from(value)),
                "shadow" => shadow = switch(key, value)?,
                "coherent" => coherent = switch(key, value)?,
                _ => {
                    return Err(format!(
                        "{key}: unknown; there are board, ram, out, shadow, coherent, suppress"
                    ));
                }
            }
        }
        let need = |key: &str| format!("{key}= is missing");
        Ok(Self {
            board: board.ok_or_else(|| need("board"))?,
            ram: ram.ok_or_else(|| need("ram"))?,
            out: out.ok_or_else(|| need("out"))?,
            shadow,
            coherent,
            suppress,
        })
    }
}

/// QEMU turns a bare `shadow` into `shadow=on`.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(format!("{key}={value}: neither on nor off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them() {
        let words = "board=virt ram=/r out=/o shadow=on coherent=off suppress=/s";
        let options = Options::parse(words.split(' ')).unwrap();
        assert_eq!(options.board, "virt");
        assert!(options.shadow && !options.coherent);
        assert_eq!(options.suppress, Some("/s".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |words: &str| Options::parse(words.split(' ')).unwrap_err();
        assert!(error("board=virt ram=/r").contains("out="));
        assert!(error("board").contains("key=value"));
        assert!(error("bored=virt").contains("bored"));
        assert!(error("board=b ram=r out=o shadow=perhaps").contains("perhaps"));
    }
}
