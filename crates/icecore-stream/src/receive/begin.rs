//! Where a stream may go, and the dataset made for it.
//!
//! Facts: `recv_begin_check_existing_impl`, `dmu_recv_begin_check`, `dmu_recv_begin_sync` and their twins
//! for resuming, dmu_recv.c; `dsl_crypto_recv_raw_objset_check`/`_sync`, dsl_crypt.c; `zfs_receive_one`,
//! libzfs_sendrecv.c.
//!
//! Invariants:
//! 1. [`check`] changes nothing. All it can refuse is refused before [`start`] makes the first change.
//! 2. What is being received is inconsistent until the last commit: a new dataset, or the hidden clone
//!    `%recv` below an existing one, which stays as it is meanwhile.
//! 3. The key of an existing dataset is not touched here.
//!
//! Stricter than OpenZFS: a stream that is not raw is not received upon a raw one unless asked for, since
//! no raw stream could follow; a clone's large blocks are checked at its origin, not at its parent; an
//! origin that several snapshots could be is not guessed.

use super::error::ReceiveError;
use super::keydata::KeyData;
use super::rules::{Limits, Refusal, Rule};
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject, Objset, Want};
use icecore_dsl::resume::{Point, RECV_CLONE, ResumeState};
use icecore_dsl::{DatasetRef, Dsl, Feature, Kind, NewCrypt};
use icecore_format::objset::{
    FLAG_PROJECTQUOTA_COMPLETE, FLAG_USERACCOUNTING_COMPLETE, FLAG_USEROBJACCOUNTING_COMPLETE, ObjsetType,
};
use icecore_format::stream::{Begin, begin_flag, feature};
use icecore_format::units::{MAX_BLOCK, OLD_MAX_BLOCK};
use icecore_format::{NvList, ObjectId, ObjectType};

type Result<T, E = ReceiveError> = std::result::Result<T, E>;

/// One stream and where it is to go.
pub(crate) struct Ask<'a> {
    pub begin: &'a Begin,
    /// The list of BEGIN; empty if there is none.
    pub list: &'a NvList,
    /// The dataset.
    pub path: &'a str,
    /// The snapshot's own name.
    pub snap: &'a str,
    /// It is the dataset that the receive is for, not one that comes below it.
    pub top: bool,
    /// The origin that the user named.
    pub origin: Option<&'a str>,
    pub force: bool,
    pub resumable: bool,
    /// How a new dataset is encrypted if the stream is not raw.
    pub crypt: NewCrypt<'a>,
    pub allow_ivset_divergence: bool,
    /// It is not one of a package: a snapshot that is here already is in the way of one of a new dataset, as in OpenZFS
    /// (`zfs_receive_one`).
    pub single: bool,
    /// Datasets and snapshots that would be gone by now, in a dry run.
    pub gone: &'a [String],
}

impl Ask<'_> {
    fn has(&self, bit: u64) -> bool {
        self.begin.has(bit)
    }
    fn raw(&self) -> bool {
        self.has(feature::RAW)
    }
    fn is_clone(&self) -> bool {
        self.origin.is_some() || self.begin.flags & begin_flag::CLONE != 0
    }
    fn is_gone(&self, name: &str) -> bool {
        self.gone.iter().any(|g| g == name)
    }
    /// Whether it is of a volume.
    pub fn zvol(&self) -> bool {
        ObjsetType::from_raw(self.begin.objset_type.into()) == ObjsetType::Zvol
    }
    fn guids(&self, name: &str) -> Option<Vec<u64>> {
        self.list.u64_array(name).map(<[u64]>::to_vec)
    }
}

/// Where a stream goes.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A dataset to be made, perhaps as a clone.
    New { origin: Option<DatasetRef> },
    /// A dataset that exists, upon its snapshot `from`; `None` to replace it.
    Existing { head: DatasetRef, from: Option<DatasetRef> },
    /// What an interrupted receive left: a new dataset, or the clone below `over`.
    Resume { ds: DatasetRef, over: Option<DatasetRef>, from: Option<DatasetRef> },
    /// The snapshot is here already, with the same guid.
    Present,
}

