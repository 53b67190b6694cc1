//! What `zpool import` and `create` can do besides: names for a while, cache files, properties.

use crate::support::Desk;
use icecore_env::{Access, FileDevice};
use icecore_format::nvlist::NvValue;
use icecore_format::{NvList, Txg};
use icecore_vdev::Labels;
use icecore_vdev::config::PoolConfig;

/// What the labels of a drive say, whoever has it.
fn label(image: &std::path::Path) -> PoolConfig {
    let device = FileDevice::open(image, Access::Probe).unwrap();
    Labels::read(&device).best(Txg(u64::MAX)).unwrap().clone()
}

fn labelled(desk: &Desk, image: &str) -> String {
    label(&desk.path(image)).name.unwrap()
}

#[test]
fn a_name_for_a_while_is_not_written_down() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create tank/fs");
    desk.ok("zpool export tank");
    let import = format!("zpool import -d {}", desk.path("tank").display());
    desk.ok(&format!("{import} -t tank other"));
    assert_eq!(desk.names("-r other"), ["other", "other/fs"]);
    desk.refused("zfs list tank", 1, &["dataset does not exist"]);
    desk.ok("zfs create other/new");
    desk.ok("zpool set comment=hello other");
    // Neither a command that fails half-way nor the end of the service brings the old name back.
    desk.refused("zfs create other/none/x", 1, &["parent does not exist"]);
    desk.ok("icecore service stop");
    desk.ok("zfs snapshot -r other@s");
    assert_eq!(labelled(&desk, "tank/drive.img"), "tank");
    desk.refused(
        &format!("{import} tank"),
        1,
        &["cannot import 'tank': a pool with that name already exists"],
    );
    desk.ok("zpool export other");
    desk.judge("tank");
    desk.import("tank");
    assert_eq!(desk.names("-r tank"), ["tank", "tank/fs", "tank/new"]);
    // Without -t the name stays.
    desk.ok("zpool export tank");
    desk.ok(&format!("{import} tank kept"));
    assert_eq!(labelled(&desk, "tank/drive.img"), "kept");
    desk.ok("zpool export kept");
}

#[test]
fn a_new_pool_may_go_by_another_name_first() {
    let desk = Desk::new();
    let drive = desk.drive("drive.img", 128);
    desk.ok(&format!("zpool create -O mountpoint=none -t here tank {}", drive.display()));
    desk.ok("zfs create here/fs");
    assert_eq!(desk.ok("zpool list -H -o name"), "here\n");
    assert_eq!(labelled(&desk, "drive.img"), "tank");
    desk.ok("zpool export here");
    desk.ok(&format!("zpool import -d {} tank", drive.display()));
    assert_eq!(desk.names("-r tank"), ["tank", "tank/fs"]);
    desk.ok("zpool export tank");
}

/// A cache file as OpenZFS writes one: each pool's configuration by its name.
#[test]
fn pools_are_found_by_a_cache_file() {
    let desk = Desk::new();
    let mut list = NvList::new();
    for name in ["one", "two"] {
        let image = desk.pool(name, 128);
        desk.ok(&format!("zpool export {name}"));
        if name == "one" {
            list.set(name, NvValue::List(label(&image).to_nvlist()));
        }
    }
    std::fs::write(desk.path("cache"), list.encode_xdr()).unwrap();
    let listed = desk.ok("zpool import -c cache");
    assert!(listed.contains("pool: one\n") && !listed.contains("two"), "{listed}");
    desk.refused("zpool import -c cache two", 1, &["cannot import 'two': no such pool available"]);
    desk.ok("zpool import -c cache one");
    desk.ok("zpool export one");
    // What has been renamed since is found in its folder.
    std::fs::rename(desk.path("one/drive.img"), desk.path("one/moved.img")).unwrap();
    desk.ok("zpool import -c cache -a");
    assert_eq!(desk.ok("zpool list -H -o name"), "one\n");
    desk.ok("zpool export one");
    std::fs::write(desk.path("cut"), &list.encode_xdr()[..40]).unwrap();
    desk.refused("zpool import -c cut one", 1, &["invalid or corrupt cache file contents"]);
}

#[test]
fn properties_are_set_with_the_import() {
    let desk = Desk::with_pool("tank");
    desk.ok("zpool export tank");
    let import = format!("zpool import -d {}", desk.path("tank").display());
    desk.refused(&format!("{import} -o failmode=x tank"), 1, &["'failmode' must be one of"]);
    desk.refused(&format!("{import} -o bootfs=tank tank"), 1, &["cannot be set at creation or import time"]);
    desk.refused(&format!("{import} -o ro tank"), 1, &["mount options"]);
    desk.ok(&format!("{import} -o comment=cold -o failmode=continue -o autoexpand=on tank"));
    let props = desk.ok("zpool get -H -o property,value comment,failmode,autoexpand tank");
    assert_eq!(props, "comment\tcold\nfailmode\tcontinue\nautoexpand\ton\n");
    desk.ok("zfs create tank/boot");
    desk.ok("zpool set bootfs=tank/boot tank");
    let bootfs = |desk: &Desk| desk.ok("zpool get -H -o value bootfs tank");
    assert_eq!(bootfs(&desk), "tank/boot\n");
    desk.ok("zfs rename tank/boot tank/root");
    assert_eq!(bootfs(&desk), "tank/root\n");
    desk.export_and_judge("tank");
    desk.import("tank");
    desk.ok("zfs destroy tank/root");
    assert_eq!(bootfs(&desk), "-\n");
    // Another dataset may get its number.
    desk.ok("zfs create tank/next");
    assert_eq!(bootfs(&desk), "-\n");
    desk.export_and_judge("tank");
}
