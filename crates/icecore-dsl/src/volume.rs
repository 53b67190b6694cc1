//! Volumes: their two objects, their size, and what is reserved for them (`zvol_create_cb`,
//! `zvol_update_volsize`, zvol.c; `zvol_volsize_to_reservation`, `zfs_add_synthetic_resv`,
//! libzfs_dataset.c).
//!
//! Invariants:
//! 1. The size is a multiple of the block size, and neither is 0.
//! 2. What lies behind the size is free: a volume that shrinks gives its end back in the same txg.

use crate::Dsl;
use crate::error::{DslError, Result};
use crate::lookup::DatasetRef;
use crate::prop::{SetSource, Value};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, Want};
use icecore_format::dnode::SLOT;
use icecore_format::{ObjectId, ObjectType};

/// The object of the contents (`ZVOL_OBJ`).
pub const CONTENTS: ObjectId = ObjectId(1);
/// The ZAP with the size (`ZVOL_ZAP_OBJ`).
pub const PROPS: ObjectId = ObjectId(2);
/// Bytes of a block where nothing else is asked for (`ZVOL_DEFAULT_BLOCKSIZE`).
pub const DEFAULT_BLOCK: u64 = 16384;
/// Bytes of an indirect block (`DN_MAX_INDBLKSHIFT`).
const INDIRECT: u64 = 1 << 17;
/// Pointers in one (`DNODES_PER_LEVEL`).
const PER_INDIRECT: u64 = INDIRECT / 128;

/// Bytes to be reserved so that a volume of `size` bytes in blocks of `block` can always be written whole,
/// on single disks and mirrors (`zvol_volsize_to_reservation`).
#[must_use]
pub fn reservation(size: u64, block: u64, copies: u64) -> u64 {
    let mut blocks = size / block.max(1);
    // The levels of the metadnode, then the indirect blocks of the contents.
    let mut meta = 7_u64;
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_INDIRECT);
        meta = meta.saturating_add(blocks);
    }
    let meta = meta.saturating_mul(3.min(copies + 1)).saturating_mul(INDIRECT);
    size.saturating_mul(copies).saturating_add(meta)
}

/// The objects of an empty volume.
pub(crate) fn fill(io: &mut dyn BlockWriter, os: &mut Objset, size: u64, block: u64) -> Result<()> {
    os.claim(io, CONTENTS, &NewObject::plain(ObjectType::ZVOL, block))?;
    os.claim(io, PROPS, &NewObject::plain(ObjectType::ZVOL_PROP, SLOT as u64))?;
    zap::init(os, io, PROPS, 0)?;
    Ok(zap::update(os, io, PROPS, "size", &ZapValue::u64(size))?)
}

impl Dsl {
    /// Size and block size of a volume, in bytes. Its key must be loaded.
    pub fn volume_size(&self, io: &dyn BlockStore, r: DatasetRef) -> Result<(u64, u64)> {
        self.require_key(io, r)?;
        let stored;
        // What was changed in this txg counts.
        let os = match self.open.get(&r.obj) {
            Some(os) if os.want() == Want::Logical => os,
            _ => {
                stored = self.objset(io, r.obj, Want::Logical)?;
                &stored
            }
        };
        let size = zap::lookup_u64(os, io, PROPS, "size")?.unwrap_or(0);
        Ok((size, os.dnode(io, CONTENTS)?.block_size()))
    }

    /// Gives a volume another size.
    pub(crate) fn volume_resize(&mut self, io: &mut dyn BlockWriter, r: DatasetRef, size: u64) -> Result<()> {
        let (old, block) = self.volume_size(io, r)?;
        if size == 0 || !size.is_multiple_of(block) {
            return Err(DslError::Invalid("a volume's size is a multiple of its block size".into()));
        }
        if self.prop_number(io, r, "readonly")? != 0 {
            return Err(DslError::Invalid("dataset is read-only".into()));
        }
        let os = self.open_dataset(io, r.obj)?;
        zap::update(os, io, PROPS, "size", &ZapValue::u64(size))?;
        if size < old {
            os.free_range(io, CONTENTS, size / block, u64::MAX)?;
        }
        Ok(())
    }

    /// A volume whose reservation is just what its size asks for keeps it so at its new size
    /// (`zfs_add_synthetic_resv`).
    pub(crate) fn volume_reserve(
        &mut self,
        io: &mut dyn BlockWriter,
        r: DatasetRef,
        size: u64,
    ) -> Result<()> {
        let (old, block) = self.volume_size(io, r)?;
        if self.prop_number(io, r, "refreservation")? != reservation(old, block, 1) {
            return Ok(());
        }
        let value = Value::Number(reservation(size, block, 1));
        self.prop_set_raw(io, r, "refreservation", &value, SetSource::Local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that `zfs create -V` gave a volume on a single disk or mirror.
    #[test]
    fn a_reservation_has_room_for_all_blocks_and_their_tree() {
        // 10 MiB in 640 blocks: seven and one indirect block, twice.
        assert_eq!(reservation(10 << 20, 16384, 1), (10 << 20) + 16 * INDIRECT);
        assert_eq!(reservation(1 << 30, 16384, 1), (1 << 30) + 2 * (7 + 64 + 1) * INDIRECT);
        assert_eq!(reservation(16384, 16384, 3), 3 * 16384 + 21 * INDIRECT);
        assert_eq!(reservation(u64::MAX - 511, 512, 3), u64::MAX);
    }
}
