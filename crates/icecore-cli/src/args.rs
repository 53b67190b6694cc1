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
        Self::parse_with(args, known, usage, |c| format!("missing argument for '{c}' option"))
    }

    /// The same for commands whose option string has no `:` in front: an option without its value is one they do not know.
    pub fn parse_plain(args: &[String], known: &[Opt], usage: &str) -> Result<Self, Fail> {
        Self::parse_with(args, known, usage, |c| format!("invalid option '{c}'"))
    }

    /// The same, with the words for an option without its value.
    pub fn parse_with(
        args: &[String],
        known: &[Opt],
        usage: &str,
        lacks: impl Fn(char) -> String,
    ) -> Result<Self, Fail> {
        let missing = |c| Fail::usage(lacks(c), usage);
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
                    (true, None) => rest.next().cloned().ok_or_else(|| missing(opt.short))?,
                    (false, Some(_)) => {
                        let short = if opt.short.is_control() { arg.clone() } else { opt.short.to_string() };
                        return Err(Fail::usage(format!("invalid option '{short}'"), usage));
                    }
                    (false, None) => String::new(),
                };
                typed.options.push((opt.short, v));
            } else if arg.len() > 1 && arg.starts_with('-') {
                typed.bundle(&arg[1..], known, (usage, &missing), &mut rest)?;
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
        (usage, missing): (&str, &dyn Fn(char) -> Fail),
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
                rest.next().cloned().ok_or_else(|| missing(c))?
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

/// What is left of operands without an interval and a count at their end, which cannot be zero (`get_interval_count`,
/// zpool_main.c).
pub fn without_interval<'a>(operands: &'a [String], usage: &str) -> Result<&'a [String], Fail> {
    let mut rest = operands;
    for _ in 0..2 {
        let Some((last, before)) = rest.split_last() else { break };
        let digits = last.chars().all(|c| c.is_ascii_digit() || c == '.');
        match last.parse::<f32>() {
            Ok(0.0) if digits => return Err(Fail::usage("interval cannot be zero", usage)),
            Ok(_) if digits => rest = before,
            _ => break,
        }
    }
    Ok(rest)
}

/// `--json-int` means something of JSON only.
pub fn json_numbers(typed: &Typed, usage: &str) -> Result<(), Fail> {
    match typed.has('J') && !typed.has('j') {
        true => Err(Fail::usage("'--json-int' only works with '-j' option", usage)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Opt, Typed, flag, value};

    const KNOWN: [Opt; 5] =
        [flag('r', ""), flag('j', "json"), value('o', ""), value('t', "type"), flag('\u{fc}', "")];
    /// Pieces of command lines: sound ones, halves of them, and what nobody would type.
    const PIECES: [&str; 22] = [
        "-",
        "--",
        "-r",
        "-rj",
        "-o",
        "-oa=b",
        "-ro",
        "-jt",
        "--json",
        "--json=",
        "--type",
        "--type=x",
        "--=",
        "--x",
        "-\u{fc}",
        "-o\u{fc}",
        "-\u{1f9ca}",
        "p/a@s",
        "",
        " ",
        "\u{0}",
        "=",
    ];

    fn parse(words: &[String]) -> Option<Typed> {
        Typed::parse(words, &KNOWN, "usage").ok()
    }

    /// The same command line with each option by itself, each value a word of its own, operands last.
    fn plain(typed: &Typed) -> Vec<String> {
        let mut words = Vec::new();
        for (short, given) in typed.ordered() {
            words.push(format!("-{short}"));
            if KNOWN.iter().any(|o| o.short == *short && o.value) {
                words.push(given.clone());
            }
        }
        words.push("--".into());
        words.extend(typed.operands.iter().cloned());
        words
    }

    #[test]
    fn a_flag_takes_no_value_behind_its_long_name() {
        assert!(parse(&["--json=x".into()]).is_none() && parse(&["--json=".into()]).is_none());
        assert!(parse(&["--json".into()]).is_some_and(|typed| typed.has('j')));
    }

    #[test]
    fn any_words_are_refused_or_mean_what_their_plain_form_means() {
        let (mut x, mut sound, mut refused) = (7_u64, 0, 0);
        for _ in 0..200_000 {
            let mut words = Vec::new();
            for _ in 0..x % 7 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let [a, b] = [x >> 33, x >> 48].map(|n| PIECES[n as usize % PIECES.len()]);
                words.push(if x >> 61 == 0 { format!("{a}{b}") } else { a.to_string() });
            }
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            x ^= x >> 29;
            let Some(typed) = parse(&words) else {
                refused += 1;
                continue;
            };
            sound += 1;
            let again = parse(&plain(&typed)).unwrap_or_else(|| panic!("{words:?} has no plain form"));
            assert_eq!(again.ordered(), typed.ordered(), "{words:?}");
            assert_eq!(again.operands, typed.operands, "{words:?}");
            assert!(typed.operands.iter().all(|o| words.contains(o)), "{words:?}");
        }
        assert!(sound > 10_000 && refused > 10_000, "{sound} sound, {refused} refused");
    }
}
