//! Visits every block pointer that the pool's uberblock reaches, metadata before what it leads to.
//!
//! Invariants:
//! 1. Each block is visited once, in the oldest dataset that has it: a dataset's blocks are those born after its
//!    previous snapshot (`dsl_scan_visit_rootbp`, dsl_scan.c); deduplicated and cloned blocks as often as they are
//!    referred to.
//! 2. What cannot be read of the metadata is told, with what lies below it unseen; the walk goes on beside it.
//! 3. The walk's depth is bound by the levels of a dnode, and no dataset is visited twice.
//!
//! Intent logs are visited where they are claimed, as far as they can be read: what cannot is their end.

use crate::io::Io;
use crate::pool::Pool;
use crate::zil;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_dsl::{Dataset, Dsl};
use icecore_format::dnode::{DNODE_BLOCK, SLOT};
use icecore_format::objset::ObjsetPhys;
use icecore_format::{Blkptr, Bookmark, Corrupt, Dnode, ObjectId, ObjectType, Txg};
use std::sync::Arc;
use zerocopy::FromBytes;

/// Metadata blocks read ahead at once.
const AHEAD: usize = 16;
/// Places told as not seen; more than that is a pool without sense.
const UNSEEN_MAX: usize = 100_000;

/// Metadata whose bytes have the right checksum and make no sense, or that cannot be read for another reason than
/// damage: what lies below it was not seen.
#[derive(Clone, Debug)]
pub struct Unseen {
    /// Where.
    pub at: Bookmark,
    /// Why.
    pub why: String,
}

/// Told of each block; false ends the walk.
pub type Visit<'a> = &'a mut dyn FnMut(&Blkptr, &Bookmark) -> bool;

/// Visits every block of the pool but embedded ones. A block that is damaged in all its copies is visited, but what it
/// leads to is not; that is not told here, since reading the block tells it.
pub fn every_block(pool: &Pool, visit: Visit<'_>) -> Vec<Unseen> {
    blocks_since(pool, Txg(0), visit)
}

/// The same for what was born after `since` only: what is older is not even looked into.
pub fn blocks_since(pool: &Pool, since: Txg, visit: Visit<'_>) -> Vec<Unseen> {
    let mut walk = Walk { io: &pool.io, visit, since, unseen: Vec::new(), stopped: false };
    walk.pool(&pool.dsl);
    walk.unseen
}

/// Visits every block that object `object` of objset `objset` has, its spill block too.
pub fn blocks_of(io: &Io, objset: u64, object: u64, dn: &Dnode, visit: Visit<'_>) -> Vec<Unseen> {
    let mut walk = Walk { io, visit, since: Txg(0), unseen: Vec::new(), stopped: false };
    walk.tree(Scope { objset, since: Txg(0) }, object, dn);
    walk.unseen
}

/// Every dataset that can be read, snapshots and hidden ones too, with its object in the MOS: in the order of objects.
/// What cannot be read of the MOS is left out; the walk of the MOS tells of it.
pub(crate) fn datasets(dsl: &Dsl, io: &Io) -> Vec<(u64, Dataset)> {
    let mut all = Vec::new();
    let mut at = ObjectId(0);
    while let Ok(Some(object)) = dsl.mos.next_object(io, at) {
        at = object;
        let bonus = dsl.mos.dnode(io, at).map(|dn| dn.bonus_type());
        if let (Ok(ObjectType::DSL_DATASET), Ok(ds)) = (bonus, dsl.dataset(io, at.0)) {
            all.push((at.0, ds));
        }
    }
    all
}

impl Pool {
    /// Reads the root of every dataset: what a pool that lost its last writes may lack.
    ///
    /// # Errors
    /// The first one that cannot be read.
    pub fn check_roots(&self) -> crate::Result<()> {
        for (object, ds) in datasets(&self.dsl, &self.io) {
            if !ds.bp.is_hole() {
                let read = self.io.read(&ds.bp, &Bookmark::root(object), Want::NoKey);
                read.map_err(crate::PoolError::Read)?;
            }
        }
        Ok(())
    }
}

struct Walk<'a> {
    io: &'a Io,
    visit: Visit<'a>,
    /// Nothing older is visited.
    since: Txg,
    unseen: Vec<Unseen>,
    stopped: bool,
}

/// What of an objset is walked.
#[derive(Clone, Copy)]
struct Scope {
    objset: u64,
    /// Only what was born later.
    since: Txg,
}

