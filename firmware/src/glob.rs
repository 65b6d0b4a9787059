//! Patterns that select tests by name.

use core::fmt;

/// A pattern in which `*` stands for any run of characters, `?` for any one, `,` lies between two
/// patterns of which one is enough, and every other character stands for itself. It matches a name
/// as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glob<'a>(&'a str);

impl<'a> Glob<'a> {
    /// The pattern `pattern`. Every text is one.
    pub const fn new(pattern: &'a str) -> Self {
        Self(pattern)
    }

    /// The pattern as it was written.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// Whether the pattern matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.0.split(',').any(|pattern| is_match(pattern, name))
    }
}

/// Whether `pattern`, without alternatives, matches `name`.
///
/// Takes at most as many steps as pattern and name have characters, multiplied, and no stack: when
/// a character does not fit, only the last `*` has to be tried again one further on, because an
/// earlier one could do no better.
fn is_match(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    let mut name = name.chars();
    // Where to go on when something does not fit: after the last `*`, and in the name.
    let mut retry = None;
    loop {
        let mut ahead = pattern.clone();
        match (ahead.next(), name.clone().next()) {
            (Some('*'), _) => {
                pattern = ahead;
                retry = Some((pattern.clone(), name.clone()));
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern = ahead;
                name.next();
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after_star, rest)) = &mut retry else {
            return false;
        };
        if rest.next().is_none() {
            return false;
        }
        pattern = after_star.clone();
        name = rest.clone();
    }
}

impl fmt::Display for Glob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the two wildcards of one alternative mean, written down as a definition.
    fn oracle(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=name.len()).any(|skip| oracle(rest, &name[skip..])),
            (['?', pattern @ ..], [_, name @ ..]) => oracle(pattern, name),
            ([wanted, pattern @ ..], [found, name @ ..]) => {
                wanted == found && oracle(pattern, name)
            }
            _ => false,
        }
    }

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "mmu", false),
            ("?", "", false),
            ("mmu.*", "mmu.window_attributes", true),
            ("mmu.*", "mmu", false),
            ("*.guard*", "vmalloc.guard_page", true),
            ("m?u", "mmu", true),
            ("m?u", "mu", false),
            ("*ab", "aab", true),
            ("boot", "boot.el", false),
            ("?.x", "é.x", true),
            ("mmu,boot", "boot", true),
            ("mmu,b*", "mmu", true),
            ("mmu,b*", "mmu,boot", false),
            ("mmu,", "", true),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_pattern_times_name() {
        // Trying every split would take longer than the universe has been around.
        let pattern = "*a".repeat(100) + "b";
        assert!(!Glob::new(&pattern).matches(&"a".repeat(1000)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?,]{0,8}", name in "[abé]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let name_characters = characters(&name);
            let expected = pattern
                .split(',')
                .any(|pattern| oracle(&characters(pattern), &name_characters));
            prop_assert_eq!(Glob::new(&pattern).matches(&name), expected);
        }
    }
}
