//! Intent log blocks: headers of records and the block pointers in them stay readable for claiming, everything
//! else is encrypted; the MAC stands in the block's own trailer (`zio_crypt_init_uios_zil`, zio_crypt.c).

use super::CryptError;
use super::dnode::Layout;
use crate::checksum::embedded::{ZIL_HEADER, ZIL_TRAILER_AT};

/// Offset of the MAC: the trailer's words 2 and 3.
pub(super) const MAC_AT: usize = ZIL_TRAILER_AT + 24;
const USED_AT: usize = 136;
const RECORD_HEADER: usize = 32;
const TX_WRITE: u64 = 9;
const TX_CLONE_RANGE: u64 = 24;
const WRITE_POINTER_AT: usize = 64;
const WRITE_DATA_AT: usize = 192;
const CLONE_POINTERS_AT: usize = 64;

/// Layout of a block, and the bytes in use: what lies behind is neither encrypted nor kept.
pub(super) fn layout(block: &[u8], little_endian: bool) -> Result<(Layout, usize), CryptError> {
    let bad = |why: String| CryptError::malformed("intent log block", why);
    let word = |at: usize| -> Option<u64> {
        let bytes: [u8; 8] = block.get(at..at.checked_add(8)?)?.try_into().ok()?;
        Some(if little_endian { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    };
    let used = word(USED_AT).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if used < ZIL_HEADER || used > block.len() {
        return Err(bad(format!("{used} bytes used of {}", block.len())));
    }
    let mut layout = Layout { aad: Vec::new(), secret: Vec::new() };
    let mut clear = |from: usize, to: usize| {
        layout.aad.extend_from_slice(block.get(from..to).unwrap_or(&[]));
    };
    clear(0, ZIL_TRAILER_AT);
    let mut at = ZIL_HEADER;
    while at < used {
        let (kind, len) = (word(at), word(at + 8));
        let len = len.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let least = match kind {
            Some(TX_WRITE) => WRITE_DATA_AT,
            Some(TX_CLONE_RANGE) => CLONE_POINTERS_AT,
            _ => RECORD_HEADER,
        };
        if len < least || len > used - at {
            return Err(bad(format!("record of {len} bytes at {at}")));
        }
        clear(at, at + RECORD_HEADER);
        match kind {
            Some(TX_WRITE) => {
                layout.secret.push(at + RECORD_HEADER..at + WRITE_POINTER_AT);
                clear(at + WRITE_POINTER_AT, at + WRITE_DATA_AT);
                layout.secret.push(at + WRITE_DATA_AT..at + len);
            }
            Some(TX_CLONE_RANGE) => {
                layout.secret.push(at + RECORD_HEADER..at + CLONE_POINTERS_AT);
                clear(at + CLONE_POINTERS_AT, at + len);
            }
            _ => layout.secret.push(at + RECORD_HEADER..at + len),
        }
        at += len;
    }
    Ok((layout, used))
}
