//! Space and objects by owner: who pays for what of an objset (`userquota_updates_task`, `do_userquota_update`,
//! `do_userobjquota_update`, dmu_objset.c; `dnode_sync`, dnode_sync.c).
//!
//! Three ZAPs, whose heads lie in the objset block and whose numbers count down from -1, hold the sums of users, groups
//! and projects: under the owner's number in hexadecimal the bytes of its objects (512 for the head and what the head says
//! is allocated below), under `obj-` and that number how many they are. Flags in each head say in which sums it is.
//!
//! Invariants:
//! 1. An objset is accounted if the ZAPs of users and groups are there: whoever made the file system made them
//!    ([`Objset::begin_accounts`]), or OpenZFS when it first mounted it, and whoever writes from then on keeps them up.
//! 2. At every sync each changed head leaves the sums with what it had on disk, if its flags say that it was in them, and
//!    enters them with what it has now. So sums that are right stay right, and sums that are still being made
//!    ([`icecore_format::objset::FLAG_USERACCOUNTING_COMPLETE`] not set) go on from where they are.
//! 3. Who owns an object is not known here: [`OwnersOf`] reads it from the bonus. Without it (raw objsets, volumes, the MOS)
//!    nothing is accounted.

use super::{NewObject, Obj, Objset, slot_starts};
use crate::store::{BlockStore, BlockWriter, ReadError, WriteError};
use crate::zap;
use icecore_format::dnode::{FLAG_USEROBJUSED_ACCOUNTED, FLAG_USERUSED_ACCOUNTED, SLOT};
use icecore_format::objset::{
    FLAG_PROJECTQUOTA_COMPLETE, FLAG_USERACCOUNTING_COMPLETE, FLAG_USEROBJACCOUNTING_COMPLETE,
};
use icecore_format::units::MIN_BLOCK;
use icecore_format::{Dnode, ObjectId, ObjectType};
use std::collections::BTreeMap;

/// Bytes and objects by user (`DMU_USERUSED_OBJECT`).
pub const USERUSED: ObjectId = ObjectId(u64::MAX);
/// By group (`DMU_GROUPUSED_OBJECT`).
pub const GROUPUSED: ObjectId = ObjectId(u64::MAX - 1);
/// By project (`DMU_PROJECTUSED_OBJECT`).
pub const PROJECTUSED: ObjectId = ObjectId(u64::MAX - 2);
/// What stands before an owner's number where objects are counted (`DMU_OBJACCT_PREFIX`).
pub const OBJECTS_PREFIX: &str = "obj-";

/// Whom an object belongs to, by numbers as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owners {
    /// User.
    pub user: u64,
    /// Group.
    pub group: u64,
    /// Project; 0 where it has none.
    pub project: u64,
}

/// Reads the owners from an object's attributes: the type of its bonus and the bonus (of one that is empty, the spill
/// block); `None` for objects that nobody pays for.
pub type OwnersOf = fn(ObjectType, &[u8]) -> Option<Owners>;

/// Blocks of heads that lose their marks before they are written: 4 MiB.
const UNMARKED_AT_ONCE: usize = 256;
/// Place of the flags in a head (`dn_flags`).
const FLAGS_AT: usize = 7;

/// Changes of the sums, by ZAP and name.
pub(super) type Sums = BTreeMap<(ObjectId, String), i64>;

/// Whether `obj` is one of the objects whose heads are in the objset block.
pub(super) fn is_account(obj: ObjectId) -> bool {
    obj >= PROJECTUSED
}

/// What is accounted in an objset.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    owners: OwnersOf,
    objects: bool,
    projects: bool,
}

impl Objset {
    /// Tells how the owners of objects are found: what is written from now on is accounted, if the objset is.
    pub fn set_owners(&mut self, owners: Option<OwnersOf>) {
        self.owners = owners;
    }

    /// Whether space is accounted by owner at each sync.
    ///
    /// # Errors
    /// Damaged heads in the objset block.
    pub fn is_accounted(&self) -> Result<bool, ReadError> {
        Ok(self.rules()?.is_some())
    }

    pub(super) fn rules(&self) -> Result<Option<Rules>, ReadError> {
        let Some(owners) = self.owners.filter(|_| !self.is_raw()) else { return Ok(None) };
        let there = |table| match self.account_dnode(table) {
            Ok(_) => Ok(true),
            Err(ReadError::NoObject(_)) => Ok(self.accounts.contains_key(&table.0)),
            Err(e) => Err(e),
        };
        if !there(USERUSED)? || !there(GROUPUSED)? {
            return Ok(None);
        }
        let objects = self.phys.flags() & FLAG_USEROBJACCOUNTING_COMPLETE != 0;
        Ok(Some(Rules { owners, objects, projects: there(PROJECTUSED)? }))
    }