/// A receive under way.
#[derive(Clone, Debug)]
pub(crate) struct Receiving {
    /// What the records go to.
    pub ds: DatasetRef,
    /// The dataset whose contents it replaces at the end.
    pub over: Option<DatasetRef>,
    /// The snapshot it builds on.
    pub from: Option<DatasetRef>,
    /// The stream's key and objset facts, for raw streams.
    pub key: Option<KeyData>,
    /// Bytes received by earlier attempts.
    pub bytes: u64,
}

/// What the pool can take.
pub(crate) fn limits(dsl: &Dsl, io: &dyn BlockStore) -> Result<Limits> {
    let large_blocks = dsl.feature_enabled(io, Feature::LARGE_BLOCKS)?;
    let large_dnode = dsl.feature_enabled(io, Feature::LARGE_DNODE)?;
    Ok(Limits {
        block_max: if large_blocks { MAX_BLOCK } else { OLD_MAX_BLOCK },
        dnode_max: if large_dnode { 16384 } else { 512 },
    })
}

/// Whether and where the stream may be received. Changes nothing.
pub(crate) fn check(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>) -> Result<(Place, Option<KeyData>)> {
    let kind = ObjsetType::from_raw(ask.begin.objset_type.into());
    if ask.begin.is_compound() || !matches!(kind, ObjsetType::Zfs | ObjsetType::Zvol) {
        return Err(ReceiveError::BadStream(format!("invalid objset type {}", ask.begin.objset_type)));
    }
    check_features(dsl, io, ask)?;
    let place = if ask.has(feature::RESUMING) {
        check_resume(dsl, io, ask)?
    } else {
        match dsl.lookup_head(io, ask.path) {
            Ok(_) if ask.is_gone(ask.path) => check_new(dsl, io, ask)?,
            Ok(head) => check_existing(dsl, io, ask, head)?,
            Err(icecore_dsl::DslError::NotFound(_)) => check_new(dsl, io, ask)?,
            Err(e) => return Err(e.into()),
        }
    };
    if matches!(place, Place::Present) {
        return Ok((place, None));
    }
    let key = if ask.raw() { Some(check_key(dsl, io, ask, &place)?) } else { None };
    Ok((place, key))
}

fn check_features(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>) -> Result<()> {
    let bits = ask.begin.features();
    if bits & (feature::DEDUP | feature::DEDUPPROPS) != 0 {
        return Err(ReceiveError::Deduplicated);
    }
    if bits & !feature::MASK != 0 {
        return Err(ReceiveError::UnknownFeatures(bits));
    }
    let needs = [
        (feature::LZ4, "lz4_compress"),
        (feature::ZSTD, "zstd_compress"),
        (feature::EMBED_DATA, "embedded_data"),
        (feature::LARGE_BLOCKS, "large_blocks"),
        (feature::LARGE_DNODE, "large_dnode"),
        (feature::LARGE_MICROZAP, "large_microzap"),
        (feature::REDACTED, "redacted_datasets"),
        (feature::LONGNAME, "longname"),
        (feature::RAW, "encryption"),
    ];
    for (bit, name) in needs {
        let enabled = match Feature::by_name(name) {
            Some(f) => dsl.feature_enabled(io, f)?,
            None => false,
        };
        if ask.has(bit) && !enabled {
            return Err(ReceiveError::PoolFeature(name));
        }
    }
    if ask.resumable && !dsl.feature_enabled(io, Feature::EXTENSIBLE_DATASET)? {
        return Err(ReceiveError::PoolFeature("extensible_dataset"));
    }
    if ask.raw() {
        if ask.has(feature::EMBED_DATA) {
            return Err(ReceiveError::BadStream("a raw stream with embedded blocks".into()));
        }
        if ask.begin.flags & begin_flag::SPILL_BLOCK == 0 {
            return Err(ReceiveError::SpillFlagMissing);
        }
    }
    Ok(())
}

