//! LZJB (lzjb.c): groups of eight items behind a flag byte, lowest bit first. An item is a literal byte, or
//! (flag set) two bytes: six bits of length less three, ten bits of distance back.

const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = MATCH_MIN + 63;
const DISTANCE_MAX: usize = 1023;
const TABLE: usize = 1024;

pub(super) fn decompress(src: &[u8], out: &mut [u8]) -> Option<()> {
    let mut from = src.iter().copied();
    let mut at = 0;
    'groups: while at < out.len() {
        let flags = from.next()?;
        for bit in 0..8 {
            if at >= out.len() {
                break 'groups;
            }
            if flags >> bit & 1 == 0 {
                *out.get_mut(at)? = from.next()?;
                at += 1;
                continue;
            }
            let (high, low) = (from.next()?, from.next()?);
            let distance = usize::from(high & 3) << 8 | usize::from(low);
            let length = (usize::from(high >> 2) + MATCH_MIN).min(out.len() - at);
            // A distance of zero would copy bytes not yet written.
            let start = at.checked_sub(distance).filter(|start| *start < at)?;
            for i in 0..length {
                *out.get_mut(at + i)? = *out.get(start + i)?;
            }
            at += length;
        }
    }
    Some(())
}

pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(max);
    // The last place each hash of three bytes was seen at, plus one.
    let mut seen = [0_usize; TABLE];
    let mut at = 0;
    while at < src.len() {
        let mut flags = 0_u8;
        let mut items = Vec::with_capacity(16);
        for bit in 0..8 {
            let Some(rest) = src.get(at..).filter(|rest| !rest.is_empty()) else { break };
            match find_match(src, at, &mut seen) {
                Some((distance, length)) => {
                    flags |= 1 << bit;
                    items.push(u8::try_from((length - MATCH_MIN) << 2 | distance >> 8).ok()?);
                    items.push((distance & 0xff) as u8);
                    at += length;
                }
                None => {
                    items.extend(rest.first());
                    at += 1;
                }
            }
        }
        out.push(flags);
        out.append(&mut items);
        if out.len() > max {
            return None;
        }
    }
    Some(out)
}

/// Distance and length of an earlier occurrence of what begins at `at`, and remembers `at`.
fn find_match(src: &[u8], at: usize, seen: &mut [usize; TABLE]) -> Option<(usize, usize)> {
    let rest = src.get(at..)?;
    let head: [u8; MATCH_MIN] = *rest.first_chunk()?;
    let mixed = u32::from_be_bytes([0, head[0], head[1], head[2]]).wrapping_mul(0x9e37_79b1);
    let slot = seen.get_mut((mixed >> 22) as usize)?;
    let before = std::mem::replace(slot, at + 1).checked_sub(1)?;
    let distance = at - before;
    if distance > DISTANCE_MAX {
        return None;
    }
    let length = rest.iter().zip(src.get(before..)?).take(MATCH_MAX).take_while(|(a, b)| a == b).count();
    (length >= MATCH_MIN).then_some((distance, length))
}
