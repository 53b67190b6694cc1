//! From what went wrong to the number a program gets: the only place where one becomes the other.

use fuser::Errno;
use icecore_dmu::{ReadError, WriteError};
use icecore_dsl::DslError;
use icecore_zpl::ZplError;

/// The errno of a failure. Damage and dead devices are `EIO`, as OpenZFS's checksum errors are to programs; a missing
/// key is `EACCES` (`spa_keystore_lookup_key`, dsl_crypt.c); names that are no UTF-8 where they must be, `EILSEQ`
/// (zfs_vnops_os.c).
pub(crate) fn errno(e: &ZplError) -> Errno {
    match e {
        ZplError::NotFound(_) | ZplError::Read(ReadError::NoObject(_)) => Errno::ENOENT,
        ZplError::Write(WriteError::Read(ReadError::NoObject(_))) => Errno::ENOENT,
        ZplError::NotDirectory(_) => Errno::ENOTDIR,
        ZplError::IsDirectory(_) => Errno::EISDIR,
        ZplError::NoContents(_) | ZplError::NotPossible(_) => Errno::EINVAL,
        ZplError::UnsafeName(_) => Errno::EILSEQ,
        ZplError::NameTooLong(_) => Errno::ENAMETOOLONG,
        ZplError::Exists(_) => Errno::EEXIST,
        ZplError::NotEmpty(_) => Errno::ENOTEMPTY,
        ZplError::NoAttribute(_) => Errno::ENODATA,
        ZplError::TooManyLinks(_) | ZplError::LeadsOut(_) => Errno::ELOOP,
        ZplError::KeyNotLoaded(_) => Errno::EACCES,
        ZplError::TooLarge(_) => Errno::EFBIG,
        ZplError::Unsupported(_) => Errno::EOPNOTSUPP,
        ZplError::Write(WriteError::NoSpace) => Errno::ENOSPC,
        ZplError::Write(WriteError::Quota) => Errno::EDQUOT,
        ZplError::Dsl(e) => match **e {
            DslError::NotFound(_) => Errno::ESTALE,
            DslError::Key(_) => Errno::EACCES,
            DslError::Busy(_) => Errno::EBUSY,
            DslError::NoSpace => Errno::ENOSPC,
            DslError::Quota => Errno::EDQUOT,
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}
