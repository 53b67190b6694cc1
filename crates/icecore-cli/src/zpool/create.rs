//! `zpool create` for single disks and mirrors.

use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session;
use crate::state::{self, Imported};
use icecore_env::{Access, Device, Env, FileDevice};
use icecore_pool::{CreateSpec, Pool};
use icecore_vdev::create::{self, NewKind, NewLeaf, NewTop};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const USAGE: &str = "create [-fn] [-o property=value] ... [-O file-system-property=value] ...\n\t    [-m mountpoint] [-R root] <pool> <vdev> ...";

pub fn run(args: &[String]) -> Outcome {
    let known =
        [flag('f', ""), flag('n', ""), value('o', ""), value('O', ""), value('m', ""), value('R', "")];
    let typed = Typed::parse(args, &known, USAGE)?;
    let [name, vdevs @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing pool name argument", USAGE));
    };
    let fail = |why: String| Fail::new(format!("cannot create '{name}': {why}"));
    if vdevs.is_empty() {
        return Err(Fail::usage("missing vdev specification", USAGE));
    }
    if state::find(name)?.is_some() {
        return Err(fail("pool already exists".into()));
    }
    let Options { ashift, comment, features } = pool_options(&typed)?;
    let features = icecore_pool::features::chosen(&features).map_err(fail)?;
    let mut props: Vec<(String, String)> = Vec::new();
    for o in typed.values('O') {
        let (p, v) = crate::zfs::split(o, USAGE)?;
        props.push((p.into(), v.into()));
    }
    if let Some(m) = typed.value('m') {
        props.push(("mountpoint".into(), m.into()));
    }
    // Before anything is written to a device.
    for (p, v) in &props {
        if matches!(p.as_str(), "encryption" | "keyformat" | "keylocation" | "pbkdf2iters") && v != "off" {
            return Err(fail(format!(
                "property '{p}': a pool's root dataset is made without encryption here; make an encrypted dataset below it"
            )));
        }
        icecore_dsl::prop::parse_new(p, v).map_err(|e| fail(format!("property '{p}': {e}")))?;
    }
    let layout = layout(vdevs)?;
    let mut paths = Vec::new();
    let mut tops = Vec::new();
    for (kind, members) in layout {
        let mut leaves = Vec::new();
        for member in members {
            let leaf = leaf(&member, typed.has('f'), typed.has('n'))?;
            paths.push(PathBuf::from(&leaf.path));
            leaves.push(leaf);
        }
        tops.push(NewTop { kind, leaves, log: false, ashift });
    }
    let env = Env::os();
    let tree = create::build(tops, &*env.entropy).map_err(|e| fail(e.to_string()))?;
    if typed.has('n') {
        println!("would create '{name}' with the following layout:\n\n\t{name}");
        vdevs.iter().for_each(|v| println!("\t  {v}"));
        return Ok(());
    }
    let spec = CreateSpec {
        name: name.clone(),
        root: tree.root,
        devices: tree.devices,
        host: session::host(),
        comment,
        features,
    };
    let mut pool = Pool::create(env, spec).map_err(|e| fail(e.to_string()))?;
    if !props.is_empty() {
        let (io, dsl) = pool.parts();
        for (p, v) in &props {
            dsl.prop_set(io, name, p, v).map_err(|e| fail(format!("property '{p}': {e}")))?;
        }
        pool.commit()?;
    }
    state::remember(&Imported {
        name: name.clone(),
        guid: pool.guid().0,
        devices: paths,
        readonly: false,
        altroot: typed.value('R').unwrap_or("").into(),
        max_txg: None,
    })
}

/// What `-o` may say.
#[derive(Default)]
struct Options {
    ashift: Option<u64>,
    comment: Option<String>,
    /// Short names, and whether they are wanted.
    features: Vec<(String, bool)>,
}

