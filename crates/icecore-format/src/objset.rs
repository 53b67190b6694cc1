//! The objset block: metadnode, intent log header, type, MACs, accounting dnodes (`objset_phys_t`,
//! dmu_objset.h). 1 KiB in old pools, 2 KiB with user accounting, 4 KiB with project accounting.

use crate::reader::{put_u64_at, u64_at};
use crate::{Corrupt, Dnode};

/// Size in the oldest pools: the head only.
pub const SIZE_V1: usize = 1024;
/// Size with user and group accounting dnodes.
pub const SIZE_V2: usize = 2048;
/// Size with the project accounting dnode.
pub const SIZE_V3: usize = 4096;

/// The user and group space accounting is complete.
pub const FLAG_USERACCOUNTING_COMPLETE: u64 = 1;
/// The object count accounting is complete.
pub const FLAG_USEROBJACCOUNTING_COMPLETE: u64 = 2;
/// The project accounting is complete.
pub const FLAG_PROJECTQUOTA_COMPLETE: u64 = 4;

/// What kind of dataset an objset is (`dmu_objset_type_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjsetType {
    /// The pool's own (MOS).
    Meta,
    /// A file system.
    Zfs,
    /// A volume.
    Zvol,
    /// Something else, by number (`DMU_OST_OTHER` is 4).
    Other(u64),
}
impl ObjsetType {
    /// From the on-disk number.
    #[must_use]
    pub fn from_raw(n: u64) -> Self {
        match n {
            1 => Self::Meta,
            2 => Self::Zfs,
            3 => Self::Zvol,
            n => Self::Other(n),
        }
    }
    /// The on-disk number.
    #[must_use]
    pub fn raw(self) -> u64 {
        match self {
            Self::Meta => 1,
            Self::Zfs => 2,
            Self::Zvol => 3,
            Self::Other(n) => n,
        }
    }
}

/// Byte offset of the intent log header.
pub const ZIL_AT: usize = 512;
/// Bytes of the intent log header.
pub const ZIL_LEN: usize = 192;
const TYPE_AT: usize = 704;
const FLAGS_AT: usize = 712;
const PORTABLE_MAC_AT: usize = 720;
const LOCAL_MAC_AT: usize = 752;
const USERUSED_AT: usize = 1024;
const GROUPUSED_AT: usize = 1536;
const PROJECTUSED_AT: usize = 2048;

/// An objset block; keeps what it does not understand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjsetPhys {
    raw: Vec<u8>,
}

