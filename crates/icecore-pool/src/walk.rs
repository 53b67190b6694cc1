//! Visits every block pointer that the pool's uberblock reaches, metadata before what it leads to.
//!
//! Invariants:
//! 1. Each block is visited once, in the oldest dataset that has it: a dataset's blocks are those born after its
//!    previous snapshot (`dsl_scan_visit_rootbp`, dsl_scan.c); deduplicated and cloned blocks as often as they are
//!    referred to.
//! 2. What cannot be read of the metadata is told, with what lies below it unseen; the walk goes on beside it.
//! 3. The walk's depth is bound by the levels of a dnode, and no dataset is visited twice.
//! 4. [`walk_part`] ends at a level-0 block or a block of dnodes, with all before it visited and nothing of it; begun there
//!    again, it visits the rest. So OpenZFS ends and begins, too (`dsl_scan_check_suspend`, `dsl_scan_check_resume`).
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
/// Dnodes of a block, if each takes the least.
pub(crate) const DNODES: u64 = (DNODE_BLOCK / SLOT) as u64;
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
    let mut walk = Walk::new(&pool.io, visit);
    walk.pool(&pool.dsl);
    walk.unseen
}

/// A part of one objset's blocks.
pub(crate) struct Part<'a> {
    /// The dataset object, 0 for the MOS.
    pub objset: u64,
    /// Its root.
    pub root: &'a Blkptr,
    /// What was born up to then is not visited, nor looked into.
    pub since: Txg,
    /// What was born later is looked into, but not visited.
    pub until: Txg,
    /// Where to begin: object and block of level 0; zeros are the beginning.
    pub from: (u64, u64),
    /// The intent log of a head is visited too.
    pub log: bool,
}

/// What became of the walk of a part.
pub(crate) struct Walked {
    /// What was not seen.
    pub unseen: Vec<Unseen>,
    /// Where it was ended, if it was.
    pub ended_at: Option<(u64, u64)>,
}

/// Visits a part of an objset until `visit` or `go_on` says no; but at least one block further than it began.
pub(crate) fn walk_part(pool: &Pool, part: &Part<'_>, go_on: &dyn Fn() -> bool, visit: Visit<'_>) -> Walked {
    let mut walk = Walk::new(&pool.io, visit);
    walk.stops = Some(Stops { go_on, from: part.from, full: false, passed: 0, ended_at: None });
    if part.log {
        walk.log(&pool.dsl, part.objset);
    }
    walk.objset(Scope { objset: part.objset, since: part.since, until: part.until }, part.root);
    Walked { unseen: walk.unseen, ended_at: walk.stops.and_then(|s| s.ended_at) }
}

/// Visits every block that object `object` of objset `objset` has, its spill block too.
pub fn blocks_of(io: &Io, objset: u64, object: u64, dn: &Dnode, visit: Visit<'_>) -> Vec<Unseen> {
    let mut walk = Walk::new(io, visit);
    walk.tree(Scope::all(objset), object, dn);
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
    stops: Option<Stops<'a>>,
}

/// Where the walk of a part begins and ends.
struct Stops<'a> {
    go_on: &'a dyn Fn() -> bool,
    from: (u64, u64),
    /// Whoever is visited has had enough.
    full: bool,
    /// Places passed where it could have ended.
    passed: u64,
    ended_at: Option<(u64, u64)>,
}

/// Where a block is, seen from where the walk began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// All of it lies before.
    Behind,
    /// It was visited, and the beginning is somewhere below it.
    Begun,
    /// It lies ahead.
    Ahead,
}

/// What of an objset is walked.
#[derive(Clone, Copy)]
struct Scope {
    objset: u64,
    /// Only what was born later.
    since: Txg,
    /// Only what was born up to then.
    until: Txg,
}

impl Scope {
    fn all(objset: u64) -> Self {
        Self { objset, since: Txg(0), until: Txg(u64::MAX) }
    }
}

impl<'a> Walk<'a> {
    fn new(io: &'a Io, visit: Visit<'a>) -> Self {
        Self { io, visit, since: Txg(0), unseen: Vec::new(), stopped: false, stops: None }
    }

    /// Whether the walk ends before the block of level 0; else it has been passed.
    fn ends_at(&mut self, object: u64, blkid: u64) -> bool {
        let Some(stops) = &mut self.stops else { return false };
        // The objects of accounting are never begun in the middle.
        if self.stopped || object > i64::MAX.cast_unsigned() {
            return self.stopped;
        }
        if stops.passed > 0 && (stops.full || !(stops.go_on)()) {
            stops.ended_at = Some((object, blkid));
            self.stopped = true;
        }
        stops.passed += 1;
        self.stopped
    }

