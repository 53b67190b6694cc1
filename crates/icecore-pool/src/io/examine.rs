//! One block, every copy of it: what a scrub does to each (`scan_exec_io`, dsl_scan.c; `vdev_mirror_io_done`,
//! `vdev_raidz_io_done`).
//!
//! Invariants:
//! 1. Every copy on every device, all parity and every part of a gang is read, whether or not one was good already.
//! 2. A copy is rewritten only with bytes that passed the pointer's own checksum, at its own place: no pointer changes.
//! 3. The MAC over an indirect block is checked beside its checksum: it needs no key, and fletcher4 halved by XOR, as
//!    encrypted datasets have it, does not see some single flips in a block's last word. Data blocks have that
//!    blind spot too; only their key would help.
//! 4. Nothing is written where the device is not open for writing; the pool itself need not be: a repair allocates
//!    nothing and frees nothing, so it is as good for layouts that we do not write otherwise.

use super::Io;
use super::gang::DEPTH_MAX;
use icecore_dmu::WriteError;
use icecore_format::{Blkptr, Dva};
use icecore_transform::{checksum, crypt};

/// What became of a block's copies.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Examined {
    /// Copies, parity columns or parts that were wrong or unreadable.
    pub bad: u64,
    /// Of these, rewritten from a good one.
    pub repaired: u64,
    /// No good copy of the whole block was found.
    pub lost: bool,
}

impl Examined {
    fn add(&mut self, other: Self) {
        self.bad += other.bad;
        self.repaired += other.repaired;
    }
}

impl Io {
    /// Reads and checks all copies of the block that `bp` points to, and mends what can be mended. The pointer must
    /// not be a hole or embedded.
    #[must_use]
    pub fn examine(&self, bp: &Blkptr) -> Examined {
        self.examine_block(bp, DEPTH_MAX)
    }

    fn examine_block(&self, bp: &Blkptr, depth: u32) -> Examined {
        let mut sum = Examined::default();
        let mut good: Option<Vec<u8>> = None;
        let mut wrong: Vec<&Dva> = Vec::new();
        for dva in bp.dvas() {
            if dva.is_gang() {
                // A gang is good if its parts are; the whole is summed only for the verdict on the block.
                let parts = self.examine_gang(bp, dva, depth);
                sum.add(parts);
                match self.read_ganged(bp, dva) {
                    Ok(data) => good = Some(data),
                    Err(_) => sum.bad += u64::from(parts.bad == 0),
                }
                continue;
            }
            let mut check = |data: &[u8]| {
                let summed = checksum::verify(bp, data, Some(&self.salt)).is_ok();
                summed && (!bp.has_indirect_mac() || crypt::check_indirect(bp, data).is_ok())
            };
            match self.settled().scrub(dva, bp.psize(), Some(super::read::born(bp)), &mut check) {
                Ok(read) => {
                    sum.bad += read.bad.len() as u64;
                    sum.repaired += read.repaired as u64;
                    good = Some(read.data);
                }
                Err(_) => {
                    sum.bad += 1;
                    wrong.push(dva);
                }
            }
        }
        match good {
            Some(data) => {
                let mended = wrong.iter().filter(|dva| self.rewrite(bp, dva, &data)).count();
                sum.repaired += mended as u64;
            }
            None => sum.lost = true,
        }
        sum
    }

    /// The header and every part behind a gang's place.
    fn examine_gang(&self, bp: &Blkptr, dva: &Dva, depth: u32) -> Examined {
        let lost = Examined { bad: 1, repaired: 0, lost: true };
        if depth == 0 {
            return lost;
        }
        let Ok((parts, header)) = self.scrub_gang_header(bp, dva) else { return lost };
        let mut sum = header;
        for part in parts {
            if part.check().is_err() {
                return lost;
            }
            sum.add(self.examine_block(&part, depth - 1));
        }
        sum
    }

    /// Rewrites copies that a read passed over, with what it found in another one. Only of a pool open for writing: there every
    /// pointer that is followed is alive, and the place of its copies its own.
    pub(super) fn heal_copies(&self, bp: &Blkptr, failed: &[&Dva], data: &[u8]) {
        if self.writable && self.suspended.is_none() {
            failed.iter().filter(|dva| !dva.is_gang()).for_each(|dva| {
                self.rewrite(bp, dva, data);
            });
        }
    }

    fn rewrite(&self, bp: &Blkptr, dva: &Dva, data: &[u8]) -> bool {
        self.settled().rewrite(dva, bp.physical_birth(), data)
    }

    /// Puts `data`, fetched elsewhere, in all places of the block that `bp` points to, if it is the very bytes the
    /// pointer's checksum stands for. How many places were written; durable after [`Io::flush_repairs`].
    ///
    /// # Errors
    /// The bytes are others, or no place could be written.
    pub fn heal(&mut self, bp: &Blkptr, data: &[u8]) -> Result<u64, WriteError> {
        if data.len() as u64 != bp.psize() || checksum::verify(bp, data, Some(&self.salt)).is_err() {
            return Err(WriteError::Invalid("these are not the bytes of that block".into()));
        }
        let written = bp.dvas().iter().filter(|d| !d.is_gang() && self.rewrite(bp, d, data)).count() as u64;
        if written == 0 {
            return Err(WriteError::Invalid("no place of the block can be written".into()));
        }
        Ok(written)
    }

    /// Makes repairs durable.
    ///
    /// # Errors
    /// A device failed: the pool is suspended then.
    pub fn flush_repairs(&mut self) -> Result<(), WriteError> {
        self.settled().flush().map_err(|e| self.suspend(e.to_string()))
    }
}
