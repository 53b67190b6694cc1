//! The records of an intent log block: what was promised to be on disk and is not yet in the objset.
//!
//! Facts: `lr_t` and what follows it in zil.h; how names, attributes and access lists follow each other in a record:
//! `zfs_replay_create`, `zfs_replay_create_acl`, `zfs_replay_rename` (zfs_replay.c), `zfs_log_create` (zfs_log.c).
//!
//! Invariants:
//! 1. Any bytes are legal input: a record is parsed or refused, and its length moves on by at least its header.
//! 2. Nothing is copied: a record borrows from its block.
//! 3. A record that is not understood whole is [`Body::Other`], never a guess.

use crate::reader::Reader;
use crate::{Blkptr, Checksum, Corrupt};
use zerocopy::FromBytes;

/// Bytes of a record's head (`lr_t`).
pub const HEADER: usize = 32;
/// In the type: names were compared without case (`TX_CI`).
const CASE_FOLDED: u64 = 1 << 63;
/// Bytes of `zil_chain_t`.
const CHAIN: usize = size_of::<super::ZilChainPhys>();
/// Words of the bit map of optional attributes that are accepted at most (OpenZFS has 3).
const MASK_MAX: usize = 16;
/// Bytes after that bit map (`lr_attr_end_t`).
const ATTR_END: usize = 56;
/// Bits of an object number that also carries the slots of its dnode (`DN_MAX_OBJECT_SHIFT`, `LR_FOID_GET_SLOTS`).
const OBJECT_BITS: u32 = 48;

/// In the mask of a `TX_SETATTR`: optional attributes follow. The mask is the system's own; this is Linux's (`ATTR_XVATTR`,
/// vnode.h).
pub const ATTR_XVATTR: u64 = 1 << 31;
/// Types of the records with pointers, and where those are in them (`lr_write_t`; zio_crypt.c keeps them readable).
const WRITE: u64 = 9;
const CLONE_RANGE: u64 = 24;
const WRITE_POINTER: std::ops::Range<usize> = 64..192;

const WHAT: &str = "intent log record";

/// One block of a log, its checksum verified: where its records are, and which block comes next.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The next block; its checksum words are this one's with the sequence number one higher.
    pub next: Blkptr,
    /// The records.
    pub records: &'a [u8],
}

/// The frame of a little-endian log block that `bp` leads to (`zil_read_log_block`, zil.c).
///
/// # Errors
/// Where the frame does not fit the block, or the link to the next block is not of this chain: the end of the log.
pub fn block<'a>(bp: &Blkptr, bytes: &'a [u8]) -> Result<Block<'a>, Corrupt> {
    let bad = |why: &str| Corrupt::new("intent log block", why.to_owned());
    let new_style = bp.checksum() == Checksum::ZILOG2;
    let at = if new_style { Some(0) } else { bytes.len().checked_sub(CHAIN) };
    let chain =
        at.and_then(|at| bytes.get(at..)?.get(..CHAIN)).ok_or_else(|| bad("shorter than its frame"))?;
    let chain = super::ZilChainPhys::read_from_bytes(chain).map_err(|_| bad("shorter than its frame"))?;
    let [a, b, objset, seq] = bp.cksum();
    if chain.next.cksum() != [a, b, objset, seq.wrapping_add(1)] {
        return Err(bad("the next block is not of this chain"));
    }
    let used = usize::try_from(chain.nused.get()).map_err(|_| bad("more used than there is"))?;
    let range = if new_style { CHAIN..used } else { 0..used };
    let most = if new_style { bytes.len() } else { bytes.len().saturating_sub(CHAIN) };
    let records = bytes.get(range).filter(|_| used <= most).ok_or_else(|| bad("more used than there is"))?;
    Ok(Block { next: chain.next, records })
}

