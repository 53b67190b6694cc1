//! What a send needs to know of a snapshot and of what it builds on, gathered from the DSL.

use super::{SendError, SendFlags, SendSpec};
use crate::token::ResumeToken;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, Objset, Want};
use icecore_dsl::crypt::KeyObject;
use icecore_dsl::phys::DS_FLAG_CI_DATASET;
use icecore_dsl::{DatasetRef, Dsl, DslError, Feature, Found};
use icecore_format::nvlist::NvList;
use icecore_format::objset::{ObjsetPhys, ObjsetType};
use icecore_format::{Blkptr, ObjectId, Txg};

/// Per-dataset features that decide how blocks can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DatasetFeatures {
    /// Blocks over 128 KiB.
    pub large_blocks: bool,
    /// Zstandard.
    pub zstd: bool,
    /// Dnodes over 512 bytes.
    pub large_dnode: bool,
    /// File names over 255 bytes.
    pub longname: bool,
    /// Micro ZAPs over 128 KiB.
    pub large_microzap: bool,
}

/// Pool features that decide how blocks can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolFeatures {
    /// Blocks in pointers are in use.
    pub embedded_data_active: bool,
    /// LZ4 is in use.
    pub lz4_active: bool,
}

/// The snapshot to be sent, or the dataset as it is now.
#[derive(Clone, Debug)]
pub struct SourceSnapshot {
    /// `dataset@snapshot`; `dataset@--head--` of the dataset as it is now.
    pub name: String,
    /// The dataset object.
    pub obj: u64,
    /// Its guid.
    pub guid: u64,
    /// When it was made.
    pub creation_txg: Txg,
    /// The same in seconds.
    pub creation_time: u64,
    /// Names of files are case-insensitive.
    pub case_insensitive: bool,
    /// Its root.
    pub bp: Blkptr,
    /// How its blocks can be sent.
    pub features: DatasetFeatures,
    /// Version of the file system layer; 0 for volumes.
    pub zpl_version: u64,
    /// It is redacted with respect to these.
    pub redact_snaps: Option<Vec<u64>>,
    /// Its IV set; 0 if none is recorded.
    pub ivset_guid: u64,
    /// The key as it lies in the pool, where encrypted: still wrapped, with the `keyformat`, salt and
    /// iterations of its encryption root.
    pub crypt: Option<KeyObject>,
}

/// What the receiver has already: a snapshot, or the bookmark of one.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ancestor {
    /// Guid of the snapshot.
    pub guid: u64,
    /// When it was made.
    pub creation_txg: Txg,
    /// Its IV set; 0 if none is recorded.
    pub ivset_guid: u64,
    /// It is redacted with respect to these.
    pub redact_snaps: Option<Vec<u64>>,
    /// It belongs to another dataset: the stream makes a clone.
    pub is_clone_origin: bool,
}

/// All of a stream but its contents.
#[derive(Clone, Debug)]
pub struct Source {
    /// The snapshot.
    pub to: SourceSnapshot,
    /// What the stream builds on; `None` for a full stream.
    pub from: Option<Ancestor>,
    /// The pool.
    pub pool: PoolFeatures,
    /// Object and byte offset to go on with.
    pub resume: Option<(u64, u64)>,
    /// Guid and name to announce when a half-received dataset is sent on (`send -S`).
    pub saved: Option<(u64, String)>,
}

