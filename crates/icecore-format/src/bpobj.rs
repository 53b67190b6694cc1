//! Lists of block pointers on disk: bpobjs (`bpobj_phys_t`, bpobj.h) and the deadlists made of them
//! (`dsl_deadlist_phys_t`, dsl_deadlist.h). The pointers themselves are the object's contents; here are the
//! bonus buffers.

use crate::Corrupt;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bonus without space by compression.
pub const SIZE_V0: usize = 16;
/// Bonus without subobjects.
pub const SIZE_V1: usize = 32;
/// Bonus without a count of frees.
pub const SIZE_V2: usize = 48;
/// Bonus with everything (livelists).
pub const SIZE_V3: usize = 56;

/// The bonus of a bpobj; what an older, shorter one lacks reads as zero.
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug, Default,
)]
#[repr(C)]
pub struct BpobjPhys {
    /// Pointers in the object itself.
    pub num_blkptrs: U64,
    /// Allocated bytes of all, subobjects included.
    pub bytes: U64,
    /// Physical bytes of all.
    pub comp: U64,
    /// Logical bytes of all.
    pub uncomp: U64,
    /// The object that lists subobjects.
    pub subobjs: U64,
    /// How many subobjects.
    pub num_subobjs: U64,
    /// How many of the pointers are frees (livelists).
    pub num_freed: U64,
}
const _: () = assert!(size_of::<BpobjPhys>() == SIZE_V3);

impl BpobjPhys {
    /// The structure in a bonus buffer of any version.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let len = bonus.len().min(SIZE_V3);
        if len < SIZE_V0 {
            return Err(Corrupt::new("bpobj", format!("a bonus of {len} bytes")));
        }
        let mut phys = Self::default();
        if let (Some(to), Some(from)) = (phys.as_mut_bytes().get_mut(..len), bonus.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(phys)
    }
    /// Writes as much as the bonus of an older version has room for.
    pub fn store(&self, bonus: &mut [u8]) {
        let len = bonus.len().min(SIZE_V3);
        if let (Some(to), Some(from)) = (bonus.get_mut(..len), self.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
    }
}

/// Whether a bonus of `len` bytes counts physical and logical bytes (`havecomp`).
#[must_use]
pub fn has_comp(len: usize) -> bool {
    len >= SIZE_V1
}
/// Whether a bonus of `len` bytes can have subobjects (`havesubobj`).
#[must_use]
pub fn has_subobjs(len: usize) -> bool {
    len >= SIZE_V2
}
/// Whether a bonus of `len` bytes counts frees (`havefreed`).
#[must_use]
pub fn has_freed(len: usize) -> bool {
    len >= SIZE_V3
}

/// The bonus of a deadlist, a ZAP from mintxg to bpobj. Pools of old have a plain bpobj instead.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct DeadlistPhys {
    /// Allocated bytes.
    pub used: U64,
    /// Physical bytes.
    pub comp: U64,
    /// Logical bytes.
    pub uncomp: U64,
    /// Zero.
    pub pad: [U64; 37],
}
const _: () = assert!(size_of::<DeadlistPhys>() == 320);

impl Default for DeadlistPhys {
    fn default() -> Self {
        let zero = U64::new(0);
        Self { used: zero, comp: zero, uncomp: zero, pad: [zero; 37] }
    }
}
impl DeadlistPhys {
    /// The structure in a bonus buffer.
    pub fn parse(bonus: &[u8]) -> Result<Self, Corrupt> {
        let short = |_| Corrupt::new("deadlist", format!("a bonus of {} bytes", bonus.len()));
        Self::read_from_prefix(bonus).map(|(d, _)| d).map_err(short)
    }
}
