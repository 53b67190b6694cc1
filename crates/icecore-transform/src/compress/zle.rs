//! Zero-length encoding (zle.c): a byte below 64 is followed by that many and one literal bytes; a byte from
//! 64 on stands for that many less 63 zeros.

const LITERALS_MAX: usize = 64;
const ZEROS_MAX: usize = 256 - LITERALS_MAX;

pub(super) fn decompress(mut src: &[u8], mut out: &mut [u8]) -> Option<()> {
    while !out.is_empty() {
        let (&code, rest) = src.split_first()?;
        let count = usize::from(code) + 1;
        if count <= LITERALS_MAX {
            let (literals, rest) = rest.split_at_checked(count)?;
            let (to, behind) = out.split_at_mut_checked(count)?;
            to.copy_from_slice(literals);
            (src, out) = (rest, behind);
        } else {
            let (to, behind) = out.split_at_mut_checked(count - LITERALS_MAX)?;
            to.fill(0);
            (src, out) = (rest, behind);
        }
    }
    Some(())
}

pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(max);
    let mut rest = src;
    while let Some(&first) = rest.first() {
        let run = if first == 0 {
            let run = rest.iter().take(ZEROS_MAX).take_while(|b| **b == 0).count();
            out.push(u8::try_from(run - 1 + LITERALS_MAX).ok()?);
            run
        } else {
            // A lone zero costs less among the literals than as a run of its own; two do not.
            let window = rest.get(..LITERALS_MAX).unwrap_or(rest);
            let run = window.windows(2).position(|w| w == [0, 0]).unwrap_or(window.len());
            out.push(u8::try_from(run - 1).ok()?);
            out.extend_from_slice(rest.get(..run)?);
            run
        };
        if out.len() > max {
            return None;
        }
        rest = rest.get(run..)?;
    }
    Some(out)
}
