//! `zfs snapshot`.

use super::cannot;
use crate::args::{Typed, flag, value};
use crate::fail::{Fail, Outcome};
use crate::session::{self, For};

pub const USAGE: &str = "snapshot [-r] [-o property=value] ... <filesystem|volume>@<snap> ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[flag('r', ""), value('o', "")], USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing snapshot argument", USAGE));
    }
    let props = typed.values('o').map(|o| super::set::split(o, USAGE)).collect::<Outcome<Vec<_>>>()?;
    for name in &typed.operands {
        let Some((path, snap)) = name.split_once('@') else {
            return Err(Fail::usage(format!("invalid snapshot name '{name}'"), USAGE));
        };
        let mut pool = session::open(name, For::Write)?;
        let (io, dsl) = pool.parts();
        let names = if typed.has('r') {
            dsl.snapshot_names_below(io, path, snap).map_err(|e| cannot("create snapshot", name, &e))?
        } else {
            vec![name.clone()]
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        dsl.snapshot(io, &names, &props).map_err(|e| cannot("create snapshot", name, &e))?;
        pool.commit()?;
    }
    Ok(())
}
