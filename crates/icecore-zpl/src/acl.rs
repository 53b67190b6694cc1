//! NFSv4 access control lists: as a system attribute, in an old znode, or in an object that one names (zfs_acl.c,
//! zfs_acl.h). Every file has one; a trivial one says what the mode says ([`crate::Flags::has_trivial_acl`]).

use crate::content::Content;
use crate::error::{Result, ZplError};
use crate::filesystem::Files;
use crate::sa::{Attr, le16, le32};
use crate::znode::Znode;
use icecore_dmu::BlockStore;
use icecore_format::reader::u64_at;
use icecore_format::{ObjectId, ObjectType};
use std::fmt;

/// Longest list that is read.
const LIST_MAX: u64 = 1 << 20;

/// Whom an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The owner.
    Owner,
    /// The owning group.
    Group,
    /// Everyone.
    Everyone,
    /// A user, by FUID.
    User(u64),
    /// A group, by FUID.
    NamedGroup(u64),
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ace {
    /// `ACE_*_ACE_TYPE`: 0 allow, 1 deny, 2 audit, 3 alarm, 5 to 8 the same about object types.
    pub kind: u16,
    /// `ACE_*` flags: inheritance, audit, and whom it is about.
    pub flags: u16,
    /// `ACE_*` permissions.
    pub mask: u32,
    /// Whom it is about.
    pub who: Who,
}

const FLAG_IDENTIFIER_GROUP: u16 = 0x40;
const FLAG_OWNER: u16 = 0x1000;
const FLAG_GROUP: u16 = 0x2000;
const FLAG_EVERYONE: u16 = 0x4000;
const FLAGS_WHO: u16 = FLAG_IDENTIFIER_GROUP | FLAG_OWNER | FLAG_GROUP | FLAG_EVERYONE;
/// An old entry: who, mask, flags, type in 12 bytes (`zfs_oldace_t`).
const OLD_ACE: usize = 12;
/// An entry with an owner, group or everyone in its flags (`zfs_ace_hdr_t`); a FUID of 8 bytes follows in others.
const ACE_HEAD: usize = 8;
/// Two identifiers of 16 bytes that follow in entries about object types (`zfs_object_ace_t`).
const OBJECT_IDS: usize = 32;

fn who(flags: u16, fuid: u64) -> Who {
    match flags & FLAGS_WHO {
        FLAG_OWNER => Who::Owner,
        FLAG_EVERYONE => Who::Everyone,
        f if f == FLAG_GROUP | FLAG_IDENTIFIER_GROUP => Who::Group,
        f if f & FLAG_IDENTIFIER_GROUP != 0 => Who::NamedGroup(fuid),
        _ => Who::User(fuid),
    }
}

/// Entries of version 1, each as long as it must be.
fn parse(mut bytes: &[u8], count: u64) -> Option<Vec<Ace>> {
    let mut out = Vec::new();
    for _ in 0..count {
        let (kind, flags, mask) = (le16(bytes, 0)?, le16(bytes, 2)?, le32(bytes, 4)?);
        let plain = matches!(flags & FLAGS_WHO, FLAG_OWNER | FLAG_EVERYONE)
            || flags & FLAGS_WHO == FLAG_GROUP | FLAG_IDENTIFIER_GROUP;
        let fuid = if plain { 0 } else { bytes.get(..16).map(|b| u64_at(b, ACE_HEAD))? };
        let len = match (plain, kind) {
            (true, _) => ACE_HEAD,
            (false, 5..=8) => ACE_HEAD + 8 + OBJECT_IDS,
            (false, _) => ACE_HEAD + 8,
        };
        out.push(Ace { kind, flags, mask, who: who(flags, fuid) });
        bytes = bytes.get(len..)?;
    }
    Some(out)
}

/// Entries of version 0.
fn parse_old(bytes: &[u8], count: u64) -> Option<Vec<Ace>> {
    let one = |b: &[u8]| {
        let (fuid, mask, flags, kind) = (le32(b, 0)?, le32(b, 4)?, le16(b, 8)?, le16(b, 10)?);
        Some(Ace { kind, flags, mask, who: who(flags, u64::from(fuid)) })
    };
    let count = usize::try_from(count).ok()?;
    let bytes = bytes.get(..count.checked_mul(OLD_ACE)?)?;
    bytes.chunks_exact(OLD_ACE).map(one).collect()
}

