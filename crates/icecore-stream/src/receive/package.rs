//! Packages of streams (`zfs send -R`, `-I`, `-p`): names, order, and what is done around the streams.
//!
//! Facts: `zfs_receive_package`, `zfs_receive_impl`, `zfs_receive_one`, `recv_incremental_replication`,
//! `recv_fix_encryption_hierarchy`, libzfs_sendrecv.c.
//!
//! Invariants:
//! 1. Datasets and snapshots are recognised by guid, never by name.
//! 2. Nothing is destroyed, renamed or promoted unless `-F` was given; everything that is, is listed.
//! 3. A dataset becomes part of its parent's encryption root only if that one's key opens it (`roots`).
//! 4. The sender's `keylocation` is not taken: roots made here ask for their key.

use super::begin::snapshots_with_guid;
use super::error::ReceiveError;
use super::roots::{self, Renewed};
use super::{Context, Naming, Run, exists, is_resuming, props};
use icecore_dmu::BlockStore;
use icecore_dsl::{Dsl, name};
use icecore_format::NvList;
use icecore_format::nvlist::NvValue;
use icecore_format::stream::{Begin, Record, begin_flag};
use std::collections::{BTreeMap, BTreeSet};

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// What is to be destroyed, and what to be renamed to what.
type Changes = (Vec<String>, Vec<(String, String)>);

/// Rounds of renaming and destroying, each of which may make room for the next.
const PASSES_MAX: usize = 8;

/// What a package says about its file systems, by guid of their snapshots.
struct Fss<'a> {
    all: Vec<&'a NvList>,
    by_guid: BTreeMap<u64, (usize, String)>,
}

impl<'a> Fss<'a> {
    fn new(list: &'a NvList) -> Self {
        let mut out = Self { all: Vec::new(), by_guid: BTreeMap::new() };
        let Some(fss) = list.list("fss") else { return out };
        for (_, value) in fss.iter() {
            let NvValue::List(fs) = value else { continue };
            for (snap, guid) in fs.list("snaps").into_iter().flat_map(NvList::iter) {
                if let (Some(snap), NvValue::U64(guid)) = (snap.as_str(), guid) {
                    out.by_guid.insert(*guid, (out.all.len(), snap.to_string()));
                }
            }
            out.all.push(fs);
        }
        out
    }
    /// The file system that a snapshot belongs to at the sender, and the snapshot's name there.
    fn find(&self, guid: u64) -> Option<(&'a NvList, &str)> {
        let (at, snap) = self.by_guid.get(&guid)?;
        self.all.get(*at).map(|fs| (*fs, snap.as_str()))
    }
    /// Which file system was the encryption root of that of a snapshot at the sender: itself, or the nearest
    /// above it that is one.
    fn root_of(&self, guid: u64) -> Option<usize> {
        let mut path = self.find(guid)?.0.str("name")?;
        loop {
            let at = self.all.iter().position(|fs| fs.str("name") == Some(path))?;
            if self.all.get(at)?.contains("is_encroot") {
                return Some(at);
            }
            path = path.rsplit_once('/')?.0;
        }
    }
}

/// A local dataset of the tree that a package goes to.
struct Local {
    path: String,
    snaps: Vec<(String, u64)>,
}

fn locals(dsl: &Dsl, io: &dyn BlockStore, top: &str) -> Result<Vec<Local>> {
    let mut out = Vec::new();
    for path in dsl.descendants(io, top)? {
        let mut snaps = Vec::new();
        for (name, snap) in dsl.snapshots(io, &path)? {
            snaps.push((name, dsl.dataset(io, snap.obj)?.guid));
        }
        out.push(Local { path, snaps });
    }
    Ok(out)
}

/// The name that a dataset here gets to be where it is at the sender, below the parent it has there; `None`
/// if it is there already.
fn new_name(fss: &Fss<'_>, all: &[Local], local: &Local, fs: &NvList) -> Option<String> {
    let (sent, parent_guid) = (fs.str("name")?, fs.u64("parentfromsnap")?);
    let (own_parent, _) = local.path.rsplit_once('/')?;
    let parent = match fss.find(parent_guid) {
        Some(_) => &all.iter().find(|l| l.snaps.iter().any(|(_, g)| *g == parent_guid))?.path,
        None => own_parent,
    };
    Some(format!("{parent}/{}", last(sent))).filter(|to| *to != local.path)
}

