//! Targets that take streams whose records make no sense although all their sums are right.

use super::tampered::edits;
use super::world::{KEY, OnDisk, empty, fixture, made};
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{Order, Record, StreamReader, StreamWriter};
use icecore_sim::SimDisk;
use icecore_stream::receive::ReceiveSpec;
use icecore_stream::send::{PackageSpec, SendFlags, send_package};
use icecore_stream::verify::verify;

/// A record and its payload.
type Entry = (Record, Vec<u8>);

/// Payloads are cut or filled to what their record says, up to this.
const PAYLOAD_MAX: u64 = 1 << 20;

fn entries(stream: &[u8]) -> Vec<Entry> {
    let mut reader = StreamReader::new(stream, Fletcher4::of).concatenated();
    let (mut records, mut payload) = (Vec::new(), Vec::new());
    while let Some(entry) = reader.next(&mut payload).expect("a sound stream") {
        records.push((entry.record, payload.clone()));
    }
    records
}

/// One that OpenZFS made, a raw one, and a package with snapshots, a clone and increments.
fn streams() -> [Vec<Entry>; 3] {
    let mut engine = OnDisk::on(made());
    let pool = engine.pool();
    let send = |to: &str, raw: bool, replicate: bool| {
        let mut spec = PackageSpec { replicate, ..PackageSpec::default() };
        spec.send.to = to.into();
        spec.send.flags = SendFlags { raw, large_block: true, embed: true, compress: true };
        let mut out = Vec::new();
        send_package(pool.io(), &pool.dsl, &spec, &mut out, &mut |_| {}).expect("sent");
        entries(&out)
    };
    [entries(&fixture()), send("fuzz/vault@one", true, false), send("fuzz@two", true, true)]
}

thread_local! {
    static EMPTY: SimDisk = empty();
    static STREAMS: [Vec<Entry>; 3] = streams();
}

/// The stream with its edits, sealed again. An edit of an odd kind falls on the payload, else on the record.
fn edited(which: u8, data: &[u8]) -> Vec<u8> {
    STREAMS.with(|all| {
        let mut records = all[usize::from(which) % all.len()].clone();
        for (i, edit) in edits(data).iter().enumerate() {
            let at = edit.place % records.len();
            let Some((record, payload)) = records.get_mut(at) else { continue };
            if i % 2 == 1 && !payload.is_empty() {
                edit.apply(payload);
                continue;
            }
            let mut bytes = record.encode();
            edit.apply(&mut bytes[8..304]);
            if let Ok(changed) = Record::parse(&bytes, Order::Little)
                && changed.payload_len() <= PAYLOAD_MAX
            {
                payload.resize(changed.payload_len() as usize, 0x5a);
                *record = changed;
            }
        }
        let mut writer = StreamWriter::new(Vec::new(), Fletcher4::of);
        for (record, payload) in &records {
            if writer.write(record, payload).is_err() {
                break;
            }
        }
        writer.into_inner()
    })
}

/// Streams whose records make no sense although all their sums are right, into the verifier and the printer.
pub fn records(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let stream = edited(*first, rest);
    let _ = verify(&mut stream.as_slice(), (first & 0x80 != 0).then_some(&KEY[..]), &mut |_| {});
    let _ = icecore_stream::dump::dump(&mut stream.as_slice(), true, &mut std::io::sink());
}

/// The same into a pool, which must be sound afterwards whatever came of it.
pub fn receive(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let stream = edited(*first, rest);
    let mut engine = OnDisk::on(EMPTY.with(SimDisk::fork));
    let resumable = first & 0x40 != 0;
    let spec = ReceiveSpec { target: "fuzz/in".into(), resumable, force: true, ..ReceiveSpec::default() };
    let done = icecore_stream::receive::receive(
        &mut engine,
        &mut stream.as_slice(),
        &spec,
        Fletcher4::of,
        &mut |_| {},
    );
    // What the pool says afterwards, it must be able to say after a restart.
    if engine.reopen().is_err() {
        panic!("the pool cannot be opened after {done:?}");
    }
    let pool = engine.pool();
    let balance = icecore_pool::leaks::balance(pool).expect("the space maps are read");
    assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{done:?}");
}