impl Walk<'_> {
    fn pool(&mut self, dsl: &Dsl) {
        self.objset(Scope { objset: 0, since: self.since }, &self.io.mos_root.clone());
        for (object, ds) in datasets(dsl, self.io) {
            if !self.stopped {
                self.objset(Scope { objset: object, since: self.since.max(Txg(ds.prev_snap_txg)) }, &ds.bp);
                if !ds.is_snapshot() {
                    self.log(dsl, object);
                }
            }
        }
    }

    /// The intent log of a head, if it is claimed (`dsl_scan_zil`).
    fn log(&mut self, dsl: &Dsl, objset: u64) {
        let Ok(Some(header)) = zil::header_of(dsl, self.io, objset) else { return };
        if header.claim_txg.get() == 0 {
            return;
        }
        zil::blocks(self.io, objset, &header, 0, &mut |bp| {
            // The last was allocated ahead and never written.
            let at = zil::place(objset, bp);
            if bp.birth() > self.since && self.io.read(bp, &at, Want::Stored).is_ok() {
                self.tell(bp, at);
            }
        });
    }

    fn objset(&mut self, scope: Scope, root: &Blkptr) {
        if root.is_hole() || root.birth() <= scope.since {
            return;
        }
        let at = Bookmark::root(scope.objset);
        self.tell(root, at);
        let read = self.io.read(root, &at, Want::NoKey);
        let Some(bytes) = self.seen(read, at) else { return };
        let phys = match ObjsetPhys::parse(&bytes) {
            Ok(phys) => phys,
            Err(why) => return self.unseen(at, &why),
        };
        let accounting = [
            (u64::MAX, phys.userused_dnode()),
            (u64::MAX - 1, phys.groupused_dnode()),
            (u64::MAX - 2, phys.projectused_dnode()),
        ];
        for (object, dn) in [(0, phys.meta_dnode())].into_iter().chain(accounting) {
            match dn {
                Ok(dn) => self.tree(scope, object, &dn),
                Err(why) => self.unseen(Bookmark { object: ObjectId(object), ..at }, &why),
            }
        }
    }

    fn tree(&mut self, scope: Scope, object: u64, dn: &Dnode) {
        if dn.is_free() || self.stopped {
            return;
        }
        let top = dn.nlevels().saturating_sub(1);
        let pointers: Vec<Blkptr> = (0..usize::from(dn.nblkptr())).map(|i| dn.blkptr(i)).collect();
        self.children(scope, object, dn, top, 0, &pointers);
        if let Some(bp) = dn.spill().filter(|bp| wanted(scope, bp)) {
            self.tell(&bp, at(scope, object, 0, Bookmark::SPILL));
        }
    }

    fn children(
        &mut self,
        scope: Scope,
        object: u64,
        dn: &Dnode,
        level: u8,
        first: u64,
        pointers: &[Blkptr],
    ) {
        let metadata = level > 0 || object == 0;
        let mut ahead: Vec<(Blkptr, Bookmark)> = Vec::with_capacity(AHEAD);
        for (i, bp) in (0_u64..).zip(pointers) {
            if !wanted(scope, bp) || self.stopped {
                continue;
            }
            let at = at(scope, object, level, first.wrapping_add(i));
            if bp.level() != level {
                let why = Corrupt::new("block pointer", format!("level {}", bp.level()));
                self.unseen(at, &why);
                continue;
            }
            self.tell(bp, at);
            if metadata {
                ahead.push((*bp, at));
                if ahead.len() == AHEAD {
                    self.descend(scope, object, dn, std::mem::take(&mut ahead));
                }
            }
        }
        self.descend(scope, object, dn, ahead);
    }

    fn descend(&mut self, scope: Scope, object: u64, dn: &Dnode, blocks: Vec<(Blkptr, Bookmark)>) {
        let read = self.io.read_many(&blocks, Want::NoKey);
        for ((bp, at), contents) in blocks.into_iter().zip(read) {
            let Some(bytes) = self.seen(contents, at) else { continue };
            if bp.level() > 0 {
                match <[Blkptr]>::ref_from_bytes(&bytes) {
                    Ok(pointers) => {
                        let first = at.blkid.wrapping_mul(dn.epb());
                        self.children(scope, object, dn, bp.level() - 1, first, pointers);
                    }
                    Err(_) => self.unseen(at, &format!("{} bytes of block pointers", bytes.len())),
                }
            } else {
                self.dnodes(scope, at, &bp, &bytes);
            }
        }
    }

    fn dnodes(&mut self, scope: Scope, at: Bookmark, bp: &Blkptr, bytes: &[u8]) {
        if bytes.len() != DNODE_BLOCK {
            return self.unseen(at, &format!("{} bytes of dnodes", bytes.len()));
        }
        if bp.uses_crypt() && !bp.is_little_endian() {
            return self.unseen(at, &"encrypted dnodes in big-endian order are not read yet");
        }
        let first = at.blkid.saturating_mul((DNODE_BLOCK / SLOT) as u64);
        let mut slot = 0;
        while slot < DNODE_BLOCK / SLOT {
            match Dnode::parse(bytes.get(slot * SLOT..).unwrap_or(&[])) {
                Ok(dn) => {
                    let object = first.saturating_add(slot as u64);
                    slot = slot.saturating_add(dn.slots().max(1));
                    if object != 0 {
                        self.tree(scope, object, &dn);
                    }
                }
                Err(why) => {
                    let object = ObjectId(first.saturating_add(slot as u64));
                    return self.unseen(Bookmark { object, ..at }, &why);
                }
            }
        }
    }

    /// The bytes, if they could be had. Damage is told by the examination of the same block.
    fn seen(&mut self, read: Result<Arc<[u8]>, ReadError>, at: Bookmark) -> Option<Arc<[u8]>> {
        match read {
            Ok(bytes) => Some(bytes),
            Err(ReadError::Checksum { .. } | ReadError::Device(_)) => None,
            Err(other) => {
                self.unseen(at, &other);
                None
            }
        }
    }

    fn unseen(&mut self, at: Bookmark, why: &dyn std::fmt::Display) {
        if self.unseen.len() < UNSEEN_MAX {
            self.unseen.push(Unseen { at, why: why.to_string() });
        }
    }

    fn tell(&mut self, bp: &Blkptr, at: Bookmark) {
        if bp.is_embedded() {
            return;
        }
        if let Err(why) = bp.check() {
            return self.unseen(at, &why);
        }
        self.stopped = self.stopped || !(self.visit)(bp, &at);
    }
}

fn wanted(scope: Scope, bp: &Blkptr) -> bool {
    !bp.is_hole() && !bp.is_redacted() && bp.birth() > scope.since
}

fn at(scope: Scope, object: u64, level: u8, blkid: u64) -> Bookmark {
    let level = i8::try_from(level).unwrap_or(i8::MAX);
    Bookmark { objset: scope.objset, object: ObjectId(object), level, blkid }
}
