//! A toy of ZFS's commit (data, flush, uberblock, flush) swept over every cut and many cache outcomes; and
//! the sweep goes red when either flush is taken away. A checker is believed after it has been seen to fail.

use icecore_env::{Device, DeviceError};
use icecore_sim::SimDisk;

const SLOTS: u64 = 4;
const DATA: u64 = 4096;
const BLOCK: usize = 2048;

/// Copy on write: txg N's data goes beside N-1's, then one of the uberblock slots names it.
fn commit(d: &dyn Device, txg: u64) -> Result<(), DeviceError> {
    d.write_at(data_at(txg), &[txg as u8; BLOCK])?;
    d.flush()?;
    let mut uber = [0; 512];
    uber[..8].copy_from_slice(&txg.to_le_bytes());
    uber[504..].copy_from_slice(&(!txg).to_le_bytes());
    d.write_at(txg % SLOTS * 512, &uber)?;
    d.flush()
}

fn data_at(txg: u64) -> u64 {
    DATA + txg % 2 * BLOCK as u64
}

/// The txg it opens at, or what is wrong with it.
fn open(d: &dyn Device) -> Result<u64, String> {
    let mut best = 0;
    for slot in 0..SLOTS {
        let mut uber = [0; 512];
        d.read_at(slot * 512, &mut uber).map_err(|e| e.to_string())?;
        let txg = u64::from_le_bytes(uber[..8].try_into().unwrap());
        let check = u64::from_le_bytes(uber[504..].try_into().unwrap());
        if txg == !check && txg > best {
            best = txg;
        }
    }
    let mut data = [0; BLOCK];
    d.read_at(data_at(best), &mut data).map_err(|e| e.to_string())?;
    if best > 0 && data.iter().any(|b| *b != best as u8) {
        return Err(format!("txg {best} has foreign data"));
    }
    Ok(best)
}

/// Runs 6 commits with a cut at every operation and 30 cache outcomes each; counts histories, or says which
/// one broke the promise.
fn sweep(lie: Option<u64>) -> Result<usize, String> {
    let mut histories = 0;
    for cut in 0..24 {
        let d = SimDisk::new("d", 16384);
        d.cut_after(cut);
        if let Some(k) = lie {
            (0..12).filter(|f| f % 2 == k).for_each(|f| d.ignore_flush(f));
        }
        let mut acknowledged = 0;
        for txg in 1..=6 {
            if commit(&d, txg).is_err() {
                break;
            }
            acknowledged = txg;
        }
        for seed in 0..30 {
            let after = d.crash(seed);
            let at = open(&after).map_err(|e| format!("cut {cut}, seed {seed}: {e}"))?;
            if at != acknowledged && at != acknowledged + 1 {
                return Err(format!("cut {cut}, seed {seed}: acknowledged {acknowledged}, opened {at}"));
            }
            histories += 1;
        }
    }
    Ok(histories)
}

#[test]
fn with_both_flushes_every_history_opens() {
    assert_eq!(sweep(None), Ok(24 * 30));
}

#[test]
fn without_the_flush_before_the_uberblock_the_sweep_fails() {
    assert!(sweep(Some(0)).unwrap_err().contains("foreign data"));
}

#[test]
fn without_the_flush_after_the_uberblock_the_sweep_fails() {
    assert!(sweep(Some(1)).is_err());
}
