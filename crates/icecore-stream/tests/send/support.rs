//! Pools made by OpenZFS, opened read-only, and streams taken apart.

use icecore_env::{Access, Clock, Device, Env, FileDevice};
use icecore_format::fletcher::Fletcher4;
use icecore_format::nvlist::{NvList, NvValue};
use icecore_format::stream::{Begin, Record, StreamReader};
use icecore_pool::{Host, Mode, OpenSpec, Pool};
use icecore_sim::{InlineWorkers, SimClock, SimEntropy};
use icecore_stream::send::{
    PackageSpec, Packing, SendError, SendFlags, SendSpec, Sent, resolve, send_one, send_package,
};
use icecore_transform::crypt::{Suite, WrappedKey, WrappingKey, unwrap_key};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const PLAIN: SendFlags = SendFlags { raw: false, large_block: false, embed: false, compress: false };
pub const RAW: SendFlags = SendFlags { raw: true, ..PLAIN };
pub const LEC: SendFlags = SendFlags { raw: false, large_block: true, embed: true, compress: true };

pub use icecore_check::fixture::zoo;

pub fn fixture(name: &str) -> PathBuf {
    icecore_check::fixture::fixture(&format!("cold/{name}"))
}

pub fn open(images: &[&Path]) -> Pool {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000, 1000));
    let env = Env { clock, entropy: Arc::new(SimEntropy::new(1)), workers: Arc::new(InlineWorkers) };
    let device = |f: &&Path| Arc::new(FileDevice::open(f, Access::ReadOnly).unwrap()) as Arc<dyn Device>;
    let devices = images.iter().map(device).collect();
    let host = Host { id: 0x1234, name: "sim".into() };
    let spec = OpenSpec { devices, pool: None, mode: Mode::ReadOnly, force: true, host, max_txg: None };
    Pool::open(env, spec).unwrap()
}
pub fn main_pool() -> Pool {
    open(&[&fixture("main.img")])
}

/// Loads the keys of a snapshot.
pub fn unlock(pool: &mut Pool, snapshot: &str, passphrase: &str) {
    let (io, dsl) = pool.parts();
    let r = dsl.lookup_snapshot(io, snapshot).unwrap();
    let key = dsl.key_object(io, r.dir).unwrap().unwrap();
    let (_, salt, iters) = dsl.wrapping_form(io, r.dir).unwrap();
    let wrapping = WrappingKey::from_passphrase(passphrase.as_bytes(), salt, u32::try_from(iters).unwrap());
    let wrapped = WrappedKey {
        suite: Suite::from_number(key.suite).unwrap(),
        guid: icecore_format::Guid(key.guid),
        version: key.version,
        iv: key.iv,
        mac: key.mac,
        master: key.master,
        hmac: key.hmac,
    };
    io.add_key(r.obj, Arc::new(unwrap_key(&wrapping, &wrapped).unwrap()));
}

pub fn spec(from: Option<&str>, to: &str, flags: SendFlags) -> SendSpec {
    SendSpec { to: to.into(), from: from.map(Into::into), flags, ..SendSpec::default() }
}

pub fn send(pool: &Pool, spec: &SendSpec) -> Result<Vec<u8>, SendError> {
    let source = resolve(pool.io(), &pool.dsl, spec)?;
    let mut out = Vec::new();
    let done = send_one(pool.io(), &source, spec.flags, Packing::Native, &mut out, &mut |_| {})?;
    assert_eq!(done.bytes, out.len() as u64);
    Ok(out)
}

pub fn package(pool: &Pool, spec: &PackageSpec) -> Result<(Sent, Vec<u8>), SendError> {
    let mut out = Vec::new();
    let done = send_package(pool.io(), &pool.dsl, spec, &mut out, &mut |_| {})?;
    assert_eq!(done.bytes, out.len() as u64);
    Ok((done, out))
}

/// All records with their payloads.
pub fn records_of(bytes: &[u8]) -> Vec<(Record, Vec<u8>)> {
    let mut reader = StreamReader::new(bytes, Fletcher4::of);
    let (mut out, mut payload) = (Vec::new(), Vec::new());
    while let Some(entry) = reader.next(&mut payload).unwrap() {
        out.push((entry.record, payload.clone()));
    }
    out
}

/// Where each stream lies in a file of one or of a package.
pub fn streams_of(bytes: &[u8]) -> Vec<(Begin, std::ops::Range<usize>)> {
    let mut reader = StreamReader::new(bytes, Fletcher4::of);
    let (mut out, mut payload, mut open) = (Vec::new(), Vec::new(), None);
    while let Some(entry) = reader.next(&mut payload).unwrap() {
        match entry.record {
            Record::Begin(b) if !b.is_compound() => open = Some((b, entry.offset as usize)),
            Record::End(_) => {
                if let Some((begin, at)) = open.take() {
                    out.push((begin, at..reader.offset() as usize));
                }
            }
            _ => {}
        }
    }
    out
}

/// The head of a package, its list in the order of names, and where the streams begin.
fn head_of(bytes: &[u8]) -> (Record, NvList, usize) {
    let mut reader = StreamReader::new(bytes, Fletcher4::of);
    let mut payload = Vec::new();
    let begin = reader.next(&mut payload).unwrap().unwrap().record;
    let list = if payload.is_empty() { NvList::new() } else { NvList::decode(&payload).unwrap().0 };
    reader.next(&mut payload).unwrap().unwrap();
    (begin, sorted(&list), reader.offset() as usize)
}
fn sorted(list: &NvList) -> NvList {
    let mut pairs: Vec<_> = list.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = NvList::new();
    for (name, value) in pairs {
        let value = match value {
            NvValue::List(inner) => NvValue::List(sorted(&inner)),
            other => other,
        };
        out.set(name, value);
    }
    out
}

/// Bytes are equal; for a package: its list as a set, all else as bytes.
pub fn assert_same(made: &[u8], file: &Path) {
    assert_same_but(made, file, ("", ""));
}
/// As [`assert_same`], after `now` in the list has been put back to `then`.
pub fn assert_same_but(made: &[u8], file: &Path, (now, then): (&str, &str)) {
    let want = std::fs::read(file).unwrap();
    let (made_head, want_head) = (head_of(made), head_of(&want));
    let (mut made, mut want) = (made, &want[..]);
    let package = matches!(&want_head.0, Record::Begin(b) if b.is_compound());
    if package {
        assert_eq!(made_head.1.to_string().replace(now, then), want_head.1.to_string());
        assert_eq!(made_head.0, want_head.0);
        (made, want) = (&made[made_head.2..], &want[want_head.2..]);
    }
    let differs = made.iter().zip(want).position(|(a, b)| a != b);
    assert_eq!((made.len(), differs), (want.len(), None), "{}: length, first difference", file.display());
}
