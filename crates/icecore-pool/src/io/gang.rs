//! Gang blocks: a header of up to three pointers stands for a block that found no contiguous space
//! (`zio_gang_tree_assemble`, `zio_write_gang_block`, zio.c).
//!
//! Invariants:
//! 1. A tree is at most `DEPTH_MAX` deep and its parts add up to exactly the block's stored size, so a
//!    hostile tree can neither loop nor grow.
//! 2. No part has more copies than the header it hangs on, whose allocated size counts them all.
//! 3. The allocated size in a gang pointer counts the parts too (`zio_write_gang_member_ready`); the header
//!    itself takes one sector (`vdev_gang_header_asize`). What is freed is what was allocated.

use super::Io;
use super::examine::Examined;
use super::read::{Bad, born};
use icecore_dmu::{ReadError, WriteError};
use icecore_format::{Blkptr, Compress, Dva};
use icecore_transform::checksum;
use icecore_vdev::tree::Born;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a header (`SPA_OLD_GANGBLOCKSIZE`).
const HEADER: usize = 512;
/// Pointers in it, before the checksum trailer of 40 bytes.
const PARTS: usize = 3;
/// 3^20 parts of 512 bytes are more than any block has.
pub(super) const DEPTH_MAX: u32 = 20;
/// Levels of headers we make: 3^8 parts are enough for 16 MiB in single sectors of 4 KiB.
pub(super) const DEPTH_NEW: u32 = 8;

/// When the header of a block was allocated; it has a checksum always.
fn of_header(bp: &Blkptr) -> Born {
    Born { unchecked: false, ..born(bp) }
}

/// The pointers in a header.
pub(super) fn parts_of(header: &[u8]) -> Vec<Blkptr> {
    let parts = header.chunks_exact(size_of::<Blkptr>()).take(PARTS);
    parts.filter_map(|b| Blkptr::read_from_bytes(b).ok()).filter(|p| !p.is_hole()).collect()
}

impl Io {
    /// The stored bytes behind a gang header, checked as a whole against `bp`.
    pub(super) fn read_ganged(&self, bp: &Blkptr, dva: &Dva) -> Result<Vec<u8>, Bad> {
        let mut data = Vec::new();
        self.gather(bp, dva, bp.psize(), DEPTH_MAX, &mut data)?;
        if data.len() as u64 != bp.psize() {
            return Err(Bad::Checksum);
        }
        match checksum::verify(bp, &data, Some(&self.salt)) {
            Ok(()) => Ok(data),
            Err(checksum::VerifyError::Unsupported(e)) => Err(Bad::Unsupported(e.to_string())),
            Err(_) => Err(Bad::Checksum),
        }
    }

    fn gather(&self, bp: &Blkptr, dva: &Dva, want: u64, depth: u32, out: &mut Vec<u8>) -> Result<(), Bad> {
        if depth == 0 {
            return Err(Bad::Checksum);
        }
        for part in self.gang_parts(bp, dva)? {
            let left = want.saturating_sub(out.len() as u64);
            if part.psize() > left || part.check().is_err() {
                return Err(Bad::Checksum);
            }
            self.read_part(&part, depth, out)?;
        }
        Ok(())
    }

    fn read_part(&self, part: &Blkptr, depth: u32, out: &mut Vec<u8>) -> Result<(), Bad> {
        let mut worst = Bad::Checksum;
        for dva in part.dvas() {
            let had = out.len();
            let read = if dva.is_gang() {
                self.gather(part, dva, had as u64 + part.psize(), depth - 1, out)
            } else {
                self.read_copy(part, dva, &mut Vec::new()).map(|(data, _)| out.extend_from_slice(&data))
            };
            match read {
                Ok(()) if out.len() as u64 == had as u64 + part.psize() => return Ok(()),
                Ok(()) => out.truncate(had),
                Err(bad) => {
                    out.truncate(had);
                    worst = bad;
                }
            }
        }
        Err(worst)
    }

    /// The pointers in the header at `dva`.
    fn gang_parts(&self, bp: &Blkptr, dva: &Dva) -> Result<Vec<Blkptr>, Bad> {
        Ok(parts_of(&self.gang_header(bp, dva)?))
    }

    /// The header at `dva`.
    pub(super) fn gang_header(&self, bp: &Blkptr, dva: &Dva) -> Result<Vec<u8>, Bad> {
        let mut accept = |header: &[u8]| checksum::embedded::gang_verify(bp, header).is_ok();
        self.read_raw(dva, HEADER as u64, of_header(bp), &mut accept, &mut Vec::new())
    }

    /// The header at `dva`, with every side of it looked at and mended.
    pub(super) fn scrub_gang_header(&self, bp: &Blkptr, dva: &Dva) -> Result<(Vec<u8>, Examined), ()> {
        let mut accept = |header: &[u8]| checksum::embedded::gang_verify(bp, header).is_ok();
        let read =
            self.settled().scrub(dva, HEADER as u64, Some(of_header(bp)), &mut accept).map_err(|_| ())?;
        let seen = self.judge(bp, &read);
        Ok((read.data, seen))
    }

    /// All places a block occupies, headers included: what freeing it gives back.
    pub(crate) fn places(&self, bp: &Blkptr) -> Result<Vec<Dva>, WriteError> {
        let mut all = Vec::new();
        self.collect_places(bp, DEPTH_MAX, &mut all)?;
        Ok(all)
    }

