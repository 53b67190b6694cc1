//! Targets that take bytes as they are: every reader of `icecore-format`, checksums, compression, text.

use icecore_format::byteswap::swap_block;
use icecore_format::object_type::Bswap;
use icecore_format::objset::ObjsetPhys;
use icecore_format::space_map::{Writer, entries};
use icecore_format::stream::{Order, RECORD_SIZE, Record, StreamReader};
use icecore_format::zap::{self, HeaderPhys, Key, Leaf, Value, micro};
use icecore_format::zil::record::{block, heads, records};
use icecore_format::{Blkptr, Checksum, Compress, Dnode, Fletcher4, NvList, ObjectType, Txg};
use icecore_format::{bookmark_phys, bpobj, dsl, indirect, label, space_map, uberblock, zil};
use icecore_stream::token::{ResumeToken, encode};
use icecore_transform::checksum;
use icecore_transform::compress::{compress, decompress};
use zerocopy::{FromBytes, IntoBytes};

/// Name-value lists: what decodes encodes to something that decodes to the same.
pub fn nvlist(data: &[u8]) {
    if let Ok((list, used)) = NvList::decode(data) {
        assert!(used <= data.len());
        for packed in [list.encode_xdr(), list.encode_native()] {
            assert_eq!(NvList::decode(&packed).map(|(l, _)| l), Ok(list.clone()));
        }
        let _ = list.to_string();
    }
}

/// Send streams: records that parse encode to records that parse to the same. Checksums mean that a fuzzer
/// never gets past the second record unless they are absent, so single records are tried as well.
pub fn stream(data: &[u8]) {
    let mut reader = StreamReader::new(data, Fletcher4::of).concatenated();
    let mut payload = Vec::new();
    while let Ok(Some(entry)) = reader.next(&mut payload) {
        assert_eq!(payload.len() as u64, entry.record.payload_len());
    }
    let _ = icecore_stream::dump::dump(&mut &data[..], true, &mut std::io::sink());
    let _ = icecore_stream::verify::verify(&mut &data[..], Some(&[7; 32]), &mut |_| {});
    if let Some(head) = data.first_chunk::<RECORD_SIZE>() {
        for order in [Order::Little, Order::Big] {
            if let Ok(record) = Record::parse(head, order) {
                assert_eq!(Record::parse(&record.encode(), Order::Little), Ok(record));
            }
        }
    }
}

/// Labels: configuration and boot environment.
pub fn label(data: &[u8]) {
    if let Ok(config) = label::parse_config(data) {
        let _ = label::config_block(&config);
    }
    let _ = label::parse_bootenv(data);
    let _ = label::EckPhys::of(data).map(|eck| (eck.is_swapped(), eck.words()));
    let _ = icecore_format::gang::parse(data);
}

/// Uberblocks, intent log headers and the DSL's bonus buffers.
pub fn uberblock(data: &[u8]) {
    if let Some(ub) = uberblock::UberblockPhys::parse(data) {
        let _ = (ub.check(), ub.cmp_age(&ub), ub.mmp_seq(), ub.reflow_offset(), format!("{ub:?}"));
        let slot = ub.slot(1024, [0; 4]).unwrap();
        assert_eq!(uberblock::UberblockPhys::parse(&slot), Some(ub));
    }
    let _ = zil::ZilHeaderPhys::parse(data).map(|h| (h.is_empty(), format!("{h:?}")));
    let _ = dsl::DslDirPhys::parse(data);
    let _ = dsl::DslDatasetPhys::parse(data).map(|d| (d.is_snapshot(), d.bp.check()));
    let _ = bpobj::BpobjPhys::parse(data);
    let _ = bpobj::DeadlistPhys::parse(data);
    let _ = bookmark_phys::RedactionListPhys::parse(data);
    let _ = indirect::MappingPhys::parse(data);
    let _ = space_map::SpaceMapPhys::parse(data);
}

fn walk(dn: &Dnode) {
    let _ = (dn.capacity(), dn.epb(), dn.used_bytes(), dn.max_bonuslen(), format!("{dn:?}"));
    assert!(dn.bonus().len() <= dn.bonus_area().len());
    for i in 0..4 {
        let _ = (dn.blkptr(i).check(), format!("{:?}", dn.blkptr(i)));
    }
    let _ = dn.spill().map(|bp| bp.check());
    let mut other = dn.clone();
    other.set_spill(None);
    other.bonus_area_mut().fill(0);
}

