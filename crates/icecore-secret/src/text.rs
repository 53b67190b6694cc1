//! Text of a key, byte by byte as it is typed or read.

use super::Secret;
use std::ops::Deref;

/// At most [`SecretText::ROOM`] bytes in locked memory.
#[derive(Debug)]
pub struct SecretText {
    bytes: Secret<[u8; Self::ROOM]>,
    len: usize,
}

impl SecretText {
    /// More than any key has.
    pub const ROOM: usize = 4096;

    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Secret::zeros(), len: 0 }
    }
    /// Adds a byte; false where there is no room for it.
    #[must_use]
    pub fn push(&mut self, byte: u8) -> bool {
        match self.bytes.get_mut(self.len) {
            Some(to) => *to = byte,
            None => return false,
        }
        self.len += 1;
        true
    }
    /// Takes the last byte off.
    pub fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        self.bytes.get_mut(self.len).map(std::mem::take)
    }
    /// Begins anew.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

impl Default for SecretText {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for SecretText {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}
