//! `zpool labelclear`.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session;
use icecore_env::Access;
use icecore_vdev::{Labels, PoolState, label};
use std::os::unix::fs::FileTypeExt;

/// Where the labels at the end of a device begin, seen from there: of less nothing is read (`zpool_read_label`).
const TWO_LABELS: u64 = 512 << 10;

pub const USAGE: &str = "labelclear [-f] <vdev>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('f', "")], USAGE)?;
    let path = match typed.operands.as_slice() {
        [path] => path,
        [] => return Err(Fail::usage("missing vdev name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    // A name by itself is looked for among the devices, too (`zfs_resolve_shortname`).
    let device = format!("/dev/{path}");
    let is_there = |path: &str| std::fs::metadata(path).is_ok();
    let path = if !path.starts_with('/') && !is_there(path) && is_there(&device) { &device } else { path };
    match std::fs::metadata(path) {
        Err(e) => {
            return Err(Fail::new(match path.contains('/') {
                true => format!("failed to open {path}: {}", crate::human::os_error(&e)),
                false => format!("failed to find device {path}, try specifying absolute path instead"),
            }));
        }
        Ok(m) if m.is_dir() => return Err(Fail::new(format!("failed to open {path}: Is a directory"))),
        Ok(m) if !m.is_file() && !m.file_type().is_block_device() => {
            return Err(Fail::new(format!("failed to read label from {path}")));
        }
        Ok(_) => {}
    }
    if let Some(pool) = super::vdevs::imported_on(path.as_ref())? {
        // Not even with -f (`zpool_do_labelclear`).
        let more = if typed.has('f') { ". Offline the disk first to clear its label." } else { "" };
        return Err(Fail::new(format!(
            "{path} is a member (ACTIVE) of pool \"{pool}\"{more}\n(it is imported here: export it, or detach the device)"
        )));
    }
    let devices = session::open_devices(path.as_ref(), Access::Exclusive)
        .map_err(|f| Fail::new(format!("failed to open {path}: {}", f.message)))?;
    for device in devices {
        let labels = Labels::read(&*device);
        let Some(best) = labels.best(icecore_format::Txg(u64::MAX)) else {
            return Err(match device.size() < TWO_LABELS {
                true => Fail::new(format!("failed to read label from {path}")),
                false => Fail::new(format!("failed to clear label for {path}\n(it has none)")).negative(),
            });
        };
        let name = best.name.clone().unwrap_or_default();
        let exported = [PoolState::EXPORTED, PoolState::DESTROYED].contains(&best.pool_state());
        if !exported && !typed.has('f') {
            return Err(Fail::new(format!(
                "use '-f' to override the following error:\n{path} is a member of potentially active pool \"{name}\""
            )));
        }
        if exported && !typed.has('f') && best.pool_state() == PoolState::EXPORTED {
            return Err(Fail::new(format!(
                "use '-f' to override the following error:\n{path} is a member of exported pool \"{name}\""
            )));
        }
        label::clear(&*device).map_err(|e| Fail::new(format!("failed to clear label for {path}: {e}")))?;
        device.flush().map_err(|e| Fail::new(format!("failed to clear label for {path}: {e}")))?;
    }
    Ok(())
}
