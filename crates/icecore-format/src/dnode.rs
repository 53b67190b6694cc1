//! Dnodes: the 512-byte (or larger) heads of objects (`dnode_phys_t`, dnode.h).
//!
//! A [`Dnode`] owns its bytes and keeps what it does not understand. `parse` checks every length that
//! later accessors rely on; setters clamp to what was checked.

use crate::reader::u64_at;
use crate::{Blkptr, Checksum, Compress, Corrupt, ObjectType};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of one dnode slot.
pub const SLOT: usize = 512;
/// Bytes of a block of dnodes.
pub const DNODE_BLOCK: usize = 16384;
/// Slots in a block of dnodes.
pub const SLOTS_PER_BLOCK: u64 = 32;
/// Bytes before the first block pointer.
pub const CORE: usize = 64;
/// Largest object number plus one (`DN_MAX_OBJECT`).
pub const MAX_OBJECT: u64 = 1 << 48;
/// Levels a tree may have at most (`DN_MAX_LEVELS`).
pub const MAX_LEVELS: u8 = 12;

/// `dn_used` counts bytes, not sectors.
pub const FLAG_USED_BYTES: u8 = 1;
/// The object is in the user and group accounting.
pub const FLAG_USERUSED_ACCOUNTED: u8 = 2;
/// The last 128 bytes are a spill block pointer.
pub const FLAG_SPILL_BLKPTR: u8 = 4;
/// The object is in the object-count accounting.
pub const FLAG_USEROBJUSED_ACCOUNTED: u8 = 8;

/// One object's head. Always a multiple of 512 bytes, at least one slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Dnode {
    raw: Vec<u8>,
}

