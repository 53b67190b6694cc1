//! `zpool add` of single disks and mirrors (`zpool_do_add`, zpool_main.c; `zpool_add`, libzfs_pool.c).

use super::import::Naming;
use super::vdevs::{self, Groups, Terms};
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For, Open};
use crate::state;
use icecore_pool::Pool;
use icecore_vdev::VdevConfig;

pub const USAGE: &str = "add [-fgLnP] [-o property=value] <pool> <vdev> ...";

pub fn run(args: &[String]) -> Outcome {
    let known = [
        flag('f', ""),
        flag('g', ""),
        flag('L', ""),
        flag('n', ""),
        flag('P', ""),
        value('o', ""),
        flag('U', "allow-in-use"),
        flag('M', "allow-replication-mismatch"),
        flag('A', "allow-ashift-mismatch"),
    ];
    let typed = Typed::parse_plain(args, &known, USAGE)?;
    let mut wish = None;
    for text in vdevs::ashift_options(&typed, USAGE) {
        wish = Some(text?);
    }
    let [name, words @ ..] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing pool name argument", USAGE));
    };
    if words.is_empty() {
        return Err(Fail::usage("missing vdev specification", USAGE));
    }
    let force = typed.has('f');
    if force && ['U', 'M', 'A'].iter().any(|c| typed.has(*c)) {
        return Err(Fail::usage(
            "'-f' option is not allowed with '--allow-replication-mismatch', '--allow-ashift-mismatch', or '--allow-in-use'",
            USAGE,
        ));
    }
    let mut record = state::named(name)?;
    let dry = typed.has('n');
    for word in words {
        let path = vdevs::full_path(word);
        // What holds no files cannot be waited for, and a folder is no device, wherever it is.
        if path.is_dir() {
            vdevs::resolve(word)?;
        }
        crate::mounts::refuse(&path, name)?;
    }
    let mut pool = session::open_record(&record, if dry { For::Read } else { For::Write })
        .map_err(|f| Fail { message: format!("cannot open '{name}': {}", f.message), ..f })?;
    let wish = wish.map(vdevs::ashift).transpose()?.flatten();
    let ashift = wish.or(pool.property("ashift")?.filter(|n| *n != 0));
    let terms =
        Terms { in_use: force || typed.has('U'), mismatch: force || typed.has('M'), dry, pool: Some(&pool) };
    let groups = vdevs::members(words, terms)?;
    if dry {
        would_be(&pool, &groups, &typed);
        return Ok(());
    }
    let fail = |why: String| Fail::new(format!("cannot add to '{name}': {why}"));
    vdevs::check(&groups, ashift).map_err(|unfit| fail(unfit.of_old_pool()))?;
    if !force && !typed.has('A') {
        same_ashift(&pool, &groups, ashift).map_err(fail)?;
    }
    state::can_remember(name)?;
    // From here on the new devices are written.
    let (tops, paths) = vdevs::take(groups, ashift)?;
    pool.add(tops).map_err(|e| fail(e.to_string()))?;
    drop(pool);
    record.devices.extend(paths);
    state::remember(&record)
}

/// A pool all of whose vdevs have sectors of one size gets no others unasked (`spa_vdev_add`, spa.c).
fn same_ashift(pool: &Open, groups: &Groups, ashift: Option<u64>) -> Result<(), String> {
    let Some(tree) = pool.config().vdev_tree.as_ref() else { return Ok(()) };
    let mut all = tree.children.iter().filter_map(|top| top.ashift);
    let Some(first) = all.next() else { return Ok(()) };
    if all.all(|other| other == first) && vdevs::ashifts(groups, ashift).iter().any(|new| *new != first) {
        return Err("adding devices with different physical sector sizes is not allowed".into());
    }
    Ok(())
}

/// What the pool would be (`-n`).
fn would_be(pool: &Pool, groups: &Groups, typed: &Typed) {
    println!("would update '{0}' to the following configuration:\n\n\t{0}", pool.name());
    let tree = pool.config().vdev_tree.as_ref();
    tree.into_iter().flat_map(|t| &t.children).for_each(|top| old(pool, top, 2, typed));
    groups.iter().for_each(|group| vdevs::show(group, typed.has('P')));
}

fn old(pool: &Pool, v: &VdevConfig, indent: usize, typed: &Typed) {
    let name = Naming::of(typed).name(v, pool.io().vdevs());
    println!("\t{:indent$}{name}", "");
    v.children.iter().for_each(|side| old(pool, side, indent + 2, typed));
}
