//! Numbers in JSON (`zprop_nvlist_one_property`, libzfs_util.c).

use crate::args::Typed;
use serde_json::Value;

/// How numbers are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbers {
    /// For people.
    Human,
    /// Exact, as text (`-p`).
    Exact,
    /// As JSON's own numbers (`--json-int`).
    Ints,
}

impl Numbers {
    /// What `-p` and `--json-int` ask for.
    pub fn of(typed: &Typed) -> Self {
        match (typed.has('J'), typed.has('p')) {
            (true, _) => Self::Ints,
            (_, true) => Self::Exact,
            _ => Self::Human,
        }
    }
    /// What is shown of a property, which is a number if it is digits.
    pub fn text(self, shown: String) -> Value {
        let digits = self == Self::Ints && !shown.is_empty() && shown.bytes().all(|b| b.is_ascii_digit());
        match shown.parse::<u64>() {
            Ok(n) if digits => n.into(),
            _ => shown.into(),
        }
    }
    /// A number that people get in full too.
    pub fn exact(self, n: u64) -> Value {
        self.shown(n, |n| n.to_string())
    }
    /// A number in this form for people.
    pub fn shown(self, n: u64, human: impl FnOnce(u64) -> String) -> Value {
        match self {
            Self::Human => human(n).into(),
            Self::Exact => n.to_string().into(),
            Self::Ints => n.into(),
        }
    }
}