/// Whether the snapshot with the stream's guid is here already. One of its name with another guid is refused.
fn check_present(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, head: DatasetRef) -> Result<bool> {
    for (_, snap) in dsl.snapshots(io, ask.path)? {
        if dsl.dataset(io, snap.obj)?.guid == ask.begin.toguid && snap.dir == head.dir {
            return Ok(true);
        }
    }
    let full = format!("{}@{}", ask.path, ask.snap);
    if dsl.lookup_snapshot(io, &full).is_ok() && !ask.is_gone(&full) {
        return Err(ReceiveError::SnapshotExists(full));
    }
    Ok(false)
}

fn check_existing(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, head: DatasetRef) -> Result<Place> {
    let new = ask.is_clone() || ask.begin.fromguid == 0;
    // Said before anything of what is there or was received in part (`zfs_receive_one`, libzfs_sendrecv.c).
    if new && !ask.force && ask.single {
        return Err(ReceiveError::Exists(ask.path.into()));
    }
    if check_present(dsl, io, ask, head)? {
        if ask.single && new {
            check_replace(dsl, io, ask, head)?;
        } else if ask.single
            && !ask.force
            && dsl.lookup_snapshot(io, &format!("{}@{}", ask.path, ask.snap)).is_err()
        {
            // Under another name it is not what was asked for: what came since stands in the way.
            check_incremental(dsl, io, ask, head)?;
        }
        return Ok(Place::Present);
    }
    if new && !ask.force {
        return Err(ReceiveError::Exists(ask.path.into()));
    }
    if dsl.receive_clone(io, head)?.is_some() || dsl.resume_state(io, head.obj)?.is_some() {
        return Err(ReceiveError::PartialState(ask.path.into()));
    }
    if dsl.dataset(io, head.obj)?.is_inconsistent() {
        return Err(ReceiveError::PartialState(ask.path.into()));
    }
    if ask.zvol() && !dsl.children(io, ask.path)?.is_empty() {
        return Err(ReceiveError::WrongParent(ask.path.into()));
    }
    if new {
        check_replace(dsl, io, ask, head)?;
        return Ok(Place::Existing { head, from: None });
    }
    let from = check_incremental(dsl, io, ask, head)?;
    Ok(Place::Existing { head, from: Some(from) })
}

/// A full stream over a dataset that exists.
fn check_replace(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, head: DatasetRef) -> Result<()> {
    if !ask.force {
        return Err(ReceiveError::Exists(ask.path.into()));
    }
    let names = dsl.snapshots(io, ask.path)?.into_iter().map(|(name, _)| format!("{}@{name}", ask.path));
    if let Some(snapshot) = names.into_iter().find(|s| !ask.is_gone(s)) {
        return Err(ReceiveError::HasSnapshots { dataset: ask.path.into(), snapshot });
    }
    if ask.is_clone() {
        return Err(ReceiveError::BadStream("a clone cannot be received into an existing dataset".into()));
    }
    if dsl.is_clone(&dsl.dir(io, head.dir)?) {
        return Err(ReceiveError::IsClone(ask.path.into()));
    }
    if ask.zvol() && !ask.path.contains('/') {
        return Err(ReceiveError::WrongParent(ask.path.into()));
    }
    if ask.raw() || dsl.is_encrypted(io, head)? {
        return Err(ReceiveError::ForceOverEncrypted(ask.path.into()));
    }
    Ok(())
}

