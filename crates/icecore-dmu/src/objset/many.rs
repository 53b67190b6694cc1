//! Reading the heads of many objects: each block of dnodes once, a batch of them while the one before is looked at.

use super::{Objset, dnode_in, whole};
use crate::store::{BlockStore, Fetch, ReadError};
use icecore_format::dnode::SLOTS_PER_BLOCK;
use icecore_format::{Blkptr, Dnode, ObjectId};

/// Blocks of dnodes in a batch: two batches of 1 MiB are in memory.
const BATCH: usize = 64;

impl Objset {
    /// Calls `take` once for each of `objs`, in any order, with its place in them and what [`Objset::dnode`] says of it.
    pub fn dnodes(
        &self,
        io: &dyn BlockStore,
        objs: &[ObjectId],
        mut take: impl FnMut(usize, Result<Dnode, ReadError>),
    ) {
        let block_of = |i: &usize| objs[*i].0 / SLOTS_PER_BLOCK;
        let mut order = Vec::with_capacity(objs.len());
        for (i, obj) in objs.iter().enumerate() {
            match self.dnode_in_memory(*obj) {
                Some(known) => take(i, known),
                None => order.push(i),
            }
        }
        order.sort_unstable_by_key(|i| objs[*i]);
        let groups: Vec<&[usize]> = order.chunk_by(|a, b| block_of(a) == block_of(b)).collect();
        let mut look = |group: &[usize], block: Result<Option<&[u8]>, ReadError>| {
            for i in group {
                take(
                    *i,
                    block.clone().and_then(|b| dnode_in(b.ok_or(ReadError::NoObject(objs[*i]))?, objs[*i])),
                );
            }
        };
        let mut before: (Vec<&[usize]>, Vec<Fetch>) = Default::default();
        let mut spare: Vec<Vec<u8>> = Vec::new();
        for batch in groups.chunks(BATCH).chain([&[][..]]) {
            let (mut members, mut blocks) = (Vec::new(), Vec::new());
            for group in batch {
                let blkid = block_of(&group[0]);
                let Some(bp) = self.place_on_disk(io, blkid) else {
                    let block = self.meta_block(io, blkid);
                    look(group, block.as_ref().map(Option::as_deref).map_err(Clone::clone));
                    continue;
                };
                members.push(*group);
                let at = self.at(ObjectId(0), 0, blkid);
                blocks.push(Fetch::new(bp, at, self.want, spare.pop().unwrap_or_default()));
            }
            let (groups, mut read) = std::mem::replace(&mut before, (members, Vec::new()));
            io.fetch(&mut blocks, &mut || {
                for (group, block) in groups.iter().zip(&read) {
                    look(group, block.result.clone().and_then(|()| whole(block.bytes.as_slice())).map(Some));
                }
            });
            spare.extend(read.drain(..).map(|block| block.bytes));
            before.1 = blocks;
        }
    }

    /// The pointer to a block of dnodes that has to be read; `None` where there is none, or the answer is in memory.
    fn place_on_disk(&self, io: &dyn BlockStore, blkid: u64) -> Option<Blkptr> {
        if blkid >= self.meta_blocks() || self.meta.bufs.contains_key(&(0, blkid)) {
            return None;
        }
        self.get_bp(io, ObjectId(0), &self.meta, 0, blkid).ok().filter(|bp| !bp.is_hole())
    }
}
