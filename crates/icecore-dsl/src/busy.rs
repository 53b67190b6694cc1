//! Datasets in use by something that goes on between transactions: a receive into them, a send of them, a mount.
//!
//! What OpenZFS calls holds and owners in memory (`dsl_dataset_long_hold`, `dsl_dataset_own`, dsl_dataset.c). Nothing of
//! it is on disk: after a crash nothing is in use.
//!
//! Invariants:
//! 1. A dataset object in use is not destroyed, rolled back, swapped or given another name.
//! 2. A hold ends when its [`Hold`] is dropped, whatever happened to who had it.

use crate::Dsl;
use crate::error::{DslError, Result};
use icecore_dmu::BlockStore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The dataset objects in use, and by how many.
#[derive(Clone, Default, Debug)]
pub struct Busy(Arc<Mutex<BTreeMap<u64, usize>>>);

/// Something uses a dataset until this is dropped.
#[derive(Debug)]
pub struct Hold {
    busy: Busy,
    obj: u64,
}

impl Busy {
    /// Uses the dataset object `obj`.
    #[must_use]
    pub fn hold(&self, obj: u64) -> Hold {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(obj).or_default() += 1;
        Hold { busy: self.clone(), obj }
    }
    /// Whether something uses `obj`.
    #[must_use]
    pub fn is(&self, obj: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&obj)
    }
    /// Everything in use.
    #[must_use]
    pub fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = held.get_mut(&self.obj) {
            *n -= 1;
            if *n == 0 {
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
    /// Refuses if something uses the dataset object `obj`, or its log is to be replayed.
    pub fn check_idle(&self, obj: u64) -> Result<()> {
        if self.busy.is(obj) || self.is_unreplayed(obj) { Err(DslError::Busy(String::new())) } else { Ok(()) }
    }
    /// Refuses if something uses `path`, a dataset below it, or a snapshot of those.
    pub fn check_idle_below(&self, io: &dyn BlockStore, path: &str) -> Result<()> {
        for obj in self.busy.all() {
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
        drop(b);
        assert!(!busy.is(7));
    }
}