/// Names of the types, by number.
const NAMES: [&str; 25] = [
    "TX_COMMIT",
    "TX_CREATE",
    "TX_MKDIR",
    "TX_MKXATTR",
    "TX_SYMLINK",
    "TX_REMOVE",
    "TX_RMDIR",
    "TX_LINK",
    "TX_RENAME",
    "TX_WRITE",
    "TX_TRUNCATE",
    "TX_SETATTR",
    "TX_ACL_V0",
    "TX_ACL",
    "TX_CREATE_ACL",
    "TX_CREATE_ATTR",
    "TX_CREATE_ACL_ATTR",
    "TX_MKDIR_ACL",
    "TX_MKDIR_ATTR",
    "TX_MKDIR_ACL_ATTR",
    "TX_WRITE2",
    "TX_SETSAXATTR",
    "TX_RENAME_EXCHANGE",
    "TX_RENAME_WHITEOUT",
    "TX_CLONE_RANGE",
];

/// The name of a record's type; `None` where OpenZFS has none of that number.
#[must_use]
pub fn kind_name(kind: u64) -> Option<&'static str> {
    NAMES.get(usize::try_from(kind).ok()?).copied()
}

/// A record.
#[derive(Clone, Debug)]
pub struct LogRecord<'a> {
    /// The type as it stands there, without the case flag (`TX_*`).
    pub kind: u64,
    /// Names were compared without case.
    pub case_folded: bool,
    /// Its txg.
    pub txg: u64,
    /// Its sequence number: rising through the log.
    pub seq: u64,
    /// What it says.
    pub body: Body<'a>,
}

/// An object number and the slots its dnode is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewObject {
    /// The number.
    pub object: u64,
    /// Slots of 512 bytes.
    pub slots: u8,
}

impl NewObject {
    fn from_word(word: u64) -> Self {
        let slots = (word >> 56) as u8;
        Self { object: word & ((1 << OBJECT_BITS) - 1), slots: slots.saturating_add(1) }
    }
}

/// What a create makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Make {
    /// A file, device, pipe or socket.
    File,
    /// A directory.
    Directory,
    /// The directory of an object's extended attributes.
    Xattrs,
    /// A symbolic link.
    Link,
}

/// The device that a rename leaves where the name was (`lr_rename_whiteout_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are named as those of zil.h
pub struct Whiteout {
    pub new: NewObject,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub generation: u64,
    pub crtime: [u64; 2],
    pub rdev: u64,
}

/// Optional attributes (`lr_attr_t`).
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a> {
    /// Which were asked for: bit maps of `xvattr_t`, little-endian words of 4 bytes.
    pub mask: &'a [u8],
    /// Flags to be set (`XAT0_*`).
    pub flags: u64,
    /// Creation time: seconds, nanoseconds.
    pub crtime: [u64; 2],
    /// The scan stamp.
    pub scanstamp: &'a [u8],
}

/// An access list (`lr_acl_t`).
#[derive(Clone, Copy, Debug)]
pub struct Acl<'a> {
    /// Entries.
    pub count: u64,
    /// Flags of the list.
    pub flags: u64,
    /// The entries, of various lengths.
    pub entries: &'a [u8],
}

