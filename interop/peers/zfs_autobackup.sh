#!/bin/bash
# zfs_autobackup between two pools of ours, then its own tests.
PEER=zfs_autobackup
. /peers/scripts/lib.sh
export PYTHONPATH=/peers/py/zfs_autobackup
backup() { python3 -m zfs_autobackup.ZfsAutobackup --verbose --debug "$@"; }

source_pool() {
    pool src && pool dst
    zfs create src/data
    zfs create src/data/below
    zfs set autobackup:off1=true src/data
    files src/data one 2
    files src/data/below one 1
}

latest() { snapshots "$1" | tail -n 1; }

first_and_increment() {
    source_pool
    backup off1 dst --strip-path 1
    sleep 1.1
    files src/data two 2
    backup off1 dst --strip-path 1
    [ "$(snapshots dst/data | wc -l)" = 2 ]
    same "src/data@$(latest src/data)" "dst/data@$(latest dst/data)"
    same "src/data/below@$(snapshots src/data/below | head -n 1)" "dst/data/below@$(snapshots dst/data/below | head -n 1)"
    judge src dst
}

resume() {
    source_pool
    files src/data more 48
    backup off1
    zfs create -p dst
    zfs send "src/data@$(latest src/data)" | head -c 30000000 | zfs receive -s -u dst/data || true
    zfs get -H -o value receive_resume_token dst/data | grep -q '^1-'
    sleep 1.1
    backup off1 dst --strip-path 1
    same "src/data@$(latest src/data)" "dst/data@$(latest dst/data)"
    judge src dst
}

prune() {
    source_pool
    local n
    for n in 1 2 3; do
        files src/data "n$n" 1
        backup off1 dst --strip-path 1 --keep-source 1 --keep-target 1
        sleep 1.1
    done
    [ "$(snapshots src/data | wc -l)" -le 2 ]
    same "src/data@$(latest src/data)" "dst/data@$(latest dst/data)"
    judge src dst
}

encrypted_raw() {
    pool src && pool dst
    printf 'correct horse' >key
    zfs create -o encryption=on -o keyformat=passphrase -o "keylocation=file://$WORK/key" src/data
    zfs set autobackup:off1=true src/data
    files src/data one 4
    backup off1 dst --strip-path 1
    sleep 1.1
    files src/data two 4
    backup off1 dst --strip-path 1
    [ "$(zfs get -H -o value keystatus dst/data)" = unavailable ]
    zfs load-key -L "file://$WORK/key" dst/data
    same "src/data@$(latest src/data)" "dst/data@$(latest dst/data)"
    zfs unload-key dst/data
    judge src dst
}

for c in first_and_increment resume prune encrypted_raw; do run_case $c $c; done

# Its own tests make pools on /dev/ram0 to 2: files of these names do as well.
suite=/peers/src/zfs_autobackup
if [ -d $suite ]; then
    cp -r $suite /tmp/za
    cd /tmp/za || exit 1
    # Of the tests' own needs, unittest2 does not load in a python of today, whose unittest has all it had.
    echo 'from unittest import *' >unittest2.py
    # These run no zfs at all, and say nothing of ours.
    for n in thinner blockhasher cmdpipe executenode log treehasher; do rm -f tests/test_$n.py; done
    for n in 0 1 2; do truncate -s 512M /dev/ram$n; done
    PYTHONPATH=/tmp/za:/peers/py/zfs_autobackup timeout 3000 python3 -m unittest discover -v -s tests >/peers/out/$PEER.own.log 2>&1
    /peers/scripts/unittest.sh /peers/out/$PEER.own.log
else
    na own-tests "zfs_autobackup's own tests could not be fetched"
fi
