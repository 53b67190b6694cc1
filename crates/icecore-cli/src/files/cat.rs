//! `icecore cat`.

use super::out::Out;
use super::place::{Place, Pools, complain};
use crate::args::Typed;
use crate::fail::{Fail, Outcome};
use icecore_dmu::Objset;
use icecore_pool::Io;
use icecore_zpl::{Content, FileKind, Follow};

pub const USAGE: &str = "cat POOL/FS[@SNAP]:PATH|POOL/VOLUME[@SNAP] ...";

pub fn run(args: &[String]) -> Outcome {
    let typed = Typed::parse(args, &[], USAGE)?;
    if typed.operands.is_empty() {
        return Err(Fail::usage("missing file", USAGE));
    }
    let mut pools = Pools::default();
    let mut out = Out::new()?;
    let mut failed = false;
    for operand in &typed.operands {
        let place = pools.place(operand)?;
        match one(&place, pools.io(&place)?, &mut out) {
            Ok(()) => {}
            Err(f) if f.message.is_empty() => return Err(f),
            Err(f) => {
                complain("cat", operand, &f.message);
                failed = true;
            }
        }
    }
    out.finish()?;
    if failed { Err(Fail::said(1)) } else { Ok(()) }
}

fn one(place: &Place, io: &Io, out: &mut Out) -> Outcome {
    if let Some(volume) = place.volume()? {
        return copy(volume.objset(), io, volume.content(), out);
    }
    let fs = place.filesystem()?;
    let z = place.resolve(io, Follow::Last)?.znode;
    match z.kind {
        FileKind::Regular => copy(fs.objset(), io, fs.content(&z)?, out),
        FileKind::Directory => Err(Fail::new("is a directory")),
        _ => Err(Fail::new("neither a regular file nor a volume")),
    }
}

fn copy(os: &Objset, io: &Io, mut content: Content, out: &mut Out) -> Outcome {
    let mut at = 0;
    loop {
        let window = content.next_window(os, io)?;
        if window.is_empty() {
            return out.zeros(content.size().saturating_sub(at));
        }
        for e in window {
            out.zeros(e.offset.saturating_sub(at))?;
            out.bytes(e.bytes())?;
            at = e.offset + e.bytes().len() as u64;
        }
    }
}