fn check_incremental(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, head: DatasetRef) -> Result<DatasetRef> {
    let encrypted = dsl.is_encrypted(io, head)?;
    if ask.raw() && !encrypted {
        return Err(ReceiveError::RawOverPlain(ask.path.into()));
    }
    if encrypted && ask.has(feature::EMBED_DATA) {
        return Err(ReceiveError::EmbeddedIntoEncrypted(ask.path.into()));
    }
    if encrypted && !ask.raw() && dsl.require_key(io, head).is_err() {
        return Err(ReceiveError::KeyNotLoaded(ask.path.into()));
    }
    let guid = ask.begin.fromguid;
    let found = dsl.snapshot_by_guid(io, ask.path, guid)?.filter(|s| s.dir == head.dir);
    let Some(from) = found else {
        let mut have = Vec::new();
        for (name, snap) in dsl.snapshots(io, ask.path)? {
            have.push((name, dsl.dataset(io, snap.obj)?.guid));
        }
        return Err(ReceiveError::NoIncrementalBase { dataset: ask.path.into(), want: guid, have });
    };
    let since = || dsl.name(io, from);
    if encrypted && !ask.raw() && !ask.allow_ivset_divergence && dsl.is_raw_received(io, from.obj)? {
        return Err(ReceiveError::IvsetDiverges { since: since()? });
    }
    if !ask.force {
        let newer = newer_snapshots(dsl, io, ask.path, from)?;
        if (ask.raw() && !newer.is_empty()) || modified_since(dsl, io, head, from)? {
            return Err(ReceiveError::Modified { dataset: ask.path.into(), since: since()?, newer });
        }
    }
    check_redaction(dsl, io, ask, from)?;
    check_large_blocks(dsl, io, ask, from)?;
    if ask.force {
        return Ok(from);
    }
    // Snapshots since then hold nothing new: the clone starts at the newest.
    let newest = dsl.dataset(io, head.obj)?.prev_snap_obj;
    Ok(dsl.by_object(io, newest)?)
}

/// Snapshots of `path` later than `from`, oldest first.
pub(crate) fn newer_snapshots(
    dsl: &Dsl,
    io: &dyn BlockStore,
    path: &str,
    from: DatasetRef,
) -> Result<Vec<String>> {
    let txg = dsl.dataset(io, from.obj)?.creation_txg;
    let mut out = Vec::new();
    for (name, snap) in dsl.snapshots(io, path)? {
        if dsl.dataset(io, snap.obj)?.creation_txg > txg {
            out.push(format!("{path}@{name}"));
        }
    }
    Ok(out)
}

/// Whether the head differs from an older snapshot of it (`dsl_dataset_modified_since_snap`): a root block
/// written later counts only if the metadnode differs.
fn modified_since(dsl: &Dsl, io: &dyn BlockStore, head: DatasetRef, snap: DatasetRef) -> Result<bool> {
    let (now, then) = (dsl.dataset(io, head.obj)?, dsl.dataset(io, snap.obj)?);
    if now.bp.alloc_birth().0 <= then.creation_txg {
        return Ok(false);
    }
    if now.bp.is_hole() || then.bp.is_hole() {
        return Ok(now.bp.is_hole() != then.bp.is_hole());
    }
    let now = Objset::open(io, head.obj, &now.bp, Want::NoKey)?;
    let then = Objset::open(io, snap.obj, &then.bp, Want::NoKey)?;
    Ok(now.meta().as_bytes() != then.meta().as_bytes())
}

fn check_large_blocks(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, snap: DatasetRef) -> Result<()> {
    let active = dsl.dataset_feature_active(io, snap.obj, Feature::LARGE_BLOCKS)?;
    if active && !ask.has(feature::LARGE_BLOCKS) {
        return Err(ReceiveError::LargeBlockMismatch(dsl.name(io, snap)?));
    }
    Ok(())
}

/// Guids of the snapshots a dataset is redacted by; `None` if it is not.
fn redacted_by(dsl: &Dsl, io: &dyn BlockStore, obj: u64) -> Result<Option<Vec<u64>>> {
    if !dsl.dataset_feature_active(io, obj, Feature::REDACTED_DATASETS)? {
        return Ok(None);
    }
    match zap::lookup(&dsl.mos, io, ObjectId(obj), Feature::REDACTED_DATASETS.guid)? {
        Some(ZapValue::U64(v)) => Ok(Some(v)),
        _ => Ok(Some(Vec::new())),
    }
}

/// A stream upon a redacted snapshot must leave out no less (`redact_check`).
fn check_redaction(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, from: DatasetRef) -> Result<()> {
    let Some(origin) = redacted_by(dsl, io, from.obj)? else { return Ok(()) };
    let within = |snaps: &[u64]| snaps.len() <= origin.len() && snaps.iter().all(|s| origin.contains(s));
    let fits = match ask.guids("redact_from_snaps") {
        _ if ask.begin.fromguid == 0 => true,
        Some(snaps) => within(&snaps),
        None if ask.has(feature::REDACTED) => ask.guids("redact_snaps").is_some_and(|s| within(&s)),
        None => origin.contains(&ask.begin.toguid),
    };
    if fits { Ok(()) } else { Err(ReceiveError::RedactionMismatch) }
}

