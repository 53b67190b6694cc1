//! Memory for keys.
//!
//! A key in a common value is copied wherever the value is moved, and nobody wipes the copies. [`Secret`] is a
//! pointer: what it points to stays where it was made, in pages that are locked against the swap device, left out
//! of core files and empty in forked children, and is wiped when the secret is dropped. What ciphers and hashes
//! leave on the stack below them is wiped by [`scrubbed`].
//!
//! Invariants:
//! 1. A slot is all zeros whenever nobody has it: it is wiped before it is given back.
//! 2. Where the system does not let us lock memory (`RLIMIT_MEMLOCK`), keys still work, and [`state`] says so: a
//!    person whose limit is low must be able to read their files.
//! 3. Pages are never given back to the system: there are as many as were needed at once.

mod arena;
mod text;

pub use arena::{State, state};
pub use text::SecretText;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A value in locked memory, wiped when dropped. Moving it moves a pointer.
pub struct Secret<T>(NonNull<T>);

#[expect(unsafe_code, reason = "a box that owns its value alone, as std's is")]
mod shared {
    use super::Secret;
    // SAFETY: the secret owns its value alone, as a Box does.
    unsafe impl<T: Send> Send for Secret<T> {}
    // SAFETY: as above.
    unsafe impl<T: Sync> Sync for Secret<T> {}
}

impl<T> Secret<T> {
    /// Takes a value into locked memory. The value comes over the stack: call it within [`scrubbed`], or make the
    /// value empty and fill it in its place.
    #[expect(unsafe_code, reason = "writes into a slot of the arena")]
    #[must_use]
    pub fn new(value: T) -> Self {
        let slot = arena::take(size_of::<T>(), align_of::<T>()).cast::<T>();
        // SAFETY: the slot is ours alone, large enough and aligned.
        unsafe { slot.write(value) };
        Self(slot)
    }
}

impl<const N: usize> Secret<[u8; N]> {
    /// Zeros, to be filled in their place.
    #[must_use]
    pub fn zeros() -> Self {
        Self::new([0; N])
    }
}

impl<const N: usize> Clone for Secret<[u8; N]> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros();
        copy.copy_from_slice(&**self);
        copy
    }
}

impl<T> Deref for Secret<T> {
    type Target = T;
    #[expect(unsafe_code, reason = "the pointer is to our value")]
    fn deref(&self) -> &T {
        // SAFETY: points to a live value of ours until drop.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Secret<T> {
    #[expect(unsafe_code, reason = "the pointer is to our value")]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed alone.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Secret<T> {
    #[expect(unsafe_code, reason = "ends the value in its place")]
    fn drop(&mut self) {
        // SAFETY: the value is live and never used again; the slot came from `take` with this size and alignment.
        unsafe {
            self.0.drop_in_place();
            arena::give(self.0.cast(), size_of::<T>(), align_of::<T>());
        }
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes of stack that [`scrubbed`] wipes: more than the ciphers, hashes and the derivation of keys use below their
/// caller, as the test on a live service finds it.
const SCRUB: usize = 12 << 10;

/// Runs `work`, then wipes the stack that it used.
pub fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    let result = apart(work);
    wipe_below();
    result
}

/// A frame of its own: what is inlined into the caller's frame would not be wiped.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[inline(never)]
fn wipe_below() {
    let mut stack = [0_u8; SCRUB];
    std::hint::black_box(&mut stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_gone_and_its_place_used_again() {
        let mut first = Secret::<[u8; 32]>::zeros();
        first.fill(0xa5);
        let copy = first.clone();
        assert_eq!(*copy, [0xa5; 32]);
        let place = first.as_ptr();
        drop(first);
        let places: Vec<_> = (0..512).map(|_| Secret::<[u8; 32]>::zeros()).collect();
        assert!(places.iter().any(|p| p.as_ptr() == place), "the place is not used again");
        assert!(places.iter().all(|p| **p == [0; 32]));
        assert_eq!(*copy, [0xa5; 32]);
    }

    #[test]
    fn values_of_all_sizes_lie_beside_each_other() {
        let mut kept = Vec::new();
        for i in 0..2000_usize {
            let mut small = Secret::<[u8; 96]>::zeros();
            small.fill(i as u8);
            let mut large = Secret::<[u8; 3000]>::zeros();
            large.fill(!(i as u8));
            kept.push((i as u8, small, large));
            if i % 3 == 0 {
                kept.swap_remove(i / 2 % kept.len());
            }
        }
        for (i, small, large) in &kept {
            assert!(small.iter().all(|b| b == i) && large.iter().all(|b| *b == !i));
        }
    }

    #[test]
    fn text_grows_shrinks_and_ends_at_its_room() {
        let mut text = SecretText::new();
        assert!(text.is_empty());
        assert!((0..SecretText::ROOM).all(|_| text.push(b'x')));
        assert!(!text.push(b'y'));
        assert_eq!((text.len(), text.pop()), (SecretText::ROOM, Some(b'x')));
        text.clear();
        assert_eq!((text.pop(), text.len()), (None, 0));
    }

    /// The bytes below a frame are those that its callee left, unless they are wiped: seen by a callee of the same shape
    /// that finds its own array as it is.
    #[test]
    fn the_stack_below_is_wiped() {
        let (before, after) = (scrubbed(|| leave(0x5a)), scrubbed(|| 0));
        assert_eq!((before, after), (0x5a, 0));
    }

    #[inline(never)]
    fn leave(byte: u8) -> u8 {
        let mut bytes = [0_u8; 1024];
        bytes.fill(byte);
        std::hint::black_box(&mut bytes)[1023]
    }
}
