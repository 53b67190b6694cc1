//! Keys and blocks of encrypted datasets made by OpenZFS, all six suites: unwrapped, proven, decrypted, and
//! encrypted again to the very same bytes.

use crate::blocks::hex;
use icecore_format::{Blkptr, Dnode, Guid, ObjectType};
use icecore_transform::checksum;
use icecore_transform::compress;
use icecore_transform::crypt::{
    self, CryptError, MasterKeys, Nonce, Suite, WrappedKey, WrappingKey, block, objset,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use zerocopy::FromBytes;

struct Block {
    name: String,
    bp: Blkptr,
    data: Vec<u8>,
}

struct Dataset {
    wrapped: WrappedKey,
    wrapping: WrappingKey,
    portable_mac: Vec<u8>,
    blocks: Vec<Block>,
}

fn wrapping_key(dataset: &str, salt: u64, iterations: u32) -> WrappingKey {
    let raw = |text: &str| WrappingKey::from_bytes(&hex(text).try_into().unwrap());
    match dataset {
        _ if dataset.starts_with("encrypted/") => {
            WrappingKey::from_passphrase(b"correct horse battery staple", salt, iterations)
        }
        "intent-log" => WrappingKey::from_passphrase(b"dirty pw 1234", salt, iterations),
        "pass@two" => WrappingKey::from_passphrase(b"winter is for backups", salt, iterations),
        _ if dataset.contains("ccm") => {
            raw("6241d474bda549b1ab0125eb0f2d156a3dc1de67dfa9cfc6a758ca7e74ea6908")
        }
        _ => raw("f0bae0dd4477b33846eaaf87e43424429b23100ea29b65356f8f46fadb84edc1"),
    }
}

fn datasets() -> BTreeMap<String, Dataset> {
    let mut all = BTreeMap::new();
    for line in include_str!("../fixtures/crypt-keys.txt").lines().filter(|l| !l.starts_with('#')) {
        let field: Vec<&str> = line.split(' ').collect();
        let wrapped = WrappedKey {
            suite: Suite::from_number(field[1].parse().unwrap()).unwrap(),
            guid: Guid(field[2].parse().unwrap()),
            version: field[3].parse().unwrap(),
            iv: hex(field[4]).try_into().unwrap(),
            mac: hex(field[5]).try_into().unwrap(),
            master: hex(field[6]).try_into().unwrap(),
            hmac: hex(field[7]).try_into().unwrap(),
        };
        let wrapping = wrapping_key(field[0], field[8].parse().unwrap(), field[9].parse().unwrap());
        let portable_mac = hex(field[10]);
        all.insert(field[0].to_string(), Dataset { wrapped, wrapping, portable_mac, blocks: Vec::new() });
    }
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(&include_bytes!("../fixtures/crypt.z")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    let mut rest = &bytes[..];
    let mut take = |n: usize| -> Vec<u8> {
        let (now, later) = rest.split_at(n.min(rest.len()));
        rest = later;
        now.to_vec()
    };
    loop {
        let len = take(4);
        if len.is_empty() {
            break;
        }
        let name = String::from_utf8(take(u32::from_le_bytes(len.try_into().unwrap()) as usize)).unwrap();
        let bp = Blkptr::read_from_bytes(&take(128)).unwrap();
        let len = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let block = Block { bp, data: take(len), name };
        let (dataset, _) = all.iter_mut().find(|(ds, _)| block.name.starts_with(*ds)).unwrap();
        let dataset = dataset.clone();
        all.get_mut(&dataset).unwrap().blocks.push(block);
    }
    all
}

fn unlocked() -> Vec<(MasterKeys, Dataset)> {
    datasets().into_values().map(|ds| (crypt::unwrap_key(&ds.wrapping, &ds.wrapped).unwrap(), ds)).collect()
}

#[test]
fn keys_unwrap_and_wrap_to_the_same_bytes() {
    let all = datasets();
    assert!(Suite::ALL.iter().all(|s| all.values().any(|d| d.wrapped.suite == *s)));
    for (name, ds) in all {
        let keys = crypt::unwrap_key(&ds.wrapping, &ds.wrapped).unwrap();
        assert_eq!(crypt::wrap_key(&ds.wrapping, &keys, ds.wrapped.iv).unwrap(), ds.wrapped, "{name}");
        let other = WrappingKey::from_bytes(&[7; 32]);
        assert_eq!(crypt::unwrap_key(&other, &ds.wrapped).unwrap_err(), CryptError::Authentication);
        let mut renamed = ds.wrapped.clone();
        renamed.guid.0 ^= 1;
        assert_eq!(crypt::unwrap_key(&ds.wrapping, &renamed).unwrap_err(), CryptError::Authentication);
        let shown = format!("{keys:?} {:?}", ds.wrapping);
        assert!(shown.contains("..") && !shown.contains('['), "{shown}");
    }
}

#[test]
fn objset_macs_are_those_of_openzfs() {
    let mut with_local = 0;
    for (keys, ds) in unlocked() {
        // The dataset that is here for its intent log came without its objset block.
        let Some(os) = ds.blocks.iter().find(|b| b.name.ends_with("/objset")) else { continue };
        let (portable, local) = crypt::objset_macs(&keys, &os.data, true).unwrap();
        assert_eq!(portable.to_vec(), ds.portable_mac);
        let phys = icecore_format::objset::ObjsetPhys::parse(&os.data).unwrap();
        assert_eq!(phys.portable_mac(), portable);
        if local != [0; 32] {
            assert_eq!(phys.local_mac(), local);
            with_local += 1;
        }
        crypt::verify_objset(&keys, &os.data, true).unwrap();
        let mut sealed = os.data.clone();
        sealed[720..784].fill(0);
        objset::seal_objset(&keys, &mut sealed, true).unwrap();
        if local != [0; 32] {
            assert_eq!(sealed, os.data);
        }
        // Levels, a pointer's logical size and MAC, the type; flags and accounting if there is a local MAC.
        let portable_only = [2, 112, 180, 704].as_slice();
        let covered = [2, 112, 180, 704, 713, 1026, 1538].as_slice();
        for &at in if local == [0; 32] { portable_only } else { covered } {
            let mut damaged = os.data.clone();
            damaged[at] ^= 1;
            assert!(crypt::verify_objset(&keys, &damaged, true).is_err(), "{at}");
        }
    }
    assert!(with_local > 3);
}

#[test]
fn blocks_decrypt_and_encrypt_to_the_same_bytes() {
    let mut seen = BTreeMap::new();
    for (keys, ds) in unlocked() {
        for b in &ds.blocks {
            let name = &b.name;
            if !name.ends_with("/objset") {
                assert_eq!(checksum::verify(&b.bp, &b.data, None), Ok(()), "{name}");
            }
            let mut plain = b.data.clone();
            crypt::decrypt_block(&keys, &b.bp, &mut plain).unwrap_or_else(|e| panic!("{name}: {e}"));
            let class = if b.bp.level() > 0 { "indirect" } else { b.bp.kind().text() };
            *seen.entry(class).or_insert(0) += 1;

            let mut bp = b.bp;
            bp.set_mac([0; 16]);
            if bp.is_encrypted() {
                assert_ne!(plain, b.data, "{name}");
                bp.set_salt_iv([0; 8], [0; 12]);
            } else {
                assert_eq!(plain, b.data, "{name}");
            }
            let mut again = plain.clone();
            crypt::encrypt_block(&keys, &mut bp, &mut again, Nonce::of(&b.bp)).unwrap();
            assert_eq!(again, b.data, "{name}");
            assert_eq!(bp, b.bp, "{name}");
            if !name.ends_with("/objset") {
                bp.set_cksum([0, 0, bp.cksum()[2], bp.cksum()[3]]);
                checksum::seal(&mut bp, &again, None).unwrap();
                assert_eq!(bp, b.bp, "{name}");
            }
        }
    }
    for class in ["indirect", "DMU objset", "DMU dnode", "ZFS master node", "ZFS plain file"] {
        assert!(seen.contains_key(class), "no {class} block among {seen:?}");
    }
}

#[test]
fn decrypted_bonuses_and_files_are_what_they_should_be() {
    let mut bonuses = 0;
    for (keys, ds) in unlocked() {
        for b in &ds.blocks {
            let mut plain = b.data.clone();
            crypt::decrypt_block(&keys, &b.bp, &mut plain).unwrap();
            if b.bp.kind() == ObjectType::DNODE && b.bp.level() == 0 {
                let mut at = 0;
                while at < plain.len() {
                    let dn = Dnode::parse(&plain[at..]).unwrap();
                    at += dn.as_bytes().len();
                    if dn.bonus_type() == ObjectType::SA && dn.bonuslen() > 0 {
                        assert_eq!(dn.bonus()[..4], 0x2f_505a_u32.to_le_bytes());
                        bonuses += 1;
                    }
                }
            }
            if b.name == "encrypted/docs@newsnapshot/object2-L0" {
                let logical = compress::decompress(b.bp.compress(), &plain, b.bp.lsize() as usize).unwrap();
                let expected = "7d1523fc331fa954e327aefc98e0d19228ad0434bc374766cca4d1383f3d3b1d";
                assert_eq!(Sha256::digest(&logical[..1014]).to_vec(), hex(expected));
            }
        }
    }
    assert!(bonuses > 50, "{bonuses}");
}

#[test]
fn any_flipped_bit_is_found() {
    for (keys, ds) in unlocked() {
        for b in ds.blocks.iter().filter(|b| !b.name.ends_with("/objset") && b.bp.level() == 0) {
            // dn_flags and dn_used are left out of dnode MACs, they differ between pools.
            let exempt = |at: usize| b.bp.kind() == ObjectType::DNODE && matches!(at % 512, 7 | 24..32);
            for at in (0..b.data.len()).step_by(37).filter(|at| !exempt(*at)) {
                let mut damaged = b.data.clone();
                damaged[at] ^= 0x10;
                let got = crypt::decrypt_block(&keys, &b.bp, &mut damaged);
                if got.is_ok() {
                    assert!(covered_elsewhere(&b.data, at), "{} at {at}", b.name);
                }
            }
            let mut bp = b.bp;
            let mut mac = bp.mac();
            mac[3] ^= 1;
            bp.set_mac(mac);
            assert!(block::verify_block(&keys, &bp, &b.data).is_err(), "{}", b.name);
        }
    }
}

/// Parts of block pointers in dnodes that are not portable: addresses, births, checksum words 0 and 1.
fn covered_elsewhere(dnodes: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start < dnodes.len() {
        let dn = &dnodes[start..];
        let len = (usize::from(dn[12]) + 1) * 512;
        if at < start + len {
            let within = at - start;
            let pointers = 64..64 + 128 * usize::from(dn[3]);
            let spill = if dn[7] & 4 != 0 { len - 128..len } else { 0..0 };
            return pointers.contains(&within) || spill.contains(&within);
        }
        start += len;
    }
    false
}

/// The second block of an encrypted intent log, left behind by a power cut: six records.
#[test]
fn an_intent_log_block_decrypts_and_encrypts_to_the_same_bytes() {
    let ds = datasets().remove("intent-log").unwrap();
    let keys = crypt::unwrap_key(&ds.wrapping, &ds.wrapped).unwrap();
    let data = include_bytes!("../fixtures/intent-log.bin").to_vec();
    let mut bp = Blkptr::default();
    bp.set_type(ObjectType::INTENT_LOG);
    bp.set_little_endian(true);
    bp.set_crypt(true);
    bp.set_checksum(icecore_format::Checksum::ZILOG2);
    bp.set_compress(icecore_format::Compress::OFF);
    bp.set_lsize(4096);
    bp.set_psize(4096);
    bp.set_cksum([0x31db_eb69_0609_9e7a, 0x2e97_b7ef_311f_dbf4, 0x4e, 2]);
    let [a, b] = [0x3df2_e5db_7190_39dd_u64, 0x07a8_308b_fc81_a680].map(u64::to_le_bytes);
    let mut iv = [0; 12];
    iv[..8].copy_from_slice(&b);
    iv[8..].copy_from_slice(&0x02a2_2109_u32.to_le_bytes());
    bp.dva[0] = icecore_format::Dva::new(0, 0x11_6000, 4096, false);
    bp.set_salt_iv(a, iv);

    assert_eq!(checksum::verify(&bp, &data, None), Ok(()));
    let mut plain = data.clone();
    crypt::decrypt_block(&keys, &bp, &mut plain).unwrap();
    // The first record creates a file; its name, the last thing in it, is among what was encrypted.
    let record = 184 + 112;
    assert_eq!(plain[184..216], data[184..216]);
    let name = plain[..record].iter().rev().skip_while(|b| **b == 0).take_while(|b| b.is_ascii_graphic());
    assert!(name.count() >= 3, "{:x?}", &plain[184..record]);

    let mut again = plain.clone();
    again[160..184].fill(0);
    let pointer = bp;
    crypt::encrypt_block(&keys, &mut bp, &mut again, Nonce::of(&pointer)).unwrap();
    checksum::embedded::zil_seal(&bp, &mut again).unwrap();
    assert_eq!(bp, pointer);
    assert_eq!(again, data);

    bp.set_cksum([0x31db_eb69_0609_9e7a, 0x2e97_b7ef_311f_dbf4, 0x4e, 3]);
    assert!(checksum::verify(&bp, &data, None).is_err(), "the same block is not the next of its chain");
}
