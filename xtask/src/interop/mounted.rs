//! The act "mounted": files written through mounts, in the hands of real OpenZFS.
//!
//! The awkward folder of the act "day" is made by ordinary programs in an encrypted and a plain file system that the service has
//! mounted, snapshotted while mounted, and changed; zdb judges, and OpenZFS compares every entry of the snapshots and the
//! heads, counts what directories and owners have, and scrubs (`interop/mounted.sh`).

use std::fs;

use icecore_check::fixture::repo_root;

use super::Stage;
use crate::shell::Outcome;
use crate::stand::{Stand, no_mounts};

const POOL_MIB: u64 = 768;

impl Stage {
    pub(super) fn mounted(&self) -> Outcome {
        if let Some(why) = no_mounts() {
            eprintln!("SKIPPED: the act \"mounted\": {why}");
            return Ok(());
        }
        fs::copy(repo_root().join("interop/day-lib.sh"), self.dir.join("day-lib.sh"))
            .map_err(|e| e.to_string())?;
        let stand = Stand::new(self.icecore.clone(), self.dir.join("stand"))?;
        stand.pool("mounted", POOL_MIB)?;
        let file_systems = [
            ("enc", stand.encrypted("mounted/enc", &["recordsize=4K", "xattr=sa"])?),
            ("plain", stand.plain("mounted/plain", &["recordsize=1M"])?),
        ];
        for (name, dir) in &file_systems {
            let dir = dir.display();
            self.day_shell(&format!("make_tree '{dir}'; tree '{dir}' > {name}.first"))?;
        }
        stand.icecore(&["zfs", "snapshot", "-r", "mounted@first"])?;
        for (name, dir) in &file_systems {
            let dir = dir.display();
            self.day_shell(&format!("change_tree '{dir}'; tree '{dir}' > {name}.second"))?;
        }
        stand.judged("mounted")?;
        self.guest(
            "mounted.sh",
            &["day-lib.sh", "enc.first", "enc.second", "plain.first", "plain.second"],
            &["stand/disks/mounted/disk.img"],
        )
        .map(drop)
    }
}
