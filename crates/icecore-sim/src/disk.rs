//! A disk in memory with a volatile write cache.
//!
//! Invariants:
//! 1. Reads see every accepted write, flushed or not, as a real disk's cache does.
//! 2. `durable` changes only in a flush that is not lying, and in [`SimDisk::flip`] and
//!    [`SimDisk::poke`], which stand for the world's interference.
//! 3. [`SimDisk::crash`] keeps, of every unflushed *sector write in order*, an arbitrary prefix per sector:
//!    a sector ends as its durable self or as any of its later selves, each sector for itself.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use icecore_env::device::check_range;
use icecore_env::{Device, DeviceError, What};

use crate::faults::Faults;
use crate::rng::Rng;

const SECTOR: usize = 512;
type Sector = Arc<[u8; SECTOR]>;

/// What a disk has been asked so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Writes and flushes.
    pub ops: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// A simulated disk. Cheap to fork; share it as `Arc<SimDisk>`.
pub struct SimDisk {
    name: String,
    size: u64,
    sector: u32,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    durable: BTreeMap<u64, Sector>,
    /// Unflushed contents of each sector, oldest first.
    cache: BTreeMap<u64, Vec<Sector>>,
    stats: Stats,
    faults: Faults,
    gone: bool,
}

impl SimDisk {
    /// An empty (all zero) disk of `size` bytes with 512-byte sectors.
    #[must_use]
    pub fn new(name: &str, size: u64) -> Self {
        Self::with_sector(name, size, SECTOR as u32)
    }

    /// An empty disk that says its sectors are `sector` bytes. Tearing stays at 512 bytes.
    #[must_use]
    pub fn with_sector(name: &str, size: u64, sector: u32) -> Self {
        assert!(size.is_multiple_of(SECTOR as u64), "whole sectors only");
        Self { name: name.to_owned(), size, sector, state: Mutex::default() }
    }

    /// A disk holding `bytes`, all durable. A rest of a sector is filled up with zeros.
    #[must_use]
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Self {
        let disk = Self::new(name, bytes.len().next_multiple_of(SECTOR) as u64);
        {
            let mut s = disk.lock();
            for (i, chunk) in bytes.chunks(SECTOR).enumerate() {
                if chunk.iter().any(|b| *b != 0) {
                    let mut sector = [0; SECTOR];
                    sector[..chunk.len()].copy_from_slice(chunk);
                    s.durable.insert(i as u64, Arc::new(sector));
                }
            }
        }
        disk
    }

