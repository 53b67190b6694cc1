//! Every target over its seeds and over changed ones: seconds, not proof. Proof is `cargo xtask fuzz`.

use super::{TARGETS, Target};
use icecore_sim::Rng;
use std::time::{Duration, Instant};

/// Changed seeds for one target, and the time after which it is enough.
const ROUNDS: usize = 3000;
const BUDGET: Duration = Duration::from_millis(700);

fn changed(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..=rng.below(4) {
        if out.is_empty() {
            break;
        }
        let at = rng.below(out.len() as u64) as usize;
        match rng.below(8) {
            0 => out.truncate(at),
            1 => out.insert(at, rng.u64() as u8),
            _ => out[at] = [0, 1, 0x7f, 0x80, 0xff, rng.u64() as u8][rng.below(6) as usize],
        }
    }
    out
}

/// The input is named when it breaks something, so that it can become a test of its own.
fn feed(target: &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
    assert!(outcome.is_ok(), "target {} breaks on {hex}", target.name);
}

fn run(target: &Target) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds.iter().for_each(|seed| feed(target, seed));
    feed(target, &[]);
    let (mut rng, start) = (Rng::new(11), Instant::now());
    for _ in 0..ROUNDS {
        if start.elapsed() > BUDGET {
            break;
        }
        feed(target, &changed(&seeds[rng.below(seeds.len() as u64) as usize], &mut rng));
    }
}

#[test]
fn every_target_stands_its_seeds_and_changed_ones() {
    TARGETS.iter().for_each(run);
}
