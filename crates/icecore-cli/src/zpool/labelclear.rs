//! `zpool labelclear`.

use crate::args::{Typed, flag};
use crate::fail::{Fail, Outcome};
use crate::session;
use icecore_env::Access;
use icecore_vdev::{Labels, PoolState, label};

pub const USAGE: &str = "labelclear [-f] <vdev>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('f', "")], USAGE)?;
    let path = match typed.operands.as_slice() {
        [path] => path,
        [] => return Err(Fail::usage("missing vdev name", USAGE)),
        _ => return Err(Fail::usage("too many arguments", USAGE)),
    };
    if let Err(e) = std::fs::metadata(path) {
        return Err(Fail::new(match path.contains('/') {
            true => format!("failed to open {path}: {}", crate::human::os_error(&e)),
            false => format!("failed to find device {path}, try specifying absolute path instead"),
        }));
    }
    if let Some(pool) = super::vdevs::imported_on(path.as_ref())? {
        // Not even with -f (`zpool_do_labelclear`).
        return Err(Fail::new(format!(
            "{path} is a member of pool '{pool}', which is imported here; export that pool first"
        )));
    }
    let devices = session::open_devices(path.as_ref(), Access::Exclusive)
        .map_err(|f| Fail::new(format!("failed to open {path}: {}", f.message)))?;
    for device in devices {
        let labels = Labels::read(&*device);
        let best = labels
            .best(icecore_format::Txg(u64::MAX))
            .ok_or_else(|| Fail::new(format!("failed to read label from {path}")))?;
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
