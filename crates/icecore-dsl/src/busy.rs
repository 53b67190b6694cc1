//! Datasets in use by something that goes on between transactions: a receive into them, a send of them; and mounts, which
//! mind less: they find their dataset again under another name and with other contents.
//!
//! What OpenZFS calls holds and owners in memory (`dsl_dataset_long_hold`, `dsl_dataset_own`, dsl_dataset.c). Nothing of
//! it is on disk: after a crash nothing is in use.
//!
//! Invariants:
//! 1. A dataset object in use is not destroyed, rolled back, swapped or given another name; one that is mounted is not
//!    destroyed, and keeps its key.
//! 2. A hold ends when its [`Hold`] is dropped, whatever happened to who had it.

use crate::Dsl;
use crate::error::{DslError, Result};
use icecore_dmu::BlockStore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often a dataset object is in use.
#[derive(Clone, Copy, Default, Debug)]
struct Uses {
    holds: usize,
    mounts: usize,
}

/// The dataset objects in use, and by how many.
#[derive(Clone, Default, Debug)]
pub struct Busy(Arc<Mutex<BTreeMap<u64, Uses>>>);

/// Something uses a dataset until this is dropped.
#[derive(Debug)]
pub struct Hold {
    busy: Busy,
    obj: u64,
    mount: bool,
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Uses>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Uses the dataset object `obj`.
    #[must_use]
    pub fn hold(&self, obj: u64) -> Hold {
        self.lock().entry(obj).or_default().holds += 1;
        Hold { busy: self.clone(), obj, mount: false }
    }
    /// Uses it for a mount.
    #[must_use]
    pub fn mount(&self, obj: u64) -> Hold {
        self.lock().entry(obj).or_default().mounts += 1;
        Hold { busy: self.clone(), obj, mount: true }
    }
    /// Whether something uses `obj`, mounts included.
    #[must_use]
    pub fn is(&self, obj: u64) -> bool {
        self.lock().contains_key(&obj)
    }
    /// Whether something uses `obj` that is no mount.
    #[must_use]
    pub fn is_held(&self, obj: u64) -> bool {
        self.lock().get(&obj).is_some_and(|u| u.holds > 0)
    }
    /// Whether `obj` is mounted.
    #[must_use]
    pub fn is_mounted(&self, obj: u64) -> bool {
        self.lock().get(&obj).is_some_and(|u| u.mounts > 0)
    }
    /// Everything in use, mounts included.
    #[must_use]
    pub fn all(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.busy.lock();
        if let Some(u) = held.get_mut(&self.obj) {
            let n = if self.mount { &mut u.mounts } else { &mut u.holds };
            *n = n.saturating_sub(1);
            if u.holds + u.mounts == 0 {
                held.remove(&self.obj);
            }
        }
    }
}

impl Dsl {
    /// Which datasets are in use.
    #[must_use]
    pub fn busy(&self) -> &Busy {
        &self.busy
    }
    /// The head `obj` has an intent log to be replayed, or has it no more: until then it stays as it is.
    pub fn set_unreplayed(&mut self, obj: u64, unreplayed: bool) {
        if unreplayed {
            self.unreplayed.insert(obj);
        } else {
            self.unreplayed.remove(&obj);
        }
    }
    /// Whether the head `obj` has an intent log to be replayed first.
    #[must_use]
    pub fn is_unreplayed(&self, obj: u64) -> bool {
        self.unreplayed.contains(&obj)
    }
    /// Refuses if something but a mount uses the dataset object `obj`, or its log is to be replayed.
    pub fn check_idle(&self, obj: u64) -> Result<()> {
        if self.busy.is_held(obj) || self.is_unreplayed(obj) {
            Err(DslError::Busy(String::new()))
        } else {
            Ok(())
        }
    }
    /// The same, mounts included: for what is to go.
    pub fn check_unused(&self, obj: u64) -> Result<()> {
        if self.busy.is(obj) { Err(DslError::Busy(String::new())) } else { self.check_idle(obj) }
    }
    /// Refuses if something but a mount uses `path`, a dataset below it, or a snapshot of those.
    pub fn check_idle_below(&self, io: &dyn BlockStore, path: &str) -> Result<()> {
        for obj in self.busy.all().into_iter().filter(|obj| self.busy.is_held(*obj)) {
            let Ok(ds) = self.by_object(io, obj) else { continue };
            let used = self.dir_name(io, ds.dir)?;
            if used.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                return Err(DslError::Busy(String::new()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_in_use_until_the_last_hold_is_gone() {
        let busy = Busy::default();
        let (a, b) = (busy.hold(7), busy.clone().hold(7));
        drop(a);
        assert!(busy.is(7) && !busy.is(8));
        assert_eq!(busy.all(), [7]);
        let mount = busy.mount(7);
        assert!(busy.is_mounted(7) && busy.is_held(7));
        drop(b);
        assert!(busy.is(7) && !busy.is_held(7));
        drop(mount);
        assert!(!busy.is(7));
    }
}
