//! What the system lets this process have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many open files as we may have: where that is not to be had, there will be "too many open files".
pub fn raise_files() {
    raise(&[Resource::Nofile]);
}

/// The same of all that a process for everybody needs: what the one who happened to start it had limited for their own programs
/// is no limit of others. Hard limits stay.
pub fn raise_all() {
    raise(&[
        Resource::Nofile,
        Resource::Fsize,
        Resource::Cpu,
        Resource::As,
        Resource::Data,
        Resource::Memlock,
        Resource::Nproc,
    ]);
}

fn raise(all: &[Resource]) {
    for resource in all {
        let mut limit = getrlimit(*resource);
        limit.current = limit.maximum;
        let _ = setrlimit(*resource, limit);
    }
}
