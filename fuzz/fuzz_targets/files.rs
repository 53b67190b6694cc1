//! Every layer from the meta objset to files' contents, on blocks that make no sense although their checksums are right:
//! block trees, ZAPs, system attributes, directories, access lists, properties, the walk of a scrub.
#![no_main]
mod common;

use common::{NoChance, Tampered, image};
use icecore_dmu::BlockStore;
use icecore_dsl::{Dsl, PoolInfo};
use icecore_pool::Pool;
use icecore_zpl::{Content, Dataset, Step, Walk};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static POOL: Pool = icecore_check::zoo::open(&[image()]).expect("a sound pool");
}

/// Steps of a walk and windows of a file that are looked at.
const STEPS: usize = 400;
const WINDOWS: usize = 4;

fn contents(os: &icecore_dmu::Objset, io: &dyn BlockStore, mut content: Content) {
    for _ in 0..WINDOWS {
        match content.next_window(os, io) {
            Ok(extents) if !extents.is_empty() => {}
            _ => break,
        }
    }
}

fn look(io: &dyn BlockStore, dsl: &Dsl, name: &str) {
    let _ = dsl.props(io, name);
    match icecore_zpl::open(io, dsl, name) {
        Ok(Dataset::Volume(v)) => contents(v.objset(), io, v.content()),
        Ok(Dataset::Filesystem(fs)) => {
            let Ok(root) = fs.znode(io, fs.root()) else { return };
            let Ok(mut walk) = Walk::new(&fs, io, root) else { return };
            for _ in 0..STEPS {
                match walk.next(&fs, io) {
                    Some(Step::File { znode, .. }) => {
                        let _ = (fs.xattrs(io, &znode), fs.acl(io, &znode));
                        if let Ok(content) = fs.content(&znode) {
                            contents(fs.objset(), io, content);
                        }
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
        Err(_) => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    POOL.with(|pool| {
        let io = Tampered::new(pool.io(), rest, 4000);
        let info = PoolInfo { name: pool.name().into(), version: 5000, usable: 1 << 28 };
        let Ok(dsl) = Dsl::open(&io, &pool.uberblock().rootbp, info, Box::new(NoChance)) else { return };
        let Ok(names) = dsl.descendants(&io, pool.name()) else { return };
        // One or two datasets an input: the edits fall where it looks.
        let from = usize::from(*first) % names.len().max(1);
        for name in names.iter().skip(from).take(2) {
            look(&io, &dsl, name);
            for (snap, _) in dsl.snapshots(&io, name).unwrap_or_default().iter().take(2) {
                look(&io, &dsl, &format!("{name}@{snap}"));
            }
            let _ = dsl.bookmarks(&io, name);
        }
    });
});
