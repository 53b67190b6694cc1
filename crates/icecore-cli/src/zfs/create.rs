//! `zfs create` of file systems without encryption (the rest comes with keys).

use super::cannot;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};

pub const USAGE: &str = "create [-pu] [-o property=value] ... <filesystem>";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('p', ""), flag('u', ""), value('o', "")], USAGE)?;
    let [name] = typed.operands.as_slice() else {
        return Err(Fail::usage("missing filesystem argument", USAGE));
    };
    let props = typed.values('o').map(|o| super::set::split(o, USAGE)).collect::<Outcome<Vec<_>>>()?;
    if props.iter().any(|(p, v)| matches!(*p, "encryption" | "keyformat" | "keylocation") && *v != "off") {
        return Err(Fail::new(format!(
            "cannot create '{name}': creating encrypted datasets is not supported yet; receive them raw"
        )));
    }
    let mut pool = session::open(name, For::Write)?;
    let (io, dsl) = pool.parts();
    if typed.has('p') {
        let mut path = session::pool_of(name).to_string();
        for part in name.split('/').skip(1).take(name.matches('/').count().saturating_sub(1)) {
            path = format!("{path}/{part}");
            if dsl.lookup_head(io, &path).is_err() {
                dsl.create_filesystem(io, &path, &[]).map_err(|e| cannot("create", &path, &e))?;
            }
        }
        if dsl.lookup_head(io, name).is_ok() {
            pool.commit()?;
            return Ok(());
        }
    }
    let (io, dsl) = pool.parts();
    dsl.create_filesystem(io, name, &props).map_err(|e| match e {
        icecore_dsl::DslError::NotFound(_) => {
            Fail::new(format!("cannot create '{name}': parent does not exist"))
        }
        e => cannot("create", name, &e),
    })?;
    pool.commit()?;
    Ok(())
}