fn pool_options(typed: &Typed) -> Outcome<Options> {
    let mut options = Options::default();
    for o in typed.values('o') {
        let (p, v) = crate::zfs::split(o, USAGE)?;
        match p {
            "ashift" => {
                let n: u64 =
                    v.parse().map_err(|_| Fail::new(format!("bad property value '{v}' for 'ashift'")))?;
                if n != 0 && !(9..=16).contains(&n) {
                    return Err(Fail::new(format!(
                        "invalid 'ashift={n}' property: only values between 9 and 16 are allowed."
                    )));
                }
                options.ashift = (n != 0).then_some(n);
            }
            "comment" => options.comment = Some(v.to_string()),
            "compatibility" | "cachefile" | "autotrim" | "autoexpand" => {}
            p if p.starts_with("feature@") => {
                let on = match v {
                    "enabled" => true,
                    "disabled" => false,
                    _ => {
                        return Err(Fail::new(format!(
                            "property '{p}' can only be set to 'enabled' or 'disabled'"
                        )));
                    }
                };
                options.features.push((p["feature@".len()..].to_string(), on));
            }
            p => return Err(Fail::new(format!("property '{p}' is not a valid pool or vdev property"))),
        }
    }
    Ok(options)
}

/// `[mirror] DEV…`: the top-level vdevs asked for.
fn layout(words: &[String]) -> Outcome<Vec<(NewKind, Vec<String>)>> {
    let mut out: Vec<(NewKind, Vec<String>)> = Vec::new();
    let mut grouped = false;
    for w in words {
        match w.as_str() {
            "mirror" => {
                out.push((NewKind::Mirror, Vec::new()));
                grouped = true;
            }
            "raidz" | "raidz1" | "raidz2" | "raidz3" | "draid" | "log" | "cache" | "spare" | "special"
            | "dedup" => {
                return Err(Fail::new(format!(
                    "invalid vdev specification: '{w}' is not supported for new pools yet; single disks and mirrors are"
                )));
            }
            dev if grouped => {
                if let Some(last) = out.last_mut() {
                    last.1.push(dev.into());
                }
            }
            dev => out.push((NewKind::Single, vec![dev.into()])),
        }
    }
    match out.iter().find(|(k, m)| *k == NewKind::Mirror && m.len() < 2) {
        Some(_) => Err(Fail::new("invalid vdev specification: mirror requires at least 2 devices")),
        None => Ok(out),
    }
}

fn leaf(name: &str, force: bool, dry: bool) -> Outcome<NewLeaf> {
    let path = if name.contains('/') {
        std::path::absolute(name).unwrap_or_else(|_| name.into())
    } else {
        Path::new("/dev").join(name)
    };
    let fail = |why: String| Fail::new(format!("cannot use '{}': {why}", path.display()));
    if let Some(at) = icecore_env::mounted_at(&path) {
        return Err(fail(format!("it is mounted at {}", at.display())));
    }
    if let Some(pool) = imported_on(&path)? {
        // Not even with -f: that pool is in use here, and its next command would find its data gone.
        return Err(fail(format!(
            "it is part of pool '{pool}', which is imported here; export or forget that pool first"
        )));
    }
    let access = if dry { Access::ReadOnly } else { Access::Exclusive };
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(&path, access).map_err(|e| fail(e.to_string()))?);
    if !force {
        create::check_unused(&*device).map_err(|e| {
            Fail::new(format!(
                "invalid vdev specification\nuse '-f' to override the following errors:\n{}: {e}",
                path.display()
            ))
        })?;
    }
    let block = std::fs::metadata(&path).is_ok_and(|m| m.file_type().is_block_device());
    let whole = block && is_whole_disk(&path);
    let device = if whole && !dry {
        let part = icecore_vdev::gpt::write(&device, &*Env::os().entropy).map_err(|e| fail(e.to_string()))?;
        Arc::new(part) as Arc<dyn Device>
    } else {
        device
    };
    Ok(NewLeaf { device, path: path.display().to_string(), whole_disk: block.then_some(whole) })
}

/// The imported pool that has the device at `path`, by whatever name.
pub fn imported_on(path: &Path) -> Outcome<Option<String>> {
    let real = |p: &Path| std::fs::canonicalize(p).unwrap_or_else(|_| p.to_path_buf());
    let path = real(path);
    Ok(state::all()?.into_iter().find(|p| p.devices.iter().any(|d| real(d) == path)).map(|p| p.name))
}

/// A disk that can be partitioned, as against a partition or a volume: the kernel lists it so.
fn is_whole_disk(path: &Path) -> bool {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(name) = real.file_name() else { return false };
    let sys = Path::new("/sys/class/block").join(name);
    sys.join("device").exists() && !sys.join("partition").exists()
}