/// Dnodes and objsets: every accessor of whatever parses.
pub fn dnode(data: &[u8]) {
    if let Ok(dn) = Dnode::parse(data) {
        walk(&dn);
    }
    if let Ok(os) = ObjsetPhys::parse(data) {
        let all = [os.meta_dnode(), os.userused_dnode(), os.groupused_dnode(), os.projectused_dnode()];
        all.iter().flatten().for_each(walk);
        let _ = (os.kind(), os.flags(), os.portable_mac(), os.zil_header().len());
    }
}

/// ZAP blocks: walks end, whole leaves stay whole through changes. The first byte chooses block size and kind
/// of keys; the rest is the block, after a head that makes it a leaf.
pub fn zap(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let size = 512_usize << (choice & 3);
    let word_keys = choice & 4 != 0;
    let mut block = rest.to_vec();
    block.resize(size, 0);
    let _ = (zap::kind(&block), HeaderPhys::parse(&block), micro::parse(&block));
    let _ = micro::entries(&block).count();
    let mut small = block.clone();
    let _ = micro::insert(&mut small, b"name", 1);

    block[..8].copy_from_slice(&zap::BLOCK_LEAF.to_le_bytes());
    block[24..28].copy_from_slice(&0x02ab_1eaf_u32.to_le_bytes());
    let Ok(mut leaf) = Leaf::parse(block) else { return };
    let whole = leaf.check(word_keys).is_ok();
    let entries: Result<Vec<_>, _> = leaf.entries(word_keys).collect();
    assert!(!whole || entries.is_ok());
    let key = Key::name(b"name");
    let _ = leaf.lookup(&key, 0);
    let hash = leaf.prefix().checked_shl(64 - u32::from(leaf.prefix_len())).unwrap_or(0);
    let _ = leaf.insert(&key, hash, None, &Value::word(1));
    if whole {
        leaf.check(false).ok();
    }
    if let Ok(Some(entry)) = leaf.lookup(&key, hash) {
        let _ = leaf.update(&entry, &Value::bytes(&[7; 100]));
        let _ = leaf.remove(&entry);
    }
    let mut sibling = Leaf::init(vec![0; size], false).unwrap();
    let split = leaf.split(&mut sibling);
    if whole && split.is_ok() && !word_keys {
        leaf.check(false).unwrap();
        sibling.check(false).unwrap();
    }
}

/// Space map logs: what is read can be written and read again.
pub fn space_map(data: &[u8]) {
    let all: Vec<_> = entries(data).map_while(Result::ok).collect();
    let mut writer = Writer::new(0, 4096);
    for entry in &all {
        writer.intro(entry.kind, entry.txg, u64::from(entry.sync_pass));
        writer.range(entry.kind, Some(entry.vdev), entry.offset, entry.run, true);
    }
    let bytes = writer.into_bytes();
    let mut again = Vec::new();
    for block in bytes.chunks(4096) {
        again.extend(entries(block).map(Result::unwrap));
    }
    let key = |e: &icecore_format::space_map::Entry| (e.kind, e.vdev, e.offset, e.run);
    assert_eq!(all.iter().map(key).collect::<Vec<_>>(), again.iter().map(key).collect::<Vec<_>>());
}

/// Block pointers: every accessor of any 128 bytes; payloads embedded and taken out again.
pub fn embedded(data: &[u8]) {
    if let Ok((bp, _)) = Blkptr::read_from_prefix(data) {
        let _ = (bp.check(), bp.asize(), bp.ucsize(), bp.fill(), bp.iv(), bp.mac(), format!("{bp:?}"));
        assert!(bp.embedded_payload().len() <= 112);
        assert!(bp.dvas().len() <= 3);
        assert_eq!(Blkptr::read_from_bytes(bp.as_bytes()), Ok(bp));
    }
    let kind = ObjectType::PLAIN_FILE_CONTENTS;
    if let Some(bp) = Blkptr::embed(data, data.len() as u64, Compress::LZ4, kind, 0, Txg(9)) {
        assert_eq!(bp.embedded_payload(), data);
    }
}

