//! Targets that read a pool made by OpenZFS through [`Tampered`]: checksums hold, contents do not.

use super::tampered::{NoChance, Tampered, image};
use icecore_dmu::BlockStore;
use icecore_dsl::{Dsl, PoolInfo};
use icecore_pool::Pool;
use icecore_stream::send::{PackageSpec, SendFlags, send_package};
use icecore_zpl::{Content, Dataset, Step, Walk};
use std::io::Write;

thread_local! {
    static IMAGE: Pool = crate::zoo::open(&[image()]).expect("a sound pool");
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

/// Reads all that is small and some of what is large.
pub(super) fn look(io: &dyn BlockStore, dsl: &Dsl, name: &str) {
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

/// Every layer from the meta objset to the contents of files, on blocks that make no sense although their checksums are
/// right: block trees, ZAPs, system attributes, directories, access lists, properties, keys, sums of space.
pub fn files(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    IMAGE.with(|pool| {
        let io = Tampered::new(pool.io(), rest, 4000);
        let info = PoolInfo { name: pool.name().into(), version: 5000, usable: 1 << 28, at_once: 1 << 23 };
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
            let snaps = dsl.snapshots(&io, name).unwrap_or_default();
            if let [(_, a), .., (_, b)] = snaps.as_slice() {
                let _ = (dsl.space_would_free(&io, a.obj, b.obj), dsl.space_written(&io, a.obj, b.obj));
            }
            if let Ok(head) = dsl.lookup_head(&io, name) {
                let _ = (dsl.key_object(&io, head.dir), dsl.encryption_root(&io, head.dir));
                let _ = (dsl.available(&io, head), dsl.modified_since_snapshot(&io, head));
            }
        }
    });
}

/// Takes so many bytes and no more.
pub(super) struct Short(pub(super) usize);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends from pools whose blocks make no sense although their checksums are right.
pub fn send(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    IMAGE.with(|pool| {
        let io = Tampered::new(pool.io(), rest, 3000);
        let info = PoolInfo { name: pool.name().into(), version: 5000, usable: 1 << 28, at_once: 1 << 23 };
        let Ok(dsl) = Dsl::open(&io, &pool.uberblock().rootbp, info, Box::new(NoChance)) else { return };
        let Ok(names) = dsl.descendants(&io, pool.name()) else { return };
        let Some(name) = names.get(usize::from(*first >> 4) % names.len().max(1)) else { return };
        let Ok(snaps) = dsl.snapshots(&io, name) else { return };
        let Some((last, _)) = snaps.last() else { return };
        let mut spec = PackageSpec::default();
        spec.send.to = format!("{name}@{last}");
        spec.replicate = first & 1 != 0;
        spec.properties = first & 2 != 0;
        spec.send.flags = SendFlags {
            raw: first & 4 != 0,
            large_block: true,
            embed: first & 8 != 0,
            compress: first & 8 != 0,
        };
        if !spec.replicate
            && let [(from, _), _, ..] = snaps.as_slice()
        {
            spec.send.from = Some(format!("{name}@{from}"));
        }
        let _ = send_package(&io, &dsl, &spec, &mut Short(8 << 20), &mut |_| {});
    });
}
