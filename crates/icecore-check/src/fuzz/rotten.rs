//! A pool of which any block says something else, with every checksum above it right: the import, the space maps, the
//! walks of a scrub and of a leak check, and a few transactions on top. Where [`super::tampered`] changes what a reader
//! is told, this changes what is on the disk, so that everything which reads below the block store sees it too.
//!
//! An input is a list of edits, each a path from the uberblock down and what to change where it ends. A changed block is
//! written uncompressed to space that the pool does not use, and its parents anew up to the uberblock in the labels.

use super::reading::{Short, look};
use super::tampered::{Edit, edits};
use super::world::{KEY, made, open};
use icecore_dmu::{BlockStore, Want};
use icecore_format::dnode::SLOT;
use icecore_format::{Blkptr, Bookmark, Compress, Dnode, Dva, NvList, ObjectId, ObjectType};
use icecore_pool::{Mode, Pool};
use icecore_sim::SimDisk;
use icecore_stream::send::{PackageSpec, SendFlags, send_package};
use icecore_transform::checksum;
use icecore_vdev::label::{LabelSet, Labels, write_config, write_uberblock};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

const POINTER: usize = size_of::<Blkptr>();
/// Where changed blocks go: behind everything that the pool holds. The labels and the boot block lie before offset 0.
const SPARE_AT: u64 = 192 << 20;
const LABELS: u64 = 4 << 20;
const BLOCK_MAX: usize = 16 << 20;
/// Edits of one input.
const EDITS: usize = 4;
/// The longest way down.
const DEPTH: usize = 24;

thread_local! {
    static MADE: (SimDisk, Pool) = {
        let disk = made();
        let pool = open(Arc::new(disk.fork()), Mode::ReadOnly).expect("a sound pool");
        (disk, pool)
    };
}

/// Bytes of an input, one after another.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    fn edit(&mut self) -> Option<Edit> {
        let (head, rest) = self.0.split_at_checked(7)?;
        self.0 = rest;
        edits(head).into_iter().next()
    }
}

/// Puts changed blocks on a copy of the disk.
struct Rewriter<'a> {
    pool: &'a Pool,
    disk: &'a SimDisk,
    next: u64,
}

impl Rewriter<'_> {
    /// Follows the input down from `bp`, changes the block where it stops, and returns the new pointer.
    fn rewrite(
        &mut self,
        bp: &Blkptr,
        above: &Blkptr,
        from: &mut Cursor<'_>,
        depth: usize,
    ) -> Option<Blkptr> {
        let mut block = self.read(bp)?;
        let children = children(bp, &block);
        let step = from.byte()?;
        let further = step < 0xd0 && depth < DEPTH && !children.is_empty();
        if further {
            let wide = if children.len() > 128 { usize::from(from.byte()?) << 8 } else { 0 };
            let at = children[(wide + usize::from(step)) % children.len()];
            let child = Blkptr::read_from_bytes(&block[at..at + POINTER]).ok()?;
            let new = self.rewrite(&child, bp, from, depth + 1)?;
            block[at..at + POINTER].copy_from_slice(new.as_bytes());
        } else {
            from.edit()?.apply(&mut block);
        }
        self.store(bp, above, &block)
    }

    /// What the block says. Encrypted blocks are left alone: their MAC is another's business.
    fn read(&self, bp: &Blkptr) -> Option<Vec<u8>> {
        if bp.is_encrypted() {
            return None;
        }
        let [first, ..] = bp.dva;
        if !bp.is_embedded() && !first.is_empty() && first.vdev() == 0 && first.offset() >= SPARE_AT {
            let mut block = vec![0; usize::try_from(bp.lsize()).ok().filter(|len| *len <= BLOCK_MAX)?];
            self.disk.peek(LABELS + first.offset(), &mut block);
            return Some(block);
        }
        let at = Bookmark { objset: 0, object: ObjectId(1), level: 0, blkid: 0 };
        let io: &dyn BlockStore = self.pool.io();
        io.read(bp, &at, Want::NoKey).ok().map(|block| block.to_vec())
    }

    fn store(&mut self, bp: &Blkptr, above: &Blkptr, block: &[u8]) -> Option<Blkptr> {
        let mut new = if bp.is_embedded() { lifted(bp, above, block.len() as u64) } else { *bp };
        let size = (block.len() as u64).next_multiple_of(4096);
        new.set_compress(Compress::OFF);
        new.set_lsize(block.len() as u64);
        new.set_psize(block.len() as u64);
        new.dva = [Dva::new(0, self.next, size, false), Dva::default(), Dva::default()];
        checksum::seal(&mut new, block, Some(self.pool.io().salt())).ok()?;
        self.disk.poke(LABELS + self.next, block);
        self.next += size;
        Some(new)
    }
}

/// A pointer to a block that was in its pointer.
fn lifted(bp: &Blkptr, above: &Blkptr, size: u64) -> Blkptr {
    let mut new = *above;
    new.set_type(bp.kind());
    new.set_level(bp.level());
    new.set_lsize(size);
    new.set_birth(bp.birth());
    new.set_fill(1);
    new
}

