//! Blocks of dnodes: only bonus areas with private contents are encrypted, so that scrub and claim can walk
//! the pool without keys; the rest is authenticated (`zio_crypt_init_uios_dnode`, zio_crypt.c).

use super::CryptError;
use super::portable::portable;
use icecore_format::ObjectType;
use icecore_format::dnode::{CORE, FLAG_SPILL_BLKPTR, SLOT};
use std::ops::Range;

/// What of a block is authenticated, and where the encrypted parts are.
pub(super) struct Layout {
    pub(super) aad: Vec<u8>,
    pub(super) secret: Vec<Range<usize>>,
}

const POINTER: usize = 128;
const FLAGS_AT: usize = 7;
const USED_AT: usize = 24;

/// Walks the dnodes of a block, plain or encrypted: all that is read lies outside the encrypted parts.
pub(super) fn layout(block: &[u8], little_endian: bool, version: u64) -> Result<Layout, CryptError> {
    let mut layout = Layout { aad: Vec::with_capacity(block.len()), secret: Vec::new() };
    let mut at = 0;
    let whole = block.len() - block.len() % SLOT;
    while at < whole {
        let rest = block.get(at..whole).unwrap_or(&[]);
        let extra = rest.get(12).copied().unwrap_or(0);
        let len = (usize::from(extra) + 1) * SLOT;
        let dnode = rest.get(..len).ok_or_else(|| {
            CryptError::malformed("dnode", format!("{extra} extra slots, past the end of the block"))
        })?;
        one(dnode, at, little_endian, version, &mut layout)?;
        at += len;
    }
    Ok(layout)
}

fn one(
    dnode: &[u8],
    at: usize,
    little_endian: bool,
    version: u64,
    layout: &mut Layout,
) -> Result<(), CryptError> {
    let &[kind, _, _, nblkptr, bonus_type, _, _, flags, _, _, len0, len1, ..] = dnode else {
        return Err(CryptError::malformed("dnode", "cut short"));
    };
    if nblkptr > 3 {
        return Err(CryptError::malformed("dnode", format!("{nblkptr} block pointers")));
    }
    let has_spill = flags & FLAG_SPILL_BLKPTR != 0;
    let bonus_at = CORE + usize::from(nblkptr) * POINTER;
    let bonus_end = dnode.len() - if has_spill { POINTER } else { 0 };
    if bonus_at > bonus_end {
        return Err(CryptError::malformed("dnode", format!("{nblkptr} block pointers and a spill pointer")));
    }
    let bonus_len = usize::from(if little_endian {
        u16::from_le_bytes([len0, len1])
    } else {
        u16::from_be_bytes([len0, len1])
    });
    if kind != 0 && bonus_len > bonus_end - bonus_at {
        let room = bonus_end - bonus_at;
        return Err(CryptError::malformed("dnode", format!("bonus of {bonus_len} bytes where {room} fit")));
    }

    layout.aad.extend_from_slice(&core(dnode));
    let pointers = (CORE..bonus_at).step_by(POINTER).chain(has_spill.then_some(bonus_end));
    for start in pointers {
        let pointer = dnode.get(start..start + POINTER).unwrap_or(&[]);
        layout.aad.extend(portable(pointer, little_endian, version)?);
    }
    if kind != 0 && bonus_len != 0 && ObjectType(bonus_type).is_encrypted() {
        layout.secret.push(at + bonus_at..at + bonus_end);
    } else {
        layout.aad.extend_from_slice(dnode.get(bonus_at..bonus_end).unwrap_or(&[]));
    }
    Ok(())
}

/// The fixed part, as it stands, without the flags and the space count that differ between pools.
pub(super) fn core(dnode: &[u8]) -> [u8; CORE] {
    let mut core: [u8; CORE] = *dnode.first_chunk().unwrap_or(&[0; CORE]);
    core[FLAGS_AT] &= FLAG_SPILL_BLKPTR;
    core[USED_AT..USED_AT + 8].fill(0);
    core
}
