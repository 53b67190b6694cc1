//! Against what OpenZFS sent and estimated in the machine of `tests-data/recipes/send.sh`: interrupted
//! streams, clones, `-I`, estimates, and holes punched between snapshots. Where its output is at hand
//! (`ICECORE_ZOO/send`).

use crate::support::*;
use icecore_pool::Pool;
use icecore_stream::send::{
    PackageSpec, Packing, SendFlags, SendSpec, estimate, estimate_package, resolve_token, send_one,
};
use icecore_stream::token::{self, ResumeToken};
use std::fs;
use std::path::PathBuf;

fn made(name: &str) -> Option<PathBuf> {
    zoo(&format!("send/{name}"))
}
fn text(name: &str) -> String {
    fs::read_to_string(made(name).unwrap()).unwrap()
}
fn same(pool: &Pool, from: Option<&str>, to: &str, flags: SendFlags, file: &str) {
    eprintln!("{file}");
    assert_same(&send(pool, &spec(from, to, flags)).unwrap(), &made(file).unwrap());
}

#[test]
fn interrupted_streams_go_on_as_openzfs_continues_them() {
    if made("photos.token").is_none() {
        return;
    }
    let (main, shapes) = (main_pool(), open(&[&zoo("shapes.img").unwrap()]));
    for (pool, name) in
        [(&main, "photos"), (&main, "vol"), (&main, "plain"), (&main, "docs"), (&shapes, "shallow")]
    {
        let words = text(&format!("{name}.token"));
        if words.trim() == "-" {
            continue; // received whole before the cut
        }
        let token = ResumeToken::parse(&words).unwrap();
        eprintln!("{name}: {:?}", (token.object, token.offset));
        assert_eq!(token.to_list(), token.list);
        let packed = token.to_list().encode_native();
        let again = token::encode(&packed);
        assert_eq!(ResumeToken::parse(&again).unwrap(), token);
        // The kernel's list is the same to the byte; only zlib-rs packs it in its own way.
        assert_eq!(again.split('-').nth(2), words.split('-').nth(2), "{name}");
        let (spec, source) = resolve_token(pool.io(), &pool.dsl, &token).unwrap();
        let mut out = Vec::new();
        send_one(pool.io(), &source, spec.flags, Packing::Native, &mut out, &mut |_| {}).unwrap();
        assert_same(&out, &made(&format!("{name}.resume.zfs")).unwrap());
        let told = text(&format!("{name}.est"));
        let told = told.lines().last().unwrap().split('\t').nth(1).unwrap().parse::<u64>().unwrap();
        assert_eq!(estimate(pool.io(), &pool.dsl, &spec).unwrap(), told, "{name}");
    }
}

#[test]
fn estimates_are_openzfs_own() {
    if made("estimates").is_none() {
        return;
    }
    let pool = main_pool();
    let lines = text("estimates");
    let mut lines = lines.lines();
    while let (Some(args), Some(size)) = (lines.next(), lines.next()) {
        let size = size.split('\t').nth(1).unwrap().parse::<u64>().unwrap();
        let (mut spec, mut words) = (PackageSpec::default(), args.split(' '));
        let mut from = None;
        while let Some(word) = words.next() {
            match word {
                "-w" => spec.send.flags.raw = true,
                "-c" => spec.send.flags.compress = true,
                "-R" => spec.replicate = true,
                "-i" => from = words.next(),
                "-I" => (from, spec.intermediates) = (words.next(), true),
                to => spec.send.to = to.into(),
            }
        }
        let path = spec.send.to.split('@').next().unwrap().to_owned();
        spec.send.from =
            from.map(|f| if f.starts_with(['@', '#']) { format!("{path}{f}") } else { f.into() });
        let streams = estimate_package(pool.io(), &pool.dsl, &spec);
        let made = streams.map(|s| s.iter().map(|s| s.bytes).sum::<u64>()).map_err(|e| e.to_string());
        assert_eq!(made, Ok(size), "{args}");
    }
}

#[test]
fn clones_and_intermediates() {
    if made("clone-list").is_none() {
        return;
    }
    let shapes = open(&[&zoo("shapes.img").unwrap()]);
    for line in text("clone-list").lines() {
        let (origin, to) = line.split_once(' ').unwrap();
        let file = format!("clone-{}.zfs", to.replace('/', "_"));
        if fs::metadata(made(&file).unwrap()).unwrap().len() > 0 {
            same(&shapes, Some(origin), to, PLAIN, &file);
        }
    }
    let main = main_pool();
    let (from, to) = ("main/plain@root", "main/plain@newsnapshot");
    let mut spec = PackageSpec { send: spec(Some(from), to, PLAIN), ..PackageSpec::default() };
    spec.properties = true;
    assert_same(&package(&main, &spec).unwrap().1, &made("plain.pi.zfs").unwrap());
    (spec.properties, spec.intermediates) = (false, true);
    assert_same(&package(&main, &spec).unwrap().1, &made("plain.I.zfs").unwrap());
}

#[test]
fn holes_spills_and_reused_objects() {
    let Some(image) = made("holes.img") else { return };
    let pool = open(&[&image]);
    for (dataset, flags) in [("plain", PLAIN), ("enc", RAW)] {
        for pair in ["a-b", "b-c", "a-c", "c-d", "b-d", "a-d"] {
            let (from, to) = pair.split_once('-').unwrap();
            let (from, to) = (format!("holes/{dataset}@{from}"), format!("holes/{dataset}@{to}"));
            same(&pool, Some(&from), &to, flags, &format!("holes-{dataset}-{pair}.zfs"));
        }
        same(&pool, None, &format!("holes/{dataset}@d"), flags, &format!("holes-{dataset}-d.zfs"));
    }
    same(&pool, Some("holes/enc#a"), "holes/enc@c", RAW, "holes-enc-mark.zfs");
    let tree = |to: &str, from: Option<&str>| PackageSpec {
        send: SendSpec { ..spec(from, to, RAW) },
        replicate: true,
        ..PackageSpec::default()
    };
    for (spec, file) in
        [(tree("holes@d", None), "holes.raw-R.zfs"), (tree("holes@c", Some("holes@a")), "holes.raw-R-i.zfs")]
    {
        assert_same(&package(&pool, &spec).unwrap().1, &made(file).unwrap());
    }
}

#[test]
fn decrypted_yet_compressed() {
    if made("docs.c.zfs").is_none() {
        return;
    }
    let mut pool = main_pool();
    let c = SendFlags { compress: true, ..PLAIN };
    let (docs, new) = ("main/encrypted/docs@root", "main/encrypted/docs@newsnapshot");
    let (photos, vol) = ("main/encrypted/photos@newsnapshot", "main/encrypted/vol@newsnapshot");
    for snapshot in [docs, new, photos, vol] {
        unlock(&mut pool, snapshot, "correct horse battery staple");
    }
    same(&pool, None, docs, c, "docs.c.zfs");
    same(&pool, None, photos, LEC, "photos.Lec.zfs");
    same(&pool, Some(docs), new, c, "docs-i.c.zfs");
    same(&pool, None, photos, PLAIN, "photos.zfs");
    same(&pool, None, vol, PLAIN, "vol.zfs");
}