/// Whether the clone `local`, which comes from a snapshot of `all`, has an older origin at the sender, or none (0): then it
/// was promoted there (`created_before`, libzfs_sendrecv.c).
fn is_promoted(dsl: &Dsl, io: &dyn BlockStore, all: &[Local], local: &Local, origin: u64) -> Result<bool> {
    let dir = dsl.dir(io, dsl.lookup_head(io, &local.path)?.dir)?;
    if !dsl.is_clone(&dir) {
        return Ok(false);
    }
    let from = dsl.dataset(io, dir.origin_obj)?;
    let name_of = |guid: u64| {
        let snap =
            |l: &Local| l.snaps.iter().find(|(_, g)| *g == guid).map(|(s, _)| format!("{}@{s}", l.path));
        all.iter().find_map(snap)
    };
    if origin == from.guid || name_of(from.guid).is_none() {
        return Ok(false);
    }
    if origin == 0 {
        return Ok(true);
    }
    let Some(name) = name_of(origin) else { return Ok(false) };
    let sent = dsl.lookup_snapshot(io, &name)?;
    Ok(dsl.dataset(io, sent.obj)?.creation_txg < from.creation_txg)
}

/// The part after the last slash.
fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, l)| l)
}

impl Run<'_> {
    /// Dataset and snapshot that the stream `toname` goes to. `sent` is the dataset that was sent.
    pub(super) fn place_name(
        &mut self,
        begin: &Begin,
        toname: &str,
        sent: &str,
        context: Option<Context<'_>>,
    ) -> Result<(String, String)> {
        let full = destination(&self.spec.target, self.spec.naming, toname, sent)?;
        // Names with '%' and '$' are for hidden clones and the pool's own directories.
        if name::check(&full).is_err() || full.contains(['%', '$', '#']) {
            return Err(ReceiveError::Name(full));
        }
        let Some((path, snap)) = full.split_once('@').filter(|(_, s)| !s.is_empty()) else {
            return Err(ReceiveError::Name(full));
        };
        let (mut path, snap) = (path.to_string(), snap.to_string());
        let (io, dsl) = self.engine.parts();
        let fresh = begin.fromguid == 0 || begin.flags & begin_flag::CLONE != 0 || self.spec.origin.is_some();
        let below_top = toname.strip_prefix(sent).is_some_and(|rest| !rest.starts_with('@'));
        if fresh && !is_resuming(begin) {
            // The parent may have been renamed here: it is found by the snapshot it was sent with.
            if let Some((parent, base)) = path.rsplit_once('/')
                && !exists(dsl, io, parent)
                && let Some(guid) = context.and_then(|c| c.fs.u64("parentfromsnap")).filter(|g| *g != 0)
                && let Some((found, _)) = snapshots_with_guid(dsl, io, guid)?.into_iter().next()
                && let Some((dataset, _)) = found.split_once('@')
            {
                path = format!("{dataset}/{base}");
            }
            if self.spec.naming == Naming::Prefix && !self.spec.dry_run {
                self.make_parents(&path)?;
            }
        } else if (self.spec.naming != Naming::Exact || below_top) && !exists(dsl, io, &path) {
            let found = snapshots_with_guid(dsl, io, begin.fromguid)?.into_iter().next();
            if let Some((dataset, _)) = found.as_ref().and_then(|(n, _)| n.split_once('@')) {
                path = dataset.to_string();
            }
        }
        Ok((path, snap))
    }

    /// Makes the missing datasets between the target and `path`.
    fn make_parents(&mut self, path: &str) -> Result<()> {
        let target = self.spec.target.as_str();
        let rest = path.strip_prefix(target).unwrap_or("").trim_start_matches('/');
        let mut at = target.to_string();
        let parts: Vec<&str> = rest.split('/').collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            at = format!("{at}/{part}");
            let (io, dsl) = self.engine.parts();
            if !exists(dsl, io, &at) {
                self.uncommitted = true;
                let made = dsl.create_filesystem(io, &at, &[])?;
                if let Some(keys) = dsl.master_keys(io, made.dir)? {
                    self.engine.add_keys(made.obj, keys);
                }
                self.made.push(at.clone());
            }
        }
        Ok(())
    }

    /// Receives a package. Its BEGIN has been read.
    pub(super) fn package(&mut self, begin: &Begin, list: &NvList) -> Result<()> {
        let fss = Fss::new(list);
        let recursive = !list.flag("not_recursive");
        let incremental = list.str("fromsnap").is_some() && recursive;
        if recursive && self.spec.target.contains('@') {
            return Err(ReceiveError::BadStream(
                "cannot specify snapshot name for multi-snapshot stream".into(),
            ));
        }
        match self.next()? {
            Some((e, _)) if matches!(e.record, Record::End(_)) => {}
            _ => return Err(ReceiveError::BadStream("a package without END after its list".into())),
        }
        let toname = begin.toname.as_str().unwrap_or("").to_string();
        let sent = toname.split('@').next().unwrap_or("").to_string();
        let top = destination(&self.spec.target, self.spec.naming, &toname, &sent)?;
        let top = top.split('@').next().unwrap_or("").to_string();
        if incremental {
            self.replicate(&fss, &top, list)?;
            self.snapshot_props(&fss, &top)?;
        }
        self.streams(&fss, &sent)?;
        if incremental && !self.spec.dry_run {
            self.replicate(&fss, &top, list)?;
        }
        if list.flag("raw") && !self.spec.dry_run {
            self.fix_roots(&fss)?;
        }
        Ok(())
    }

    /// Receives each stream of the package, to the END of zeros.
    fn streams(&mut self, fss: &Fss<'_>, sent: &str) -> Result<()> {
        while let Some((entry, payload)) = self.next()? {
            match entry.record {
                Record::Begin(begin) => {
                    let list = super::decode_list(&payload)?;
                    let context =
                        fss.find(begin.toguid).map(|(fs, _)| Context { fs, root: fss.root_of(begin.toguid) });
                    self.stream(&begin, &list, sent, context)?;
                }
                Record::End(_) => return Ok(()),
                other => {
                    return Err(ReceiveError::BadStream(format!("{} between streams", other.type_name())));
                }
            }
        }
        Err(ReceiveError::BadStream("the package ends without its last END".into()))
    }

    // ---- what the sender renamed and destroyed ----

    /// User properties that snapshots that are here have got at the sender.
    fn snapshot_props(&mut self, fss: &Fss<'_>, top: &str) -> Result<()> {
        let (io, dsl) = self.engine.parts();
        if self.spec.dry_run || !exists(dsl, io, top) {
            return Ok(());
        }
        let mut warnings = Vec::new();
        for local in locals(dsl, io, top)? {
            for (snap, guid) in &local.snaps {
                if let Some((fs, sent)) = fss.find(*guid) {
                    let full = format!("{}@{snap}", local.path);
                    self.uncommitted |= props::snapshot_props(dsl, io, &full, fs, sent, &mut warnings)?;
                }
            }
        }
        warnings.into_iter().for_each(|w| self.warn(w));
        if self.uncommitted { self.commit() } else { Ok(()) }
    }

    /// Destroys and renames what the sender has destroyed and renamed since (`recv_incremental_replication`).
    fn replicate(&mut self, fss: &Fss<'_>, top: &str, list: &NvList) -> Result<()> {
        let (io, dsl) = self.engine.parts();
        if !exists(dsl, io, top) {
            return Ok(());
        }
        let from = list.str("fromsnap").unwrap_or("").to_string();
        if !self.spec.force {
            return Ok(());
        }
        let (destroyed, renamed) = self.replicate_listing(fss, top, &from)?;
        if self.spec.dry_run {
            self.done.destroyed.extend(destroyed);
            self.done.renamed.extend(renamed);
            return Ok(());
        }
        let moving = destroyed.into_iter().chain(renamed.into_iter().map(|(from, _)| from));
        let moving: Vec<String> = moving.filter(|n| !n.contains('@')).collect();
        if !moving.is_empty() {
            self.commit()?;
            // What stays in use is not destroyed, and that is told.
            let _ = self.engine.set_aside(&moving);
        }
        self.uncommitted = true;
        while self.promote_one(fss, top)? {}
        for _ in 0..PASSES_MAX {
            let (io, dsl) = self.engine.parts();
            let mut again = false;
            for local in locals(dsl, io, top)? {
                again |= self.replicate_one(fss, top, &local, &from)?;
            }
            if !again {
                break;
            }
        }
        self.commit()
    }

    /// What [`Run::replicate`] is to destroy and to rename.
    fn replicate_listing(&mut self, fss: &Fss<'_>, top: &str, from: &str) -> Result<Changes> {
        let (mut destroyed, mut renamed) = Changes::default();
        let (io, dsl) = self.engine.parts();
        let mut all = locals(dsl, io, top)?;
        // Children first: a dataset goes only when nothing is below it.
        all.sort_by(|a, b| b.path.cmp(&a.path));
        let mut stay: Vec<&str> = Vec::new();
        for local in &all {
            let mut own = None;
            let mut has_from = false;
            for (snap, guid) in &local.snaps {
                let full = format!("{}@{snap}", local.path);
                match fss.find(*guid) {
                    None => destroyed.push(full),
                    Some((fs, name)) => {
                        own = Some(fs);
                        has_from |= name == from;
                        if name != snap {
                            renamed.push((full, format!("{}@{name}", local.path)));
                        }
                    }
                }
            }
            let inside = format!("{}/", local.path);
            if own.is_none() && local.path != top && !stay.iter().any(|s| s.starts_with(&inside)) {
                destroyed.push(local.path.clone());
                continue;
            }
            stay.push(&local.path);
            if let Some(fs) = own.filter(|_| has_from && local.path != top)
                && let Some(to) = new_name(fss, &all, local, fs)
            {
                renamed.push((local.path.clone(), to));
            }
        }
        Ok((destroyed, renamed))
    }

    /// Promotes one clone that the sender has promoted: at the sender it has no origin, or an older one. Whether there was one
    /// that could be; each then has an older origin than before, so there is an end.
    fn promote_one(&mut self, fss: &Fss<'_>, top: &str) -> Result<bool> {
        let (io, dsl) = self.engine.parts();
        let all = locals(dsl, io, top)?;
        let mut failed = Vec::new();
        let mut promoted = false;
        for local in &all {
            let Some((fs, _)) = local.snaps.iter().find_map(|(_, guid)| fss.find(*guid)) else { continue };
            if !is_promoted(dsl, io, &all, local, fs.u64("origin").unwrap_or(0))? {
                continue;
            }
            match dsl.promote(io, &local.path).map_err(ReceiveError::from) {
                Ok(()) => {
                    promoted = true;
                    break;
                }
                Err(e) if super::is_write(&e) => return Err(e),
                Err(e) => failed.push(format!("cannot promote {}: {e}", local.path)),
            }
        }
        failed.into_iter().for_each(|why| self.warn(why));
        Ok(promoted)
    }

    /// True if something changed that may let another dataset follow.
    fn replicate_one(&mut self, fss: &Fss<'_>, top: &str, local: &Local, from: &str) -> Result<bool> {
        let mut changed = false;
        let mut own: Option<&NvList> = None;
        let mut has_from = false;
        for (snap, guid) in &local.snaps {
            let full = format!("{}@{snap}", local.path);
            let Some((fs, name)) = fss.find(*guid) else {
                changed |= self.destroy(&full)?;
                continue;
            };
            own = Some(fs);
            has_from |= name == from;
            if name != snap {
                let (io, dsl) = self.engine.parts();
                if dsl.rename_snapshot(io, &local.path, snap, name).is_ok() {
                    self.done.renamed.push((full, format!("{}@{name}", local.path)));
                    changed = true;
                }
            }
        }
        let Some(fs) = own else {
            return Ok(if local.path == top { changed } else { self.destroy(&local.path)? || changed });
        };
        if has_from && local.path != top {
            changed |= self.rename(fss, top, local, fs)?;
        }
        Ok(changed)
    }

    fn destroy(&mut self, full: &str) -> Result<bool> {
        let (io, dsl) = self.engine.parts();
        let result = if full.contains('@') {
            dsl.destroy_snapshot(io, full, false).map(|_| ())
        } else if dsl.children(io, full)?.is_empty() {
            dsl.destroy_head(io, full)
        } else {
            return Ok(false); // its children first
        };
        match result {
            Ok(()) => {
                self.done.destroyed.push(full.into());
                Ok(true)
            }
            Err(e) => {
                let e = ReceiveError::from(e);
                if super::is_write(&e) {
                    return Err(e);
                }
                self.warn(format!("cannot destroy {full}: {e}"));
                Ok(false)
            }
        }
    }

    /// Moves a dataset below the parent it has at the sender, with the name it has there.
    fn rename(&mut self, fss: &Fss<'_>, top: &str, local: &Local, fs: &NvList) -> Result<bool> {
        let (io, dsl) = self.engine.parts();
        let Some(to) = new_name(fss, &locals(dsl, io, top)?, local, fs) else { return Ok(false) };
        match dsl.rename(io, &local.path, &to) {
            Ok(()) => {
                self.done.renamed.push((local.path.clone(), to));
                Ok(true)
            }
            Err(e) => {
                self.warn(format!("cannot rename {} to {to}: {e}", local.path));
                Ok(false)
            }
        }
    }

    // ---- encryption roots ----

    /// Gives every dataset received raw the encryption root it has at the sender, where that is certain to
    /// open it (`recv_fix_encryption_hierarchy`), and puts new wrappings in force.
    fn fix_roots(&mut self, fss: &Fss<'_>) -> Result<()> {
        let Some(top) = self.done.top.clone() else { return Ok(()) };
        let arrived = std::mem::take(&mut self.arrived);
        let (io, dsl) = self.engine.parts();
        self.uncommitted = true;
        let mut warnings = Vec::new();
        let mut all_roots = BTreeSet::new();
        for local in locals(dsl, io, &top)? {
            let Some((fs, _)) = local.snaps.iter().find_map(|(_, g)| fss.find(*g)) else { continue };
            let head = dsl.lookup_head(io, &local.path)?;
            let Some(root) = dsl.encryption_root(io, head.dir)? else { continue };
            let is_root = root == head.dir;
            let sender_root = fs.contains("is_encroot");
            let clone = dsl.is_clone(&dsl.dir(io, head.dir)?);
            if sender_root && !is_root && !clone {
                if !roots::split_off(dsl, io, &local.path, head, &arrived)? {
                    warnings.push(format!(
                        "{} does not become an encryption root as it is at the sender: what is below it would not open",
                        local.path
                    ));
                }
            } else if !sender_root && is_root && local.path != top {
                match roots::inheritable_root(dsl, io, head.dir, &arrived)? {
                    Some(above) => roots::inherit(dsl, io, &local.path, head, above)?,
                    None => warnings.push(format!(
                        "{} stays its own encryption root: it is not certain that its parent's key opens it",
                        local.path
                    )),
                }
            }
            all_roots.extend(dsl.encryption_root(io, head.dir)?);
        }
        for root in all_roots {
            if roots::settle(dsl, io, root, &arrived)? == Renewed::Waits {
                warnings.push(format!(
                    "{}: the sender wrapped the key anew, but not for all that hang on it here; the old key stays in force",
                    dsl.dir_name(io, root)?
                ));
            }
        }
        self.commit()?;
        for w in warnings {
            self.warn(w);
        }
        Ok(())
    }
}

