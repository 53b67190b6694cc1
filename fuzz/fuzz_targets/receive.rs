//! Streams whose records make no sense although all their checksums are right: into the verifier, and into a pool.
#![no_main]
mod common;

use common::edits;
use icecore_dmu::BlockWriter;
use icecore_dsl::Dsl;
use icecore_env::{Clock, Device, Env};
use icecore_format::fletcher::Fletcher4;
use icecore_format::stream::{Order, Record, StreamReader, StreamWriter};
use icecore_pool::{CreateSpec, Host, Mode, OpenSpec, Pool};
use icecore_sim::{InlineWorkers, SimClock, SimDisk, SimEntropy};
use icecore_stream::receive::{Engine, ReceiveSpec, receive};
use icecore_stream::verify::verify;
use icecore_transform::crypt::MasterKeys;
use icecore_vdev::create::{NewKind, NewLeaf, NewTop, build};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// Payloads are cut or filled to what their record says, up to this.
const PAYLOAD_MAX: u64 = 1 << 20;

fn env() -> Env {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000, 1000));
    Env { clock, entropy: Arc::new(SimEntropy::new(1)), workers: Arc::new(InlineWorkers) }
}

fn host() -> Host {
    Host { id: 1, name: "fuzz".into() }
}

fn empty() -> SimDisk {
    let disk = Arc::new(SimDisk::with_sector("disk", 256 << 20, 512));
    let leaf = NewLeaf { device: disk.clone(), path: "/disk".into(), whole_disk: None };
    let top = NewTop { kind: NewKind::Single, leaves: vec![leaf], log: false, ashift: Some(12) };
    let env = env();
    let tree = build(vec![top], &*env.entropy).expect("a tree");
    let features = icecore_pool::features::of_new_pools().collect();
    let (root, devices) = (tree.root, tree.devices);
    let spec = CreateSpec { name: "fuzz".into(), root, devices, host: host(), comment: None, features };
    drop(Pool::create(env, spec).expect("a pool"));
    disk.fork()
}

struct OnDisk {
    disk: Arc<SimDisk>,
    pool: Option<Pool>,
}

impl OnDisk {
    fn reopen(&mut self) -> Result<(), String> {
        self.pool = None;
        let devices = vec![self.disk.clone() as Arc<dyn Device>];
        let (pool, mode) = (None, Mode::Write);
        let spec = OpenSpec { devices, pool, mode, force: false, host: host(), max_txg: None };
        self.pool = Some(Pool::open(env(), spec).map_err(|e| e.to_string())?);
        Ok(())
    }
    fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("open")
    }
}

impl Engine for OnDisk {
    fn parts(&mut self) -> (&mut dyn BlockWriter, &mut Dsl) {
        let (io, dsl) = self.pool().parts();
        (io, dsl)
    }
    fn commit(&mut self) -> Result<(), String> {
        self.pool().commit().map(|_| ()).map_err(|e| e.to_string())
    }
    fn abandon(&mut self) -> Result<(), String> {
        self.reopen()
    }
    fn now_ns(&mut self) -> u64 {
        self.pool().io().env().clock.monotonic_ns()
    }
    fn add_keys(&mut self, objset: u64, keys: Arc<MasterKeys>) {
        self.pool().io_mut().add_key(objset, keys);
    }
}

fn fixture() -> Vec<(Record, Vec<u8>)> {
    let packed = include_bytes!("../../crates/icecore-stream/tests/fixtures/shapes-kinds@first.phb.zfs.zz");
    let gzip = icecore_format::Compress::GZIP_9;
    let stream = icecore_transform::compress::decompress(gzip, packed, 95_788).expect("the fixture");
    let mut reader = StreamReader::new(stream.as_slice(), Fletcher4::of);
    let (mut records, mut payload) = (Vec::new(), Vec::new());
    while let Some(entry) = reader.next(&mut payload).expect("a sound stream") {
        records.push((entry.record, payload.clone()));
    }
    records
}

thread_local! {
    static EMPTY: SimDisk = empty();
    static STREAM: Vec<(Record, Vec<u8>)> = fixture();
}

/// The stream with its edits, sealed again. An edit of an odd kind falls on the payload, else on the record.
fn edited(data: &[u8]) -> Vec<u8> {
    STREAM.with(|whole| {
        let mut records = whole.clone();
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

fuzz_target!(|data: &[u8]| {
    let stream = edited(data);
    let _ = verify(&mut stream.as_slice(), None, &mut |_| {});
    let disk = Arc::new(EMPTY.with(SimDisk::fork));
    let mut engine = OnDisk { disk, pool: None };
    engine.reopen().expect("a sound pool");
    let spec = ReceiveSpec { target: "fuzz/in".into(), ..ReceiveSpec::default() };
    let done = receive(&mut engine, &mut stream.as_slice(), &spec, Fletcher4::of, &mut |_| {});
    // What the pool says afterwards, it must be able to say after a restart.
    if engine.reopen().is_err() {
        panic!("the pool cannot be opened after {done:?}");
    }
    let pool = engine.pool();
    let balance = icecore_pool::leaks::balance(pool).expect("the space maps are read");
    assert!(balance.leaked.is_empty() && balance.unallocated.is_empty(), "{done:?}");
});
