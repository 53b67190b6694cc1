use super::*;
use icecore_format::{Blkptr, Guid, ObjectType};
use icecore_secret::Secret;
use proptest::prelude::*;

fn keys(suite: Suite) -> MasterKeys {
    let random = Secret::new(std::array::from_fn(|i| (i * 7 + 3) as u8));
    MasterKeys::generate(suite, Guid(99), &random)
}

fn pointer(kind: ObjectType, little_endian: bool, len: usize) -> Blkptr {
    let mut bp = Blkptr::default();
    bp.dva[0] = icecore_format::Dva::new(0, 512, 512, false);
    bp.set_type(kind);
    bp.set_little_endian(little_endian);
    bp.set_compress(icecore_format::Compress::OFF);
    bp.set_lsize(len.next_multiple_of(512).max(512) as u64);
    bp.set_psize(len.next_multiple_of(512).max(512) as u64);
    bp
}

fn nonce() -> Nonce {
    Nonce { salt: *b"salt1234", iv: *b"initvector12" }
}

#[test]
fn wrap_and_unwrap_every_suite() {
    let wrapping = WrappingKey::from_bytes(&[5; 32]);
    for suite in Suite::ALL {
        let wrapped = wrap_key(&wrapping, &keys(suite), [9; 12]).unwrap();
        assert!(wrapped.master[suite.key_len()..].iter().all(|b| *b == 0));
        let back = unwrap_key(&wrapping, &wrapped).unwrap();
        assert_eq!(back.hmac_sha512(&[b"x"]), keys(suite).hmac_sha512(&[b"x"]));
        let future = WrappedKey { version: 2, ..wrapped };
        assert!(matches!(unwrap_key(&wrapping, &future), Err(CryptError::Unsupported(_))));
    }
}

#[test]
fn versions_differ_in_what_they_authenticate() {
    let mut bp = pointer(ObjectType::PLAIN_FILE_CONTENTS, true, 512);
    bp.set_level(1);
    bp.set_psize(1024);
    let bytes = zerocopy::IntoBytes::as_bytes(&bp);
    assert_eq!(portable::portable(bytes, true, 1).unwrap().len(), 32);
    assert_eq!(portable::portable(bytes, true, 0).unwrap().len(), 24);
    assert!(portable::portable(&bytes[1..], true, 1).is_err());
}

#[test]
fn a_foreign_pointer_is_authenticated_as_its_native_twin() {
    let mut native = pointer(ObjectType::PLAIN_FILE_CONTENTS, false, 4096);
    native.set_crypt(true);
    native.set_mac([3; 16]);
    let bytes = zerocopy::IntoBytes::as_bytes(&native).to_vec();
    let mut swapped = bytes.clone();
    icecore_format::byteswap::swap_words::<8>(&mut swapped);
    assert_eq!(portable::portable(&bytes, true, 1), portable::portable(&swapped, false, 1));
}

/// An objset block of the other byte order has the same MACs.
#[test]
fn objset_macs_do_not_depend_on_order() {
    let mut le: Vec<u8> = vec![0; 4096];
    le[704] = 2;
    le[712] = 7;
    for at in [0, 1024, 1536, 2048] {
        le[at..at + 4].copy_from_slice(&[10, 17, 1, 1]);
        le[at + 8..at + 12].copy_from_slice(&[32, 0, 0xb0, 1]);
        le[at + 16] = 9;
        let mut bp = pointer(ObjectType::DNODE, false, 4096);
        bp.set_crypt(true);
        bp.set_mac([at as u8 ^ 0x77; 16]);
        le[at + 64..at + 192].copy_from_slice(zerocopy::IntoBytes::as_bytes(&bp));
    }
    let mut be = le.clone();
    let swap = |b: &mut [u8]| icecore_format::byteswap::swap_words::<8>(b);
    swap(&mut be[704..720]);
    for at in [0, 1024, 1536, 2048] {
        be[at + 8..at + 10].reverse();
        be[at + 10..at + 12].reverse();
        swap(&mut be[at + 16..at + 24]);
        swap(&mut be[at + 64..at + 192]);
    }
    let k = keys(Suite::Aes256Gcm);
    let macs = objset_macs(&k, &le, true).unwrap();
    assert_eq!(macs, objset_macs(&k, &be, false).unwrap());
    assert_ne!(macs.1, [0; 32]);
    le[712] = 6;
    assert_eq!(objset_macs(&k, &le, true).unwrap().1, [0; 32]);
}

