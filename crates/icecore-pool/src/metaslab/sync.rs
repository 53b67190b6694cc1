//! Writing a txg's allocations and frees into the space maps in the MOS (`metaslab_sync`, metaslab.c).
//!
//! Invariants:
//! 1. After a pass, the maps' entries, `smp_length` and `smp_alloc` agree with the trees.
//! 2. The pool's space map logs are flushed whole by the first txg: every metaslab's unflushed changes go to
//!    its own map, its unflushed txg becomes 0 («not in the logs»), the logs are destroyed. From then on
//!    we write to the metaslabs' own maps. That is the state of a pool where the feature was just enabled,
//!    which OpenZFS takes up by itself.
//! 3. A map is rewritten whole (condensed) only in pass 1, so that passes converge.

use super::{Metaslab, Top, alloc::conflict};
use crate::range_tree::RangeTree;
use crate::space_map::{self, Encoding, Kind, PHYS_SIZE, Phys};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, WriteError};
use icecore_format::{Checksum, Compress, ObjectId, ObjectType};

/// Block size of new space maps (`zfs_metaslab_sm_blksz_no_log`).
const BLOCK: u64 = 1 << 14;
/// log2 of their indirect blocks (`space_map_ibs`).
const INDIRECT_SHIFT: u8 = 14;
/// A map is condensed when it is longer than this many blocks and twice its optimal size.
const CONDENSE_BLOCKS: u64 = 4;

/// What a pass needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub txg: u64,
    pub number: u32,
    /// spacemap_v2 is active.
    pub two_words: bool,
    /// spacemap_histogram is enabled.
    pub histogram: bool,
}

/// Writes all dirty metaslabs of `top`. Returns how many space maps with a histogram were made.
pub(crate) fn sync_top(
    top: &mut Top,
    mos: &mut Objset,
    io: &mut dyn BlockWriter,
    pass: &Pass,
) -> Result<u64, WriteError> {
    let (id, ashift, array) = (top.id, top.ashift, top.array);
    let mut made = 0;
    for (i, slab) in top.slabs.iter_mut().enumerate() {
        let flush = slab.has_unflushed();
        if !slab.is_dirty() && !flush {
            continue;
        }
        if slab.object == 0 {
            assert!(array != 0, "vdev {id} has no metaslab array");
            slab.object = create(mos, &*io, pass)?.0;
            slab.phys.set_object(slab.object);
            mos.write(&*io, ObjectId(array), i as u64 * 8, &slab.object.to_le_bytes())?;
            made += u64::from(pass.histogram);
        }
        if flush && top.unflushed_object != 0 {
            mos.write(&*io, ObjectId(top.unflushed_object), i as u64 * 8, &[0; 8])?;
        }
        slab.sync(mos, io, ashift, pass)?;
    }
    Ok(made)
}

fn create(mos: &mut Objset, io: &dyn BlockStore, pass: &Pass) -> Result<ObjectId, WriteError> {
    let bonuslen = if pass.histogram { PHYS_SIZE } else { space_map::PHYS_SIZE_V0 };
    mos.allocate(
        io,
        &NewObject {
            kind: ObjectType::SPACE_MAP,
            block_size: BLOCK,
            indblkshift: INDIRECT_SHIFT,
            nlevels: 1,
            nblkptr: 0,
            bonus_type: ObjectType::SPACE_MAP_HEADER,
            bonuslen: bonuslen as u16,
            slots: 1,
            checksum: Checksum::INHERIT,
            compress: Compress::INHERIT,
        },
    )
}