impl Source {
    /// `crypt_keydata` of a raw stream (`dsl_crypto_populate_key_nvlist`, dsl_crypt.c).
    pub(crate) fn key_list(&self, phys: &ObjsetPhys, from_ivset: u64) -> Result<NvList, SendError> {
        let Some(key) = &self.to.crypt else {
            return Err(SendError::Unsupported(format!("{} has no key of its own", self.to.name)));
        };
        if key.version != KEY_VERSION {
            return Err(SendError::Unsupported(format!(
                "raw send of {}: encryption of version {} (errata 3)",
                self.to.name, key.version
            )));
        }
        let meta = phys.meta_dnode()?;
        let mut list = NvList::new();
        list.set("DSL_CRYPTO_SUITE", key.suite)
            .set("DSL_CRYPTO_GUID", key.guid)
            .set("DSL_CRYPTO_VERSION", key.version)
            .set_u8_array("DSL_CRYPTO_MASTER_KEY_1", &key.master)
            .set_u8_array("DSL_CRYPTO_HMAC_KEY_1", &key.hmac)
            .set_u8_array("DSL_CRYPTO_IV", &key.iv)
            .set_u8_array("DSL_CRYPTO_MAC", &key.mac)
            .set_u8_array("portable_mac", &phys.portable_mac())
            .set("keyformat", key.keyformat)
            .set("pbkdf2iters", key.iters)
            .set("pbkdf2salt", key.salt)
            .set("mdn_checksum", u64::from(meta.checksum().0))
            .set("mdn_compress", u64::from(meta.compress().0))
            .set("mdn_nlevels", u64::from(meta.nlevels()))
            .set("mdn_blksz", meta.block_size())
            .set("mdn_indblkshift", u64::from(meta.indblkshift()))
            .set("mdn_nblkptr", u64::from(meta.nblkptr()))
            .set("mdn_maxblkid", meta.maxblkid())
            .set("to_ivset_guid", self.to.ivset_guid)
            .set("from_ivset_guid", from_ivset);
        Ok(list)
    }
}
/// The only version of the encryption format that can be sent raw (`ZIO_CRYPT_KEY_CURRENT_VERSION`).
const KEY_VERSION: u64 = 1;

/// What a stream of a dataset as it is now calls its snapshot.
const HEAD_NAME: &str = "--head--";

/// Finds what `spec` names and checks that one lies in the past of the other (`dmu_send`, dmu_send.c).
pub fn resolve(io: &dyn BlockStore, dsl: &Dsl, spec: &SendSpec) -> Result<Source, SendError> {
    let to = match dsl.lookup(io, &spec.to) {
        Ok(Found::Dataset(r)) => r,
        Ok(Found::Bookmark { .. }) => {
            return Err(SendError::Unsupported(format!("{} is a bookmark", spec.to)));
        }
        Err(DslError::NotFound(_)) => return Err(SendError::NoSnapshot(spec.to.clone())),
        Err(e) => return Err(e.into()),
    };
    let mut source = source_of(io, dsl, &spec.to, to)?;
    if !to.snapshot {
        // A dataset as it is now (`create_begin_record`): nobody can change it while it is being sent, for a
        // pool has one writer. Half a receive is not for sending (`dsl_dataset_own`).
        if dsl.dataset(io, to.obj)?.is_inconsistent() {
            return Err(DslError::Busy(format!("{} is half-received", spec.to)).into());
        }
        if spec.flags.raw && source.to.crypt.is_some() {
            // Without an IV set no receiver takes it, and OpenZFS's own sender stops at an assertion
            // (`dsl_crypto_populate_key_nvlist`).
            let why = format!("a raw stream of {}, which is encrypted and no snapshot: make one", spec.to);
            return Err(SendError::Unsupported(why));
        }
        source.to.name = format!("{}@{HEAD_NAME}", spec.to);
    }
    if let Some(from) = &spec.from {
        source.from = Some(ancestor(io, dsl, &spec.to, to, from)?);
    }
    source.resume = spec.resume.filter(|r| *r != (0, 0));
    Ok(source)
}

