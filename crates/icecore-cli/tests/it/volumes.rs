//! Volumes: made, shown, resized, encrypted, sent, and what is reserved for them.

use crate::support::Desk;

#[test]
fn volumes_are_made_with_their_reservation() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -V 10M tank/v");
    let get = |prop: &str, name: &str| desk.get(prop, name);
    assert_eq!(get("type", "tank/v"), "volume");
    assert_eq!(get("volsize", "tank/v"), "10485760");
    assert_eq!(get("volblocksize", "tank/v"), "16384");
    // Seven levels of the metadnode and one indirect block, twice, 128 KiB each.
    assert_eq!(get("refreservation", "tank/v"), (10_485_760 + 16 * 131_072).to_string());
    assert_eq!(desk.ok("zfs get -H -o value volsize tank/v"), "10M\n");
    desk.ok("zfs create -s -V 1000001 -b 8k tank/odd");
    assert_eq!(get("volsize", "tank/odd"), "1007616", "rounded up to whole blocks");
    assert_eq!(get("volblocksize", "tank/odd"), "8192");
    assert_eq!(get("refreservation", "tank/odd"), "0");
    desk.ok("zfs create -p -V 1M -o volblocksize=128K -o compression=zstd tank/a/b/v");
    assert_eq!(get("volblocksize", "tank/a/b/v"), "131072");
    assert_eq!(get("compression", "tank/a/b/v"), "zstd");
    desk.ok("zfs create -s -V 4M -o volblocksize=1M tank/large");
    assert_eq!(desk.names("-t volume -r tank"), ["tank/a/b/v", "tank/large", "tank/odd", "tank/v"]);
    let before = desk.seen("tank");
    for (line, words) in [
        ("-V 0 tank/x", "cannot create 'tank/x': volume size cannot be zero"),
        ("-V 10Q tank/x", "bad volume size '10Q': invalid numeric suffix 'Q'"),
        ("-V 1M -b 5k tank/x", "'volblocksize' must be power of 2 from 512B to 16M"),
        ("-V 1M -b 256 tank/x", "'volblocksize' must be power of 2 from 512B to 16M"),
        ("-V 1M -b x tank/x", "bad volume block size 'x': bad numeric value 'x'"),
        ("-V 1M -o recordsize=8k tank/x", "'recordsize' does not apply to datasets of this type"),
        ("-V 1M -o mountpoint=/x tank/x", "'mountpoint' does not apply to datasets of this type"),
        ("-V 900G tank/x", "cannot create 'tank/x': out of space"),
        ("-V 1M tank/v", "cannot create 'tank/v': dataset already exists"),
        ("-V 1M tank/v/below", "cannot create 'tank/v/below': parent is not a filesystem"),
        ("-o volsize=1M tank/x", "'volsize' does not apply to datasets of this type"),
    ] {
        desk.refused(&format!("zfs create {line}"), 1, &[words]);
    }
    let dry = desk.ok("zfs create -nP -V 10M tank/dry");
    assert_eq!(dry, "create\ttank/dry\nproperty\tvolsize\t10485760\nproperty\trefreservation\t12582912\n");
    assert_eq!(desk.seen("tank"), before, "nothing of all that was done");
    desk.export_and_judge("tank");
}