fn check_new(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>) -> Result<Place> {
    if ask.begin.fromguid != 0 && !ask.is_clone() {
        return Err(ReceiveError::NoDestination(ask.path.into()));
    }
    let Some((parent, _)) = ask.path.rsplit_once('/') else {
        return Err(ReceiveError::NoDestination(ask.path.into()));
    };
    let Ok(above) = dsl.lookup_head(io, parent) else {
        return Err(ReceiveError::NoParent(parent.into()));
    };
    if dsl.kind(io, above)? != Kind::Filesystem {
        return Err(ReceiveError::WrongParent(parent.into()));
    }
    let origin = if ask.is_clone() { Some(check_origin(dsl, io, ask)?) } else { None };
    if !ask.raw() && origin.is_none() {
        check_new_crypt(dsl, io, ask, parent, above)?;
    }
    Ok(Place::New { origin })
}

/// A stream that is not raw is encrypted as it comes in, where its new dataset is to be.
fn check_new_crypt(
    dsl: &Dsl,
    io: &dyn BlockStore,
    ask: &Ask<'_>,
    parent: &str,
    above: DatasetRef,
) -> Result<()> {
    let encrypts = match ask.crypt {
        NewCrypt::Off => false,
        NewCrypt::Root(_) => true,
        NewCrypt::Inherit | NewCrypt::Suite(_) => dsl.is_encrypted(io, above)?,
    };
    if !encrypts {
        return Ok(());
    }
    if ask.has(feature::EMBED_DATA) {
        return Err(ReceiveError::EmbeddedIntoEncrypted(ask.path.into()));
    }
    if !matches!(ask.crypt, NewCrypt::Root(_)) && dsl.require_key(io, above).is_err() {
        return Err(ReceiveError::KeyNotLoaded(parent.into()));
    }
    Ok(())
}

fn check_origin(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>) -> Result<DatasetRef> {
    let want = ask.begin.fromguid;
    if want == 0 && ask.begin.flags & begin_flag::FREERECORDS == 0 {
        return Err(ReceiveError::NoFreeRecords);
    }
    let origin = match ask.origin {
        Some(name) => dsl.lookup_snapshot(io, name)?,
        None => {
            let mut found = snapshots_with_guid(dsl, io, want)?;
            match (found.pop(), found.is_empty()) {
                (Some((_, snap)), true) => snap,
                (Some(last), false) => {
                    found.push(last);
                    let found = found.into_iter().map(|(name, _)| name).collect();
                    return Err(ReceiveError::AmbiguousOrigin { want, found });
                }
                (None, _) => return Err(ReceiveError::NoOrigin { want }),
            }
        }
    };
    let have = dsl.dataset(io, origin.obj)?.guid;
    if want != 0 && have != want {
        return Err(ReceiveError::OriginMismatch { want, have });
    }
    let encrypted = dsl.is_encrypted(io, origin)?;
    let name = dsl.name(io, origin)?;
    if encrypted && ask.has(feature::EMBED_DATA) {
        return Err(ReceiveError::EmbeddedIntoEncrypted(name));
    }
    if ask.raw() && !encrypted {
        return Err(ReceiveError::RawOverPlain(name));
    }
    if encrypted && !ask.raw() && dsl.require_key(io, origin).is_err() {
        return Err(ReceiveError::KeyNotLoaded(name));
    }
    if encrypted && !ask.raw() && !ask.allow_ivset_divergence && dsl.is_raw_received(io, origin.obj)? {
        return Err(ReceiveError::IvsetDiverges { since: name });
    }
    check_redaction(dsl, io, ask, origin)?;
    check_large_blocks(dsl, io, ask, origin)?;
    Ok(origin)
}