    /// A disk holding the contents of a file.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(Self::from_bytes(&path.display().to_string(), &std::fs::read(path)?))
    }

    /// All it holds, as a reader sees it (unflushed writes included).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(self.size).expect("fits in memory")];
        let s = self.lock();
        s.each_sector(|i, sector| out[i as usize * SECTOR..][..SECTOR].copy_from_slice(&sector[..]));
        out
    }

    /// Writes what it holds to a sparse file, for `zdb` and real OpenZFS to judge.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(path)?;
        file.set_len(self.size)?;
        let mut done = Ok(());
        self.lock().each_sector(|i, sector| {
            if done.is_ok() && sector.iter().any(|b| *b != 0) {
                done = file.write_all_at(&sector[..], i * SECTOR as u64);
            }
        });
        done
    }

    /// A second disk equal to this one in all, cache, counters and faults included.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.copy_with(self.lock().clone())
    }

    /// The disk as it comes back after the power failed now: fresh counters, no faults, an empty cache, and
    /// of each unflushed sector some version chosen by `seed`.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        self.crash_choosing(|versions| rng.below(versions as u64 + 1) as usize)
    }

    /// [`SimDisk::crash`] where nothing unflushed survived.
    #[must_use]
    pub fn crash_losing_all(&self) -> Self {
        self.crash_choosing(|_| 0)
    }

    /// [`SimDisk::crash`] where everything unflushed survived.
    #[must_use]
    pub fn crash_losing_nothing(&self) -> Self {
        self.crash_choosing(|versions| versions)
    }

    fn crash_choosing(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let s = self.lock();
        let mut after = State { durable: s.durable.clone(), ..State::default() };
        for (i, versions) in &s.cache {
            // 0 keeps the durable one, n the newest.
            if let Some(kept) = choose(versions.len()).checked_sub(1).and_then(|v| versions.get(v)) {
                after.durable.insert(*i, kept.clone());
            }
        }
        self.copy_with(after)
    }

    /// Gives it a fault plan, replacing the old one. Does not bring back a disk that is gone.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Changes its fault plan.
    pub fn plan(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// Power ends at the `n`th write or flush from now (0: the next).
    pub fn cut_after(&self, n: u64) {
        let mut s = self.lock();
        s.faults.cut_at_op = Some(s.stats.ops + n);
    }

    /// The `k`th flush from now (0: the next) reports success and does nothing.
    pub fn ignore_flush(&self, k: u64) {
        let mut s = self.lock();
        let at = s.stats.flushes + k;
        s.faults.lying_flushes.insert(at);
    }

    /// Pulls the cable now.
    pub fn unplug(&self) {
        self.lock().gone = true;
    }

    /// Puts the cable back. The cache is lost, as with power.
    pub fn replug(&self) {
        let mut s = self.lock();
        s.gone = false;
        s.faults.cut_at_op = None;
        s.cache.clear();
    }

    /// Rots one bit, in the durable state and everything cached.
    pub fn flip(&self, offset: u64, bit: u8) {
        let mut b = [0];
        self.peek(offset, &mut b);
        self.poke(offset, &[b[0] ^ 1 << (bit % 8)]);
    }

    /// Reads past all faults and counters.
    pub fn peek(&self, offset: u64, out: &mut [u8]) {
        assert!(check_range(&self.name, self.size, offset, out.len()).is_ok(), "peek past the end");
        self.lock().read(offset, out);
    }

    /// Overwrites past all faults and counters, durably.
    pub fn poke(&self, offset: u64, data: &[u8]) {
        assert!(check_range(&self.name, self.size, offset, data.len()).is_ok(), "poke past the end");
        let mut s = self.lock();
        for (i, from, part) in pieces(offset, data) {
            let mut sector = s.current(i).map_or([0; SECTOR], |s| **s);
            sector[from..from + part.len()].copy_from_slice(part);
            s.cache.remove(&i);
            s.durable.insert(i, Arc::new(sector));
        }
    }

    /// What it has been asked so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Sectors whose newest contents are not durable.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.lock().cache.len()
    }

    /// A hash of all it holds (unflushed writes included), to compare two runs by. Zero sectors count the
    /// same whether written or not.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut h = 0xcbf2_9ce4_8422_2325_u64 ^ self.size;
        let mut mix = |word: u64| {
            h = (h ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            h ^= h >> 29;
        };
        self.lock().each_sector(|i, sector| {
            if sector.iter().any(|b| *b != 0) {
                mix(i);
                let words = sector.as_chunks::<8>().0;
                words.iter().for_each(|w| mix(u64::from_le_bytes(*w)));
            }
        });
        h
    }

    fn copy_with(&self, state: State) -> Self {
        Self { name: self.name.clone(), size: self.size, sector: self.sector, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn fail(&self, what: What, why: &str, offset: u64, len: usize) -> DeviceError {
        DeviceError::new(what, self.name.clone(), why).at(offset, len)
    }
}

impl State {
    fn current(&self, i: u64) -> Option<&Sector> {
        self.cache.get(&i).and_then(|v| v.last()).or_else(|| self.durable.get(&i))
    }

    fn each_sector(&self, mut f: impl FnMut(u64, &Sector)) {
        let mut indices: Vec<u64> = self.durable.keys().chain(self.cache.keys()).copied().collect();
        indices.sort_unstable();
        indices.dedup();
        for i in indices {
            if let Some(sector) = self.current(i) {
                f(i, sector);
            }
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let from = (at % SECTOR as u64) as usize;
            let len = (SECTOR - from).min(out.len() - done);
            match self.current(at / SECTOR as u64) {
                Some(sector) => out[done..done + len].copy_from_slice(&sector[from..from + len]),
                None => out[done..done + len].fill(0),
            }
            done += len;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (i, from, part) in pieces(offset, data) {
            let mut sector = self.current(i).map_or([0; SECTOR], |s| **s);
            sector[from..from + part.len()].copy_from_slice(part);
            self.cache.entry(i).or_default().push(Arc::new(sector));
        }
    }

    fn full(&self, offset: u64, len: usize) -> bool {
        let Some(max) = self.faults.sectors_max else { return false };
        let first = offset / SECTOR as u64;
        let end = (offset + len as u64).div_ceil(SECTOR as u64);
        let fresh = (first..end).filter(|i| self.current(*i).is_none()).count() as u64;
        let used = self.durable.len() + self.cache.keys().filter(|i| !self.durable.contains_key(i)).count();
        fresh > 0 && used as u64 + fresh > max
    }

    fn write_target(&self, write: u64, size: u64, offset: u64, len: usize) -> Option<u64> {
        if self.faults.lost_writes.contains(&write) {
            return None;
        }
        match self.faults.misdirected_writes.get(&write) {
            Some(delta) => {
                offset.checked_add_signed(*delta).filter(|o| check_range("", size, *o, len).is_ok())
            }
            None => Some(offset),
        }
    }
}

/// The sectors that `data` at `offset` touches: index, first byte within the sector, bytes.
fn pieces(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let from = (at % SECTOR as u64) as usize;
        let len = (SECTOR - from).min(data.len() - done);
        let part = &data[done..done + len];
        done += len;
        (len > 0).then_some((at / SECTOR as u64, from, part))
    })
}