/// Foreign-order blocks of every class.
pub fn byteswap(data: &[u8]) {
    let Some((class, rest)) = data.split_first() else { return };
    let classes = [
        Bswap::U16,
        Bswap::U32,
        Bswap::U64,
        Bswap::Zap,
        Bswap::Dnode,
        Bswap::Objset,
        Bswap::Znode,
        Bswap::OldAcl,
        Bswap::Acl,
    ];
    let mut block = rest.to_vec();
    swap_block(classes[usize::from(*class) % classes.len()], &mut block);
    assert_eq!(block.len(), rest.len());
}

/// Intent log blocks: frames of both kinds, and records of any bytes.
pub fn zil(data: &[u8]) {
    let count = records(data).filter(Result::is_ok).count();
    assert!(count <= data.len() / 32);
    // What a claim sees without the key is what a replay sees with it.
    for (head, record) in heads(data).zip(records(data)).take_while(|(h, r)| h.is_ok() && r.is_ok()) {
        let (head, record) = (head.unwrap(), record.unwrap());
        assert_eq!((head.kind, head.seq, head.txg), (record.kind, record.seq, record.txg));
    }
    let Some((head, rest)) = data.split_at_checked(128) else { return };
    let Ok(mut bp) = Blkptr::read_from_bytes(head) else { return };
    for kind in [Checksum::ZILOG, Checksum::ZILOG2] {
        bp.set_checksum(kind);
        if let Ok(frame) = block(&bp, rest) {
            assert!(frame.records.len() <= rest.len());
            records(frame.records).for_each(drop);
        }
    }
}

/// Compressed blocks: nothing but the size that was asked for comes out; what is packed here comes out again.
pub fn frames(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let kinds =
        [Compress::LZJB, Compress::GZIP_9, Compress::ZLE, Compress::LZ4, Compress::ZSTD, Compress(*choice)];
    let kind = kinds[usize::from(*choice) % kinds.len()];
    for size in [512, 4096, 128 << 10] {
        if let Ok(out) = decompress(kind, rest, size) {
            assert_eq!(out.len(), size);
        }
    }
    let mut plain = rest.to_vec();
    plain.resize(rest.len().next_multiple_of(512).max(512), 0);
    if let Some(packed) = compress(kind, *choice, &plain, plain.len()) {
        assert_eq!(decompress(kind, &packed, plain.len()).as_deref(), Ok(&plain[..]), "{kind:?}");
    }
}

/// Checksums: the fast ways to sum up say what the plain ones say, of any length and in both byte orders.
pub fn sums(data: &[u8]) {
    let whole = &data[..data.len() / 4 * 4];
    for little in [true, false] {
        let plain = checksum::fletcher::fletcher4_scalar([0; 4], whole, little);
        assert_eq!(checksum::fletcher::fletcher4(whole, little), plain);
        let at = usize::from(data.first().copied().unwrap_or(0)) * 4 % (whole.len() + 4).max(4);
        let (a, b) = whole.split_at(at.min(whole.len()));
        let (first, second) =
            (checksum::fletcher::fletcher4(a, little), checksum::fletcher::fletcher4(b, little));
        let joined = checksum::fletcher::fletcher4_concat(first, second, b.len() as u64 / 4);
        assert_eq!(joined, plain);
    }
    for kind in (0..=16).map(Checksum) {
        let _ = checksum::compute(kind, data, None, true);
    }
}

/// Text that a person or a peer gives: resume tokens, names of datasets, values of properties.
pub fn text(data: &[u8]) {
    use icecore_dsl::{name, prop};
    let text = String::from_utf8_lossy(data);
    if let Ok(token) = ResumeToken::parse(&text) {
        let again = ResumeToken::parse(&encode(&token.to_list().encode_xdr()));
        assert_eq!(again.map(|t| t.to_list()), Ok(token.to_list()));
    }
    // Sealed as a token: the sum in its text would keep every other list out.
    let _ = ResumeToken::parse(&encode(data));
    let checked = name::check(&text).is_ok();
    assert_eq!(name::split(&text).is_ok(), checked);
    let _ = (name::check_pool(&text), name::component(&text));
    if let Some((property, value)) = text.split_once('=') {
        let _ = (prop::parse_new(property, value), prop::parse_new_volume(property, value));
    }
}
