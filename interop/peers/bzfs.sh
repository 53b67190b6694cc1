#!/bin/bash
# bzfs between two pools of ours, then its own tests, which are part of its package.
PEER=bzfs
. /peers/scripts/lib.sh
export PYTHONPATH=/peers/py/bzfs
bzfs() { python3 -m bzfs_main.bzfs --no-privilege-elevation --log-dir="$WORK/bzfs-logs" --retries=0 "$@"; }

first_and_increments() {
    pool src && pool dst
    zfs create src/data
    local n
    for n in one two three; do
        files src/data $n 2
        zfs snapshot "src/data@$n"
        bzfs src/data dst/data
    done
    for n in one two three; do same "src/data@$n" "dst/data@$n"; done
    judge src dst
}

recursive() {
    pool src && pool dst
    zfs create src/tree
    zfs create src/tree/a
    zfs create src/tree/a/b
    files src/tree top 1
    files src/tree/a/b deep 2
    zfs snapshot -r src/tree@one
    bzfs --recursive src/tree dst/tree
    files src/tree/a/b more 2
    zfs snapshot -r src/tree@two
    bzfs --recursive src/tree dst/tree
    same src/tree@two dst/tree@two
    same src/tree/a/b@one dst/tree/a/b@one
    same src/tree/a/b@two dst/tree/a/b@two
    judge src dst
}

resume() {
    pool src && pool dst
    zfs create src/data
    files src/data one 48
    zfs snapshot src/data@one
    zfs send src/data@one | head -c 30000000 | zfs receive -s -u dst/data || true
    zfs get -H -o value receive_resume_token dst/data | grep -q '^1-'
    bzfs src/data dst/data
    same src/data@one dst/data@one
    judge src dst
}

encrypted_raw() {
    pool src && pool dst
    printf 'correct horse' >key
    zfs create -o encryption=on -o keyformat=passphrase -o "keylocation=file://$WORK/key" src/data
    local n
    for n in one two; do
        files src/data $n 4
        zfs snapshot src/data@$n
        bzfs --zfs-send-program-opts='--props --raw --compressed' src/data dst/data
    done
    [ "$(zfs get -H -o value keystatus dst/data)" = unavailable ]
    zfs load-key -L "file://$WORK/key" dst/data
    same src/data@two dst/data@two
    zfs unload-key dst/data
    judge src dst
}

# Snapshots that the source no longer has go at the target, also where it has kept a bookmark of them.
prune() {
    pool src && pool dst
    zfs create src/tree
    zfs create src/tree/a
    files src/tree/a x 1
    zfs snapshot -r src/tree@one
    zfs snapshot -r src/tree@two
    bzfs --recursive src/tree dst/tree
    zfs destroy -r src/tree@one
    bzfs --recursive --skip-replication src/tree dst/tree --delete-dst-snapshots --delete-dst-snapshots-no-crosscheck
    [ "$(snapshots dst/tree/a)" = two ]
    same src/tree/a@two dst/tree/a@two
    judge src dst
}

for c in first_and_increments recursive resume encrypted_raw prune; do run_case $c $c; done

# Its own: those that run zfs on this host (the others of the package call no zfs, or need a second host).
cd /tmp || exit 1
cat >/tmp/own.py <<'END'
import sys
import unittest
import bzfs_tests.test_all # as its own runner does
from bzfs_tests.itest import test_integrations
result = unittest.TextTestRunner(verbosity=2, descriptions=False).run(test_integrations.suite())
sys.exit(not result.wasSuccessful())
END
bzfs_test_mode=${BZFS_MODE:-functional} bzfs_test_enable_sudo=false \
    timeout "${BZFS_SECONDS:-3000}" python3 /tmp/own.py >/peers/out/$PEER.own.log 2>&1
/peers/scripts/unittest.sh /peers/out/$PEER.own.log
