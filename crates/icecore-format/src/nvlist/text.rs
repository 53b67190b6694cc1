//! Lists as text, in the layout of `nvlist_print` (libnvpair.c), which people know from `zstream dump` and `zdb`.

use super::{NvList, NvValue};
use std::fmt::{self, Display, Write};

/// Writes `list` as `nvlist_print` does, each level indented by a tab.
pub fn print(list: &NvList, out: &mut dyn Write) -> fmt::Result {
    list_at(list, 0, out)
}

/// Writes `list` as `nvlist_snprintf` does (nvpair.c), which `zpool history` uses: each level four columns further in.
pub fn dump(list: &NvList, indent: usize, out: &mut dyn Write) -> fmt::Result {
    use NvValue as V;
    for (name, value) in list.iter() {
        let one = |out: &mut dyn Write, text: &dyn Display| writeln!(out, "{:indent$}{name}: {text}", "");
        match value {
            V::Flag => writeln!(out, "{:indent$}{name}", "")?,
            V::Bool(b) => one(out, b)?,
            V::Byte(n) | V::U8(n) => one(out, n)?,
            V::I8(n) => one(out, n)?,
            V::I16(n) => one(out, n)?,
            V::U16(n) => one(out, n)?,
            V::I32(n) => one(out, n)?,
            V::U32(n) => one(out, n)?,
            V::I64(n) => one(out, n)?,
            V::U64(n) => one(out, n)?,
            V::Str(s) => one(out, &format_args!("'{s}'"))?,
            V::List(inner) => {
                writeln!(out, "{:indent$}{name}:", "")?;
                dump(inner, indent.saturating_add(4), out)?;
            }
            V::ListArray(lists) => {
                for (i, inner) in lists.iter().enumerate() {
                    writeln!(out, "{:indent$}{name}[{i}]:", "")?;
                    dump(inner, indent.saturating_add(4), out)?;
                }
            }
            V::ByteArray(a) | V::U8Array(a) => each(name, a, indent, out)?,
            V::I8Array(a) => each(name, a, indent, out)?,
            V::I16Array(a) => each(name, a, indent, out)?,
            V::U16Array(a) => each(name, a, indent, out)?,
            V::I32Array(a) => each(name, a, indent, out)?,
            V::U32Array(a) => each(name, a, indent, out)?,
            V::I64Array(a) => each(name, a, indent, out)?,
            V::U64Array(a) => each(name, a, indent, out)?,
            V::StrArray(a) => {
                let quoted: Vec<String> = a.iter().map(|s| format!("'{s}'")).collect();
                each(name, &quoted, indent, out)?;
            }
            other => writeln!(out, "{:indent$}bad config type {} for {name}", "", other.type_number())?,
        }
    }
    Ok(())
}

/// Elements on a line each, with their index.
fn each<T: Display>(name: &dyn Display, items: &[T], indent: usize, out: &mut dyn Write) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(i, n)| writeln!(out, "{:indent$}{name}[{i}]: {n}", ""))
}

fn list_at(list: &NvList, depth: usize, out: &mut dyn Write) -> fmt::Result {
    tabs(depth, out)?;
    writeln!(out, "nvlist version: 0")?;
    list.iter().try_for_each(|(name, value)| pair(name, value, depth.saturating_add(1), out))
}

fn tabs(depth: usize, out: &mut dyn Write) -> fmt::Result {
    (0..depth).try_for_each(|_| out.write_char('\t'))
}

fn pair(name: &dyn Display, value: &NvValue, depth: usize, out: &mut dyn Write) -> fmt::Result {
    use NvValue as V;
    let one = |out: &mut dyn Write, text: &dyn Display| {
        tabs(depth, out)?;
        writeln!(out, "{name} = {text}")
    };
    match value {
        V::Flag => one(out, &1),
        V::Bool(b) => one(out, &u8::from(*b)),
        V::Byte(n) => one(out, &format_args!("{n:#04x}")),
        V::I8(n) => one(out, n),
        V::U8(n) => one(out, &format_args!("{n:#x}")),
        V::I16(n) => one(out, n),
        V::U16(n) => one(out, &format_args!("{n:#x}")),
        V::I32(n) => one(out, n),
        V::U32(n) => one(out, &format_args!("{n:#x}")),
        V::I64(n) => one(out, n),
        V::U64(n) => one(out, &format_args!("{n:#x}")),
        V::Double(bits) => one(out, &format_args!("0x{:.6}", f64::from_bits(*bits))),
        V::Str(s) => one(out, s),
        V::Hrtime(n) => one(out, &format_args!("{n:#x}")),
        V::List(inner) => {
            tabs(depth, out)?;
            writeln!(out, "{name} = (embedded nvlist)")?;
            list_at(inner, depth, out)?;
            tabs(depth, out)?;
            writeln!(out, "(end {name})\n")
        }
        V::ListArray(lists) => {
            tabs(depth, out)?;
            writeln!(out, "{name} = (array of embedded nvlists)")?;
            for (i, inner) in lists.iter().enumerate() {
                tabs(depth, out)?;
                writeln!(out, "(start {name}[{i}])")?;
                list_at(inner, depth, out)?;
                tabs(depth, out)?;
                writeln!(out, "(end {name}[{i}])")?;
            }
            writeln!(out)
        }
        V::BoolArray(a) => many(name, a, depth, out, |b, out| write!(out, "{}", u8::from(*b))),
        V::ByteArray(a) => many(name, a, depth, out, |n, out| write!(out, "{n:#04x}")),
        V::I8Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n}")),
        V::U8Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n:#x}")),
        V::I16Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n}")),
        V::U16Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n:#x}")),
        V::I32Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n}")),
        V::U32Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n:#x}")),
        V::I64Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n}")),
        V::U64Array(a) => many(name, a, depth, out, |n, out| write!(out, "{n:#x}")),
        V::StrArray(a) => many(name, a, depth, out, |s, out| write!(out, "{s}")),
    }
}

/// Elements on one line, a space between; an empty array has no name either.
fn many<T>(
    name: &dyn Display,
    items: &[T],
    depth: usize,
    out: &mut dyn Write,
    put: impl Fn(&T, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i == 0 {
            tabs(depth, out)?;
            write!(out, "{name} = ")?;
        } else {
            out.write_char(' ')?;
        }
        put(item, out)?;
    }
    writeln!(out)
}
