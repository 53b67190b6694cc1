//! DMU object types: what a block holds, how its words are swapped, whether it is metadata, whether an
//! encrypted dataset encrypts it (`dmu_object_type_t` in dmu.h, the table `dmu_ot` in dmu.c).

use std::fmt;

/// An object type by its on-disk number. Open: unknown numbers survive a rewrite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ObjectType(pub u8);

/// How the contents of a block are converted between byte orders (`enum dmu_object_byteswap`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bswap {
    /// Bytes: nothing to do.
    U8,
    /// 16-bit words.
    U16,
    /// 32-bit words.
    U32,
    /// 64-bit words.
    U64,
    /// A micro or fat ZAP block.
    Zap,
    /// A block of dnodes.
    Dnode,
    /// An objset block.
    Objset,
    /// An old znode bonus.
    Znode,
    /// A version 0 ACL.
    OldAcl,
    /// An ACL.
    Acl,
}

macro_rules! types {
    ($($num:literal $name:ident $bswap:ident $meta:literal $crypt:literal $text:literal;)*) => {
        #[allow(missing_docs)] // the names are OpenZFS's, the texts stand beside them
        impl ObjectType {
            $(pub const $name: Self = Self($num);)*
        }
        fn info(number: u8) -> Option<(Bswap, bool, bool, &'static str)> {
            match number {
                $($num => Some((Bswap::$bswap, $meta, $crypt, $text)),)*
                _ => None,
            }
        }
    };
}

types! {
    0 NONE U8 true false "unallocated";
    1 OBJECT_DIRECTORY Zap true false "object directory";
    2 OBJECT_ARRAY U64 true false "object array";
    3 PACKED_NVLIST U8 true false "packed nvlist";
    4 PACKED_NVLIST_SIZE U64 true false "packed nvlist size";
    5 BPOBJ U64 true false "bpobj";
    6 BPOBJ_HDR U64 true false "bpobj header";
    7 SPACE_MAP_HEADER U64 true false "SPA space map header";
    8 SPACE_MAP U64 true false "SPA space map";
    9 INTENT_LOG U64 true true "ZIL intent log";
    10 DNODE Dnode true true "DMU dnode";
    11 OBJSET Objset true false "DMU objset";
    12 DSL_DIR U64 true false "DSL directory";
    13 DSL_DIR_CHILD_MAP Zap true false "DSL directory child map";
    14 DSL_DS_SNAP_MAP Zap true false "DSL dataset snap map";
    15 DSL_PROPS Zap true false "DSL props";
    16 DSL_DATASET U64 true false "DSL dataset";
    17 ZNODE Znode true false "ZFS znode";
    18 OLDACL OldAcl true true "ZFS V0 ACL";
    19 PLAIN_FILE_CONTENTS U8 false true "ZFS plain file";
    20 DIRECTORY_CONTENTS Zap true true "ZFS directory";
    21 MASTER_NODE Zap true false "ZFS master node";
    22 UNLINKED_SET Zap true true "ZFS delete queue";
    23 ZVOL U8 false true "zvol object";
    24 ZVOL_PROP Zap true false "zvol prop";
    25 PLAIN_OTHER U8 false true "other uint8[]";
    26 UINT64_OTHER U64 false true "other uint64[]";
    27 ZAP_OTHER Zap true false "other ZAP";
    28 ERROR_LOG Zap true false "persistent error log";
    29 SPA_HISTORY U8 true false "SPA history";
    30 SPA_HISTORY_OFFSETS U64 true false "SPA history offsets";
    31 POOL_PROPS Zap true false "Pool properties";
    32 DSL_PERMS Zap true false "DSL permissions";
    33 ACL Acl true true "ZFS ACL";
    34 SYSACL U8 true true "ZFS SYSACL";
    35 FUID U8 true true "FUID table";
    36 FUID_SIZE U64 true false "FUID table size";
    37 NEXT_CLONES Zap true false "DSL dataset next clones";
    38 SCAN_QUEUE Zap true false "scan work queue";
    39 USERGROUP_USED Zap true true "ZFS user/group/project used";
    40 USERGROUP_QUOTA Zap true true "ZFS user/group/project quota";
    41 USERREFS Zap true false "snapshot refcount tags";
    42 DDT_ZAP Zap true false "DDT ZAP algorithm";
    43 DDT_STATS Zap true false "DDT statistics";
    44 SA U8 true true "System attributes";
    45 SA_MASTER_NODE Zap true true "SA master node";
    46 SA_ATTR_REGISTRATION Zap true true "SA attr registration";
    47 SA_ATTR_LAYOUTS Zap true true "SA attr layouts";
    48 SCAN_XLATE Zap true false "scan translations";
    49 DEDUP U8 false true "deduplicated block";
    50 DEADLIST Zap true false "DSL deadlist map";
    51 DEADLIST_HDR U64 true false "DSL deadlist map hdr";
    52 DSL_CLONES Zap true false "DSL dir clones";
    53 BPOBJ_SUBOBJ U64 true false "bpobj subobj";
}

const NEW_TYPE: u8 = 0x80;
const NEW_METADATA: u8 = 0x40;
const NEW_ENCRYPTED: u8 = 0x20;
const NEW_BSWAP_MASK: u8 = 0x1f;

impl ObjectType {
    /// New-style metadata of bytes.
    pub const OTN_UINT8_METADATA: Self = Self(NEW_TYPE | NEW_METADATA);
    /// New-style metadata of 64-bit words.
    pub const OTN_UINT64_METADATA: Self = Self(NEW_TYPE | NEW_METADATA | 3);
    /// New-style ZAP data.
    pub const OTN_ZAP_DATA: Self = Self(NEW_TYPE | 4);
    /// New-style ZAP metadata (dataset objects once zapified).
    pub const OTN_ZAP_METADATA: Self = Self(NEW_TYPE | NEW_METADATA | 4);

    /// Whether OpenZFS would take the number as a type at all (`DMU_OT_IS_VALID`).
    #[must_use]
    pub fn is_valid(self) -> bool {
        if self.0 & NEW_TYPE != 0 { (self.0 & NEW_BSWAP_MASK) < 10 } else { self.0 < 54 }
    }
    /// Whether blocks of the type are metadata: more copies, always checksummed.
    #[must_use]
    pub fn is_metadata(self) -> bool {
        if self.0 & NEW_TYPE != 0 { self.0 & NEW_METADATA != 0 } else { info(self.0).is_some_and(|i| i.1) }
    }
    /// Whether an encrypted dataset encrypts blocks of the type (others are only authenticated).
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        if self.0 & NEW_TYPE != 0 { self.0 & NEW_ENCRYPTED != 0 } else { info(self.0).is_some_and(|i| i.2) }
    }
    /// The conversion class between byte orders; bytes where the type is unknown.
    #[must_use]
    pub fn bswap(self) -> Bswap {
        if self.0 & NEW_TYPE == 0 {
            return info(self.0).map_or(Bswap::U8, |i| i.0);
        }
        match self.0 & NEW_BSWAP_MASK {
            1 => Bswap::U16,
            2 => Bswap::U32,
            3 => Bswap::U64,
            4 => Bswap::Zap,
            5 => Bswap::Dnode,
            6 => Bswap::Objset,
            7 => Bswap::Znode,
            8 => Bswap::OldAcl,
            9 => Bswap::Acl,
            _ => Bswap::U8,
        }
    }
    /// OpenZFS's words for the type.
    #[must_use]
    pub fn text(self) -> &'static str {
        info(self.0).map_or("other", |i| i.3)
    }
}

impl fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.text())
    }
}