impl Metaslab {
    fn sync(
        &mut self,
        mos: &mut Objset,
        io: &mut dyn BlockWriter,
        ashift: u32,
        pass: &Pass,
    ) -> Result<(), WriteError> {
        let id = ObjectId(self.object);
        let block = mos.dnode(&*io, id)?.block_size();
        let how = Encoding { start: self.start, shift: ashift, block, two_words: pass.two_words };
        let mut writer = Appender { mos, io, id, how, pass };
        if pass.number == 1 && self.should_condense(block) {
            self.condense(&mut writer)?;
        }
        let mut flushed_frees = RangeTree::new();
        if !std::mem::replace(&mut self.flushed, true) {
            writer.append(&mut self.phys, &self.unflushed_allocs, Kind::Alloc)?;
            writer.append(&mut self.phys, &self.unflushed_frees, Kind::Free)?;
            flushed_frees.clone_from(&self.unflushed_frees);
        }
        self.unflushed_txg = 0;
        writer.append(&mut self.phys, &std::mem::take(&mut self.allocating), Kind::Alloc)?;
        let freeing = std::mem::take(&mut self.freeing);
        writer.append(&mut self.phys, &freeing, Kind::Free)?;
        self.freed.add_all(&freeing).map_err(conflict)?;
        assert_eq!(self.phys.alloc(), self.alloc, "space map of object {id} miscounts");
        self.count_histogram(&flushed_frees, &freeing, ashift);
        let dn = writer.mos.edit(&*writer.io, id)?;
        crate::dtl::store(dn.bonus_mut(), &self.phys);
        Ok(())
    }

    /// All free space, what is not yet allocatable included; exact only where the metaslab is loaded.
    fn count_histogram(&mut self, unflushed: &RangeTree, freeing: &RangeTree, ashift: u32) {
        if let Some(free) = &self.allocatable {
            self.phys.clear_histogram();
            for tree in [free, &self.freed].into_iter().chain(&self.defer) {
                self.phys.add_histogram(tree, ashift);
            }
        } else {
            self.phys.add_histogram(unflushed, ashift);
            self.phys.add_histogram(freeing, ashift);
        }
    }

    fn should_condense(&self, block: u64) -> bool {
        let Some(free) = &self.allocatable else { return false };
        let optimal = (free.count() as u64 + 2) * 8;
        self.phys.length() > CONDENSE_BLOCKS * block && self.phys.length() >= optimal * 2
    }

    /// Rewrites the map as: all allocated, then what was free before this txg.
    fn condense(&mut self, writer: &mut Appender<'_>) -> Result<(), WriteError> {
        let mut free = self.allocatable.clone().unwrap_or_default();
        // In pass 1 `freed` has only what was claimed and given back: free in the map all along.
        for tree in self.defer.iter().chain([&self.allocating, &self.freed]) {
            free.add_all(tree).map_err(conflict)?;
        }
        self.flushed = true; // the allocatable space knows them
        writer.mos.free_range(writer.io, writer.id, 0, u64::MAX)?;
        self.phys.set_length(0);
        self.phys.set_alloc(0);
        self.phys.clear_histogram();
        writer.append(&mut self.phys, &RangeTree::of(self.start, self.size), Kind::Alloc)?;
        writer.append(&mut self.phys, &free, Kind::Free)
    }
}

struct Appender<'a> {
    mos: &'a mut Objset,
    io: &'a mut dyn BlockWriter,
    id: ObjectId,
    how: Encoding,
    pass: &'a Pass,
}

impl Appender<'_> {
    fn append(&mut self, phys: &mut Phys, tree: &RangeTree, kind: Kind) -> Result<(), WriteError> {
        if tree.is_empty() {
            return Ok(());
        }
        let words = space_map::encode(tree, kind, &self.how, phys.length(), self.pass.txg, self.pass.number);
        self.mos.write(&*self.io, self.id, phys.length(), &words)?;
        phys.set_length(phys.length() + words.len() as u64);
        let space = tree.space();
        phys.set_alloc(match kind {
            Kind::Alloc => phys.alloc().saturating_add_unsigned(space),
            Kind::Free => phys.alloc().saturating_sub_unsigned(space),
        });
        Ok(())
    }
}