    fn side(&self, object: u64, epb: u64, level: u8, blkid: u64) -> Side {
        let Some(Stops { from: (from, block), .. }) = self.stops else { return Side::Ahead };
        if object > i64::MAX.cast_unsigned() || (from, block) == (0, 0) {
            return Side::Ahead;
        }
        let span = epb.saturating_pow(u32::from(level));
        let (start, end) = (blkid.saturating_mul(span), blkid.saturating_add(1).saturating_mul(span));
        let (start, end, at, begun) = match (object, from) {
            (0, 0) => (start, end, block, level > 0),
            (0, _) => (start.saturating_mul(DNODES), end.saturating_mul(DNODES), from, true),
            _ if object < from => return Side::Behind,
            _ if object > from => return Side::Ahead,
            _ => (start, end, block, level > 0),
        };
        match () {
            () if end <= at => Side::Behind,
            () if begun && start <= at => Side::Begun,
            () => Side::Ahead,
        }
    }

    fn pool(&mut self, dsl: &Dsl) {
        self.objset(Scope { since: self.since, ..Scope::all(0) }, &self.io.mos_root.clone());
        for (object, ds) in datasets(dsl, self.io) {
            if !self.stopped {
                let since = self.since.max(Txg(ds.prev_snap_txg));
                self.objset(Scope { since, ..Scope::all(object) }, &ds.bp);
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
                self.tell(Scope::all(objset), bp, at);
            }
        });
    }

    fn objset(&mut self, scope: Scope, root: &Blkptr) {
        if root.is_hole() || root.birth() <= scope.since {
            return;
        }
        let at = Bookmark::root(scope.objset);
        if self.stops.as_ref().is_none_or(|s| s.from == (0, 0)) {
            self.tell(scope, root, at);
        }
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
        let behind = self.stops.as_ref().is_some_and(|s| object != 0 && object < s.from.0);
        if dn.is_free() || self.stopped || behind {
            return;
        }
        let top = dn.nlevels().saturating_sub(1);
        let pointers: Vec<Blkptr> = (0..usize::from(dn.nblkptr())).map(|i| dn.blkptr(i)).collect();
        self.children(scope, object, dn, top, 0, &pointers);
        if let Some(bp) = dn.spill().filter(|bp| wanted(scope, bp))
            && !self.ends_at(object, Bookmark::SPILL)
        {
            self.tell(scope, &bp, at(scope, object, 0, Bookmark::SPILL));
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
            let side = self.side(object, dn.epb(), level, at.blkid);
            if side == Side::Behind || !metadata && self.ends_at(object, at.blkid) {
                continue;
            }
            if bp.level() != level {
                let why = Corrupt::new("block pointer", format!("level {}", bp.level()));
                self.unseen(at, &why);
                continue;
            }
            if !metadata {
                self.tell(scope, bp, at);
            } else {
                ahead.push((*bp, at));
                if ahead.len() == AHEAD {
                    self.descend(scope, object, dn, std::mem::take(&mut ahead));
                }
            }
        }
        self.descend(scope, object, dn, ahead);
    }

    fn descend(&mut self, scope: Scope, object: u64, dn: &Dnode, blocks: Vec<(Blkptr, Bookmark)>) {
        if self.stopped {
            return;
        }
        let read = self.io.read_many(&blocks, Want::NoKey);
        for ((bp, at), contents) in blocks.into_iter().zip(read) {
            if self.stopped {
                return;
            }
            // One in the middle of which the walk begins was passed, and visited, when it ended there.
            if self.side(object, dn.epb(), bp.level(), at.blkid) == Side::Ahead {
                if bp.level() == 0 && self.ends_at(0, at.blkid) {
                    return;
                }
                self.tell(scope, &bp, at);
            }
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

    fn tell(&mut self, scope: Scope, bp: &Blkptr, at: Bookmark) {
        if bp.is_embedded() || bp.birth() > scope.until {
            return;
        }
        if let Err(why) = bp.check() {
            return self.unseen(at, &why);
        }
        let go_on = !self.stopped && (self.visit)(bp, &at);
        match &mut self.stops {
            Some(stops) => stops.full |= !go_on,
            None => self.stopped = !go_on,
        }
    }
}

fn wanted(scope: Scope, bp: &Blkptr) -> bool {
    !bp.is_hole() && !bp.is_redacted() && bp.birth() > scope.since
}

fn at(scope: Scope, object: u64, level: u8, blkid: u64) -> Bookmark {
    let level = i8::try_from(level).unwrap_or(i8::MAX);
    Bookmark { objset: scope.objset, object: ObjectId(object), level, blkid }
}
