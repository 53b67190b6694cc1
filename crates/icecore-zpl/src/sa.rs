//! System attributes: what a dataset's files can carry, and where in bonus and spill it lies (sa.c, sa_impl.h).
//!
//! A buffer begins with a head (magic, layout number, lengths of the attributes whose length varies); the layout, from
//! a table of the dataset, says which attributes follow in which order, each aligned to 8 bytes. Before ZPL version 5
//! the bonus was a fixed `znode_phys_t`: the same attributes as layout 0, without a head.

use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, Objset, ReadError};
use icecore_format::byteswap::swap_block;
use icecore_format::object_type::Bswap;
use icecore_format::reader::u64_at;
use icecore_format::{Corrupt, ObjectId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// `SA_MAGIC`.
const MAGIC: u32 = 0x002f_505a;
/// Bytes before the lengths.
const HEAD: usize = 6;
/// A layout number has 10 bits.
const LAYOUTS_MAX: u16 = 1024;
/// 0 and 1 are taken by the old znode and by empty buffers.
const LAYOUT_FIRST: u16 = 2;
/// More attributes than any file system registers (OpenZFS knows 23).
const ATTRS_MAX: usize = 1024;
/// Bytes of a `znode_phys_t`; a short symbolic link's target follows.
pub(crate) const ZNODE_SIZE: usize = 264;

macro_rules! attributes {
    ($($name:ident $text:literal $len:literal;)*) => {
        /// An attribute we know, in the order of `zpl_attr_t` (zfs_sa.h).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Attr { $($name),* }
        /// Name and length (0: varies) of each (`zfs_attr_table`, zfs_sa.c).
        const KNOWN: &[(Attr, &str, u16)] = &[$((Attr::$name, $text, $len)),*];
    };
}
attributes! {
    Atime "ZPL_ATIME" 16;
    Mtime "ZPL_MTIME" 16;
    Ctime "ZPL_CTIME" 16;
    Crtime "ZPL_CRTIME" 16;
    Gen "ZPL_GEN" 8;
    Mode "ZPL_MODE" 8;
    Size "ZPL_SIZE" 8;
    Parent "ZPL_PARENT" 8;
    Links "ZPL_LINKS" 8;
    Xattr "ZPL_XATTR" 8;
    Rdev "ZPL_RDEV" 8;
    Flags "ZPL_FLAGS" 8;
    Uid "ZPL_UID" 8;
    Gid "ZPL_GID" 8;
    Pad "ZPL_PAD" 32;
    ZnodeAcl "ZPL_ZNODE_ACL" 88;
    DaclCount "ZPL_DACL_COUNT" 8;
    Symlink "ZPL_SYMLINK" 0;
    Scanstamp "ZPL_SCANSTAMP" 32;
    DaclAces "ZPL_DACL_ACES" 0;
    Dxattr "ZPL_DXATTR" 0;
    Projid "ZPL_PROJID" 8;
    Seq "ZPL_SEQ" 8;
}
const KNOWN_COUNT: usize = 23;
const _: () = assert!(KNOWN.len() == KNOWN_COUNT);
/// Attributes of a `znode_phys_t`, in its order: the first sixteen.
const LEGACY_COUNT: usize = 16;

/// An attribute as a dataset registered it.
#[derive(Clone, Copy, Debug)]
struct Registered {
    /// Bytes; 0 if it varies.
    len: u16,
    /// `sa_bswap_type_t`.
    bswap: u8,
    known: Option<Attr>,
}

/// The attributes and layouts of a dataset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    attrs: Vec<Option<Registered>>,
    layouts: BTreeMap<u16, Vec<u16>>,
}

/// An attribute by its number in the dataset, with its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub number: u16,
    pub bytes: Vec<u8>,
}

/// Attributes found in one buffer, by what we know them as.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attrs<'a> {
    found: [Option<&'a [u8]>; KNOWN_COUNT],
}

impl<'a> Attrs<'a> {
    pub(crate) fn get(&self, attr: Attr) -> Option<&'a [u8]> {
        self.found.get(attr as usize).copied().flatten()
    }
    /// Word `index` of an attribute of 64-bit words.
    pub(crate) fn word(&self, attr: Attr, index: usize) -> Option<u64> {
        let bytes = self.get(attr)?;
        (bytes.len() >= index.checked_mul(8)?.checked_add(8)?).then(|| u64_at(bytes, index * 8))
    }
    fn set(&mut self, attr: Attr, bytes: &'a [u8]) {
        if let Some(slot) = self.found.get_mut(attr as usize) {
            *slot = Some(bytes);
        }
    }
}