/// Where in a block pointers to others are.
fn children(bp: &Blkptr, block: &[u8]) -> Vec<usize> {
    let mut at: Vec<usize> = Vec::new();
    if bp.level() > 0 {
        at.extend((0..block.len() / POINTER).map(|i| i * POINTER));
    } else if bp.kind() == ObjectType::OBJSET {
        for dnode in [0, 1024, 1536, 2048].into_iter().filter(|at| at + SLOT <= block.len()) {
            in_dnode(block, dnode, &mut at);
        }
    } else if bp.kind() == ObjectType::DNODE {
        let mut slot = 0;
        while slot + SLOT <= block.len() {
            slot += in_dnode(block, slot, &mut at);
        }
    }
    let there = |at: &usize| {
        let bp = block.get(*at..*at + POINTER).and_then(|b| Blkptr::read_from_bytes(b).ok());
        bp.is_some_and(|bp| !bp.is_hole() && !bp.is_redacted() && bp.check().is_ok())
    };
    at.retain(there);
    at
}

/// Adds the pointers of the dnode at `at`; returns its bytes.
fn in_dnode(block: &[u8], at: usize, out: &mut Vec<usize>) -> usize {
    const DATASET_POINTER: usize = 128;
    let Ok(dn) = Dnode::parse(&block[at..]) else { return SLOT };
    if dn.is_free() {
        return SLOT;
    }
    let pointers = usize::from(dn.nblkptr());
    out.extend((0..pointers).map(|i| at + 64 + i * POINTER));
    if dn.bonus_type() == ObjectType::DSL_DATASET {
        out.push(at + 64 + pointers * POINTER + DATASET_POINTER);
    }
    let size = dn.slots() * SLOT;
    if dn.has_spill() {
        out.push(at + size - POINTER);
    }
    size
}

/// A copy of the disk with the edits on it.
fn edited(disk: &SimDisk, pool: &Pool, mut from: Cursor<'_>) -> SimDisk {
    let copy = disk.fork();
    let mut ub = *pool.uberblock();
    let mut writer = Rewriter { pool, disk: &copy, next: SPARE_AT };
    for _ in 0..EDITS {
        let root = ub.rootbp;
        let Some(new) = writer.rewrite(&root, &root, &mut from, 0) else { break };
        ub.rootbp = new;
    }
    let slot = icecore_format::uberblock::slot_of(12, ub.txg(), false);
    write_uberblock(&copy, &ub, 12, slot).expect("a label takes its uberblock");
    copy
}

/// Changes the configuration in the labels.
fn edit_labels(disk: &SimDisk, from: &mut Cursor<'_>) {
    let Some(edit) = from.edit() else { return };
    let Some(mut packed) = Labels::read(disk).good().next().map(|(_, c)| c.to_nvlist().encode_xdr()) else {
        return;
    };
    edit.apply(&mut packed);
    if let Ok((list, _)) = NvList::decode(&packed) {
        let _ = write_config(disk, LabelSet::All, &list);
    }
}

/// Imports the edited pool and uses it. The first byte says how: 1 for writing, 2 labels too, 4 scrub, 8 leak check,
/// 16 send, 32 files.
pub fn rotten(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let mut from = Cursor(rest);
    let disk = MADE.with(|(disk, pool)| {
        let labels = disk.fork();
        if how & 2 != 0 {
            edit_labels(&labels, &mut from);
        }
        edited(&labels, pool, from)
    });
    let mode = if how & 1 != 0 { Mode::Write } else { Mode::ReadOnly };
    let Ok(mut pool) = open(Arc::new(disk), mode) else { return };
    let names = pool.dsl.descendants(pool.io(), "fuzz").unwrap_or_default();
    load_key(&mut pool);
    if how & 32 != 0 {
        names.iter().for_each(|name| look(pool.io(), &pool.dsl, name));
        let _ = (pool.history(), pool.dsl.errlog(pool.io()), pool.scan_status(), pool.cloned());
    }
    if how & 4 != 0 {
        let mut turns = 0;
        let _ = icecore_pool::scrub::scrub(&mut pool, &mut |_| {
            turns += 1;
            turns < 50
        });
    }
    if how & 8 != 0 {
        let _ = icecore_pool::leaks::balance(&pool);
    }
    if how & 16 != 0 {
        let mut spec = PackageSpec { replicate: true, ..PackageSpec::default() };
        spec.send.to = "fuzz@two".into();
        spec.send.flags = SendFlags { raw: true, large_block: true, embed: true, compress: true };
        let _ = send_package(pool.io(), &pool.dsl, &spec, &mut Short(1 << 20), &mut |_| {});
    }
    if how & 1 != 0 {
        change(&mut pool);
    }
}

fn load_key(pool: &mut Pool) {
    let (io, dsl) = pool.parts();
    for (objset, keys) in dsl.load_key(io, "fuzz/vault", &KEY).unwrap_or_default() {
        io.add_key(objset, keys);
    }
}

/// A few changes, each of which may be refused.
fn change(pool: &mut Pool) {
    let steps: [&dyn Fn(&mut Pool) -> bool; 5] = [
        &|pool| {
            let (io, dsl) = pool.parts();
            dsl.snapshot(io, &["fuzz/in@three"], &[]).is_ok()
        },
        &|pool| {
            let (io, dsl) = pool.parts();
            dsl.create_filesystem(io, "fuzz/new", &[]).is_ok()
        },
        &|pool| {
            let (io, dsl) = pool.parts();
            dsl.destroy_snapshot(io, "fuzz/volume@one", false).is_ok()
        },
        &|pool| {
            let (io, dsl) = pool.parts();
            dsl.destroy_head(io, "fuzz/clone").is_ok()
        },
        &|pool| pool.log_command("zfs snapshot", 0).is_ok(),
    ];
    for step in steps {
        // What failed leaves a transaction group that is not to be committed: the rest is for another input.
        if !step(pool) || pool.commit().is_err() {
            break;
        }
    }
}
