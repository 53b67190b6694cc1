//! Locked pages and the slots in them.
//!
//! Chunks of pages, each a row of small units with one bit that says whether a unit is taken; a slot is a run of
//! units, the first that is long enough. Keys are few and small, so that is quick enough, and a person with a limit of
//! a few pages has room for the keys of many datasets.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroize;

/// Bytes of a unit, and the alignment of every slot.
const UNIT: usize = 64;
/// Bytes of a chunk, unless something larger is wanted.
const CHUNK: usize = 16 << 10;

/// How much memory keys have, and whether it is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Bytes of all pages that were ever needed.
    pub bytes: usize,
    /// How many of them the system did not let us lock.
    pub unlocked: usize,
    /// Bytes in use now.
    pub used: usize,
}

struct Chunk {
    base: NonNull<u8>,
    taken: Vec<bool>,
}

struct Arena {
    chunks: Vec<Chunk>,
    state: State,
}

#[expect(unsafe_code, reason = "raw pages move between threads")]
mod shared {
    // SAFETY: the pages belong to the arena for ever, and everything goes through its mutex.
    unsafe impl Send for super::Arena {}
}

static ARENA: Mutex<Arena> =
    Mutex::new(Arena { chunks: Vec::new(), state: State { bytes: 0, unlocked: 0, used: 0 } });

/// How keys are kept in this process.
#[must_use]
pub fn state() -> State {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner).state
}

/// A slot of zeros.
pub(crate) fn take(size: usize, align: usize) -> NonNull<u8> {
    assert!(align <= UNIT, "no key is aligned so wide");
    let units = size.div_ceil(UNIT).max(1);
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    arena.state.used += units * UNIT;
    for chunk in &mut arena.chunks {
        if let Some(slot) = chunk.take(units) {
            return slot;
        }
    }
    let bytes = (units * UNIT).next_multiple_of(CHUNK);
    let (mut chunk, locked) = Chunk::new(bytes);
    arena.state.bytes += bytes;
    arena.state.unlocked += if locked { 0 } else { bytes };
    let Some(slot) = chunk.take(units) else {
        unreachable!("a fresh chunk has room for what it was made for")
    };
    arena.chunks.push(chunk);
    slot
}

/// Wipes a slot and gives it back.
///
/// # Safety
/// `slot` came from [`take`] with this size and alignment, and nobody uses it any more.
#[expect(unsafe_code, reason = "wipes raw memory")]
pub(crate) unsafe fn give(slot: NonNull<u8>, size: usize, _align: usize) {
    let units = size.div_ceil(UNIT).max(1);
    // SAFETY: the slot is ours alone, and as long as its units.
    unsafe { std::slice::from_raw_parts_mut(slot.as_ptr(), units * UNIT) }.zeroize();
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    arena.state.used -= units * UNIT;
    let whole = arena.chunks.iter_mut().find_map(|c| Some((c.unit_of(slot)?, c)));
    let Some((at, chunk)) = whole else { unreachable!("the slot is of some chunk") };
    chunk.taken[at..at + units].fill(false);
}

impl Chunk {
    #[expect(unsafe_code, reason = "maps and locks pages")]
    fn new(bytes: usize) -> (Self, bool) {
        // SAFETY: a new private mapping, of which nobody knows yet.
        let mapped = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let base = mapped.ok().and_then(|at| NonNull::new(at.cast::<u8>()));
        let Some(base) = base else { panic!("out of memory") };
        // SAFETY: our own pages; neither call changes what they hold.
        let locked = unsafe {
            let _ = madvise(base.as_ptr().cast(), bytes, Advice::LinuxDontDump);
            let _ = madvise(base.as_ptr().cast(), bytes, Advice::LinuxWipeOnFork);
            mlock(base.as_ptr().cast(), bytes).is_ok()
        };
        (Self { base, taken: vec![false; bytes / UNIT] }, locked)
    }

    #[expect(unsafe_code, reason = "a place within the chunk")]
    fn take(&mut self, units: usize) -> Option<NonNull<u8>> {
        let at = self.taken.windows(units).position(|run| !run.contains(&true))?;
        self.taken[at..at + units].fill(true);
        // SAFETY: within the mapping.
        Some(unsafe { self.base.add(at * UNIT) })
    }

    fn unit_of(&self, slot: NonNull<u8>) -> Option<usize> {
        let at = slot.addr().get().checked_sub(self.base.addr().get())? / UNIT;
        (at < self.taken.len()).then_some(at)
    }
}