    /// Begins the accounting of an objset that has no objects on disk yet, of their number and of projects too where the
    /// pool has the features for that (`dmu_objset_create_impl_dnstats`, `dmu_objset_do_userquota_updates`).
    ///
    /// # Errors
    /// None but those of a wrong call: nothing is read.
    pub fn begin_accounts(
        &mut self,
        io: &dyn BlockStore,
        owners: OwnersOf,
        objects: bool,
        projects: bool,
    ) -> Result<(), WriteError> {
        if !self.root.is_hole() || self.is_raw() {
            return Err(WriteError::Invalid("accounting begins with an empty objset".into()));
        }
        self.owners = Some(owners);
        let new = NewObject::plain(ObjectType::USERGROUP_USED, MIN_BLOCK);
        for table in [USERUSED, GROUPUSED, PROJECTUSED].into_iter().take(if projects { 3 } else { 2 }) {
            self.accounts.insert(table.0, Obj { clear_slots: 0, ..Obj::clean(new.dnode()?) });
            zap::init(self, io, table, 0)?;
        }
        let mut flags = self.phys.flags() | FLAG_USERACCOUNTING_COMPLETE;
        flags |= if objects { FLAG_USEROBJACCOUNTING_COMPLETE } else { 0 };
        flags |= if projects { FLAG_PROJECTQUOTA_COMPLETE } else { 0 };
        self.phys.set_flags(flags);
        self.phys_dirty = true;
        Ok(())
    }

    /// The head of an accounting object as the objset block has it.
    pub(super) fn account_dnode(&self, obj: ObjectId) -> Result<Dnode, ReadError> {
        let dn = match obj {
            USERUSED => self.phys.userused_dnode()?,
            GROUPUSED => self.phys.groupused_dnode()?,
            _ => self.phys.projectused_dnode()?,
        };
        if dn.is_free() { Err(ReadError::NoObject(obj)) } else { Ok(dn) }
    }

    /// Every changed head is in the sums from now on.
    pub(super) fn mark_accounted(&mut self, rules: Rules) {
        let marks = FLAG_USERUSED_ACCOUNTED | if rules.objects { FLAG_USEROBJUSED_ACCOUNTED } else { 0 };
        for o in self.objs.values_mut().filter(|o| !o.dn.is_free()) {
            o.dn.set_flags(o.dn.flags() | marks);
        }
    }

    /// Takes the heads that lie in slots `at .. at + count` of a block of dnodes out of the sums.
    pub(super) fn leave_sums(
        &self,
        io: &dyn BlockStore,
        sums: &mut Sums,
        rules: Rules,
        (first, block): (u64, &[u8]),
        slots: std::ops::Range<usize>,
    ) -> Result<(), WriteError> {
        for (at, _) in slot_starts(block)?.into_iter().filter(|(at, _)| slots.contains(at)) {
            let Some(bytes) = block.get(at.saturating_mul(SLOT)..) else { continue };
            let id = ObjectId(first.saturating_add(at as u64));
            self.count(io, sums, rules, (id, &Dnode::parse(bytes)?), -1)?;
        }
        Ok(())
    }

    /// Enters all changed heads into the sums.
    pub(super) fn enter_sums(
        &self,
        io: &dyn BlockStore,
        sums: &mut Sums,
        rules: Rules,
    ) -> Result<(), WriteError> {
        for (id, o) in self.objs.iter().filter(|(_, o)| !o.dn.is_free()) {
            self.count(io, sums, rules, (ObjectId(*id), &o.dn), 1)?;
        }
        Ok(())
    }

    fn count(
        &self,
        io: &dyn BlockStore,
        sums: &mut Sums,
        rules: Rules,
        (id, dn): (ObjectId, &Dnode),
        times: i64,
    ) -> Result<(), WriteError> {
        if dn.flags() & (FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED) == 0 {
            return Ok(());
        }
        let owners = match (dn.bonuslen(), dn.bonus_type()) {
            (0, ObjectType::SA) => {
                let spill = self.spill(io, id, dn)?;
                (rules.owners)(ObjectType::SA, spill.as_deref().unwrap_or(&[]))
            }
            (_, kind) => (rules.owners)(kind, dn.bonus()),
        };
        let Some(owners) = owners else { return Ok(()) };
        let bytes = (SLOT as u64).saturating_add(dn.used_bytes()).cast_signed();
        let tables = [(USERUSED, owners.user), (GROUPUSED, owners.group), (PROJECTUSED, owners.project)];
        for (table, owner) in tables.into_iter().take(if rules.projects { 3 } else { 2 }) {
            if dn.flags() & FLAG_USERUSED_ACCOUNTED != 0 {
                *sums.entry((table, format!("{owner:x}"))).or_default() += times.saturating_mul(bytes);
            }
            if dn.flags() & FLAG_USEROBJUSED_ACCOUNTED != 0 {
                *sums.entry((table, format!("{OBJECTS_PREFIX}{owner:x}"))).or_default() += times;
            }
        }
        Ok(())
    }

