//! Names: which ones may be handed on, and which ones count as the same.

use icecore_dmu::zap::NORM_TOUPPER;
use unicode_normalization::UnicodeNormalization;

/// Whether bytes from a disk may be used as the name of a file: not empty, not `.` or `..`, no `/`, no NUL. OpenZFS
/// never stores others; a hostile pool may.
#[must_use]
pub fn is_safe_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

/// Canonical decomposition (`U8_CANON_DECOMP`, u8_textprep.h).
const CANON_DECOMP: u64 = 0x10;
/// Compatibility decomposition (`U8_COMPAT_DECOMP`).
const COMPAT_DECOMP: u64 = 0x20;
/// Composition after it (`U8_CANON_COMP`).
const CANON_COMP: u64 = 0x40;

/// A form of Unicode text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    C,
    D,
    Kc,
    Kd,
}

/// When two names are the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Folding {
    form: Option<Form>,
    upper: bool,
}

impl Folding {
    /// From property `normalization` as the master node has it, and whether case is ignored. `None` if the number
    /// stands for no form.
    pub(crate) fn new(normalization: u64, upper: bool) -> Option<Self> {
        let form = match normalization & !NORM_TOUPPER {
            0 => None,
            CANON_DECOMP => Some(Form::D),
            COMPAT_DECOMP => Some(Form::Kd),
            n if n == CANON_DECOMP | CANON_COMP => Some(Form::C),
            n if n == COMPAT_DECOMP | CANON_COMP => Some(Form::Kc),
            _ => return None,
        };
        Some(Self { form, upper })
    }

    /// Names are the same only if their bytes are.
    pub(crate) fn is_exact(self) -> bool {
        self.form.is_none() && !self.upper
    }

    /// What two names have in common if they are the same: upper case first, one letter for one letter, then the form
    /// (`u8_textprep_str`, u8_textprep.c). Bytes that are not UTF-8 stay.
    pub(crate) fn fold(self, name: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(name.len());
        for chunk in name.utf8_chunks() {
            let upper: String = if self.upper {
                chunk.valid().chars().map(simple_upper).collect()
            } else {
                chunk.valid().to_string()
            };
            let formed: String = match self.form {
                None => upper,
                Some(Form::C) => upper.nfc().collect(),
                Some(Form::D) => upper.nfd().collect(),
                Some(Form::Kc) => upper.nfkc().collect(),
                Some(Form::Kd) => upper.nfkd().collect(),
            };
            out.extend_from_slice(formed.as_bytes());
            out.extend_from_slice(chunk.invalid());
        }
        out
    }
}

/// The upper case of a letter where that is one letter; else the letter itself, as OpenZFS's tables have it (ß).
fn simple_upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_no_file_can_have() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b"\0"] {
            assert!(!is_safe_name(name), "{name:?}");
        }
        for name in [&b"a"[..], b"...", b".a", b" ", b"\xff\xfe", b"-rf", b"new\nline"] {
            assert!(is_safe_name(name), "{name:?}");
        }
    }

    #[test]
    fn same_names() {
        // (normalization, ignoring case, one, other, same)
        let cases: [(u64, bool, &str, &str, bool); 11] = [
            (0, false, "a", "A", false),
            (0, true, "ReadMe", "README", true),
            (0, true, "stra\u{df}e", "STRA\u{df}E", true),
            (0, true, "stra\u{df}e", "STRASSE", false),
            (0, true, "caf\u{e9}", "CAF\u{c9}", true),
            (0x10, false, "caf\u{e9}", "cafe\u{301}", true),
            (0x50, false, "caf\u{e9}", "cafe\u{301}", true),
            (0x10, false, "caf\u{e9}", "CAF\u{c9}", false),
            (0x10, true, "caf\u{e9}", "CAFE\u{301}", true),
            (0x20, false, "\u{fb01}", "fi", true),
            (0x10, false, "\u{fb01}", "fi", false),
        ];
        for (norm, upper, one, other, same) in cases {
            let f = Folding::new(norm, upper).unwrap();
            assert_eq!(f.fold(one.as_bytes()) == f.fold(other.as_bytes()), same, "{norm:#x} {one} {other}");
        }
        assert_eq!(Folding::new(0x10, true).unwrap().fold(b"a\xffb"), b"A\xffB");
        assert_eq!(Folding::new(0x40, false), None);
        assert!(Folding::new(0, false).unwrap().is_exact());
    }
}