impl ObjsetPhys {
    /// A new, empty objset of `SIZE_V3`.
    #[must_use]
    pub fn new(kind: ObjsetType) -> Self {
        let mut os = Self { raw: vec![0; SIZE_V3] };
        let _ = put_u64_at(&mut os.raw, TYPE_AT, kind.raw());
        os
    }
    /// Checks the size; the dnodes are checked when asked for.
    pub fn parse(bytes: &[u8]) -> Result<Self, Corrupt> {
        if bytes.len() < SIZE_V1 || bytes.len() > SIZE_V3 {
            return Err(Corrupt::new("objset", format!("{} bytes", bytes.len())));
        }
        Ok(Self { raw: bytes.to_vec() })
    }
    /// All bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }
    /// Grows to `SIZE_V3` with zeros (old pools being written anew).
    pub fn grow(&mut self) {
        if self.raw.len() < SIZE_V3 {
            self.raw.resize(SIZE_V3, 0);
        }
    }
    /// What kind of dataset this is.
    #[must_use]
    pub fn kind(&self) -> ObjsetType {
        ObjsetType::from_raw(u64_at(&self.raw, TYPE_AT))
    }
    /// `FLAG_*` bits.
    #[must_use]
    pub fn flags(&self) -> u64 {
        u64_at(&self.raw, FLAGS_AT)
    }
    /// Sets the flags.
    pub fn set_flags(&mut self, flags: u64) {
        let _ = put_u64_at(&mut self.raw, FLAGS_AT, flags);
    }
    /// The metadnode.
    pub fn meta_dnode(&self) -> Result<Dnode, Corrupt> {
        self.dnode_at(0)
    }
    /// Stores the metadnode (one slot).
    pub fn set_meta_dnode(&mut self, dn: &Dnode) {
        self.set_dnode_at(0, dn);
    }
    fn dnode_at(&self, at: usize) -> Result<Dnode, Corrupt> {
        let end = at.saturating_add(512);
        Dnode::parse(self.raw.get(at..end).ok_or_else(|| Corrupt::new("objset", "no such dnode"))?)
    }
    fn set_dnode_at(&mut self, at: usize, dn: &Dnode) {
        let end = at.saturating_add(512);
        if let (Some(to), Some(from)) = (self.raw.get_mut(at..end), dn.as_bytes().get(..512)) {
            to.copy_from_slice(from);
        }
    }
    /// The user accounting dnode; free if absent.
    pub fn userused_dnode(&self) -> Result<Dnode, Corrupt> {
        if self.raw.len() < SIZE_V2 { Ok(Dnode::empty(1)) } else { self.dnode_at(USERUSED_AT) }
    }
    /// The group accounting dnode; free if absent.
    pub fn groupused_dnode(&self) -> Result<Dnode, Corrupt> {
        if self.raw.len() < SIZE_V2 { Ok(Dnode::empty(1)) } else { self.dnode_at(GROUPUSED_AT) }
    }
    /// The project accounting dnode; free if absent.
    pub fn projectused_dnode(&self) -> Result<Dnode, Corrupt> {
        if self.raw.len() < SIZE_V3 { Ok(Dnode::empty(1)) } else { self.dnode_at(PROJECTUSED_AT) }
    }
    /// Stores the three accounting dnodes in order user, group, project.
    pub fn set_accounting_dnodes(&mut self, dns: [&Dnode; 3]) {
        for (at, dn) in [USERUSED_AT, GROUPUSED_AT, PROJECTUSED_AT].into_iter().zip(dns) {
            self.set_dnode_at(at, dn);
        }
    }
    /// The portable MAC: 32 bytes.
    #[must_use]
    pub fn portable_mac(&self) -> [u8; 32] {
        self.mac_at(PORTABLE_MAC_AT)
    }
    /// The local MAC: 32 bytes, zero when not yet computed.
    #[must_use]
    pub fn local_mac(&self) -> [u8; 32] {
        self.mac_at(LOCAL_MAC_AT)
    }
    fn mac_at(&self, at: usize) -> [u8; 32] {
        let end = at.saturating_add(32);
        self.raw.get(at..end).and_then(|b| b.try_into().ok()).unwrap_or([0; 32])
    }
    /// Sets the portable MAC.
    pub fn set_portable_mac(&mut self, mac: [u8; 32]) {
        self.set_mac_at(PORTABLE_MAC_AT, mac);
    }
    /// Sets the local MAC.
    pub fn set_local_mac(&mut self, mac: [u8; 32]) {
        self.set_mac_at(LOCAL_MAC_AT, mac);
    }
    fn set_mac_at(&mut self, at: usize, mac: [u8; 32]) {
        let end = at.saturating_add(32);
        if let Some(b) = self.raw.get_mut(at..end) {
            b.copy_from_slice(&mac);
        }
    }
    /// The intent log header's bytes.
    #[must_use]
    pub fn zil_header(&self) -> &[u8] {
        let end = ZIL_AT.saturating_add(ZIL_LEN);
        self.raw.get(ZIL_AT..end).unwrap_or(&[])
    }
    /// The intent log header's bytes, to be changed.
    pub fn zil_header_mut(&mut self) -> &mut [u8] {
        let end = ZIL_AT.saturating_add(ZIL_LEN);
        self.raw.get_mut(ZIL_AT..end).unwrap_or(&mut [])
    }
}