    /// Writes changed sums, and with them the ZAPs they are in. Sums wrap as OpenZFS's do: what came out of step comes
    /// into step again when its objects go.
    pub(super) fn put_sums(&mut self, io: &mut dyn BlockWriter, sums: Sums) -> Result<(), WriteError> {
        for ((table, name), by) in sums.into_iter().filter(|(_, by)| *by != 0) {
            zap::increment(self, io, table, &name, by)?;
        }
        for level in 0..icecore_format::dnode::MAX_LEVELS {
            self.sync_accounts(io, level)?;
        }
        let own = |table: ObjectId| -> Result<Dnode, ReadError> {
            match self.accounts.get(&table.0) {
                Some(o) => Ok(o.dn.clone()),
                None => self.account_dnode(table),
            }
        };
        let absent = |dn: Result<Dnode, ReadError>| match dn {
            Err(ReadError::NoObject(_)) => Ok(Dnode::empty(1)),
            dn => dn,
        };
        if !self.accounts.is_empty() {
            let heads = [absent(own(USERUSED))?, absent(own(GROUPUSED))?, absent(own(PROJECTUSED))?];
            self.phys.set_accounting_dnodes([&heads[0], &heads[1], &heads[2]]);
            self.accounts.clear();
        }
        Ok(())
    }

    /// Forgets all sums, and that any object was in them, so that whoever counts begins from nothing. For what comes
    /// where owners are not seen (a raw receive): counting on from sums that were not kept up would never come right,
    /// since a head that is marked only passes on what changes.
    ///
    /// # Errors
    /// After one the txg must be abandoned.
    pub fn forget_accounts(&mut self, io: &mut dyn BlockWriter) -> Result<(), WriteError> {
        let mut heads = [USERUSED, GROUPUSED, PROJECTUSED].map(|table| self.account_dnode(table));
        if heads.iter().all(|h| matches!(h, Err(ReadError::NoObject(_)))) {
            return Ok(());
        }
        for (table, head) in [USERUSED, GROUPUSED, PROJECTUSED].into_iter().zip(&mut heads) {
            if head.is_ok() {
                self.free_range(io, table, 0, u64::MAX)?;
            }
        }
        self.accounts.clear();
        let none = Dnode::empty(1);
        self.phys.set_accounting_dnodes([&none, &none, &none]);
        self.phys_dirty = true;
        let marks = FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED;
        for o in self.objs.values_mut() {
            o.dn.set_flags(o.dn.flags() & !marks);
        }
        let mut at = 0;
        let mut waiting = 0;
        while let Some(blkid) = self.next_block(io, ObjectId(0), &self.meta, at)? {
            at = blkid.saturating_add(1);
            waiting += usize::from(self.unmark_block(io, blkid)?);
            if waiting >= UNMARKED_AT_ONCE {
                self.sync_meta_level(io, 0)?;
                waiting = 0;
            }
        }
        Ok(())
    }

    /// Takes the marks off all heads in a block; whether there were any.
    fn unmark_block(&mut self, io: &dyn BlockStore, blkid: u64) -> Result<bool, WriteError> {
        let Some(block) = self.meta_block(io, blkid)? else { return Ok(false) };
        let marks = FLAG_USERUSED_ACCOUNTED | FLAG_USEROBJUSED_ACCOUNTED;
        let flags = |at: usize| at.saturating_mul(SLOT).saturating_add(FLAGS_AT);
        let marked: Vec<usize> = slot_starts(&block)?
            .into_iter()
            .map(|(at, _)| flags(at))
            .filter(|at| block.get(*at).is_some_and(|f| f & marks != 0))
            .collect();
        if marked.is_empty() {
            return Ok(false);
        }
        self.with_obj(io, ObjectId(0), |os, meta| {
            let buf = os.buf_mut(io, ObjectId(0), meta, 0, blkid)?;
            for at in marked {
                if let Some(f) = buf.get_mut(at) {
                    *f &= !marks;
                }
            }
            Ok(true)
        })
    }

    pub(super) fn table(&self, obj: ObjectId) -> &BTreeMap<u64, Obj> {
        if is_account(obj) { &self.accounts } else { &self.objs }
    }
    pub(super) fn table_mut(&mut self, obj: ObjectId) -> &mut BTreeMap<u64, Obj> {
        if is_account(obj) { &mut self.accounts } else { &mut self.objs }
    }
}
