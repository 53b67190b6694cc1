//! Sends from pools whose blocks make no sense although their checksums are right.
#![no_main]
mod common;

use common::{NoChance, Tampered, image};
use icecore_dsl::{Dsl, PoolInfo};
use icecore_pool::Pool;
use icecore_stream::send::{PackageSpec, SendFlags, send_package};
use libfuzzer_sys::fuzz_target;
use std::io::Write;

thread_local! {
    static POOL: Pool = icecore_check::zoo::open(&[image()]).expect("a sound pool");
}

/// Takes so many bytes and no more.
struct Short(usize);

impl Write for Short {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    POOL.with(|pool| {
        let io = Tampered::new(pool.io(), rest, 3000);
        let info = PoolInfo { name: pool.name().into(), version: 5000, usable: 1 << 28 };
        let Ok(dsl) = Dsl::open(&io, &pool.uberblock().rootbp, info, Box::new(NoChance)) else { return };
        let Ok(names) = dsl.descendants(&io, pool.name()) else { return };
        let Some(name) = names.get(usize::from(*first >> 4) % names.len().max(1)) else { return };
        let Ok(snaps) = dsl.snapshots(&io, name) else { return };
        let Some((last, _)) = snaps.last() else { return };
        let mut spec = PackageSpec::default();
        spec.send.to = format!("{name}@{last}");
        spec.replicate = first & 1 != 0;
        spec.properties = first & 2 != 0;
        spec.send.flags =
            SendFlags { raw: first & 4 != 0, large_block: true, embed: first & 8 != 0, compress: first & 8 != 0 };
        if !spec.replicate
            && let [(from, _), _, ..] = snaps.as_slice()
        {
            spec.send.from = Some(format!("{name}@{from}"));
        }
        let _ = send_package(&io, &dsl, &spec, &mut Short(8 << 20), &mut |_| {});
    });
});
