//! `icecore find`.

use super::out::Out;
use super::place::{Place, Pools, complain};
use crate::fail::{Fail, Outcome};
use icecore_pool::Io;
use icecore_zpl::{FileKind, Follow, Step, Walk, Znode};

pub const USAGE: &str = "find POOL/FS[@SNAP][:PATH] ... [-name PATTERN] [-type f|d|l|p|s|b|c]";

/// What was asked for.
#[derive(Default)]
struct Query {
    name: Option<Vec<u8>>,
    kinds: Option<Vec<char>>,
}

pub fn run(args: &[String]) -> Outcome {
    let mut query = Query::default();
    let mut places = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value =
            || args.next().ok_or_else(|| Fail::usage(format!("missing argument to '{arg}'"), USAGE));
        match arg.as_str() {
            "-name" => query.name = Some(value()?.as_bytes().to_vec()),
            "-type" => query.kinds = Some(kinds(value()?)?),
            option if option.starts_with('-') => {
                return Err(Fail::usage(format!("unknown option '{option}'"), USAGE));
            }
            place => places.push(place.to_string()),
        }
    }
    if places.is_empty() {
        return Err(Fail::usage("missing dataset", USAGE));
    }
    let mut pools = Pools::default();
    let mut out = Out::new()?;
    let mut failed = false;
    for typed in &places {
        let place = pools.place(typed)?;
        failed |= !one(&place, pools.io(&place)?, &query, &mut out)?;
    }
    out.finish()?;
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

fn kinds(text: &str) -> Outcome<Vec<char>> {
    let all: Vec<char> = text.split(',').filter_map(|t| t.parse().ok()).collect();
    if all.is_empty() || all.len() != text.split(',').count() || all.iter().any(|c| !"fdlpsbc".contains(*c)) {
        return Err(Fail::usage(format!("unknown argument to -type: {text}"), USAGE));
    }
    Ok(all)
}

impl Query {
    fn wants(&self, name: &[u8], z: &Znode) -> bool {
        self.kinds.as_ref().is_none_or(|k| k.contains(&z.kind.find_letter()))
            && self.name.as_ref().is_none_or(|pattern| matches(pattern, name))
    }
}

/// False if something could not be read.
fn one(place: &Place, io: &Io, query: &Query, out: &mut Out) -> Outcome<bool> {
    let fs = place.filesystem()?;
    let top = place.resolve(io, Follow::Never)?;
    let own = top.names.last().map_or(&b""[..], Vec::as_slice);
    if query.wants(own, &top.znode) {
        out.name(place.typed.as_bytes())?;
        out.bytes(b"\n")?;
    }
    if top.znode.kind != FileKind::Directory {
        return Ok(true);
    }
    let prefix = place.prefix();
    let mut fine = true;
    let mut walk = Walk::new(fs, io, top.znode)?;
    while let Some(step) = walk.next(fs, io) {
        match step {
            Step::File { path, znode } => {
                let name = path.rsplit(|b| *b == b'/').next().unwrap_or(&path);
                if query.wants(name, &znode) {
                    out.name(prefix.as_bytes())?;
                    out.name(&path)?;
                    out.bytes(b"\n")?;
                }
            }
            Step::Leave { .. } => {}
            Step::Failed { path, error } => {
                complain("find", &format!("{prefix}{}", String::from_utf8_lossy(&path)), &error);
                fine = false;
            }
        }
    }
    Ok(fine)
}

/// Whether a shell pattern (`*`, `?`, `[a-z]`, `[!a-z]`, `\`) matches all of a name. Takes time in the product of both
/// lengths at most.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if n == name.len() && pattern[p..].iter().all(|b| *b == b'*') {
            return true;
        }
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) if n < name.len() => {
                if let Some((plen, nlen)) = step(&pattern[p..], &name[n..]) {
                    p += plen;
                    n += nlen;
                    continue;
                }
            }
            _ => {}
        }
        match star {
            Some((after, from)) if from < name.len() => {
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Bytes of pattern and name that one element of the pattern takes, if it matches.
fn step(pattern: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let (c, len) = letter(name);
    match pattern[0] {
        b'?' => Some((1, len)),
        b'[' => match bracket(pattern, c) {
            Some((used, true)) => Some((used, len)),
            Some((_, false)) => None,
            None => (name[0] == b'[').then_some((1, 1)),
        },
        b'\\' if pattern.len() > 1 => (pattern[1] == name[0]).then_some((2, 1)),
        b => (b == name[0]).then_some((1, 1)),
    }
}

/// The first character, or byte where it is not UTF-8, with its length.
fn letter(text: &[u8]) -> (u32, usize) {
    let len = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let c = text.get(..len).and_then(|b| std::str::from_utf8(b).ok()).and_then(|s| s.chars().next());
    c.map_or((u32::from(text[0]), 1), |c| (u32::from(c), len))
}

/// Length of the bracket expression at the start of `pattern` and whether it has `c`; `None` if it has no end.
fn bracket(pattern: &[u8], c: u32) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let mut at = 1 + usize::from(negated);
    let first = at;
    let mut has = false;
    loop {
        if *pattern.get(at)? == b']' && at > first {
            return Some((at + 1, has != negated));
        }
        let (low, len) = letter(&pattern[at..]);
        at += len;
        let range = pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|b| *b != b']');
        let high = if range {
            let (high, len) = letter(&pattern[at + 1..]);
            at += 1 + len;
            high
        } else {
            low
        };
        has |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases: [(&str, &str, bool); 24] = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*.jpg", "IMG_0001.jpg", true),
            ("*.jpg", "IMG_0001.jpeg", false),
            ("IMG_000?.jpg", "IMG_0001.jpg", true),
            ("?", "\u{e9}", true),
            ("??", "\u{e9}", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("*\u{e9}*", "caf\u{e9}s", true),
            ("[a-]", "-", true),
            ("*a", "ba", true),
            ("a?", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        let long = vec![b'a'; 1000];
        assert!(!matches(b"*a*a*a*a*a*a*a*a*b", &long));
    }
}
