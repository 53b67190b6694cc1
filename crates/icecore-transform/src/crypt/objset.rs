//! The two MACs of an objset: the portable one, root of everything a raw send carries, and the local one over
//! the space accounting, which it does not (`zio_crypt_do_objset_hmacs`, zio_crypt.c).
//!
//! Invariants:
//! 1. Unlike all other MACs these are over little-endian fields whatever the block's order (with one
//!    exception, see below), as the block may be rewritten without the key.
//! 2. A missing local MAC (accounting absent or incomplete) is all zeros.

use super::dnode::core;
use super::portable::portable;
use super::{CryptError, MasterKeys, same};
use icecore_format::byteswap::swap_words;
use icecore_format::dnode::{CORE, FLAG_SPILL_BLKPTR, SLOT};
use icecore_format::objset::{FLAG_USERACCOUNTING_COMPLETE, SIZE_V1, SIZE_V2, SIZE_V3};

/// Portable and local MAC.
pub type Macs = ([u8; 32], [u8; 32]);

const TYPE_AT: usize = 704;
const FLAGS_AT: usize = 712;
const PORTABLE_MAC_AT: usize = 720;
const LOCAL_MAC_AT: usize = 752;
const ACCOUNTING_AT: [usize; 3] = [1024, 1536, 2048];

/// Both MACs, from the bytes of an objset block in the given order.
pub fn objset_macs(keys: &MasterKeys, objset: &[u8], little_endian: bool) -> Result<Macs, CryptError> {
    if !(SIZE_V1..=SIZE_V3).contains(&objset.len()) {
        return Err(CryptError::malformed("objset", format!("{} bytes", objset.len())));
    }
    let version = keys.version();
    // The type alone enters in big-endian order, on every machine.
    let kind = word(objset, TYPE_AT, little_endian).to_be_bytes();
    // No flag is portable: an empty mask leaves zero.
    let mut portable_parts = [kind, [0; 8]].concat();
    portable_parts.extend(dnode_part(objset, 0, little_endian, version)?);
    let portable_mac = cut(keys.hmac_sha512(&[&portable_parts]));

    let flags = word(objset, FLAGS_AT, little_endian);
    let present: Vec<usize> = accounting(objset).filter(|at| objset.get(*at) != Some(&0)).collect();
    if flags & FLAG_USERACCOUNTING_COMPLETE == 0 || !has_local_mac(objset, &present) {
        return Ok((portable_mac, [0; 32]));
    }
    let mut local_parts = flags.to_le_bytes().to_vec();
    for at in present {
        local_parts.extend(dnode_part(objset, at, little_endian, version)?);
    }
    Ok((portable_mac, cut(keys.hmac_sha512(&[&local_parts]))))
}

/// Checks the MACs an objset block carries. A local MAC is let pass where none can be computed: it guards
/// accounting that will be made anew.
pub fn verify_objset(keys: &MasterKeys, objset: &[u8], little_endian: bool) -> Result<(), CryptError> {
    let (portable_mac, local_mac) = objset_macs(keys, objset, little_endian)?;
    let stored = |at: usize| objset.get(at..at + 32).unwrap_or(&[]);
    let portable_fits = same(stored(PORTABLE_MAC_AT), &portable_mac);
    let local_fits = same(stored(LOCAL_MAC_AT), &local_mac) || local_mac == [0; 32];
    if portable_fits && local_fits { Ok(()) } else { Err(CryptError::Authentication) }
}

/// Writes both MACs into an objset block.
pub fn seal_objset(keys: &MasterKeys, objset: &mut [u8], little_endian: bool) -> Result<(), CryptError> {
    let (portable_mac, local_mac) = objset_macs(keys, objset, little_endian)?;
    for (at, mac) in [(PORTABLE_MAC_AT, portable_mac), (LOCAL_MAC_AT, local_mac)] {
        if let Some(to) = objset.get_mut(at..at + 32) {
            to.copy_from_slice(&mac);
        }
    }
    Ok(())
}

/// Where the accounting dnodes are: none in the oldest objsets, two, then three.
fn accounting(objset: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let count = match objset.len() {
        SIZE_V3.. => 3,
        SIZE_V2.. => 2,
        _ => 0,
    };
    ACCOUNTING_AT.into_iter().take(count)
}

/// Project accounting alone does not make a local MAC: OpenZFS looks at user and group.
fn has_local_mac(objset: &[u8], present: &[usize]) -> bool {
    objset.len() > SIZE_V1 && present.iter().any(|at| ACCOUNTING_AT.get(..2).unwrap_or(&[]).contains(at))
}

/// The authenticated part of one of the objset's dnodes: its core in little-endian order, then its pointers.
fn dnode_part(objset: &[u8], at: usize, little_endian: bool, version: u64) -> Result<Vec<u8>, CryptError> {
    let dnode = objset.get(at..at + SLOT).ok_or_else(|| CryptError::malformed("objset", "no such dnode"))?;
    let &[_, _, _, nblkptr, _, _, _, flags, _, _, _, _, extra, ..] = dnode else {
        return Err(CryptError::malformed("objset", "no such dnode"));
    };
    let has_spill = flags & FLAG_SPILL_BLKPTR != 0;
    if nblkptr > 3 || extra != 0 || (has_spill && nblkptr > 2) {
        let why = format!("dnode with {nblkptr} block pointers, {extra} extra slots, flags {flags:#x}");
        return Err(CryptError::malformed("objset", why));
    }
    let mut head = core(dnode);
    if !little_endian {
        for range in [8..10, 10..12] {
            head.get_mut(range).map(swap_words::<2>);
        }
        head.get_mut(16..24).map(swap_words::<8>);
    }
    let mut part = head.to_vec();
    let pointers = (0..usize::from(nblkptr)).map(|i| CORE + 128 * i).chain(has_spill.then_some(SLOT - 128));
    for start in pointers {
        part.extend(portable(dnode.get(start..start + 128).unwrap_or(&[]), little_endian, version)?);
    }
    Ok(part)
}

fn word(bytes: &[u8], at: usize, little_endian: bool) -> u64 {
    let word = icecore_format::reader::u64_at(bytes, at);
    if little_endian { word } else { word.swap_bytes() }
}

fn cut(mac: [u8; 64]) -> [u8; 32] {
    *mac.first_chunk().unwrap_or(&[0; 32])
}