impl Files<'_> {
    /// The access control list of a file; empty if there is none.
    pub fn acl(&self, io: &dyn BlockStore, z: &Znode) -> Result<Vec<Ace>> {
        let (old, aces, count) = self.with_attrs(io, z, |attr| {
            let count = attr(Attr::DaclCount).map(|w| u64_at(&w, 0));
            Ok((attr(Attr::ZnodeAcl), attr(Attr::DaclAces), count))
        })?;
        let bad = || ZplError::corrupt("access control list", z.id, "entries run past its end");
        match (aces, old) {
            (Some(aces), _) => parse(&aces, count.unwrap_or(0)).ok_or_else(bad),
            (None, Some(old)) => self.old_acl(io, &old)?.ok_or_else(bad),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// `zfs_acl_phys_t` (version 1) or `zfs_acl_phys_v0_t`: an object with the entries, or the entries.
    fn old_acl(&self, io: &dyn BlockStore, phys: &[u8]) -> Result<Option<Vec<Ace>>> {
        const ENTRIES_AT: usize = 16;
        let object = u64_at(phys, 0);
        let (Some(size), Some(version), Some(short)) = (le32(phys, 8), le16(phys, 12), le16(phys, 14)) else {
            return Ok(None);
        };
        let (count, bytes) = match version {
            0 => (u64::from(size), u64::from(size).saturating_mul(OLD_ACE as u64)),
            1 => (u64::from(short), u64::from(size)),
            v => return Err(ZplError::Unsupported(format!("access control lists of version {v}"))),
        };
        let entries = if object == 0 {
            phys.get(ENTRIES_AT..).unwrap_or(&[]).to_vec()
        } else {
            let dn = self.dnode(io, ObjectId(object))?;
            if !matches!(dn.kind(), ObjectType::ACL | ObjectType::OLDACL) {
                let why = format!("its entries are in an object of type {:?}", dn.kind());
                return Err(ZplError::corrupt("access control list", ObjectId(object), why));
            }
            Content::new(ObjectId(object), dn, bytes).read_all(self.objset(), io, LIST_MAX)?
        };
        Ok(if version == 0 { parse_old(&entries, count) } else { parse(&entries, count) })
    }
}

/// Letters of the permissions, by bit, as `ls -V` of Solaris and `getfacl` of FreeBSD order them.
const PERMISSIONS: [(u32, char); 14] = [
    (0x1, 'r'),
    (0x2, 'w'),
    (0x20, 'x'),
    (0x4, 'p'),
    (0x1_0000, 'd'),
    (0x40, 'D'),
    (0x80, 'a'),
    (0x100, 'A'),
    (0x8, 'R'),
    (0x10, 'W'),
    (0x2_0000, 'c'),
    (0x4_0000, 'C'),
    (0x8_0000, 'o'),
    (0x10_0000, 's'),
];
/// Letters of the inheritance and audit flags.
const INHERITANCE: [(u32, char); 7] =
    [(0x1, 'f'), (0x2, 'd'), (0x8, 'i'), (0x4, 'n'), (0x10, 'S'), (0x20, 'F'), (0x80, 'I')];

fn letters(f: &mut fmt::Formatter<'_>, bits: u32, table: &[(u32, char)]) -> fmt::Result {
    table.iter().try_for_each(|(bit, c)| write!(f, "{}", if bits & bit != 0 { *c } else { '-' }))
}

impl fmt::Display for Ace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Owner => write!(f, "owner@:")?,
            Who::Group => write!(f, "group@:")?,
            Who::Everyone => write!(f, "everyone@:")?,
            Who::User(id) => write!(f, "user:{id}:")?,
            Who::NamedGroup(id) => write!(f, "group:{id}:")?,
        }
        letters(f, self.mask, &PERMISSIONS)?;
        write!(f, ":")?;
        letters(f, u32::from(self.flags), &INHERITANCE)?;
        match self.kind {
            0 | 5 => write!(f, ":allow"),
            1 | 6 => write!(f, ":deny"),
            2 | 7 => write!(f, ":audit"),
            3 | 8 => write!(f, ":alarm"),
            n => write!(f, ":type{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ace(kind: u16, flags: u16, mask: u32, fuid: Option<u64>) -> Vec<u8> {
        let mut b = [&kind.to_le_bytes()[..], &flags.to_le_bytes(), &mask.to_le_bytes()].concat();
        b.extend(fuid.iter().flat_map(|f| f.to_le_bytes()));
        b
    }

    #[test]
    fn entries_of_every_length() {
        let mut bytes = ace(0, FLAG_OWNER, 0x001e_01ff, None);
        bytes.extend(ace(1, 0, 2, Some(1000)));
        bytes.extend(ace(5, FLAG_IDENTIFIER_GROUP | 3, 1, Some(7 << 32 | 5)));
        bytes.extend([0; OBJECT_IDS]);
        bytes.extend(ace(0, FLAG_GROUP | FLAG_IDENTIFIER_GROUP, 0x0012_00a9, None));
        bytes.extend(ace(0, FLAG_EVERYONE, 0x0012_00a9, None));
        let list = parse(&bytes, 5).unwrap();
        let text: Vec<String> = list.iter().map(Ace::to_string).collect();
        assert_eq!(
            text,
            [
                "owner@:rwxp-DaARWcCos:-------:allow",
                "user:1000:-w------------:-------:deny",
                "group:30064771077:r-------------:fd-----:allow",
                "group@:r-x---a-R-c--s:-------:allow",
                "everyone@:r-x---a-R-c--s:-------:allow",
            ]
        );
        assert_eq!(parse(&bytes, 6), None);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], 5), None, "{cut}");
        }
    }

    #[test]
    fn old_entries() {
        let old = [&1000_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0, 0, 1, 0]].concat();
        assert_eq!(parse_old(&old, 1), Some(vec![Ace { kind: 1, flags: 0, mask: 1, who: Who::User(1000) }]));
        assert_eq!(parse_old(&old, 2), None);
        assert_eq!(parse_old(&old, u64::MAX), None);
    }
}