/// What a record says; the numbers are objects, bytes, and seconds with nanoseconds.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are named as those of zil.h
pub enum Body<'a> {
    Create {
        make: Make,
        dir: u64,
        new: NewObject,
        mode: u64,
        uid: u64,
        gid: u64,
        generation: u64,
        crtime: [u64; 2],
        rdev: u64,
        attrs: Option<Attrs<'a>>,
        acl: Option<Acl<'a>>,
        name: &'a [u8],
        /// Where a symbolic link leads.
        link: Option<&'a [u8]>,
    },
    /// `TX_REMOVE`, `TX_RMDIR`.
    Remove { dir: u64, directory: bool, name: &'a [u8] },
    /// `TX_LINK`.
    Link { dir: u64, object: u64, name: &'a [u8] },
    /// `TX_RENAME`, and the two of renameat2: `exchange`, `whiteout`.
    Rename { from: u64, to: u64, exchange: bool, whiteout: Option<Whiteout>, old: &'a [u8], new: &'a [u8] },
    /// `TX_WRITE`: the data follows, or lies where `pointer` leads.
    Write { object: u64, offset: u64, length: u64, pointer: Box<Blkptr>, data: &'a [u8] },
    /// `TX_WRITE2`: the data is in the objset; the size may not be.
    Grow { object: u64, offset: u64, length: u64 },
    /// `TX_TRUNCATE`: frees `length` bytes, to the end for 0.
    Truncate { object: u64, offset: u64, length: u64 },
    /// `TX_SETATTR`.
    SetAttr {
        object: u64,
        mask: u64,
        mode: u64,
        uid: u64,
        gid: u64,
        size: u64,
        atime: [u64; 2],
        mtime: [u64; 2],
        attrs: Option<Attrs<'a>>,
    },
    /// `TX_SETSAXATTR`: without a value it is removed.
    SetXattr { object: u64, name: &'a [u8], value: &'a [u8] },
    /// `TX_ACL`.
    SetAcl { object: u64, acl: Acl<'a> },
    /// `TX_CLONE_RANGE`: these pointers become blocks of the object.
    Clone { object: u64, offset: u64, length: u64, block: u64, pointers: Vec<Blkptr> },
    /// Of a type, or with owners of foreign domains, that is not understood here.
    Other,
}

/// What is readable of a record also where its log is encrypted and the key is not there: all that a claim needs.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The type, without the case flag.
    pub kind: u64,
    /// Its txg.
    pub txg: u64,
    /// Its sequence number.
    pub seq: u64,
    /// The block that a `TX_WRITE` leads to; none where its data is in the log.
    pub pointer: Option<Blkptr>,
}

impl Head {
    /// Whether it makes blocks of other files this file's too.
    #[must_use]
    pub fn clones(&self) -> bool {
        self.kind == CLONE_RANGE
    }
}

/// The heads of the records in a block's `records`; ends after the first that is refused.
pub fn heads(bytes: &[u8]) -> impl Iterator<Item = Result<Head, Corrupt>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (head, after) = match split(rest) {
            Ok((bytes, after)) => (head(bytes), after),
            Err(e) => (Err(e), &[][..]),
        };
        rest = if head.is_ok() { after } else { &[] };
        Some(head)
    })
}

fn head(bytes: &[u8]) -> Result<Head, Corrupt> {
    let mut r = Reader::new(WHAT, bytes);
    let (word, _, txg, seq) = (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let kind = word & !CASE_FOLDED;
    let pointer = if kind == WRITE {
        let bp = bytes.get(WRITE_POINTER).and_then(|b| Blkptr::read_from_bytes(b).ok());
        Some(bp.ok_or_else(|| Corrupt::new(WHAT, "a write without its pointer"))?).filter(|bp| !bp.is_hole())
    } else {
        None
    };
    Ok(Head { kind, txg, seq, pointer })
}

/// The records in a block's `records`; ends after the first that is refused.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<LogRecord<'_>, Corrupt>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, after) = match split(rest) {
            Ok((bytes, after)) => (parse(bytes), after),
            Err(e) => (Err(e), &[][..]),
        };
        rest = if record.is_ok() { after } else { &[] };
        Some(record)
    })
}

/// The bytes of the first record, and what comes after it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Corrupt> {
    let len = Reader::new(WHAT, bytes.get(8..).unwrap_or(&[])).u64_le()?;
    let len = usize::try_from(len).ok().filter(|len| *len >= HEADER);
    len.and_then(|len| bytes.split_at_checked(len))
        .ok_or_else(|| Corrupt::new(WHAT, "its length does not fit its block"))
}

fn parse(bytes: &[u8]) -> Result<LogRecord<'_>, Corrupt> {
    let mut r = Reader::new(WHAT, bytes);
    let (word, _, txg, seq) = (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let kind = word & !CASE_FOLDED;
    Ok(LogRecord { kind, case_folded: word & CASE_FOLDED != 0, txg, seq, body: body(kind, &mut r)? })
}