    fn collect_places(&self, bp: &Blkptr, depth: u32, all: &mut Vec<Dva>) -> Result<(), WriteError> {
        if !bp.is_gang() {
            all.extend_from_slice(bp.dvas());
            return Ok(());
        }
        // Of a removed vdev only the configuration is left.
        let ashift = |vdev: u32| self.vdevs().config().children.get(vdev as usize).and_then(|v| v.ashift);
        let header = |d: &Dva| {
            let sector = 1 << ashift(d.vdev()).map_or(9, |a| a.clamp(9, 16));
            Dva::new(d.vdev(), d.offset(), (HEADER as u64).next_multiple_of(sector), false)
        };
        all.extend(bp.dvas().iter().map(header));
        let lost = || WriteError::Read(ReadError::Device(format!("the gang header of {bp:?} is unreadable")));
        let mut parts = None;
        for dva in bp.dvas() {
            parts = parts.or_else(|| self.gang_parts(bp, dva).ok());
        }
        let parts = parts.filter(|_| depth > 0).ok_or_else(lost)?;
        parts.iter().try_for_each(|part| self.collect_places(part, depth - 1, all))
    }

    /// Places for a block in parts, for which no place in one piece was found. Sets the pointer's DVAs;
    /// header and parts are added to `out`.
    pub(super) fn place_ganged(
        &mut self,
        bp: &mut Blkptr,
        data: &[u8],
        copies: usize,
        depth: u32,
        out: &mut Vec<(Dva, Vec<u8>)>,
    ) -> Result<(), WriteError> {
        // Two headers even for one copy, on all levels the same number: each adds the space of its parts, and
        // an encrypted block has no room for a third (`zio_write_gang_block`).
        let headers = self.allocate(HEADER as u64, copies.max(2))?;
        let parts = match self.place_parts(bp, data, copies, depth, out) {
            Ok(parts) => parts,
            Err(e) => {
                headers.iter().try_for_each(|dva| self.alloc.free(dva))?;
                return Err(e);
            }
        };
        let mut header = vec![0; HEADER];
        for (slot, part) in header.chunks_exact_mut(size_of::<Blkptr>()).zip(&parts) {
            slot.copy_from_slice(part.as_bytes());
        }
        for (i, (slot, dva)) in bp.dva.iter_mut().zip(&headers).enumerate() {
            let of_part = |p: &Blkptr| p.dvas().get(i).map_or(0, Dva::asize);
            let asize = dva.asize() + parts.iter().map(of_part).sum::<u64>();
            *slot = Dva::new(dva.vdev(), dva.offset(), asize, true);
        }
        let sealed = checksum::embedded::gang_seal(bp, &mut header);
        assert!(sealed, "a gang header has room for its checksum");
        out.extend(headers.into_iter().map(|dva| (dva, header.clone())));
        Ok(())
    }

    fn place_parts(
        &mut self,
        bp: &Blkptr,
        data: &[u8],
        copies: usize,
        depth: u32,
        out: &mut Vec<(Dva, Vec<u8>)>,
    ) -> Result<Vec<Blkptr>, WriteError> {
        let sector = 1_usize << self.min_shift;
        let (mut rest, mut parts) = (data, Vec::new());
        while !rest.is_empty() {
            let left = PARTS - parts.len();
            let least = rest.len().div_ceil(left).next_multiple_of(sector).min(rest.len());
            let (size, dvas) = self.largest_place(rest.len(), least, copies)?;
            let (now, later) = rest.split_at(size);
            let mut part = Blkptr::default();
            part.set_lsize(size as u64);
            part.set_psize(size as u64);
            part.set_compress(Compress::OFF);
            part.set_checksum(bp.checksum());
            part.set_little_endian(bp.is_little_endian());
            part.set_birth(bp.birth());
            match dvas {
                Some(dvas) => {
                    for (slot, dva) in part.dva.iter_mut().zip(&dvas) {
                        *slot = *dva;
                    }
                    out.extend(dvas.into_iter().map(|dva| (dva, now.to_vec())));
                }
                None if depth == 0 || size <= sector => return Err(WriteError::NoSpace),
                None => self.place_ganged(&mut part, now, copies, depth - 1, out)?,
            }
            let salt = self.salt.clone();
            checksum::seal(&mut part, now, Some(&salt)).map_err(|e| WriteError::Invalid(e.to_string()))?;
            parts.push(part);
            rest = later;
        }
        Ok(parts)
    }

    /// The largest piece from `most` down to `least` bytes that has a place; `least` and none if there is none.
    fn largest_place(
        &mut self,
        most: usize,
        least: usize,
        copies: usize,
    ) -> Result<(usize, Option<Vec<Dva>>), WriteError> {
        let sector = 1_usize << self.min_shift;
        let mut size = most;
        loop {
            match self.try_allocate(size as u64, copies, true) {
                Ok(dvas) => return Ok((size, Some(dvas))),
                Err(WriteError::NoSpace) if size > least => {
                    size = (size / 4 * 3).next_multiple_of(sector).min(size - 1) / sector * sector;
                    size = size.max(least);
                }
                Err(WriteError::NoSpace) => return Ok((least, None)),
                Err(other) => return Err(other),
            }
        }
    }
}