impl Registry {
    /// Reads registry and layouts, which the object named by the master node's `SA_ATTRS` leads to (`sa_setup`, sa.c).
    pub(crate) fn read(os: &Objset, io: &dyn BlockStore, master: ObjectId) -> Result<Self, ReadError> {
        let mut own = Self::default();
        let Some(registry) = zap::lookup_u64(os, io, master, "REGISTRY")? else { return Ok(own) };
        let registry = ObjectId(registry);
        let mut cursor = zap::Cursor::new(os, io, registry, os.dnode(io, registry)?)?;
        while let Some(entries) = cursor.next_leaf(os, io)? {
            for e in entries {
                own.register(&e.name, e.value.as_u64().unwrap_or(0))?;
            }
        }
        let Some(layouts) = zap::lookup_u64(os, io, master, "LAYOUTS")? else { return Ok(own) };
        let layouts = ObjectId(layouts);
        let mut cursor = zap::Cursor::new(os, io, layouts, os.dnode(io, layouts)?)?;
        while let Some(entries) = cursor.next_leaf(os, io)? {
            for e in entries {
                own.add_layout(&e.name_str(), e.value)?;
            }
        }
        Ok(own)
    }

    /// An entry of the registry: number, byte order class and length in one word (`ATTR_NUM`, `ATTR_BSWAP`,
    /// `ATTR_LENGTH`, sa_impl.h).
    fn register(&mut self, name: &[u8], word: u64) -> Result<(), Corrupt> {
        let bad = |why: String| Corrupt::new("SA registry", why);
        let (number, bswap, len) = ((word & 0xffff) as usize, (word >> 16) as u8, (word >> 24) as u16);
        if number >= ATTRS_MAX {
            return Err(bad(format!("attribute number {number}")));
        }
        let known = KNOWN.iter().find(|(_, text, _)| text.as_bytes() == name);
        if let Some((_, text, expected)) = known
            && *expected != len
        {
            return Err(bad(format!("{text} of {len} bytes")));
        }
        if self.attrs.len() <= number {
            self.attrs.resize(number + 1, None);
        }
        if let Some(slot) = self.attrs.get_mut(number) {
            *slot = Some(Registered { len, bswap, known: known.map(|(attr, ..)| *attr) });
        }
        Ok(())
    }

    fn add_layout(&mut self, name: &str, value: ZapValue) -> Result<(), Corrupt> {
        let bad = |why: &str| Corrupt::new("SA layouts", format!("{name}: {why}"));
        let number: u16 = name.parse().map_err(|_| bad("not a number"))?;
        let ZapValue::U16(attrs) = value else { return Err(bad("not 16-bit numbers")) };
        if number >= LAYOUTS_MAX || attrs.len() > ATTRS_MAX {
            return Err(bad("too many"));
        }
        if attrs.iter().any(|a| self.attr(*a).is_none()) {
            return Err(bad("an attribute that is not registered"));
        }
        self.layouts.insert(number, attrs);
        Ok(())
    }

    /// The dataset's number of an attribute.
    pub(crate) fn number(&self, attr: Attr) -> Option<u16> {
        let at = self.attrs.iter().position(|r| r.is_some_and(|r| r.known == Some(attr)))?;
        u16::try_from(at).ok()
    }

    /// All attributes of a buffer in our byte order, in their order.
    pub(crate) fn placed(&self, bytes: &[u8]) -> Result<Vec<Placed>, Corrupt> {
        let own = |(number, at, len): (u16, usize, usize)| {
            bytes.get(at..at + len).map(|b| Placed { number, bytes: b.to_vec() })
        };
        Ok(self.places(bytes)?.into_iter().filter_map(own).collect())
    }

    fn varies(&self, p: &Placed) -> bool {
        self.attr(p.number).is_some_and(|r| r.len == 0)
    }

    /// Bytes of a buffer of these attributes.
    pub(crate) fn buffer_len(&self, attrs: &[Placed]) -> usize {
        let varying = attrs.iter().filter(|p| self.varies(p)).count();
        let head = (HEAD + 2 * varying).next_multiple_of(8);
        attrs.iter().fold(head, |at, p| at + p.bytes.len().next_multiple_of(8))
    }

