//! From which size on one method is cheaper than another.

use core::fmt;

/// Where the cheaper of two methods changes, as far as the sizes that were measured tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossover {
    /// The first is cheaper at every size; this is the smallest.
    AtMost(usize),
    /// The first is cheaper at the latter size and all beyond, and not at the former.
    Between(usize, usize),
    /// It is not cheaper at the largest size.
    Nowhere,
}

impl Crossover {
    /// Of sizes in ascending order, each with whether the first method was cheaper. A size at which it
    /// was, below one at which it was not, is no crossover: it does not stay.
    pub fn of(sizes: impl IntoIterator<Item = (usize, bool)>) -> Self {
        let mut last_dearer = None;
        let mut first_cheaper = None;
        for (size, is_cheaper) in sizes {
            if is_cheaper {
                first_cheaper = first_cheaper.or(Some(size));
            } else {
                (last_dearer, first_cheaper) = (Some(size), None);
            }
        }
        match (last_dearer, first_cheaper) {
            (_, None) => Self::Nowhere,
            (None, Some(size)) => Self::AtMost(size),
            (Some(dearer), Some(cheaper)) => Self::Between(dearer, cheaper),
        }
    }
}

impl fmt::Display for Crossover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(size) => write!(f, "at most {size}"),
            Self::Between(dearer, cheaper) => write!(f, "between {dearer} and {cheaper}"),
            Self::Nowhere => f.write_str("none"),
        }
    }
}