fn body<'a>(kind: u64, r: &mut Reader<'a>) -> Result<Body<'a>, Corrupt> {
    Ok(match kind {
        1 => create(r, Make::File, false, false)?,
        2 => create(r, Make::Directory, false, false)?,
        3 => create(r, Make::Xattrs, false, false)?,
        4 => create(r, Make::Link, false, false)?,
        14 => create(r, Make::File, true, false)?,
        15 => create(r, Make::File, false, true)?,
        16 => create(r, Make::File, true, true)?,
        17 => create(r, Make::Directory, true, false)?,
        18 => create(r, Make::Directory, false, true)?,
        19 => create(r, Make::Directory, true, true)?,
        5 | 6 => Body::Remove { dir: r.u64_le()?, directory: kind == 6, name: text(r)? },
        7 => Body::Link { dir: r.u64_le()?, object: r.u64_le()?, name: text(r)? },
        8 | 22 | 23 => {
            let (from, to) = (r.u64_le()?, r.u64_le()?);
            let whiteout = if kind == 23 { Some(whiteout(r)?) } else { None };
            if whiteout.is_some_and(|w| w.uid >> 32 != 0 || w.gid >> 32 != 0) {
                return Ok(Body::Other);
            }
            let exchange = kind == 22;
            Body::Rename { from, to, exchange, whiteout, old: text(r)?, new: text(r)? }
        }
        9 => {
            let (object, offset, length) = (r.u64_le()?, r.u64_le()?, r.u64_le()?);
            r.u64_le()?;
            let pointer = Box::new(pointer(r)?);
            // What follows is padded to whole words.
            let len = if r.remaining() == 0 { 0 } else { length };
            let len = usize::try_from(len).map_err(|_| Corrupt::new(WHAT, "a write without end"))?;
            Body::Write { object, offset, length, pointer, data: r.take(len)? }
        }
        20 => Body::Grow { object: r.u64_le()?, offset: r.u64_le()?, length: r.u64_le()? },
        10 => Body::Truncate { object: r.u64_le()?, offset: r.u64_le()?, length: r.u64_le()? },
        11 => set_attr(r)?,
        13 => {
            let object = r.u64_le()?;
            match acl(r)? {
                (acl, false) => Body::SetAcl { object, acl },
                (_, true) => Body::Other,
            }
        }
        21 => {
            let (object, size) = (r.u64_le()?, r.u64_le()?);
            let name = text(r)?;
            let size = usize::try_from(size).map_err(|_| Corrupt::new(WHAT, "a value without end"))?;
            Body::SetXattr { object, name, value: r.take(size)? }
        }
        24 => clone(r)?,
        _ => Body::Other,
    })
}

fn create<'a>(r: &mut Reader<'a>, make: Make, with_acl: bool, with_attrs: bool) -> Result<Body<'a>, Corrupt> {
    let (dir, new) = (r.u64_le()?, NewObject::from_word(r.u64_le()?));
    let (mode, uid, gid, generation) = (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let (crtime, rdev) = ([r.u64_le()?, r.u64_le()?], r.u64_le()?);
    // Owners of Windows domains: the names of the domains would follow.
    let mut foreign = uid >> 32 != 0 || gid >> 32 != 0;
    let head = if with_acl { Some(acl_head(r)?) } else { None };
    let attrs = if with_attrs { Some(attributes(r)?) } else { None };
    let acl = match head {
        Some(head) => {
            foreign |= head.foreign;
            Some(head.entries(r)?)
        }
        None => None,
    };
    if foreign {
        return Ok(Body::Other);
    }
    let name = text(r)?;
    let link = if make == Make::Link { Some(text(r)?) } else { None };
    Ok(Body::Create { make, dir, new, mode, uid, gid, generation, crtime, rdev, attrs, acl, name, link })
}