    /// The layout of exactly these attributes.
    pub(crate) fn layout_of(&self, numbers: &[u16]) -> Option<u16> {
        self.layouts.iter().find(|(n, l)| **n >= LAYOUT_FIRST && l.as_slice() == numbers).map(|(n, _)| *n)
    }
    /// A number for one more layout.
    pub(crate) fn next_layout(&self) -> Option<u16> {
        let last = self.layouts.keys().next_back().copied().unwrap_or(0);
        Some((last + 1).max(LAYOUT_FIRST)).filter(|n| *n < LAYOUTS_MAX)
    }
    /// Remembers a layout that was written to the dataset's table.
    pub(crate) fn keep_layout(&mut self, number: u16, attrs: Vec<u16>) {
        self.layouts.insert(number, attrs);
    }

    /// A buffer of these attributes under a layout that says just them (`sa_build_layouts`, sa.c).
    pub(crate) fn build(&self, layout: u16, attrs: &[Placed]) -> Vec<u8> {
        let varying: Vec<&Placed> = attrs.iter().filter(|p| self.varies(p)).collect();
        let head = (HEAD + 2 * varying.len()).next_multiple_of(8);
        let mut b = MAGIC.to_le_bytes().to_vec();
        b.extend((layout | ((head / 8) as u16) << 10).to_le_bytes());
        for p in varying {
            b.extend(u16::try_from(p.bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        }
        b.resize(head, 0);
        for p in attrs {
            b.extend_from_slice(&p.bytes);
            b.resize(b.len().next_multiple_of(8), 0);
        }
        b
    }

    fn attr(&self, number: u16) -> Option<Registered> {
        self.attrs.get(usize::from(number)).copied().flatten()
    }

    /// The buffer in our byte order: contents of bonus and spill are not swapped with their block, since only the
    /// layout knows where words are (`sa_byteswap`, sa.c).
    pub(crate) fn native<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, Corrupt> {
        if le32(bytes, 0) != Some(MAGIC.swap_bytes()) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut own = bytes.to_vec();
        let swap = |own: &mut Vec<u8>, at: usize, len: usize, class: Bswap| {
            if let Some(part) = own.get_mut(at..at.saturating_add(len)) {
                swap_block(class, part);
            }
        };
        swap(&mut own, 0, 4, Bswap::U32);
        swap(&mut own, 4, 2, Bswap::U16);
        let layout = self.layout(&own)?;
        let varying = layout.iter().filter(|a| self.attr(**a).is_some_and(|r| r.len == 0)).count();
        swap(&mut own, HEAD, varying * 2, Bswap::U16);
        for (number, at, len) in self.places(&own)? {
            let class = match self.attr(number).map(|r| r.bswap) {
                Some(0) => Bswap::U64,
                Some(1) => Bswap::U32,
                Some(2) => Bswap::U16,
                Some(4) => Bswap::Acl,
                _ => Bswap::U8,
            };
            swap(&mut own, at, len, class);
        }
        Ok(Cow::Owned(own))
    }

    /// The layout of a buffer; number 0 stands for 1, which is empty (`SA_LAYOUT_NUM`, sa_impl.h).
    fn layout(&self, bytes: &[u8]) -> Result<&[u16], Corrupt> {
        let number = le16(bytes, 4).unwrap_or(0) & (LAYOUTS_MAX - 1);
        match self.layouts.get(&number) {
            Some(layout) => Ok(layout),
            None if number <= 1 => Ok(&[]),
            None => Err(Corrupt::new("SA head", format!("layout {number} is not in the dataset's table"))),
        }
    }

    /// Number, offset and length of each attribute of a buffer (`sa_attr_iter`, sa.c).
    fn places(&self, bytes: &[u8]) -> Result<Vec<(u16, usize, usize)>, Corrupt> {
        let bad = |why: String| Corrupt::new("SA buffer", why);
        match le32(bytes, 0) {
            Some(MAGIC) => {}
            Some(0) | None => return Ok(Vec::new()),
            Some(magic) => return Err(bad(format!("magic {magic:#x}"))),
        }
        let layout = self.layout(bytes)?;
        let varying = layout.iter().filter(|a| self.attr(**a).is_some_and(|r| r.len == 0)).count();
        let mut at = (HEAD + 2 * varying).next_multiple_of(8);
        let mut lengths = (0..varying).map(|i| le16(bytes, HEAD + 2 * i));
        let mut out = Vec::with_capacity(layout.len());
        for number in layout {
            let fixed = self.attr(*number).map_or(0, |r| usize::from(r.len));
            let len = match fixed {
                0 => lengths.next().flatten().map(usize::from),
                n => Some(n),
            };
            let len = len.filter(|len| at + len <= bytes.len());
            let len =
                len.ok_or_else(|| bad(format!("attribute {number} runs past {} bytes", bytes.len())))?;
            out.push((*number, at, len));
            at = (at + len).next_multiple_of(8);
        }
        Ok(out)
    }

    /// The attributes in a buffer that has a head, in our byte order.
    pub(crate) fn parse<'a>(&self, bytes: &'a [u8]) -> Result<Attrs<'a>, Corrupt> {
        let mut attrs = Attrs::default();
        for (number, at, len) in self.places(bytes)? {
            if let (Some(known), Some(part)) =
                (self.attr(number).and_then(|r| r.known), bytes.get(at..at + len))
            {
                attrs.set(known, part);
            }
        }
        Ok(attrs)
    }
}