/// All snapshots of the pool with this guid.
pub(crate) fn snapshots_with_guid(
    dsl: &Dsl,
    io: &dyn BlockStore,
    guid: u64,
) -> Result<Vec<(String, DatasetRef)>> {
    let mut found = Vec::new();
    for path in dsl.descendants(io, &dsl.info.name)? {
        for (name, snap) in dsl.snapshots(io, &path)? {
            if dsl.dataset(io, snap.obj)?.guid == guid {
                found.push((format!("{path}@{name}"), snap));
            }
        }
    }
    Ok(found)
}

fn check_resume(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>) -> Result<Place> {
    let not = || ReceiveError::NotResumable(ask.path.into());
    let head = dsl.lookup_head(io, ask.path).map_err(|_| not())?;
    let (ds, over) = match dsl.receive_clone(io, head)? {
        Some(clone) => (clone, Some(head)),
        None => (head, None),
    };
    if over.is_some() && ask.begin.fromguid == 0 && !ask.force {
        return Err(ReceiveError::ResumeExists(ask.path.into()));
    }
    let phys = dsl.dataset(io, ds.obj)?;
    let state = dsl.resume_state(io, ds.obj)?.filter(|_| phys.is_inconsistent()).ok_or_else(not)?;
    if state.toguid != ask.begin.toguid || state.fromguid != ask.begin.fromguid || state.raw != ask.raw() {
        return Err(not());
    }
    let prev = match phys.prev_snap_obj {
        0 => None,
        obj if obj == dsl.origin_snap() => None,
        obj => Some(dsl.by_object(io, obj)?),
    };
    if prev.is_some_and(|p| p.dir == ds.dir) {
        return Err(not());
    }
    check_resume_point(ask, &state)?;
    if ask.has(feature::REDACTED) {
        let (stream, own) = (ask.guids("redact_snaps"), redacted_by(dsl, io, ds.obj)?);
        let same = matches!((&stream, &own), (Some(s), Some(o)) if s.len() == o.len() && o.iter().all(|g| s.contains(g)));
        if !same {
            return Err(ReceiveError::RedactionMismatch);
        }
    }
    check_large_blocks(dsl, io, ask, ds)?;
    let encrypted = dsl.is_encrypted(io, ds)?;
    if encrypted && !ask.raw() && dsl.require_key(io, ds).is_err() {
        return Err(ReceiveError::KeyNotLoaded(ask.path.into()));
    }
    let from = prev.filter(|_| ask.begin.fromguid != 0);
    if let Some(head) = over {
        check_unchanged(dsl, io, ask, head, from)?;
    }
    Ok(Place::Resume { ds, over, from })
}

/// The dataset that a receive is to change may have changed while others had the pool, or since an earlier part of it.
pub(crate) fn check_unchanged(
    dsl: &Dsl,
    io: &dyn BlockStore,
    ask: &Ask<'_>,
    head: DatasetRef,
    from: Option<DatasetRef>,
) -> Result<()> {
    let Some(from) = from else {
        if let Some((name, _)) = dsl.snapshots(io, ask.path)?.first() {
            let snapshot = format!("{}@{name}", ask.path);
            return Err(ReceiveError::HasSnapshots { dataset: ask.path.into(), snapshot });
        }
        return Ok(());
    };
    let newer = newer_snapshots(dsl, io, ask.path, from)?;
    if !ask.force && (!newer.is_empty() || modified_since(dsl, io, head, from)?) {
        return Err(ReceiveError::Modified { dataset: ask.path.into(), since: dsl.name(io, from)?, newer });
    }
    Ok(())
}

fn check_resume_point(ask: &Ask<'_>, state: &ResumeState) -> Result<()> {
    let (Some(object), Some(offset)) = (ask.list.u64("resume_object"), ask.list.u64("resume_offset")) else {
        return Err(ReceiveError::BadStream("a resuming stream without a resume point".into()));
    };
    let stored = (state.point.object, state.point.offset);
    if (object, offset) == stored {
        Ok(())
    } else {
        Err(ReceiveError::ResumePoint { stream: (object, offset), stored })
    }
}