/// Full name that a stream goes to: the target, and what of the sender's name comes after it.
fn destination(target: &str, naming: Naming, toname: &str, sent: &str) -> Result<String> {
    let bad = || ReceiveError::BadStream(format!("'{toname}' is not below '{sent}'"));
    if target.contains('@') && naming != Naming::Exact {
        return Err(ReceiveError::Name(target.into()));
    }
    let rest = toname.strip_prefix(sent).filter(|r| r.starts_with(['/', '@'])).ok_or_else(bad)?;
    let tail = match naming {
        Naming::Tail => match sent.rfind('/') {
            Some(at) => toname.get(at..).unwrap_or("").to_string(),
            None => format!("/{toname}"),
        },
        Naming::Prefix => match toname.find('/').or_else(|| toname.find('@')) {
            Some(at) => toname.get(at..).unwrap_or("").to_string(),
            None => return Err(bad()),
        },
        Naming::Exact if target.contains('@') => String::new(),
        Naming::Exact => rest.to_string(),
    };
    Ok(format!("{target}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_options_as_in_zfs_receive() {
        let to = |target, naming, toname, sent| destination(target, naming, toname, sent).ok();
        let some = |s: &str| Some(s.to_string());
        use Naming::{Exact, Prefix, Tail};
        assert_eq!(to("b", Exact, "main@a", "main"), some("b@a"));
        assert_eq!(to("b", Exact, "main/x/y@a", "main"), some("b/x/y@a"));
        assert_eq!(to("b/c", Exact, "main/x/y@a", "main/x"), some("b/c/y@a"));
        assert_eq!(to("b/c@z", Exact, "main/x@a", "main/x"), some("b/c@z"));
        assert_eq!(to("b", Prefix, "main/x/y@a", "main/x"), some("b/x/y@a"));
        assert_eq!(to("b", Prefix, "main@a", "main"), some("b@a"));
        assert_eq!(to("b", Tail, "main/x/y@a", "main/x"), some("b/x/y@a"));
        assert_eq!(to("b", Tail, "main/x/y/z@a", "main/x/y"), some("b/y/z@a"));
        assert_eq!(to("b", Tail, "main@a", "main"), some("b/main@a"));
        assert_eq!(to("b@s", Prefix, "main@a", "main"), None);
        assert_eq!(to("b", Exact, "other@a", "main"), None);
        assert_eq!(to("b", Exact, "mainly@a", "main"), None);
    }
}
