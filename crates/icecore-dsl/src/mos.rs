//! Small steps on MOS objects: bonus structures, ZAPs with number keys, zapified objects, feature counts.
//!
//! Invariants:
//! 1. A feature's count changes only here, together with what it counts.
//! 2. An object is zapified at most once; its type says so (`dmu_object_zapify`, dmu_object.c).

use crate::error::{DslError, Result};
use crate::feature::Feature;
use crate::phys::{DATASET_LEN, DIR_LEN, Dataset, Dir};
use crate::{DIRECTORY, Dsl};
use icecore_dmu::objset::Picked;
use icecore_dmu::zap::{self, ZapValue};
use icecore_dmu::{BlockStore, BlockWriter, NewObject};
use icecore_format::{Corrupt, Dnode, ObjectId, ObjectType};

/// `DMU_OTN_ZAP_METADATA`.
pub(crate) const OTN_ZAP_METADATA: ObjectType = ObjectType(0xc4);
/// Case folding for names of snapshots and bookmarks (`U8_TEXTPREP_TOUPPER`).
pub(crate) const TOUPPER: u64 = zap::NORM_TOUPPER;

/// The name under which ZAPs keep a number key (`zap_add_int`, `zap_add_int_key`: bare hexadecimal).
pub(crate) fn int_key(n: u64) -> String {
    format!("{n:x}")
}

fn dataset_in(obj: u64, dn: &Dnode) -> Result<Dataset> {
    if dn.bonus_type() != ObjectType::DSL_DATASET {
        return Err(Corrupt::new("DSL dataset", format!("object {obj} is {:?}", dn.bonus_type())).into());
    }
    Ok(Dataset::decode(dn.bonus()))
}

impl Dsl {
    /// The directory in object `obj`.
    pub fn dir(&self, io: &dyn BlockStore, obj: u64) -> Result<Dir> {
        let dn = self.mos.dnode(io, ObjectId(obj))?;
        if dn.bonus_type() != ObjectType::DSL_DIR {
            return Err(
                Corrupt::new("DSL directory", format!("object {obj} is {:?}", dn.bonus_type())).into()
            );
        }
        Ok(Dir::decode(dn.bonus()))
    }

    /// The dataset in object `obj`.
    pub fn dataset(&self, io: &dyn BlockStore, obj: u64) -> Result<Dataset> {
        dataset_in(obj, &self.mos.dnode(io, ObjectId(obj))?)
    }

    /// What `pick` takes of [`Dsl::dataset`] of each of `objs`, in their order; what they lie in is read together.
    pub(crate) fn datasets<T: Send>(
        &self,
        io: &dyn BlockStore,
        objs: &[u64],
        pick: impl Fn(Dataset) -> T + Sync,
    ) -> Picked<Result<T>> {
        let ids: Vec<ObjectId> = objs.iter().copied().map(ObjectId).collect();
        self.mos.dnodes(io, &ids, |i, dn| Ok(pick(dataset_in(objs[i], &dn?)?)))
    }

    pub(crate) fn put_dir(&mut self, io: &dyn BlockStore, obj: u64, dd: &Dir) -> Result<()> {
        self.put_bonus(io, obj, &dd.encode())
    }

    pub(crate) fn put_dataset(&mut self, io: &dyn BlockStore, obj: u64, ds: &Dataset) -> Result<()> {
        self.put_bonus(io, obj, &ds.encode())
    }