/// The stream's key and IV set against those that are here.
fn check_key(dsl: &Dsl, io: &dyn BlockStore, ask: &Ask<'_>, place: &Place) -> Result<KeyData> {
    let Some(list) = ask.list.list("crypt_keydata") else {
        return Err(ReceiveError::BadStream("a raw stream without crypt_keydata".into()));
    };
    let key = KeyData::parse(list)?;
    let (from, present) = match place {
        Place::New { origin } => (*origin, *origin),
        Place::Existing { head, from } => (*from, Some(*head)),
        Place::Resume { ds, from, .. } => (*from, Some(*ds)),
        Place::Present => (None, None),
    };
    if let Some(from) = from.filter(|_| ask.begin.fromguid != 0) {
        let stream = key.from_ivset_guid;
        let local = dsl.ivset_guid(io, from.obj)?.unwrap_or(0);
        if stream == 0 || local == 0 {
            return Err(ReceiveError::IvsetMissing { stream, local });
        }
        if stream != local {
            return Err(ReceiveError::IvsetMismatch { stream, local });
        }
    }
    if let Some(ds) = present
        && let Some(own) = dsl.key_object(io, ds.dir)?
        && own.guid != key.key.guid
    {
        return Err(ReceiveError::KeyMismatch { stream: key.key.guid, local: own.guid });
    }
    if let Some(ds) = present {
        check_meta_shape(dsl, io, ds, &key)?;
    }
    Ok(key)
}

/// Height and indirect blocks of the metadnode are the same in all snapshots of a dataset.
fn check_meta_shape(dsl: &Dsl, io: &dyn BlockStore, ds: DatasetRef, key: &KeyData) -> Result<()> {
    let phys = dsl.dataset(io, ds.obj)?;
    if phys.bp.is_hole() {
        return Ok(());
    }
    let os = Objset::open(io, ds.obj, &phys.bp, Want::NoKey)?;
    let own = [("mdn_nlevels", os.meta().nlevels()), ("mdn_indblkshift", os.meta().indblkshift())];
    for ((field, own), said) in own.into_iter().zip([key.meta.nlevels, key.meta.indblkshift]) {
        if own != said {
            let refusal = Refusal { rule: Rule::NotEqual, field, value: said.into(), limit: own.into() };
            return Err(ReceiveError::Key(refusal.into()));
        }
    }
    Ok(())
}

/// Makes the dataset that the records go to; [`open_objset`] is to follow. `made` sets its properties before its objset exists, so
/// that they rule how the stream is stored.
pub(crate) fn start(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ask: &Ask<'_>,
    place: &Place,
    key: Option<KeyData>,
    made: &mut dyn FnMut(&mut Dsl, &mut dyn BlockWriter, DatasetRef) -> Result<()>,
) -> Result<Receiving> {
    let folded = ask.begin.flags & begin_flag::CI_DATA != 0;
    let (ds, over, from) = match *place {
        Place::New { origin } => {
            let ds = dsl.create_for_receive(io, ask.path, origin, folded)?;
            (ds, None, origin)
        }
        Place::Existing { head, from } => {
            let path = format!("{}/{RECV_CLONE}", ask.path);
            let ds = dsl.create_for_receive(io, &path, from, folded)?;
            (ds, Some(head), from)
        }
        Place::Resume { ds, over, from } => (ds, over, from),
        Place::Present => return Err(ReceiveError::SnapshotExists(format!("{}@{}", ask.path, ask.snap))),
    };
    let resumes = matches!(place, Place::Resume { .. });
    let mut bytes = 0;
    if resumes {
        bytes = dsl.resume_state(io, ds.obj)?.map_or(0, |s| s.point.bytes);
    } else {
        begin_dataset(dsl, io, ask, ds)?;
    }
    if let Some(k) = key.as_ref().filter(|_| over.is_none() && !resumes)
        && dsl.crypto_obj(io, ds.dir)?.is_none()
    {
        super::roots::store_key(dsl, io, ds, &k.key)?;
    }
    if matches!(place, Place::New { origin: None }) && !ask.raw() {
        dsl.encrypt_received(io, ds, ask.crypt)?;
    }
    if over.is_none() && !resumes {
        made(dsl, io, ds)?;
    }
    Ok(Receiving { ds, over, from, key, bytes })
}