/// Finds what a resume token names, with the flags it asks for (`zfs_send_resume_impl_cb_impl`,
/// libzfs_sendrecv.c).
pub fn resolve_token(
    io: &dyn BlockStore,
    dsl: &Dsl,
    token: &ResumeToken,
) -> Result<(SendSpec, Source), SendError> {
    if token.saved || token.list.contains("redact_snaps") || token.list.contains("book_redact_snaps") {
        return Err(SendError::Unsupported("resuming a saved or redacted stream".into()));
    }
    let pool = dsl.info.name.clone();
    let has_guid = |obj: u64| Ok::<_, SendError>(dsl.dataset(io, obj)?.guid == token.toguid);
    let named = match dsl.lookup(io, &token.toname) {
        Ok(Found::Dataset(r)) => Some(r),
        Ok(Found::Bookmark { .. }) | Err(DslError::NotFound(_) | DslError::Name(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let to = match named {
        Some(r) if has_guid(r.obj)? => token.toname.clone(),
        _ => dsl
            .find_guid(io, &pool, token.toguid)?
            .ok_or_else(|| SendError::ResumeGone { name: token.toname.clone(), replaced: named.is_some() })?,
    };
    let from = match token.fromguid {
        0 => None,
        guid => Some(name_of_guid(io, dsl, &to, guid)?.ok_or(SendError::ResumeSourceGone { guid })?),
    };
    let flags = SendFlags {
        raw: token.raw,
        large_block: token.large_block,
        embed: token.embed,
        compress: token.compress,
    };
    let resume = Some((token.object, token.offset));
    let resume_bytes = token.bytes;
    let spec = SendSpec { to, from, flags, resume, resume_bytes, ..SendSpec::default() };
    let source = resolve(io, dsl, &spec)?;
    Ok((spec, source))
}

/// Finds what is there of a snapshot that was half received into `dataset`, in its hidden clone or itself (`dmu_send`,
/// dmu_send.c; `zfs_send_saved`, libzfs_sendrecv.c). The stream is the one that was cut off, from its beginning.
pub fn resolve_saved(
    io: &dyn BlockStore,
    dsl: &Dsl,
    dataset: &str,
) -> Result<Option<(SendSpec, Source)>, SendError> {
    let head = match dsl.lookup_head(io, dataset) {
        Err(DslError::NotFound(_)) => return Err(SendError::NoSnapshot(dataset.to_owned())),
        other => other?,
    };
    let half = dsl.receive_clone(io, head)?.unwrap_or(head);
    let Some(state) = dsl.resume_state(io, half.obj)? else { return Ok(None) };
    if state.redact_book_snaps.is_some() {
        return Err(SendError::Unsupported("what was saved of a redacted stream".into()));
    }
    let mut source = source_of(io, dsl, dataset, half)?;
    let from = match state.fromguid {
        0 => None,
        guid => {
            let from = name_of_guid(io, dsl, dataset, guid)?.ok_or(SendError::ResumeSourceGone { guid })?;
            // It is the head's stream, whatever it lies in.
            let to = DatasetRef { dir: head.dir, ..half };
            source.from = Some(ancestor(io, dsl, dataset, to, &from)?);
            Some(from)
        }
    };
    source.saved = Some((state.toguid, state.toname));
    let flags = SendFlags {
        raw: state.raw,
        large_block: state.largeblock,
        embed: state.embed,
        compress: state.compress,
    };
    Ok(Some((SendSpec { to: dataset.to_owned(), from, flags, ..SendSpec::default() }, source)))
}

/// The snapshot or bookmark with the guid: of the dataset itself, or anywhere.
fn name_of_guid(io: &dyn BlockStore, dsl: &Dsl, near: &str, guid: u64) -> Result<Option<String>, SendError> {
    let path = near.split('@').next().unwrap_or(near);
    if let Some(r) = dsl.snapshot_by_guid(io, path, guid)? {
        return Ok(Some(dsl.name(io, r)?));
    }
    for (name, mark) in dsl.bookmarks(io, path)? {
        if mark.guid == guid {
            return Ok(Some(format!("{path}#{name}")));
        }
    }
    Ok(dsl.find_guid(io, &dsl.info.name, guid)?)
}

/// What is to be known of snapshot `r` called `name`; as a full stream until `from` is set.
pub(crate) fn source_of(
    io: &dyn BlockStore,
    dsl: &Dsl,
    name: &str,
    r: DatasetRef,
) -> Result<Source, SendError> {
    let ds = dsl.dataset(io, r.obj)?;
    let active = |f| dsl.dataset_feature_active(io, r.obj, f);
    let crypt = match dsl.key_object(io, r.dir)? {
        Some(mut key) => {
            let (keyformat, salt, iters) = dsl.wrapping_form(io, r.dir)?;
            let passphrase = keyformat == icecore_dsl::crypt::KEYFORMAT_PASSPHRASE;
            key.keyformat = keyformat;
            (key.salt, key.iters) = if passphrase { (salt, iters) } else { (0, 0) };
            Some(key)
        }
        None => None,
    };
    let to = SourceSnapshot {
        name: name.to_owned(),
        obj: r.obj,
        guid: ds.guid,
        creation_txg: Txg(ds.creation_txg),
        creation_time: ds.creation_time,
        case_insensitive: ds.flags & DS_FLAG_CI_DATASET != 0,
        bp: ds.bp,
        features: DatasetFeatures {
            large_blocks: active(Feature::LARGE_BLOCKS)?,
            zstd: active(Feature::ZSTD_COMPRESS)?,
            large_dnode: active(Feature::LARGE_DNODE)?,
            longname: active(Feature::LONGNAME)?,
            large_microzap: active(Feature::LARGE_MICROZAP)?,
        },
        zpl_version: zpl_version(io, r.obj, &ds.bp)?,
        redact_snaps: redact_snaps(io, dsl, r.obj)?,
        ivset_guid: dsl.ivset_guid(io, r.obj)?.unwrap_or(0),
        crypt,
    };
    let pool = PoolFeatures {
        embedded_data_active: dsl.feature_active(io, Feature::EMBEDDED_DATA)?,
        lz4_active: dsl.feature_active(io, Feature::LZ4_COMPRESS)?,
    };
    Ok(Source { to, from: None, pool, resume: None, saved: None })
}

/// The file system version in the master node, readable without a key; 0 for volumes.
fn zpl_version(io: &dyn BlockStore, obj: u64, bp: &Blkptr) -> Result<u64, SendError> {
    if bp.is_hole() {
        return Ok(0);
    }
    let os = Objset::open(io, obj, bp, Want::NoKey)?;
    if os.phys().kind() != ObjsetType::Zfs {
        return Ok(0);
    }
    Ok(zap::lookup_u64(&os, io, ObjectId(1), "VERSION")?.unwrap_or(0))
}

fn redact_snaps(io: &dyn BlockStore, dsl: &Dsl, obj: u64) -> Result<Option<Vec<u64>>, SendError> {
    let feature = Feature::REDACTED_DATASETS;
    if !dsl.dataset_feature_active(io, obj, feature)? {
        return Ok(None);
    }
    match zap::lookup(&dsl.mos, io, ObjectId(obj), feature.guid)? {
        Some(ZapValue::U64(guids)) => Ok(Some(guids)),
        _ => Ok(Some(Vec::new())),
    }
}

/// Snapshot `r` as what a stream builds on.
pub(crate) fn ancestor_snapshot(
    io: &dyn BlockStore,
    dsl: &Dsl,
    to: (&str, DatasetRef),
    from: (&str, DatasetRef),
) -> Result<Ancestor, SendError> {
    if !dsl.is_before(io, to.1.obj, from.1.obj, None)? {
        return Err(SendError::NotEarlier { to: to.0.to_owned(), from: from.0.to_owned() });
    }
    let ds = dsl.dataset(io, from.1.obj)?;
    Ok(Ancestor {
        guid: ds.guid,
        creation_txg: Txg(ds.creation_txg),
        ivset_guid: dsl.ivset_guid(io, from.1.obj)?.unwrap_or(0),
        redact_snaps: redact_snaps(io, dsl, from.1.obj)?,
        is_clone_origin: from.1.dir != to.1.dir,
    })
}

fn ancestor(
    io: &dyn BlockStore,
    dsl: &Dsl,
    to_name: &str,
    to: DatasetRef,
    from: &str,
) -> Result<Ancestor, SendError> {
    let missing = || SendError::NoSource { to: to_name.to_owned(), from: from.to_owned() };
    match dsl.lookup(io, from) {
        Ok(Found::Dataset(r)) if r.snapshot => ancestor_snapshot(io, dsl, (to_name, to), (from, r)),
        Ok(Found::Bookmark { head, phys, .. }) => {
            if phys.redaction_obj != 0 {
                return Err(SendError::Unsupported(format!("sending from redaction bookmark {from}")));
            }
            if !dsl.is_before(io, to.obj, head.obj, Some(phys.creation_txg))? {
                return Err(SendError::NotEarlier { to: to_name.to_owned(), from: from.to_owned() });
            }
            Ok(Ancestor {
                guid: phys.guid,
                creation_txg: Txg(phys.creation_txg),
                ivset_guid: phys.ivset_guid,
                redact_snaps: None,
                is_clone_origin: head.dir != to.dir,
            })
        }
        Ok(Found::Dataset(_)) => {
            Err(SendError::Unsupported(format!("{from} is neither a snapshot nor a bookmark")))
        }
        Err(DslError::NotFound(_)) => Err(missing()),
        Err(e) => Err(e.into()),
    }
}