    pub(crate) fn put_bonus(&mut self, io: &dyn BlockStore, obj: u64, bytes: &[u8]) -> Result<()> {
        let dn = self.mos.edit(io, ObjectId(obj))?;
        let to = dn.bonus_mut();
        let n = to.len().min(bytes.len());
        if let (Some(to), Some(from)) = (to.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    pub(crate) fn new_dir_object(&mut self, io: &dyn BlockStore) -> Result<u64> {
        let new = NewObject::plain(ObjectType::DSL_DIR, 512).with_bonus(ObjectType::DSL_DIR, DIR_LEN as u16);
        Ok(self.mos.allocate(io, &new)?.0)
    }

    pub(crate) fn new_dataset_object(&mut self, io: &dyn BlockStore) -> Result<u64> {
        let new = NewObject::plain(ObjectType::DSL_DATASET, 512)
            .with_bonus(ObjectType::DSL_DATASET, DATASET_LEN as u16);
        Ok(self.mos.allocate(io, &new)?.0)
    }

    /// The value of `name`, `None` if there is none or `obj` is 0.
    pub(crate) fn zap_get(&self, io: &dyn BlockStore, obj: u64, name: &str) -> Result<Option<ZapValue>> {
        if obj == 0 {
            return Ok(None);
        }
        Ok(zap::lookup(&self.mos, io, ObjectId(obj), name)?)
    }

    /// The first number under `name`.
    pub(crate) fn zap_u64(&self, io: &dyn BlockStore, obj: u64, name: &str) -> Result<Option<u64>> {
        match self.zap_get(io, obj, name)? {
            Some(ZapValue::U64(v)) => Ok(v.first().copied()),
            Some(_) => Err(Corrupt::new("ZAP", format!("{name} in object {obj} is no number")).into()),
            None => Ok(None),
        }
    }

    /// All entries, names as text (names in the MOS are ASCII), in the order of names.
    pub(crate) fn zap_list(&self, io: &dyn BlockStore, obj: u64) -> Result<Vec<(String, ZapValue)>> {
        if obj == 0 {
            return Ok(Vec::new());
        }
        let mut all: Vec<(String, ZapValue)> =
            zap::iter(&self.mos, io, ObjectId(obj))?.into_iter().map(|e| (e.name_str(), e.value)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// All entries of a ZAP of numbers, in the order of names.
    pub(crate) fn zap_list_u64(&self, io: &dyn BlockStore, obj: u64) -> Result<Vec<(String, u64)>> {
        if obj == 0 { Ok(Vec::new()) } else { Ok(zap::numbers(&self.mos, io, ObjectId(obj))?) }
    }

    pub(crate) fn zap_count(&self, io: &dyn BlockStore, obj: u64) -> Result<u64> {
        if obj == 0 { Ok(0) } else { Ok(zap::count(&self.mos, io, ObjectId(obj))?) }
    }

    pub(crate) fn zap_put(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        name: &str,
        v: &ZapValue,
    ) -> Result<()> {
        Ok(zap::update(&mut self.mos, io, ObjectId(obj), name, v)?)
    }

    pub(crate) fn zap_put_u64(
        &mut self,
        io: &mut dyn BlockWriter,
        obj: u64,
        name: &str,
        v: u64,
    ) -> Result<()> {
        self.zap_put(io, obj, name, &ZapValue::U64(vec![v]))
    }

    /// Removes `name`; false if it was not there.
    pub(crate) fn zap_del(&mut self, io: &mut dyn BlockWriter, obj: u64, name: &str) -> Result<bool> {
        Ok(zap::remove(&mut self.mos, io, ObjectId(obj), name)?)
    }

    pub(crate) fn zap_new(&mut self, io: &mut dyn BlockWriter, kind: ObjectType) -> Result<u64> {
        Ok(zap::create(&mut self.mos, io, kind, None, 0)?.0)
    }

    /// A ZAP whose names are compared without case (`zap_create_norm`).
    pub(crate) fn zap_new_folded(&mut self, io: &mut dyn BlockWriter, kind: ObjectType) -> Result<u64> {
        Ok(zap::create(&mut self.mos, io, kind, None, TOUPPER)?.0)
    }

    pub(crate) fn free_obj(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        Ok(self.mos.free_object(io, ObjectId(obj))?)
    }

    /// Whether the object has become a ZAP beside its bonus.
    pub(crate) fn is_zapified(&self, io: &dyn BlockStore, obj: u64) -> Result<bool> {
        Ok(self.mos.dnode(io, ObjectId(obj))?.kind() == OTN_ZAP_METADATA)
    }

    /// Makes a directory or dataset object a ZAP as well.
    pub(crate) fn zapify(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        if self.is_zapified(io, obj)? {
            return Ok(());
        }
        zap::init(&mut self.mos, io, ObjectId(obj), 0)?;
        self.mos.edit(io, ObjectId(obj))?.set_kind(OTN_ZAP_METADATA);
        self.feature_incr(io, Feature::EXTENSIBLE_DATASET)
    }

    /// Frees an object that may have been zapified (`dmu_object_free_zapified`).
    pub(crate) fn free_zapified(&mut self, io: &mut dyn BlockWriter, obj: u64) -> Result<()> {
        if self.is_zapified(io, obj)? {
            self.feature_decr(io, Feature::EXTENSIBLE_DATASET)?;
        }
        self.free_obj(io, obj)
    }

    /// An entry of a zapified object; `None` where it is not zapified.
    pub(crate) fn field(&self, io: &dyn BlockStore, obj: u64, name: &str) -> Result<Option<ZapValue>> {
        if self.is_zapified(io, obj)? { self.zap_get(io, obj, name) } else { Ok(None) }
    }

    pub(crate) fn field_u64(&self, io: &dyn BlockStore, obj: u64, name: &str) -> Result<Option<u64>> {
        if self.is_zapified(io, obj)? { self.zap_u64(io, obj, name) } else { Ok(None) }
    }

    fn feature_zap(&self, f: Feature) -> u64 {
        if f.readonly_compat { self.features_for_write } else { self.features_for_read }
    }

    /// How often the feature is in use; `None` if it is not enabled.
    pub fn feature_refcount(&self, io: &dyn BlockStore, f: Feature) -> Result<Option<u64>> {
        self.zap_u64(io, self.feature_zap(f), f.guid)
    }

    /// Whether the feature may be used.
    pub fn feature_enabled(&self, io: &dyn BlockStore, f: Feature) -> Result<bool> {
        Ok(self.feature_refcount(io, f)?.is_some())
    }

    /// Whether the feature is in use.
    pub fn feature_active(&self, io: &dyn BlockStore, f: Feature) -> Result<bool> {
        Ok(self.feature_refcount(io, f)?.unwrap_or(0) > 0)
    }

    /// Every feature in the pool: on-disk name, count. Unknown ones too.
    pub fn features(&self, io: &dyn BlockStore) -> Result<Vec<(String, u64)>> {
        let mut all = self.zap_list_u64(io, self.features_for_write)?;
        all.extend(self.zap_list_u64(io, self.features_for_read)?);
        all.sort();
        Ok(all)
    }

    fn set_refcount(&mut self, io: &mut dyn BlockWriter, f: Feature, old: u64, new: u64) -> Result<()> {
        if f.mos && (old == 0) != (new == 0) {
            self.mos_features_changed = true;
        }
        self.zap_put_u64(io, self.feature_zap(f), f.guid, new)
    }

    /// Counts one more use.
    pub fn feature_incr(&mut self, io: &mut dyn BlockWriter, f: Feature) -> Result<()> {
        let n = self
            .feature_refcount(io, f)?
            .ok_or_else(|| DslError::Unsupported(format!("feature {} is not enabled", f.name)))?;
        self.set_refcount(io, f, n, n.saturating_add(1))
    }

    /// Counts one use less.
    pub fn feature_decr(&mut self, io: &mut dyn BlockWriter, f: Feature) -> Result<()> {
        let n = self.feature_refcount(io, f)?.unwrap_or(0);
        if n == 0 {
            return Err(Corrupt::new("feature", format!("{} is used more often than counted", f.name)).into());
        }
        self.set_refcount(io, f, n, n - 1)
    }

    /// Enables a feature with all it depends on (`feature_enable_sync`, zfeature.c).
    pub fn feature_enable(&mut self, io: &mut dyn BlockWriter, f: Feature) -> Result<()> {
        if self.feature_enabled(io, f)? {
            return Ok(());
        }
        for guid in f.depends {
            if let Some(dep) = Feature::by_guid(guid) {
                self.feature_enable(io, dep)?;
            }
        }
        let mut text = f.description.as_bytes().to_vec();
        text.push(0);
        self.zap_put(io, self.feature_descriptions, f.guid, &ZapValue::U8(text))?;
        let initial = u64::from(f.activate_on_enable);
        self.set_refcount(io, f, 0, initial)?;
        if self.feature_enabled(io, Feature::ENABLED_TXG)? {
            if self.feature_enabled_txg == 0 {
                self.feature_enabled_txg = self.zap_new(io, OTN_ZAP_METADATA)?;
                self.zap_put_u64(io, DIRECTORY, "feature_enabled_txg", self.feature_enabled_txg)?;
            }
            self.feature_incr(io, Feature::ENABLED_TXG)?;
            let txg = io.txg().0;
            self.zap_put_u64(io, self.feature_enabled_txg, f.guid, txg)?;
        }
        Ok(())
    }

    /// The txg in which the feature was enabled, 0 if unknown (`spa_feature_enabled_txg`).
    pub fn feature_enabled_txg(&self, io: &dyn BlockStore, f: Feature) -> Result<u64> {
        Ok(self.zap_u64(io, self.feature_enabled_txg, f.guid)?.unwrap_or(0))
    }
}
