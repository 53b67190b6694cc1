//! Contents of a volume: bytes at a place, and ranges of zeros (`zvol_write`, `zvol_discard`, zvol_os.c).

use crate::error::{Result, ZplError};
use icecore_dmu::{BlockStore, BlockWriter, Form, Objset, zap};
use icecore_dsl::volume::{CONTENTS, PROPS};
use icecore_format::objset::ObjsetType;

/// What writing needs to know of a volume. Stays valid while its size stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeWriter {
    size: u64,
    block: u64,
}

impl VolumeWriter {
    /// For the volume in `os`.
    ///
    /// # Errors
    /// It is no volume, its key is missing, or it has no size.
    pub fn open(io: &dyn BlockStore, os: &Objset) -> Result<Self> {
        if os.phys().kind() != ObjsetType::Zvol {
            return Err(ZplError::Unsupported("writing to what is no volume".into()));
        }
        if os.is_raw() {
            return Err(ZplError::KeyNotLoaded(format!("dataset object {}", os.id())));
        }
        let size = zap::lookup_u64(os, io, PROPS, "size")?;
        let size = size.ok_or_else(|| ZplError::corrupt("volume", PROPS, "no size"))?;
        Ok(Self { size, block: os.dnode(io, CONTENTS)?.block_size() })
    }

    /// Property `volsize`, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Property `volblocksize`, in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.block
    }

    fn within(&self, offset: u64, len: u64) -> Result<u64> {
        // The last block is there as a whole.
        let room = self.size.next_multiple_of(self.block);
        let end = offset.checked_add(len).filter(|end| *end <= room);
        end.ok_or_else(|| ZplError::TooLarge(format!("{len} bytes at {offset} of a volume of {}", self.size)))
    }

    /// Writes at byte `offset`. Whole blocks go out at once, those of zeros become holes; parts of blocks stay in memory
    /// until the sync.
    ///
    /// # Errors
    /// [`ZplError::TooLarge`] past the end, with nothing changed; after any other the open txg is to be abandoned.
    pub fn write(&self, os: &mut Objset, io: &mut dyn BlockWriter, offset: u64, data: &[u8]) -> Result<()> {
        self.within(offset, data.len() as u64)?;
        let policy = os.policy();
        let form =
            Form::Logical { compress: policy.compress, level: policy.level, encrypt: policy.encrypted };
        let mut whole = Vec::new();
        // Blocks of zeros, up to where they end.
        let mut holes: Vec<(u64, u64)> = Vec::new();
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let room = usize::try_from(self.block - at % self.block).unwrap_or(usize::MAX);
            let (part, more) = rest.split_at(room.min(rest.len()));
            let blkid = at / self.block;
            if (part.len() as u64) < self.block {
                os.write(io, CONTENTS, at, part)?;
            } else if part.iter().any(|b| *b != 0) {
                whole.push((blkid, part.to_vec(), form));
            } else {
                match holes.last_mut().filter(|(_, end)| *end == blkid) {
                    Some((_, end)) => *end += 1,
                    None => holes.push((blkid, blkid + 1)),
                }
            }
            at += part.len() as u64;
            rest = more;
        }
        for (first, end) in holes {
            os.free_range(io, CONTENTS, first, end - first)?;
        }
        if !whole.is_empty() {
            os.write_through(io, CONTENTS, whole)?;
        }
        Ok(())
    }

    /// Makes bytes zeros, whole blocks holes (`dmu_free_long_range`, dmu.c). What lies past the end is passed over.
    ///
    /// # Errors
    /// The open txg is to be abandoned.
    pub fn zero(&self, os: &mut Objset, io: &mut dyn BlockWriter, offset: u64, len: u64) -> Result<()> {
        let block = self.block;
        let dn = os.dnode(io, CONTENTS)?;
        let all = dn.maxblkid().saturating_add(1).saturating_mul(block);
        let end = offset.saturating_add(len).min(all);
        let (first, last) = (offset.div_ceil(block), end / block);
        let mut part = |from: u64, to: u64| -> Result<()> {
            if from < to && os.block(io, CONTENTS, &dn, from / block)?.is_some() {
                os.write(io, CONTENTS, from, &vec![0; usize::try_from(to - from).unwrap_or(0)])?;
            }
            Ok(())
        };
        part(offset, end.min(first.saturating_mul(block)))?;
        if last >= first {
            part((last * block).max(offset), end)?;
        }
        if first < last {
            os.free_range(io, CONTENTS, first, last - first)?;
        }
        Ok(())
    }
}
