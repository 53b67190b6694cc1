//! Pools whose root file system is encrypted.

use crate::support::Desk;

const PASSPHRASE: &[u8] = b"open sesame please\n";
const CREATE: &str =
    "zpool create -o ashift=12 -m none -O encryption=on -O keyformat=passphrase -O pbkdf2iters=100000";

fn with_encrypted(name: &str) -> Desk {
    let desk = Desk::new();
    let drive = desk.drive(&format!("{name}/drive.img"), 128);
    desk.feed(&format!("{CREATE} {name} {}", drive.display()), PASSPHRASE);
    desk
}

#[test]
fn the_root_of_a_pool_is_encrypted_and_all_below_it() {
    let desk = with_encrypted("vault");
    assert_eq!(desk.get("encryption", "vault"), "aes-256-gcm");
    assert_eq!(desk.get("encryptionroot", "vault"), "vault");
    assert_eq!(desk.get("keylocation", "vault"), "prompt");
    assert_eq!(desk.get("keyformat", "vault"), "passphrase");
    assert_eq!(desk.get("pbkdf2iters", "vault"), "100000");
    assert_eq!(desk.get("keystatus", "vault"), "available");
    assert_eq!(desk.ok("zpool get -H -o value feature@encryption vault"), "active\n");
    desk.ok("zfs create vault/docs");
    assert_eq!(desk.get("encryptionroot", "vault/docs"), "vault");
    std::fs::write(desk.path("letter"), "dear reader").unwrap();
    for fs in ["vault", "vault/docs"] {
        desk.ok(&format!("icecore cp letter {fs}:/letter"));
    }
    desk.ok("zfs snapshot -r vault@s");
    desk.export_and_judge("vault");
    desk.import("vault");
    assert_eq!(desk.get("keystatus", "vault/docs"), "unavailable");
    desk.feed_refused(
        "zfs load-key vault",
        b"open barley please\n",
        &["Incorrect key provided for 'vault'."],
    );
    desk.feed("zfs load-key vault", PASSPHRASE);
    assert_eq!(desk.ok("icecore cat vault:/letter"), "dear reader");
    desk.refused("zfs change-key -i vault", 255, &["Key change error: Root dataset cannot inherit key."]);
    desk.refused("zfs inherit encryption vault", 1, &["encryption"]);
    desk.feed("zfs change-key -o keyformat=hex vault", &[b'7'; 64]);
    assert_eq!(desk.get("keyformat", "vault/docs"), "hex");
    // Not encrypted below an encrypted root, if that is said.
    desk.ok("zfs create -o encryption=off vault/plain");
    assert_eq!(desk.get("encryption", "vault/plain"), "off");
    desk.export_and_judge("vault");
    desk.import("vault");
    desk.feed("zfs load-key vault", &[b'7'; 64]);
    assert_eq!(desk.ok("icecore cat vault/docs:/letter"), "dear reader");
}

/// A whole pool goes raw below another, and its root file system comes back decrypted.
#[test]
fn an_encrypted_root_is_sent_and_comes_back() {
    let desk = with_encrypted("vault");
    desk.ok("zfs create vault/docs");
    std::fs::write(desk.path("letter"), "dear reader").unwrap();
    desk.ok("icecore cp letter vault/docs:/letter");
    desk.ok("zfs snapshot -r vault@s");
    desk.pool("away", 128);
    desk.piped("zfs send -w -R vault@s", "zfs receive -u away/vault");
    assert_eq!(desk.get("encryptionroot", "away/vault/docs"), "away/vault");
    desk.ok("icecore cp letter vault:/letter");
    desk.ok("zfs snapshot -r vault@t");
    desk.piped("zfs send -w -R -i @s vault@t", "zfs receive -u away/vault");
    desk.feed("zfs load-key away/vault", PASSPHRASE);
    assert_eq!(desk.ok("icecore cat away/vault@t:/letter"), "dear reader");
    // Onto the roots of other pools, as they are, nothing raw comes; OpenZFS says so too.
    let words = "zfs receive -F cannot be used to destroy an encrypted filesystem or overwrite an unencrypted one with an encrypted one";
    let before = desk.seen("away");
    let (_, refused) = desk.pipe("zfs send -w vault@s", "zfs receive -F away");
    assert!(refused.status == 1 && refused.err.contains(words), "{}", refused.err);
    let drive = desk.drive("fresh/drive.img", 128);
    desk.feed(&format!("{CREATE} fresh {}", drive.display()), PASSPHRASE);
    let (_, refused) = desk.pipe("zfs send away/vault@s", "zfs receive -F fresh");
    assert!(refused.status == 1 && refused.err.contains(words), "{}", refused.err);
    assert_eq!(desk.seen("away"), before);
    desk.export_and_judge("vault");
    desk.export_and_judge("away");
}

#[test]
fn what_cannot_be_the_key_of_a_root_makes_no_pool() {
    let desk = Desk::new();
    let drive = desk.drive("vault/drive.img", 128);
    let create = |options: &str| format!("zpool create -m none {options} vault {}", drive.display());
    for (options, input, words) in [
        ("-O encryption=on", "", "cannot create 'vault': Keyformat required for new encryption root."),
        (
            "-O keyformat=raw",
            "",
            "cannot create 'vault': Encryption must be turned on to set encryption properties.",
        ),
        ("-O encryption=on -O keylocation=prompt", "", "Keyformat required for new encryption root."),
        ("-O encryption=on -O keyformat=passphrase", "short", "Passphrase too short (min 8)."),
        ("-O encryption=on -O keyformat=hex", "0123", "Hex key too short (expected 64)."),
        (
            "-O encryption=on -O keyformat=raw -O pbkdf2iters=200000",
            "0123456789abcdef0123456789abcdef",
            "Cannot specify pbkdf2iters with a non-passphrase keyformat.",
        ),
        (
            "-o feature@encryption=disabled -O encryption=on -O keyformat=hex",
            "",
            "Encryption feature not enabled.",
        ),
    ] {
        desk.feed_refused(&create(options), input.as_bytes(), &[words]);
        assert_eq!(desk.ok("zpool list -H -o name"), "", "{options}");
    }
    assert!(std::fs::read(&drive).unwrap().iter().all(|b| *b == 0), "the drive was written");
    // -n asks for no key.
    desk.ok(&create("-n -O encryption=on -O keyformat=passphrase"));
    // Without encryption what else is fixed at creation is kept too.
    desk.ok(&create("-O encryption=off -O utf8only=on -O casesensitivity=mixed"));
    assert_eq!(desk.get("casesensitivity", "vault"), "mixed");
    desk.export_and_judge("vault");
}