/// Flags, features and resume state of a dataset just made.
fn begin_dataset(dsl: &mut Dsl, io: &mut dyn BlockWriter, ask: &Ask<'_>, ds: DatasetRef) -> Result<()> {
    // A clone of a redacted snapshot is redacted as its own stream says.
    let redacted = Feature::REDACTED_DATASETS;
    if dsl.dataset_feature_active(io, ds.obj, redacted)? {
        zap::remove(&mut dsl.mos, io, ObjectId(ds.obj), redacted.guid)?;
        dsl.feature_decr(io, redacted)?;
    }
    if ask.resumable {
        let state = ResumeState {
            fromguid: ask.begin.fromguid,
            toguid: ask.begin.toguid,
            toname: ask.begin.toname.as_str().unwrap_or("").into(),
            point: Point { object: 1, offset: 0, bytes: 0 },
            largeblock: ask.has(feature::LARGE_BLOCKS),
            embed: ask.has(feature::EMBED_DATA),
            compress: ask.has(feature::COMPRESSED),
            raw: ask.raw(),
            redact_book_snaps: ask.guids("redact_from_snaps"),
        };
        dsl.set_resume_state(io, ds.obj, &state)?;
    }
    if ask.has(feature::REDACTED) {
        let snaps = ask.guids("redact_snaps").unwrap_or_default();
        dsl.activate_feature_with(io, ds.obj, redacted, &snaps)?;
    }
    dsl.set_inconsistent(io, ds.obj, true)?;
    let marks = [
        (feature::LARGE_BLOCKS, "large_blocks"),
        (feature::LONGNAME, "longname"),
        (feature::LARGE_MICROZAP, "large_microzap"),
    ];
    for (bit, name) in marks {
        if let Some(f) = Feature::by_name(name).filter(|_| ask.has(bit)) {
            dsl.activate_feature(io, ds.obj, f)?;
        }
    }
    Ok(())
}

/// Opens the objset, made now if there is none, and gives it what a raw stream says about it as a whole.
pub(crate) fn open_objset(
    dsl: &mut Dsl,
    io: &mut dyn BlockWriter,
    ask: &Ask<'_>,
    ds: DatasetRef,
    key: Option<&KeyData>,
) -> Result<()> {
    let want = if ask.raw() { Want::NoKey } else { Want::Logical };
    let kind = ObjsetType::from_raw(ask.begin.objset_type.into());
    let empty = dsl.dataset(io, ds.obj)?.bp.is_hole();
    let os = if empty {
        dsl.create_objset(io, ds.obj, kind, want)?;
        // Of an encrypted one the accounting begins when it is first mounted, as in OpenZFS.
        if kind == ObjsetType::Zfs && !ask.raw() && !dsl.is_encrypted(io, ds)? {
            dsl.begin_accounts(io, ds.obj)?;
        }
        dsl.open_dataset_as(io, ds.obj, want)?
    } else {
        dsl.open_dataset_as(io, ds.obj, want)?
    };
    // Space by owner is kept up where owners are seen. What comes raw makes an end of it: whoever mounts the dataset
    // with its key counts anew, from nothing. (OpenZFS leaves the sums and the marks, and then never gets right what
    // the stream changed.)
    if ask.raw() {
        os.forget_accounts(io)?;
    }
    let counted = FLAG_USERACCOUNTING_COMPLETE | FLAG_USEROBJACCOUNTING_COMPLETE | FLAG_PROJECTQUOTA_COMPLETE;
    let flags = os.phys().flags();
    if flags & counted != 0 && !os.is_accounted()? {
        os.phys_mut().set_flags(flags & !counted);
    }
    if let Some(k) = key {
        let shape = NewObject {
            nlevels: k.meta.nlevels,
            indblkshift: k.meta.indblkshift,
            nblkptr: 3,
            checksum: k.meta.checksum,
            compress: k.meta.compress,
            ..NewObject::plain(ObjectType::DNODE, icecore_format::dnode::DNODE_BLOCK as u64)
        };
        os.set_meta_shape(&shape, k.meta.maxblkid)?;
        os.phys_mut().set_portable_mac(k.portable_mac);
        os.phys_mut().set_local_mac([0; 32]);
    } else {
        os.phys_mut();
    }
    Ok(())
}
