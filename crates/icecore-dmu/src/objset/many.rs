//! Reading the heads of many objects: each block of dnodes once, by all workers the store has.

use super::{Objset, Starts, dnode_in, whole};
use crate::store::{BlockStore, ReadError};
use icecore_format::dnode::SLOTS_PER_BLOCK;
use icecore_format::{Blkptr, Dnode, ObjectId};
use std::iter::Flatten;
use std::sync::{Mutex, PoisonError};
use std::vec::IntoIter;

/// Blocks of dnodes whose pointers are held at a time.
const BATCH: usize = 4096;

/// What was made of each of many objects, in the order in which they were asked for.
pub type Picked<T> = Flatten<IntoIter<Option<T>>>;

impl Objset {
    /// What `pick` makes of each of `objs`, given its place in them and what [`Objset::dnode`] says of it; in their order.
    pub fn dnodes<T: Send>(
        &self,
        io: &dyn BlockStore,
        objs: &[ObjectId],
        pick: impl Fn(usize, Result<Dnode, ReadError>) -> T + Sync,
    ) -> Picked<T> {
        let block_of = |(obj, _): &(ObjectId, usize)| obj.0 / SLOTS_PER_BLOCK;
        let mut picked: Vec<Option<T>> = Vec::with_capacity(objs.len());
        let mut order = Vec::with_capacity(objs.len());
        for (i, obj) in objs.iter().enumerate() {
            let known = self.dnode_in_memory(*obj);
            if known.is_none() {
                order.push((*obj, i));
            }
            picked.push(known.map(|known| pick(i, known)));
        }
        order.sort_unstable();
        let picked = Mutex::new(picked);
        let look = |group: &[(ObjectId, usize)], block: Result<Option<&[u8]>, ReadError>| {
            let starts = block.as_ref().ok().copied().flatten().map(Starts::of);
            let find = |obj| match (&block, &starts) {
                (Ok(Some(block)), Some(starts)) => dnode_in(block, starts, obj),
                (Err(e), _) => Err(e.clone()),
                _ => Err(ReadError::NoObject(obj)),
            };
            let own: Vec<(usize, T)> = group.iter().map(|(obj, i)| (*i, pick(*i, find(*obj)))).collect();
            let mut all = picked.lock().unwrap_or_else(PoisonError::into_inner);
            for (i, one) in own {
                all[i] = Some(one);
            }
        };
        let groups: Vec<&[(ObjectId, usize)]> = order.chunk_by(|a, b| block_of(a) == block_of(b)).collect();
        for batch in groups.chunks(BATCH) {
            let (mut members, mut blocks) = (Vec::new(), Vec::new());
            for group in batch {
                let blkid = block_of(&group[0]);
                if let Some(bp) = self.place_on_disk(io, blkid) {
                    members.push(*group);
                    blocks.push((bp, self.at(ObjectId(0), 0, blkid)));
                } else {
                    let block = self.meta_block(io, blkid);
                    look(group, block.as_ref().map(Option::as_deref).map_err(Clone::clone));
                }
            }
            io.read_each(&blocks, self.want, &|k, block| look(members[k], block.and_then(whole).map(Some)));
        }
        picked.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten()
    }

    /// The pointer to a block of dnodes that has to be read; `None` where there is none, or the answer is in memory.
    fn place_on_disk(&self, io: &dyn BlockStore, blkid: u64) -> Option<Blkptr> {
        if blkid >= self.meta_blocks() || self.meta.bufs.contains_key(&(0, blkid)) {
            return None;
        }
        self.get_bp(io, ObjectId(0), &self.meta, 0, blkid).ok().filter(|bp| !bp.is_hole())
    }
}
