//! The scrub of what is known to be lost (`dsl_errorscrub_sync`, dsl_scan.c): blocks of the error log are read again, and
//! those that are whole by now, or can be mended, leave it.
//!
//! Unlike with OpenZFS it runs to its end within the operation, so it is neither paused nor resumed.

use super::{UNDER_WAY, refused};
use crate::error::{PoolError, Result};
use crate::heal::pointer;
use crate::pool::Pool;
use crate::scrub::{DAMAGE_MAX, Damage, Scrubbed};
use icecore_dsl::ErrorLog;
use icecore_format::Txg;

impl Pool {
    /// Reads what the error log lists, mends what can be mended, and commits a log of the rest. `None` if the log is empty.
    ///
    /// # Errors
    /// A scrub is under way; the log is too long to be read whole; or as any write.
    pub fn scrub_errors(&mut self, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Scrubbed>> {
        self.io.check_writable()?;
        if self.resilvering().is_some() {
            return refused("currently resilvering");
        }
        if self.is_scanning() {
            return refused(UNDER_WAY);
        }
        let logged = self.dsl.errlog(&self.io)?;
        if logged.is_empty() {
            return Ok(None);
        }
        if logged.len() >= DAMAGE_MAX {
            return refused("the error log is too long; scrub the whole pool");
        }
        let mut found = Scrubbed::default();
        let mut left = Vec::new();
        for at in logged {
            if !go_on() {
                return Err(PoolError::Invalid("interrupted; the error log is as it was".into()));
            }
            let Some(bp) = pointer(self, at.objset, &at) else {
                // What leads to it is lost too, or it has no place of its own: nobody can tell that it is whole.
                left.push((at, Txg(0)));
                found.lost += 1;
                continue;
            };
            if bp.is_hole() || bp.is_embedded() {
                continue;
            }
            let seen = self.io.examine(&bp);
            found.blocks += 1;
            found.bytes += bp.asize();
            found.repaired_bytes += bp.psize().saturating_mul(seen.repaired);
            if seen.lost {
                found.lost += 1;
                left.push((at, bp.physical_birth()));
            }
            if seen.bad > 0 {
                found.damaged += 1;
                found.damage.push(Damage { at, bp: Box::new(bp), seen });
            }
        }
        self.io.flush_repairs().map_err(|e| self.failed(e))?;
        let (io, dsl) = self.parts();
        dsl.errlog_drop_scrub(io)?;
        for (at, birth) in left {
            dsl.errlog_add(io, ErrorLog::Scrub, &at, birth)?;
        }
        dsl.errlog_rotate(io)?;
        self.commit()?;
        Ok(Some(found))
    }
}
