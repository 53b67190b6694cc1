//! Labels whose checksums hold and whose contents are senseless: an evil USB stick. Nothing may panic, hang
//! or allocate without bound, and no write may leave the vdev.

use std::sync::Arc;

use icecore_env::Device;
use icecore_format::nvlist::NvList;
use icecore_format::{Dva, Guid, Txg};
use icecore_sim::{Rng, SimDisk, SimEntropy};
use icecore_vdev::create::{self, NewKind, NewLeaf, NewTop, build};
use icecore_vdev::label::{self, LabelSet, Labels};
use icecore_vdev::probe::{Candidate, assemble};
use icecore_vdev::{PoolConfig, VdevConfig, VdevKind, VdevSet};

use crate::fixture::main_labels;

/// A few bytes of a packed nvlist replaced by likely troublemakers.
fn mutated(packed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = packed.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(out.len() as u64) as usize;
        out[at] = [0, 1, 0x7f, 0xff, rng.u64() as u8][rng.below(5) as usize];
    }
    out
}

fn raidz_label() -> Vec<u8> {
    let disks: Vec<Arc<SimDisk>> =
        (0..4).map(|i| Arc::new(SimDisk::new(&format!("d{i}"), 64 << 20))).collect();
    let leaf = |d: &Arc<SimDisk>| NewLeaf {
        device: d.clone() as Arc<dyn Device>,
        path: d.name(),
        whole_disk: Some(true),
    };
    let leaves = disks.iter().map(leaf).collect();
    let top = NewTop { kind: NewKind::Raidz(2), leaves, log: false, ashift: Some(12) };
    let tree = build(vec![top], &SimEntropy::new(1)).unwrap();
    let first = *tree.devices.keys().next().unwrap();
    let config = create::pool_config("tank", &tree, 1, "host");
    config.label_for(first, &Default::default()).unwrap().to_nvlist().encode_xdr()
}

#[test]
fn mutated_configurations_open_or_fail() {
    let main = Labels::read(&main_labels()).best(Txg(u64::MAX)).unwrap().to_nvlist().encode_xdr();
    let mut rng = Rng::new(1);
    let mut opened = 0;
    for packed in [main, raidz_label()] {
        for _ in 0..4000 {
            let Ok((list, _)) = NvList::decode(&mutated(&packed, &mut rng)) else { continue };
            let Ok(config) = PoolConfig::parse(&list) else { continue };
            assert_eq!(config.to_nvlist(), list);
            let Some(tree) = config.vdev_tree else { continue };
            let mut root = VdevConfig::new(VdevKind::Root, Guid(1));
            let leaves = tree.leaves();
            let devices = leaves.iter().map(|l| {
                let disk: Arc<dyn Device> = Arc::new(SimDisk::new("d", 256 << 20));
                (l.guid, disk)
            });
            let devices = devices.collect();
            root.children.push(tree);
            let Ok(set) = VdevSet::open(&root, &devices) else { continue };
            opened += 1;
            let asize = set.tops()[0].asize;
            for offset in [0, rng.below(1 << 40) << 9, asize.saturating_sub(4096) >> 9 << 9] {
                let dva = Dva::new(0, offset, 4096, false);
                _ = set.read(&dva, 131_072, &mut |_| false);
                _ = set.scrub(&dva, 4096, None, &mut |_| true);
                _ = set.tops()[0].metaslabs();
            }
            _ = set.health();
        }
    }
    assert!(opened > 1000, "many of them were believed: {opened}");
}

#[test]
fn mutated_labels_are_probed_without_harm() {
    let disk = Arc::new(main_labels());
    let packed = Labels::read(&*disk).best(Txg(u64::MAX)).unwrap().to_nvlist().encode_xdr();
    let mut rng = Rng::new(2);
    let mut pools = 0;
    for _ in 0..150 {
        let Ok((list, _)) = NvList::decode(&mutated(&packed, &mut rng)) else { continue };
        label::write_config(&*disk, LabelSet::All, &list).unwrap();
        let candidate = Candidate::examine(disk.clone(), None);
        pools += assemble(&candidate.into_iter().collect::<Vec<_>>()).0.len();
    }
    assert!(pools > 30, "{pools}");
}

#[test]
fn a_top_level_vdev_that_makes_no_sense_is_missing() {
    let disk = Arc::new(main_labels());
    let mut config = Labels::read(&*disk).best(Txg(u64::MAX)).unwrap().clone();
    config.vdev_tree.as_mut().unwrap().ashift = None;
    label::write_config(&*disk, LabelSet::All, &config.to_nvlist()).unwrap();
    let (pools, _) = assemble(&[Candidate::examine(disk, None).unwrap()]);
    assert_eq!(pools.len(), 1);
    assert!(pools[0].vdevs.check_readable().is_err());
}