fn whiteout(r: &mut Reader<'_>) -> Result<Whiteout, Corrupt> {
    let new = NewObject::from_word(r.u64_le()?);
    let (mode, uid, gid, generation) = (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let (crtime, rdev) = ([r.u64_le()?, r.u64_le()?], r.u64_le()?);
    Ok(Whiteout { new, mode, uid, gid, generation, crtime, rdev })
}

fn set_attr<'a>(r: &mut Reader<'a>) -> Result<Body<'a>, Corrupt> {
    let (object, mask, mode, uid) = (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let (gid, size) = (r.u64_le()?, r.u64_le()?);
    let (atime, mtime) = ([r.u64_le()?, r.u64_le()?], [r.u64_le()?, r.u64_le()?]);
    if uid != u64::from(u32::MAX) && uid >> 32 != 0 && uid != u64::MAX
        || gid != u64::from(u32::MAX) && gid >> 32 != 0 && gid != u64::MAX
    {
        return Ok(Body::Other);
    }
    let attrs = if mask & ATTR_XVATTR != 0 { Some(attributes(r)?) } else { None };
    Ok(Body::SetAttr { object, mask, mode, uid, gid, size, atime, mtime, attrs })
}

struct AclHead {
    count: u64,
    flags: u64,
    bytes: u64,
    foreign: bool,
}

impl AclHead {
    fn entries<'a>(&self, r: &mut Reader<'a>) -> Result<Acl<'a>, Corrupt> {
        let long = || Corrupt::new(WHAT, "an access list without end");
        let bytes = usize::try_from(self.bytes).map_err(|_| long())?;
        let padded = bytes.checked_next_multiple_of(8).ok_or_else(long)?;
        let entries = r.take(padded)?.get(..bytes).unwrap_or(&[]);
        Ok(Acl { count: self.count, flags: self.flags, entries })
    }
}

fn acl_head(r: &mut Reader<'_>) -> Result<AclHead, Corrupt> {
    let (count, domains, fuids) = (r.u64_le()?, r.u64_le()?, r.u64_le()?);
    let (bytes, flags) = (r.u64_le()?, r.u64_le()?);
    Ok(AclHead { count, flags, bytes, foreign: domains != 0 || fuids != 0 })
}

fn acl<'a>(r: &mut Reader<'a>) -> Result<(Acl<'a>, bool), Corrupt> {
    let head = acl_head(r)?;
    Ok((head.entries(r)?, head.foreign))
}

fn attributes<'a>(r: &mut Reader<'a>) -> Result<Attrs<'a>, Corrupt> {
    let words = r.u32_le()? as usize;
    if words == 0 || words > MASK_MAX {
        return Err(Corrupt::new(WHAT, format!("{words} words of attributes")));
    }
    let mask = r.take(words.saturating_mul(4))?;
    let mut end = r.sub(ATTR_END)?;
    Ok(Attrs {
        mask,
        flags: end.u64_le()?,
        crtime: [end.u64_le()?, end.u64_le()?],
        scanstamp: end.take(end.remaining())?,
    })
}

fn pointer(r: &mut Reader<'_>) -> Result<Blkptr, Corrupt> {
    Blkptr::read_from_bytes(r.take(size_of::<Blkptr>())?).map_err(|_| Corrupt::new(WHAT, "a short pointer"))
}

fn clone<'a>(r: &mut Reader<'a>) -> Result<Body<'a>, Corrupt> {
    let (object, offset, length, block, count) =
        (r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?, r.u64_le()?);
    if count.saturating_mul(size_of::<Blkptr>() as u64) > r.remaining() as u64 {
        return Err(Corrupt::new(WHAT, format!("{count} pointers do not fit")));
    }
    let pointers = (0..count).map(|_| pointer(r)).collect::<Result<_, _>>()?;
    Ok(Body::Clone { object, offset, length, block, pointers })
}

