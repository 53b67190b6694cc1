//! Command lines as `zfs` and `zpool` take them: getopt style, bundled short options, long names, `--`.
//!
//! What was typed (this) and what is meant (each command's own struct) are kept apart.

use crate::fail::Fail;

/// One option of a command.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// The short letter.
    pub short: char,
    /// The long name, or empty.
    pub long: &'static str,
    /// Takes a value.
    pub value: bool,
}

/// A flag without a value.
#[must_use]
pub const fn flag(short: char, long: &'static str) -> Opt {
    Opt { short, long, value: false }
}
/// An option with a value.
#[must_use]
pub const fn value(short: char, long: &'static str) -> Opt {
    Opt { short, long, value: true }
}

/// What was typed, in order.
#[derive(Debug, Default)]
pub struct Typed {
    options: Vec<(char, String)>,
    /// What is not an option.
    pub operands: Vec<String>,
}

impl Typed {
    /// Splits `args` by the options the command knows. Options may stand after operands, as with GNU getopt, unless
    /// `POSIXLY_CORRECT` is set.
    pub fn parse(args: &[String], known: &[Opt], usage: &str) -> Result<Self, Fail> {
        let mut typed = Self::default();
        let mut rest = args.iter();
        let posix = crate::caller::var("POSIXLY_CORRECT").is_some();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                typed.operands.extend(rest.cloned());
                break;
            }
            if let Some(long) = arg.strip_prefix("--") {
                let (name, inline) =
                    long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_string())));
                let Some(opt) = known.iter().find(|o| o.long == name && !name.is_empty()) else {
                    return Err(Fail::usage(format!("invalid option '{arg}'"), usage));
                };
                let v = match (opt.value, inline) {
                    (true, Some(v)) => v,
                    (true, None) => rest.next().cloned().ok_or_else(|| missing(opt.short, usage))?,
                    (false, _) => String::new(),
                };
                typed.options.push((opt.short, v));
            } else if arg.len() > 1 && arg.starts_with('-') {
                typed.bundle(&arg[1..], known, usage, &mut rest)?;
            } else {
                typed.operands.push(arg.clone());
                if posix {
                    typed.operands.extend(rest.cloned());
                    break;
                }
            }
        }
        Ok(typed)
    }

    fn bundle(
        &mut self,
        letters: &str,
        known: &[Opt],
        usage: &str,
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), Fail> {
        for (at, c) in letters.char_indices() {
            let Some(opt) = known.iter().find(|o| o.short == c) else {
                return Err(Fail::usage(format!("invalid option '{c}'"), usage));
            };
            if !opt.value {
                self.options.push((c, String::new()));
                continue;
            }
            let inline = &letters[at + c.len_utf8()..];
            let v = if inline.is_empty() {
                rest.next().cloned().ok_or_else(|| missing(c, usage))?
            } else {
                inline.to_string()
            };
            self.options.push((c, v));
            break;
        }
        Ok(())
    }

    /// Whether the flag was given.
    #[must_use]
    pub fn has(&self, short: char) -> bool {
        self.options.iter().any(|(c, _)| *c == short)
    }
    /// The last value of the option.
    #[must_use]
    pub fn value(&self, short: char) -> Option<&str> {
        self.options.iter().rev().find(|(c, _)| *c == short).map(|(_, v)| v.as_str())
    }
    /// All values of the option.
    pub fn values(&self, short: char) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(c, _)| *c == short).map(|(_, v)| v.as_str())
    }
    /// The options in the order typed.
    #[must_use]
    pub fn ordered(&self) -> &[(char, String)] {
        &self.options
    }
}

fn missing(c: char, usage: &str) -> Fail {
    Fail::usage(format!("missing argument for '{c}' option"), usage)
}
