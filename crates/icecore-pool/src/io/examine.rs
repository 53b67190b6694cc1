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
use super::gang::{DEPTH_MAX, parts_of};
use icecore_dmu::WriteError;
use icecore_format::{Blkptr, Dva, Guid};
use icecore_transform::{checksum, crypt};
use icecore_vdev::tree::{BadCopy, Read};

/// What became of a block's copies.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Examined {
    /// Copies, parity columns or parts that were wrong or unreadable.
    pub bad: u64,
    /// Of these, rewritten from a good one.
    pub repaired: u64,
    /// No good copy of the whole block was found.
    pub lost: bool,
    /// Copies that a side of a mirror is known to lack, for it was away when they were written: it waits for a resilver, and that
    /// is no damage. Not among `bad`.
    pub awaited: u64,
}

impl Examined {
    fn add(&mut self, other: Self) {
        self.bad += other.bad;
        self.repaired += other.repaired;
        self.awaited += other.awaited;
    }
}

/// What was met of a gang's headers.
#[derive(Default)]
struct Gang {
    /// One that is sound.
    header: Option<Vec<u8>>,
    /// Places where none is.
    without: Vec<Dva>,
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
        let mut gang = Gang::default();
        for dva in bp.dvas() {
            if dva.is_gang() {
                let before = sum.bad;
                self.examine_gang(bp, dva, depth, &mut gang, &mut sum);
                // A gang is good if its parts are; the whole is summed only for the verdict on the block.
                match self.read_ganged(bp, dva) {
                    Ok(data) => good = Some(data),
                    Err(_) => sum.bad += u64::from(sum.bad == before),
                }
                continue;
            }
            let mut check = |data: &[u8]| {
                let summed = checksum::verify(bp, data, Some(&self.salt)).is_ok();
                summed && (!bp.has_indirect_mac() || crypt::check_indirect(bp, data).is_ok())
            };
            match self.settled().scrub(dva, bp.psize(), Some(super::read::born(bp)), &mut check) {
                Ok(read) => {
                    sum.add(self.judge(bp, &read));
                    good = Some(read.data);
                }
                Err(_) => {
                    sum.bad += 1;
                    wrong.push(dva);
                }
            }
        }
        if let Some(header) = &gang.header {
            sum.repaired += gang.without.iter().filter(|dva| self.rewrite(bp, dva, header)).count() as u64;
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

    /// Gives a leaf that lacks them its copies of the block that `bp` points to; nothing of it is read. `repaired` are those it
    /// took, `bad` those it did not.
    #[must_use]
    pub(crate) fn supply(&self, bp: &Blkptr, to: Guid) -> Examined {
        self.supply_block(bp, to, DEPTH_MAX)
    }

    fn supply_block(&self, bp: &Blkptr, to: Guid, depth: u32) -> Examined {
        let mut sum = Examined::default();
        let (gangs, places): (Vec<&Dva>, Vec<&Dva>) = bp.dvas().iter().partition(|d| d.is_gang());
        let places: Vec<&Dva> = places.into_iter().filter(|d| self.vdevs.is_behind(d, to)).collect();
        if !places.is_empty() {
            match bp.dvas().iter().find_map(|dva| self.read_any(bp, dva)) {
                Some(data) => places.iter().for_each(|dva| self.hand_over(bp, dva, &data, to, &mut sum)),
                None => sum.lost = true,
            }
        }
        let header = gangs.iter().find_map(|dva| self.gang_header(bp, dva).ok());
        match header {
            None => sum.lost |= !gangs.is_empty(),
            Some(_) if depth == 0 => sum.lost = true,
            Some(header) => {
                let places = gangs.iter().filter(|d| self.vdevs.is_behind(d, to));
                places.for_each(|dva| self.hand_over(bp, dva, &header, to, &mut sum));
                for part in parts_of(&header).iter().filter(|part| part.check().is_ok()) {
                    let seen = self.supply_block(part, to, depth - 1);
                    sum.add(seen);
                    sum.lost |= seen.lost;
                }
            }
        }
        sum
    }

    /// The stored bytes behind one place, if they are right.
    fn read_any(&self, bp: &Blkptr, dva: &Dva) -> Option<Vec<u8>> {
        let read = match dva.is_gang() {
            true => self.read_ganged(bp, dva),
            false => self.read_copy(bp, dva, &mut Vec::new()).map(|(data, _)| data),
        };
        read.ok().filter(|data| !bp.has_indirect_mac() || crypt::check_indirect(bp, data).is_ok())
    }

    fn hand_over(&self, bp: &Blkptr, dva: &Dva, data: &[u8], to: Guid, sum: &mut Examined) {
        match self.vdevs.supply(dva, bp.physical_birth(), data, to) {
            true => sum.repaired += 1,
            false => sum.bad += 1,
        }
    }

    /// What the bad copies behind one place mean: damage, or what a device is known to have missed.
    pub(super) fn judge(&self, bp: &Blkptr, read: &Read) -> Examined {
        let birth = bp.physical_birth();
        let known = |b: &&BadCopy| self.missed.get(&b.guid).is_some_and(|txgs| txgs.contains(birth.0, 1));
        // What was written just now is not awaited any more.
        let awaited = if read.repaired == 0 { read.bad.iter().filter(known).count() as u64 } else { 0 };
        let bad = read.bad.len() as u64 - awaited;
        Examined { bad, repaired: read.repaired as u64, awaited, lost: false }
    }

    /// The header and every part behind a gang's place. Copies of a header lead to the same parts, which are looked at once.
    fn examine_gang(&self, bp: &Blkptr, dva: &Dva, depth: u32, gang: &mut Gang, sum: &mut Examined) {
        if depth == 0 {
            sum.bad += 1;
            return;
        }
        let Ok((header, seen)) = self.scrub_gang_header(bp, dva) else {
            sum.bad += 1;
            gang.without.push(*dva);
            return;
        };
        sum.add(seen);
        if gang.header.as_ref() == Some(&header) {
            return;
        }
        for part in parts_of(&header) {
            if part.check().is_err() {
                sum.bad += 1;
                return;
            }
            sum.add(self.examine_block(&part, depth - 1));
        }
        gang.header = Some(header);
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