/// A text up to its zero byte.
fn text<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Corrupt> {
    let mut ahead = *r;
    let rest = ahead.take(ahead.remaining())?;
    let end = rest.iter().position(|b| *b == 0).ok_or_else(|| Corrupt::new(WHAT, "a name without end"))?;
    Ok(r.take(end.saturating_add(1))?.get(..end).unwrap_or(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u64, words: &[u64], tail: &[u8]) -> Vec<u8> {
        let len = HEADER + words.len() * 8 + tail.len();
        let all = [kind, len.next_multiple_of(8) as u64, 24, 7].into_iter().chain(words.iter().copied());
        let mut out: Vec<u8> = all.flat_map(u64::to_le_bytes).collect();
        out.extend_from_slice(tail);
        out.resize(len.next_multiple_of(8), 0);
        out
    }

    fn one(bytes: &[u8]) -> Result<LogRecord<'_>, Corrupt> {
        let all: Vec<_> = records(bytes).collect();
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    const CREATE: [u64; 9] = [34, 2 << 56 | 9, 0o100_644, 0, 0, 24, 5, 6, 0];

    #[test]
    fn creates_of_all_forms() {
        let attrs = [&3_u32.to_le_bytes()[..], &[1; 12], &8_u64.to_le_bytes(), &[2; 16], &[3; 32]].concat();
        let acl = [&2_u64, &0, &0, &12, &4].into_iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let entries = [&[9; 12][..], &[0; 4]].concat();
        for (kind, middle, with_acl, with_attrs) in [
            (1, Vec::new(), false, false),
            (15, attrs.clone(), false, true),
            (14, [&acl[..], &entries].concat(), true, false),
            (16, [&acl[..], &attrs, &entries].concat(), true, true),
        ] {
            let bytes = record(kind | CASE_FOLDED, &CREATE, &[&middle[..], b"name\0"].concat());
            let r = one(&bytes).unwrap();
            assert!(r.case_folded && (r.kind, r.txg, r.seq) == (kind, 24, 7));
            let Body::Create { new, attrs, acl, name, dir, .. } = r.body else { panic!("{kind}") };
            assert_eq!((dir, new, name), (34, NewObject { object: 9, slots: 3 }, &b"name"[..]), "{kind}");
            assert_eq!((acl.is_some(), attrs.is_some()), (with_acl, with_attrs));
            assert!(acl.is_none_or(|a| a.entries == [9; 12] && a.flags == 4 && a.count == 2));
            assert!(attrs.is_none_or(|a| a.flags == 8 && a.scanstamp == [3; 32] && a.mask == [1; 12]));
        }
        let bytes = record(4, &CREATE, b"link\0where\0");
        let Body::Create { make, name, link, .. } = one(&bytes).unwrap().body else { panic!() };
        assert_eq!((make, name, link), (Make::Link, &b"link"[..], Some(&b"where"[..])));
        let mut foreign = CREATE;
        foreign[3] = 1 << 32;
        assert!(matches!(one(&record(1, &foreign, b"domain\0name\0")).unwrap().body, Body::Other));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (kind, words, tail) in [
            (1, &CREATE[..], &b"nameless"[..]),
            (1, &CREATE[..4], b""),
            (15, &CREATE, &[255; 64]),
            (14, &[&CREATE[..], &[1, 0, 0, u64::MAX, 0]].concat(), b"x\0"),
            (9, &[3, 0, 512, 0], b""),
            (9, &[&[3, 0, 512, 0][..], &[0; 16]].concat(), b"short"),
            (21, &[3, u64::MAX], b"user.x\0y"),
            (24, &[3, 0, 512, 512, u64::MAX], b""),
        ] {
            assert!(one(&record(kind, words, tail)).is_err(), "{kind}");
        }
        let good = record(10, &[3, 0, 0], b"");
        for (at, value) in [(8, 0), (8, 31), (8, 64), (8, u64::MAX)] {
            let mut bad = good.clone();
            assert!(crate::reader::put_u64_at(&mut bad, at, value));
            let all: Vec<_> = records(&[&bad[..], &good].concat()).map(|r| r.is_ok()).collect();
            assert!(!all[0] || value == 64, "{value}");
        }
        let two = [&good[..], &good[..20]].concat();
        assert_eq!(records(&two).map(|r| r.is_ok()).collect::<Vec<_>>(), [true, false]);
    }
}