proptest! {
    #[test]
    fn data_round_trips(data in prop::collection::vec(any::<u8>(), 1..2000), suite in 0..6_usize, le: bool) {
        let keys = keys(Suite::ALL[suite]);
        let mut bp = pointer(ObjectType::PLAIN_FILE_CONTENTS, le, data.len());
        let mut buf = data.clone();
        encrypt_block(&keys, &mut bp, &mut buf, nonce()).unwrap();
        bp.set_fill(1);
        prop_assert_eq!(Nonce::of(&bp), nonce());
        prop_assert!(bp.is_encrypted());
        decrypt_block(&keys, &bp, &mut buf).unwrap();
        prop_assert_eq!(&buf, &data);
        bp.set_mac([1; 16]);
        prop_assert_eq!(decrypt_block(&keys, &bp, &mut buf), Err(CryptError::Authentication));
    }

    /// Whatever stands in a block of dnodes or an intent log block, in either direction: an answer, no panic.
    #[test]
    fn hostile_blocks_get_an_answer(
        sectors in 0..9_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..60),
        kind in prop::sample::select(vec![
            ObjectType::DNODE, ObjectType::INTENT_LOG, ObjectType::OBJSET, ObjectType::MASTER_NODE,
        ]),
        le: bool,
        level in 0..2_u8,
    ) {
        let keys = keys(Suite::Aes256Gcm);
        let mut data = vec![0; sectors * 512 + 3];
        for (at, byte) in edits {
            let at = at.index(data.len());
            data[at] = byte;
        }
        let mut bp = pointer(kind, le, data.len());
        bp.set_crypt(true);
        bp.set_level(level);
        let _ = decrypt_block(&keys, &bp, &mut data.clone());
        let before = data.clone();
        if encrypt_block(&keys, &mut bp, &mut data, nonce()).is_ok() {
            decrypt_block(&keys, &bp, &mut data).unwrap();
            if kind == ObjectType::DNODE {
                prop_assert_eq!(data, before);
            }
        }
    }
}

#[test]
fn intent_log_blocks_keep_what_claiming_needs() {
    let mut block = vec![0_u8; 4096];
    let mut put = |at: usize, v: u64| block[at..at + 8].copy_from_slice(&v.to_le_bytes());
    put(136, 184 + 256 + 136 + 40);
    put(184, 9); // a write with 64 bytes of data
    put(192, 256);
    put(184 + 32, 0x1111);
    put(184 + 64, 0x2222); // in the pointer
    put(184 + 192, 0x3333); // data
    put(440, 24); // a cloned range with one pointer less its tail
    put(448, 136);
    put(440 + 32, 0x4444);
    put(440 + 64, 1);
    put(576, 1); // anything else
    put(584, 40);
    put(608, 0x5555);
    put(700, 0x6666); // behind what is used
    let keys = keys(Suite::Aes128Ccm);
    let mut bp = pointer(ObjectType::INTENT_LOG, true, 4096);
    let plain = block.clone();
    encrypt_block(&keys, &mut bp, &mut block, nonce()).unwrap();
    for (range, same) in [
        (0..168, true),
        (184..216, true),
        (216..248, false),
        (248..376, true),
        (376..384, false),
        (440..472, true),
        (472..480, false),
        (504..576, true),
        (576..608, true),
        (608..616, false),
    ] {
        assert_eq!(block[range.clone()] == plain[range.clone()], same, "{range:?}");
    }
    assert!(block[616..].iter().all(|b| *b == 0));
    decrypt_block(&keys, &bp, &mut block).unwrap();
    assert_eq!(block[184..616], plain[184..616]);
    let mut endless = plain.clone();
    endless[584] = 0;
    assert!(matches!(encrypt_block(&keys, &mut bp, &mut endless, nonce()), Err(CryptError::Malformed(_))));
}