#[test]
fn sizes_change_and_their_reservation_with_them() {
    let desk = Desk::with_pool("tank");
    desk.ok("zfs create -V 10M tank/v");
    desk.ok("zfs set volsize=20M tank/v");
    assert_eq!(desk.get("volsize", "tank/v"), (20 << 20).to_string());
    assert_eq!(desk.get("refreservation", "tank/v"), ((20 << 20) + 2 * (7 + 2 + 1) * 131_072).to_string());
    desk.ok("zfs set refreservation=none tank/v");
    desk.ok("zfs set volsize=1M tank/v");
    assert_eq!(desk.get("refreservation", "tank/v"), "0", "what was set otherwise stays");
    desk.ok("zfs set refreservation=auto tank/v");
    assert_eq!(desk.get("refreservation", "tank/v"), ((1 << 20) + 16 * 131_072).to_string());
    let before = desk.seen("tank");
    for (pair, words) in [
        ("volsize=1000", "'volsize' must be a multiple of volume block size (16K)"),
        ("volsize=0", "'volsize' cannot be zero"),
        ("volsize=9E", "size is greater than available space"),
        ("volblocksize=8k", "'volblocksize' is readonly"),
        ("quota=1G", "'quota' does not apply to datasets of this type"),
    ] {
        let done =
            desk.refused(&format!("zfs set {pair} tank/v"), 255, &["cannot set property for 'tank/v': "]);
        let fits = done.err.contains(words) || (pair == "volsize=9E" && done.err.contains("out of space"));
        assert!(fits, "{pair}: {}", done.err);
    }
    assert_eq!(desk.seen("tank"), before);
    desk.ok("zfs set readonly=on tank/v");
    desk.refused(
        "zfs set volsize=2M tank/v",
        255,
        &["cannot set property for 'tank/v': dataset is read-only"],
    );
    desk.ok("zfs inherit readonly tank/v");
    assert_eq!(desk.get("volsize", "tank/v"), (1 << 20).to_string());
    desk.ok("zfs snapshot tank/v@s");
    assert_eq!(desk.get("volsize", "tank/v@s"), (1 << 20).to_string());
    desk.ok("zfs clone tank/v@s tank/c");
    assert_eq!(desk.get("type", "tank/c"), "volume");
    desk.ok("zfs promote tank/c");
    desk.pool("back", 128);
    desk.piped("zfs send tank/c@s", "zfs receive back/v");
    assert_eq!(desk.get("volsize", "back/v"), (1 << 20).to_string());
    let zeros = desk.bytes("icecore cat tank/c");
    assert_eq!(zeros, vec![0; 1 << 20]);
    desk.export_and_judge("tank");
    desk.export_and_judge("back");
}

#[test]
fn encrypted_volumes_and_datasets_of_another_kind_than_their_parent() {
    let desk = Desk::with_pool("tank");
    let key = desk.key_file("key", &[7; 32]);
    let own = format!("-o encryption=on -o keyformat=raw -o keylocation={key}");
    desk.ok(&format!("zfs create {own} tank/e"));
    desk.ok(&format!("zfs create {own} -V 1M tank/v"));
    desk.ok("zfs create -V 1M -s tank/e/v");
    desk.ok("zfs create -o encryption=aes-128-ccm tank/e/other");
    desk.ok("zfs create -o encryption=off tank/e/open");
    desk.ok("zfs create tank/e/open/below");
    for (name, suite, root) in [
        ("tank/v", "aes-256-gcm", "tank/v"),
        ("tank/e/v", "aes-256-gcm", "tank/e"),
        ("tank/e/other", "aes-128-ccm", "tank/e"),
        ("tank/e/open", "off", "-"),
        ("tank/e/open/below", "off", "-"),
    ] {
        assert_eq!(desk.get("encryption", name), suite, "{name}");
        assert_eq!(desk.get("encryptionroot", name), root, "{name}");
    }
    let before = desk.seen("tank");
    desk.refused(
        "zfs create -o encryption=off -o keyformat=raw tank/e/x",
        1,
        &["cannot create 'tank/e/x': Encryption must be turned on to set encryption properties."],
    );
    desk.refused("zfs create -o copies=3 tank/e/x", 1, &["encrypted datasets cannot have 3 copies"]);
    desk.refused("zfs rename tank/e/other tank/x", 1, &["cannot rename 'tank/e/other': "]);
    assert_eq!(desk.seen("tank"), before);
    desk.ok("zfs rename tank/e/open tank/open");
    desk.ok("zfs snapshot tank/e/other@s");
    desk.ok("zfs clone tank/e/other@s tank/clone");
    assert_eq!(desk.get("encryptionroot", "tank/clone"), "tank/e");
    desk.refused(
        "zfs promote tank/clone",
        1,
        &["cannot promote 'tank/clone': cannot promote dataset outside its encryption root"],
    );
    desk.export_and_judge("tank");
}
