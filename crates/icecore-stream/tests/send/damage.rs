//! Metadata that is verified and yet makes no sense: an error that says where, never a panic.

use crate::support::*;
use icecore_dmu::{BlockStore, ReadError, Want};
use icecore_format::{Blkptr, Bookmark, Txg};
use icecore_stream::send::{Packing, SendError, SendSpec, resolve, send_one};
use std::sync::Arc;

/// Changes what is read.
struct Changed<'a, F> {
    store: &'a dyn BlockStore,
    change: F,
}
impl<F: Fn(&Bookmark, &mut [u8]) + Sync> BlockStore for Changed<'_, F> {
    fn read(&self, bp: &Blkptr, at: &Bookmark, want: Want) -> Result<Arc<[u8]>, ReadError> {
        let mut bytes = self.store.read(bp, at, want)?.to_vec();
        if want != Want::Stored {
            (self.change)(at, &mut bytes);
        }
        Ok(bytes.into())
    }
    fn txg(&self) -> Txg {
        self.store.txg()
    }
    fn hole_birth(&self) -> bool {
        self.store.hole_birth()
    }
}

fn send_changed(spec: &SendSpec, change: impl Fn(&Bookmark, &mut [u8]) + Sync) -> Result<u64, SendError> {
    let pool = main_pool();
    let source = resolve(pool.io(), &pool.dsl, spec).unwrap();
    let store = Changed { store: pool.io(), change };
    let sent = send_one(&store, &source, spec.flags, Packing::Native, &mut std::io::sink(), &mut |_| {})?;
    Ok(sent.bytes)
}

#[test]
fn an_unencrypted_block_in_an_encrypted_dataset_is_named() {
    // B29: the pointer of a file's block without its crypt bit.
    let spec = spec(None, "main/encrypted/docs@root", RAW);
    let error = send_changed(&spec, |at, bytes| {
        if at.object.0 == 0 && at.level == 0 && at.blkid == 0 {
            // Slot 2, first pointer, top byte of the properties.
            let file = bytes.chunks_exact_mut(512).find(|slot| slot[0] == 19 && slot[64] != 0).unwrap();
            file[64 + 0x37] &= !0x20;
        }
    });
    match error.unwrap_err() {
        SendError::UnencryptedBlock { at } => {
            assert!(at.object.0 > 0 && at.level == 0);
            let words = SendError::UnencryptedBlock { at }.to_string();
            assert!(words.contains(&format!("object {} level 0 block 0", at.object)), "{words}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn flipped_bits_in_metadata() {
    let (mut failed, mut passed) = (0, 0);
    for seed in 0..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let (which, byte, bit) = (next() % 4, next(), next() % 8);
        let spec = match seed % 3 {
            0 => spec(None, "main/encrypted/photos@root", RAW),
            1 => spec(Some("main/encrypted/docs#kept"), "main/encrypted/docs@newsnapshot", RAW),
            _ => spec(None, "main/plain@newsnapshot", LEC),
        };
        let result = send_changed(&spec, |at, bytes| {
            let metadata = at.object.0 == 0 || at.level > 0;
            if metadata && (at.blkid ^ u64::from(at.level.unsigned_abs())) % 4 == which {
                // Mostly where structures are, not in the zeros behind them.
                let range = if seed % 2 == 0 { bytes.len() } else { bytes.len().min(2048) };
                let i = usize::try_from(byte % range as u64).unwrap();
                bytes[i] ^= 1 << bit;
            }
        });
        match result {
            Ok(_) => passed += 1,
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 20 && passed > 20, "{failed} failed, {passed} passed");
}