impl Device for SimDisk {
    fn size(&self) -> u64 {
        self.size
    }
    fn sector(&self) -> u32 {
        self.sector
    }
    fn name(&self) -> String {
        self.name.clone()
    }
    fn read_only(&self) -> bool {
        self.lock().faults.read_only
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        check_range(&self.name, self.size, offset, out.len())?;
        let mut s = self.lock();
        s.stats.reads += 1;
        if s.gone {
            return Err(self.fail(What::Gone, "unplugged", offset, out.len()));
        }
        if Faults::hits(&s.faults.unreadable, offset, out.len() as u64) {
            return Err(self.fail(What::Read, "simulated read error", offset, out.len()));
        }
        s.read(offset, out);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        check_range(&self.name, self.size, offset, data.len())?;
        let mut s = self.lock();
        if s.gone {
            return Err(self.fail(What::Gone, "unplugged", offset, data.len()));
        }
        if s.faults.read_only {
            return Err(self.fail(What::ReadOnly, "", offset, data.len()));
        }
        let (op, write) = (s.stats.ops, s.stats.writes);
        s.stats.ops += 1;
        s.stats.writes += 1;
        if s.faults.cut_at_op.is_some_and(|cut| op >= cut) {
            // The write under way when the power goes may have reached any of its sectors.
            s.write(offset, data);
            s.gone = true;
            return Err(self.fail(What::Gone, "power cut", offset, data.len()));
        }
        if Faults::hits(&s.faults.unwritable, offset, data.len() as u64) {
            return Err(self.fail(What::Write, "simulated write error", offset, data.len()));
        }
        if s.full(offset, data.len()) {
            return Err(self.fail(What::NoSpace, "simulated", offset, data.len()));
        }
        s.stats.bytes_written += data.len() as u64;
        if let Some(target) = s.write_target(write, self.size, offset, data.len()) {
            s.write(target, data);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut s = self.lock();
        if s.gone {
            return Err(self.fail(What::Gone, "unplugged", 0, 0));
        }
        let (op, flush) = (s.stats.ops, s.stats.flushes);
        s.stats.ops += 1;
        s.stats.flushes += 1;
        if s.faults.cut_at_op.is_some_and(|cut| op >= cut) {
            s.gone = true;
            return Err(self.fail(What::Gone, "power cut", 0, 0));
        }
        if s.faults.failing_flushes.contains(&flush) {
            return Err(self.fail(What::Flush, "simulated flush error", 0, 0));
        }
        if !s.faults.lying_flushes.contains(&flush) {
            for (i, versions) in std::mem::take(&mut s.cache) {
                if let Some(newest) = versions.into_iter().next_back() {
                    s.durable.insert(i, newest);
                }
            }
        }
        Ok(())
    }
}