/// The attributes of a `znode_phys_t` (zfs_znode.h of before SA; layout 0, `sa_legacy_attrs`, sa.c).
pub(crate) fn parse_legacy(bytes: &[u8]) -> Result<Attrs<'_>, Corrupt> {
    if bytes.len() < ZNODE_SIZE {
        return Err(Corrupt::new("znode", format!("a bonus of {} bytes", bytes.len())));
    }
    let mut attrs = Attrs::default();
    let mut at = 0;
    for (attr, _, len) in KNOWN.iter().take(LEGACY_COUNT) {
        let end = at + usize::from(*len);
        if let Some(part) = bytes.get(at..end) {
            attrs.set(*attr, part);
        }
        at = end;
    }
    Ok(attrs)
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut r = Registry::default();
        for (number, (_, name, len)) in KNOWN.iter().enumerate() {
            let bswap = match *name {
                "ZPL_DACL_ACES" => 4,
                "ZPL_DXATTR" | "ZPL_SYMLINK" => 3,
                _ => 0,
            };
            r.register(name.as_bytes(), u64::from(*len) << 24 | bswap << 16 | number as u64).unwrap();
        }
        r.add_layout("2", ZapValue::U16(vec![5, 17, 6, 19])).unwrap();
        r
    }

    /// Mode, a link of 5 bytes, size, one ACE of 8 bytes; two lengths.
    fn buffer() -> Vec<u8> {
        let mut b = MAGIC.to_le_bytes().to_vec();
        b.extend((2_u16 | 2 << 10).to_le_bytes());
        b.extend(5_u16.to_le_bytes());
        b.extend(8_u16.to_le_bytes());
        b.resize(16, 0);
        b.extend(0o120_777_u64.to_le_bytes());
        b.extend(b"right\0\0\0");
        b.extend(5_u64.to_le_bytes());
        b.extend([0, 0, 0x00, 0x10, 1, 2, 3, 4]);
        b
    }

    #[test]
    fn a_layout_says_where_attributes_are() {
        let (r, b) = (registry(), buffer());
        let attrs = r.parse(&b).unwrap();
        assert_eq!(attrs.word(Attr::Mode, 0), Some(0o120_777));
        assert_eq!(attrs.get(Attr::Symlink), Some(&b"right"[..]));
        assert_eq!(attrs.word(Attr::Size, 0), Some(5));
        assert_eq!(attrs.get(Attr::DaclAces).map(<[u8]>::len), Some(8));
        assert_eq!(attrs.get(Attr::Uid), None);
        assert_eq!(attrs.word(Attr::Mode, 1), None);
    }

    #[test]
    fn buffers_of_big_endian_machines_are_turned() {
        let (r, b) = (registry(), buffer());
        let mut foreign = b.clone();
        foreign[0..4].reverse();
        foreign[4..6].reverse();
        foreign[6..8].reverse();
        foreign[8..10].reverse();
        foreign[16..24].reverse();
        foreign[32..40].reverse();
        foreign[40..42].reverse();
        foreign[42..44].reverse();
        foreign[44..48].reverse();
        assert_ne!(foreign, b);
        assert_eq!(r.native(&foreign).unwrap(), b);
        assert!(matches!(r.native(&b).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_runs_past_its_buffer_is_damage() {
        let (r, b) = (registry(), buffer());
        for len in 16..b.len() {
            assert!(r.parse(&b[..len]).is_err(), "{len}");
        }
        let mut long = b.clone();
        long[6] = 200;
        assert!(r.parse(&long).is_err());
        let mut layout = b.clone();
        layout[4] = 9;
        assert!(r.parse(&layout).is_err());
        let mut magic = b;
        magic[0] ^= 1;
        assert!(r.parse(&magic).is_err());
        assert!(registry().add_layout("3", ZapValue::U16(vec![99])).is_err());
        assert!(registry().register(b"ZPL_MODE", 4 << 24).is_err());
        assert!(parse_legacy(&[0; 263]).is_err());
    }
}
