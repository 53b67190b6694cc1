//! POSIX access control lists (`acltype=posix`): stored as extended attributes in the form that Linux hands them over in
//! (posix_acl_xattr.h), with the mode in step (`zpl_set_posix_acl`, `zpl_init_acl`, `zpl_chmod_acl`, zpl_xattr.c; the
//! rules are those of acl(5)).
//!
//! Invariant: the mode's bits are always those of the list's owner, mask (of the group where there is no mask) and others;
//! a list that says no more than a mode is not stored.

use super::node::Node;
use super::{Writer, XattrFlags};
use crate::error::{Result, ZplError};
use crate::sa::Attr;
use crate::znode::{FileKind, Time};
use icecore_dmu::{BlockStore, BlockWriter, Objset};
use icecore_format::ObjectId;

/// The list of a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that a directory hands on.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The number in entries that name nobody.
const NO_ID: u32 = u32::MAX;
/// Longest list: what a value of an extended attribute holds.
const ENTRIES_MAX: usize = (65536 - 4) / 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A list that keeps the rules of acl(5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PosixAcl(Vec<Entry>);

pub(super) fn is_name(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

impl PosixAcl {
    /// Reads and checks a value; `None` for an empty list (`posix_acl_from_xattr`, `posix_acl_valid`).
    fn parse(bytes: &[u8]) -> Option<Option<Self>> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, tail) = rest.as_chunks::<8>();
        if u32::from_le_bytes(*head) != VERSION || !tail.is_empty() || entries.len() > ENTRIES_MAX {
            return None;
        }
        if entries.is_empty() {
            return Some(None);
        }
        let entry = |[t0, t1, p0, p1, id @ ..]: &[u8; 8]| Entry {
            tag: u16::from_le_bytes([*t0, *t1]),
            perm: u16::from_le_bytes([*p0, *p1]),
            id: u32::from_le_bytes(*id),
        };
        let list = Self(entries.iter().map(entry).collect());
        list.is_valid().then_some(Some(list))
    }

    /// Owner, named users, group, named groups, mask, others: each part in its place, and a mask where somebody is named.
    fn is_valid(&self) -> bool {
        let order =
            |e: &Entry| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].iter().position(|t| *t == e.tag);
        let places: Option<Vec<usize>> = self.0.iter().map(order).collect();
        let Some(places) = places else { return false };
        let count = |tag: u16| self.0.iter().filter(|e| e.tag == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        places.is_sorted()
            && self.0.iter().all(|e| e.perm <= 7)
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|t| count(*t) == 1)
            && count(MASK) <= 1
            && (!named || count(MASK) == 1)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            let id = if matches!(e.tag, USER | GROUP) { e.id } else { NO_ID };
            out.extend([&e.tag.to_le_bytes()[..], &e.perm.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        out
    }

    fn perm(&self, tag: u16) -> Option<u64> {
        self.0.iter().find(|e| e.tag == tag).map(|e| u64::from(e.perm))
    }
    fn class(&mut self, tag: u16) -> Option<&mut u16> {
        self.0.iter_mut().find(|e| e.tag == tag).map(|e| &mut e.perm)
    }
    /// The tag whose permissions are the mode's group bits.
    fn group_class(&self) -> u16 {
        if self.perm(MASK).is_some() { MASK } else { GROUP_OBJ }
    }
    /// The nine bits that a mode has of it.
    fn bits(&self) -> u64 {
        let perm = |tag: u16| self.perm(tag).unwrap_or(0);
        perm(USER_OBJ) << 6 | perm(self.group_class()) << 3 | perm(OTHER)
    }
    /// Whether it says more than a mode can.
    fn is_extended(&self) -> bool {
        self.0.iter().any(|e| matches!(e.tag, USER | GROUP | MASK))
    }

    /// Sets the classes to a mode's bits (`posix_acl_chmod`).
    fn chmod(&mut self, mode: u64) {
        let group = self.group_class();
        for (tag, shift) in [(USER_OBJ, 6), (group, 3), (OTHER, 0)] {
            if let Some(perm) = self.class(tag) {
                *perm = (mode >> shift & 7) as u16;
            }
        }
    }
    /// Makes a directory's default list that of a new file of `mode`: both lose what the other does not have
    /// (`posix_acl_create`). The new mode.
    fn create(&mut self, mode: u64) -> u64 {
        let both = mode & !0o777 | mode & self.bits();
        self.chmod(both);
        both
    }
}

impl Writer {
    fn stored_acl(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        id: ObjectId,
        name: &[u8],
    ) -> Result<Option<PosixAcl>> {
        let Some(bytes) = self.get_xattr(os, io, id, name)? else { return Ok(None) };
        let bad = || ZplError::corrupt("access control list", id, "no list of POSIX kind");
        PosixAcl::parse(&bytes).ok_or_else(bad)
    }

    /// Sets or removes one of the two lists, and the mode with the access list (`zpl_set_posix_acl`).
    pub(super) fn set_posix_acl(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        name: &[u8],
        value: Option<&[u8]>,
        now: Time,
    ) -> Result<()> {
        let node = Node::load(self, os, io, id)?;
        let kind = node.kind(self)?;
        if !self.options.posix_acls || kind == FileKind::Symlink {
            return Err(ZplError::Unsupported("POSIX access control lists (property acltype)".into()));
        }
        let list = match value {
            Some(bytes) => PosixAcl::parse(bytes)
                .ok_or_else(|| ZplError::NotPossible("no valid access control list".into()))?,
            None => None,
        };
        if name == DEFAULT && kind != FileKind::Directory {
            return match list {
                Some(_) => Err(ZplError::NotPossible("only directories hand on access control lists".into())),
                None => Ok(()),
            };
        }
        self.put_acl(os, io, id, name, list, now)
    }

    fn put_acl(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        name: &[u8],
        list: Option<PosixAcl>,
        now: Time,
    ) -> Result<()> {
        let kept = list.as_ref().filter(|l| name == DEFAULT || l.is_extended()).map(PosixAcl::encode);
        self.put_xattr(os, io, id, name, kept.as_deref(), XattrFlags::default(), now)?;
        if let Some(list) = list.filter(|_| name == ACCESS) {
            let mut node = Node::load(self, os, io, id)?;
            let mode = node.word(self, Attr::Mode)? & !0o777 | list.bits();
            node.set_mode(self, mode)?;
            node.store(self, os, io)?;
        }
        Ok(())
    }

    /// After a change of mode: the access list follows (`zpl_chmod_acl`).
    pub(super) fn chmod_acl(
        &mut self,
        os: &mut Objset,
        io: &mut dyn BlockWriter,
        id: ObjectId,
        mode: u64,
        now: Time,
    ) -> Result<()> {
        if !self.options.posix_acls {
            return Ok(());
        }
        let Some(mut list) = self.stored_acl(os, io, id, ACCESS)? else { return Ok(()) };
        list.chmod(mode);
        self.put_acl(os, io, id, ACCESS, Some(list), now)
    }

    /// What a new file of `mode` in `dir` gets: its mode, its access list and, a directory, its default list
    /// (`zpl_init_acl`).
    pub(super) fn inherited_acls(
        &self,
        os: &Objset,
        io: &dyn BlockStore,
        dir: ObjectId,
        directory: bool,
        mode: u32,
    ) -> Result<(u32, Vec<(&'static [u8], Vec<u8>)>)> {
        if !self.options.posix_acls {
            return Ok((mode, Vec::new()));
        }
        let Some(default) = self.stored_acl(os, io, dir, DEFAULT)? else { return Ok((mode, Vec::new())) };
        let mut lists = Vec::new();
        if directory {
            lists.push((DEFAULT, default.encode()));
        }
        let mut access = default;
        let mode = access.create(mode.into());
        if access.is_extended() {
            lists.push((ACCESS, access.encode()));
        }
        Ok((u32::try_from(mode).unwrap_or(0), lists))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        PosixAcl(entries.iter().map(|(tag, perm, id)| Entry { tag: *tag, perm: *perm, id: *id }).collect())
            .encode()
    }
    fn parsed(entries: &[(u16, u16, u32)]) -> PosixAcl {
        PosixAcl::parse(&list(entries)).unwrap().unwrap()
    }
    const NAMED: [(u16, u16, u32); 5] =
        [(USER_OBJ, 7, 0), (USER, 6, 1000), (GROUP_OBJ, 5, 0), (MASK, 6, 0), (OTHER, 4, 0)];

    #[test]
    fn lists_that_break_the_rules_are_refused() {
        let good = list(&NAMED);
        assert_eq!(PosixAcl::parse(&good).unwrap().unwrap().encode(), good);
        assert_eq!(PosixAcl::parse(&2_u32.to_le_bytes()), Some(None));
        for cut in 0..good.len() {
            let cut = PosixAcl::parse(&good[..cut]);
            assert!(cut.is_none() || cut == Some(None), "{cut:?}");
        }
        let mut other = NAMED;
        other.swap(0, 4);
        assert_eq!(PosixAcl::parse(&list(&other)), None, "order");
        assert_eq!(PosixAcl::parse(&list(&NAMED[1..])), None, "no owner");
        let no_mask: Vec<_> = NAMED.into_iter().filter(|e| e.0 != MASK).collect();
        assert_eq!(PosixAcl::parse(&list(&no_mask)), None, "somebody named, no mask");
        assert_eq!(PosixAcl::parse(&list(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 0, 0), (OTHER, 0, 0)])), None);
        assert_eq!(
            PosixAcl::parse(&list(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 0, 0), (0x40, 0, 0), (OTHER, 0, 0)])),
            None
        );
    }

    #[test]
    fn modes_and_lists_say_the_same() {
        let mut acl = parsed(&NAMED);
        assert_eq!((acl.bits(), acl.is_extended()), (0o764, true));
        acl.chmod(0o100_640);
        assert_eq!((acl.bits(), acl.perm(GROUP_OBJ), acl.perm(USER)), (0o640, Some(5), Some(6)));
        // A new file of 0666 under a default list: the list's own bits fall away too.
        let mut acl = parsed(&NAMED);
        assert_eq!((acl.create(0o100_666), acl.bits()), (0o100_664, 0o664));
        let plain = parsed(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]);
        assert_eq!((plain.bits(), plain.is_extended()), (0o640, false));
    }
}
