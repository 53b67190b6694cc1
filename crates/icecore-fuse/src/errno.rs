//! From what went wrong to the number a program gets: the only place where one becomes the other.

use fuser::Errno;
use icecore_dmu::ReadError;
use icecore_dsl::DslError;
use icecore_zpl::ZplError;

/// The errno of a failure. Damage and dead devices are `EIO`, as OpenZFS's checksum errors are to programs; a missing
/// key is `EACCES` (`spa_keystore_lookup_key`, dsl_crypt.c).
pub(crate) fn errno(e: &ZplError) -> Errno {
    match e {
        ZplError::NotFound(_) | ZplError::Read(ReadError::NoObject(_)) => Errno::ENOENT,
        ZplError::NotDirectory(_) => Errno::ENOTDIR,
        ZplError::IsDirectory(_) => Errno::EISDIR,
        ZplError::NoContents(_) | ZplError::UnsafeName(_) => Errno::EINVAL,
        ZplError::TooManyLinks(_) | ZplError::LeadsOut(_) => Errno::ELOOP,
        ZplError::KeyNotLoaded(_) => Errno::EACCES,
        ZplError::TooLarge(_) => Errno::EFBIG,
        ZplError::Unsupported(_) => Errno::EOPNOTSUPP,
        ZplError::Dsl(e) => match **e {
            DslError::NotFound(_) => Errno::ENOENT,
            DslError::Key(_) => Errno::EACCES,
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}