macro_rules! byte_fields {
    ($($(#[$doc:meta])* $get:ident $set:ident $at:literal;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $get(&self) -> u8 { self.raw.get($at).copied().unwrap_or(0) }
        /// Sets the field of the same name.
        pub fn $set(&mut self, value: u8) { if let Some(b) = self.raw.get_mut($at) { *b = value; } }
    )*};
}

impl Dnode {
    byte_fields! {
        /// log2 of the indirect block size.
        indblkshift set_indblkshift 1;
        /// Levels of the tree; 1 means the block pointers lead to data.
        nlevels set_nlevels 2;
        /// Block pointers in the dnode: 1 to 3.
        nblkptr set_nblkptr 3;
        /// `FLAG_*` bits.
        flags set_flags 7;
        /// Slots used beyond the first.
        extra_slots set_extra_slots 12;
    }

    /// A free object of `slots` slots.
    #[must_use]
    pub fn empty(slots: usize) -> Self {
        let slots = slots.clamp(1, 32);
        let mut dn = Self { raw: vec![0; slots.saturating_mul(SLOT)] };
        dn.set_extra_slots(u8::try_from(slots.saturating_sub(1)).unwrap_or(0));
        dn
    }

    /// The dnode that begins at the start of `bytes` (which may go on with other slots). A free slot
    /// parses to a dnode of type NONE. Every length is checked against the space it describes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Corrupt> {
        let bad = |why: String| Corrupt::new("dnode", why);
        let head = bytes.get(..SLOT).ok_or_else(|| bad(format!("{} bytes", bytes.len())))?;
        if head.first() == Some(&0) {
            return Ok(Self { raw: head.to_vec() });
        }
        let slots = usize::from(head.get(12).copied().unwrap_or(0)).saturating_add(1);
        let raw = bytes
            .get(..slots.saturating_mul(SLOT))
            .ok_or_else(|| bad(format!("{slots} slots, past the end of the block")))?;
        let dn = Self { raw: raw.to_vec() };
        dn.check()?;
        Ok(dn)
    }

    fn check(&self) -> Result<(), Corrupt> {
        let bad = |why: String| Err(Corrupt::new("dnode", why));
        if !self.kind().is_valid() {
            return bad(format!("type {}", self.kind().0));
        }
        if !(1..=MAX_LEVELS).contains(&self.nlevels()) {
            return bad(format!("{} levels", self.nlevels()));
        }
        if !(1..=3).contains(&self.nblkptr()) {
            return bad(format!("{} block pointers", self.nblkptr()));
        }
        if !(12..=24).contains(&self.indblkshift()) {
            return bad(format!("indirect block shift {}", self.indblkshift()));
        }
        if self.datablkszsec() == 0 || self.block_size() > crate::units::MAX_BLOCK {
            return bad(format!("block size {}", self.block_size()));
        }
        if usize::from(self.bonuslen()) > self.max_bonuslen() {
            return bad(format!("bonus of {} bytes where {} fit", self.bonuslen(), self.max_bonuslen()));
        }
        Ok(())
    }

    /// All bytes: slots × 512.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }
    /// All bytes, to be changed. The caller keeps the lengths consistent.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.raw
    }
    /// Slots the object occupies.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.raw.len().wrapping_div(SLOT)
    }
    /// What the object holds; NONE when free.
    #[must_use]
    pub fn kind(&self) -> ObjectType {
        ObjectType(self.raw.first().copied().unwrap_or(0))
    }
    /// Sets the object type.
    pub fn set_kind(&mut self, t: ObjectType) {
        if let Some(b) = self.raw.first_mut() {
            *b = t.0;
        }
    }
    /// Whether the slot is free.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.kind() == ObjectType::NONE
    }
    /// What the bonus area holds.
    #[must_use]
    pub fn bonus_type(&self) -> ObjectType {
        ObjectType(self.raw.get(4).copied().unwrap_or(0))
    }
    /// Sets the bonus type.
    pub fn set_bonus_type(&mut self, t: ObjectType) {
        if let Some(b) = self.raw.get_mut(4) {
            *b = t.0;
        }
    }
    /// The object's own checksum setting; 0 inherits.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        Checksum(self.raw.get(5).copied().unwrap_or(0))
    }
    /// Sets the object's checksum setting.
    pub fn set_checksum(&mut self, c: Checksum) {
        if let Some(b) = self.raw.get_mut(5) {
            *b = c.0;
        }
    }
    /// The object's own compression setting; 0 inherits.
    #[must_use]
    pub fn compress(&self) -> Compress {
        Compress(self.raw.get(6).copied().unwrap_or(0))
    }
    /// Sets the object's compression setting.
    pub fn set_compress(&mut self, c: Compress) {
        if let Some(b) = self.raw.get_mut(6) {
            *b = c.0;
        }
    }
    fn u16_at(&self, at: usize) -> u16 {
        let end = at.saturating_add(2);
        self.raw.get(at..end).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
    }
    fn set_u16_at(&mut self, at: usize, v: u16) {
        let end = at.saturating_add(2);
        if let Some(b) = self.raw.get_mut(at..end) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
    /// Data block size in 512-byte sectors.
    #[must_use]
    pub fn datablkszsec(&self) -> u16 {
        self.u16_at(8)
    }
    /// Data block size in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        u64::from(self.datablkszsec()).wrapping_shl(9)
    }
    /// Sets the data block size, a multiple of 512 up to 16 MiB.
    pub fn set_block_size(&mut self, bytes: u64) {
        self.set_u16_at(8, u16::try_from(bytes >> 9).unwrap_or(u16::MAX));
    }
    /// Bytes of the bonus area in use.
    #[must_use]
    pub fn bonuslen(&self) -> u16 {
        self.u16_at(10)
    }
    /// Sets the length of the bonus.
    pub fn set_bonuslen(&mut self, len: u16) {
        self.set_u16_at(10, len);
    }
    /// Largest block id ever allocated; with it the tree's extent.
    #[must_use]
    pub fn maxblkid(&self) -> u64 {
        u64_at(&self.raw, 16)
    }
    /// Sets the largest block id.
    pub fn set_maxblkid(&mut self, id: u64) {
        let _ = crate::reader::put_u64_at(&mut self.raw, 16, id);
    }
    /// `dn_used` as stored: bytes or sectors by [`FLAG_USED_BYTES`].
    #[must_use]
    pub fn used_raw(&self) -> u64 {
        u64_at(&self.raw, 24)
    }
    /// Bytes allocated to the object.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        if self.flags() & FLAG_USED_BYTES != 0 {
            self.used_raw()
        } else {
            self.used_raw().saturating_mul(512)
        }
    }
    /// Sets the bytes allocated (and the flag that says they are bytes).
    pub fn set_used_bytes(&mut self, bytes: u64) {
        self.set_flags(self.flags() | FLAG_USED_BYTES);
        let _ = crate::reader::put_u64_at(&mut self.raw, 24, bytes);
    }
    /// Block pointers per indirect block.
    #[must_use]
    pub fn epb(&self) -> u64 {
        1_u64.wrapping_shl(self.epbs())
    }
    /// log2 of the block pointers per indirect block.
    #[must_use]
    pub fn epbs(&self) -> u32 {
        u32::from(self.indblkshift().saturating_sub(7)).min(32)
    }
    /// Whether block `blkid` fits a tree of the present height.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        let shift = self.epbs().saturating_mul(u32::from(self.nlevels().saturating_sub(1)));
        if shift >= 62 { u64::MAX } else { u64::from(self.nblkptr()).checked_shl(shift).unwrap_or(u64::MAX) }
    }
    /// Offset of the bonus area.
    fn bonus_at(&self) -> usize {
        usize::from(self.nblkptr()).saturating_mul(128).saturating_add(CORE)
    }
    /// Bytes the bonus could have (`DN_MAX_BONUS_LEN`): the tail less block pointers and spill pointer.
    #[must_use]
    pub fn max_bonuslen(&self) -> usize {
        let spill = if self.has_spill() { 128 } else { 0 };
        self.raw.len().saturating_sub(self.bonus_at()).saturating_sub(spill)
    }
    /// Whether a spill block pointer is present.
    #[must_use]
    pub fn has_spill(&self) -> bool {
        self.flags() & FLAG_SPILL_BLKPTR != 0
    }
    /// The bonus bytes in use; never more than the area has, whatever a free dnode's stale fields say.
    #[must_use]
    pub fn bonus(&self) -> &[u8] {
        let len = usize::from(self.bonuslen()).min(self.max_bonuslen());
        let end = self.bonus_at().saturating_add(len);
        self.raw.get(self.bonus_at()..end).unwrap_or(&[])
    }
    /// The bonus bytes in use, to be changed.
    pub fn bonus_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.bonuslen()).min(self.max_bonuslen());
        let (at, end) = (self.bonus_at(), self.bonus_at().saturating_add(len));
        self.raw.get_mut(at..end).unwrap_or(&mut [])
    }
    /// The whole bonus area up to [`Self::max_bonuslen`] (ciphertext fills all of it).
    #[must_use]
    pub fn bonus_area(&self) -> &[u8] {
        let end = self.bonus_at().saturating_add(self.max_bonuslen());
        self.raw.get(self.bonus_at()..end).unwrap_or(&[])
    }
    /// The whole bonus area, to be changed.
    pub fn bonus_area_mut(&mut self) -> &mut [u8] {
        let (at, end) = (self.bonus_at(), self.bonus_at().saturating_add(self.max_bonuslen()));
        self.raw.get_mut(at..end).unwrap_or(&mut [])
    }
    /// Block pointer `i` of [`Self::nblkptr`]; a hole past the end.
    #[must_use]
    pub fn blkptr(&self, i: usize) -> Blkptr {
        if i >= usize::from(self.nblkptr()) {
            return Blkptr::default();
        }
        self.blkptr_at(i.saturating_mul(128).saturating_add(CORE))
    }
    fn blkptr_at(&self, at: usize) -> Blkptr {
        let end = at.saturating_add(128);
        self.raw.get(at..end).and_then(|b| Blkptr::read_from_bytes(b).ok()).unwrap_or_default()
    }
    /// Stores block pointer `i`; ignored past the end.
    pub fn set_blkptr(&mut self, i: usize, bp: &Blkptr) {
        if i < usize::from(self.nblkptr()) {
            self.set_blkptr_at(i.saturating_mul(128).saturating_add(CORE), bp);
        }
    }
    fn set_blkptr_at(&mut self, at: usize, bp: &Blkptr) {
        let end = at.saturating_add(128);
        if let Some(b) = self.raw.get_mut(at..end) {
            b.copy_from_slice(bp.as_bytes());
        }
    }
    /// The spill block pointer, if there is one.
    #[must_use]
    pub fn spill(&self) -> Option<Blkptr> {
        self.has_spill().then(|| self.blkptr_at(self.raw.len().saturating_sub(128)))
    }
    /// Sets or removes the spill block pointer and its flag.
    pub fn set_spill(&mut self, bp: Option<&Blkptr>) {
        let at = self.raw.len().saturating_sub(128);
        match bp {
            Some(bp) => {
                self.set_flags(self.flags() | FLAG_SPILL_BLKPTR);
                self.set_blkptr_at(at, bp);
            }
            None => {
                if self.has_spill() {
                    self.set_blkptr_at(at, &Blkptr::default());
                }
                self.set_flags(self.flags() & !FLAG_SPILL_BLKPTR);
            }
        }
    }
}

impl std::fmt::Debug for Dnode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "dnode {{ {:?}, {} slots, levels {}, nblkptr {}, ibs {}, block {}, maxblkid {}, used {}, bonus {:?} {} bytes, flags {:#x} }}",
            self.kind(),
            self.slots(),
            self.nlevels(),
            self.nblkptr(),
            self.indblkshift(),
            self.block_size(),
            self.maxblkid(),
            self.used_bytes(),
            self.bonus_type(),
            self.bonuslen(),
            self.flags()
        )
    }
}
