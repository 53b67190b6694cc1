#!/bin/bash
# syncoid between two pools of ours, then its own tests.
PEER=syncoid
. /peers/scripts/lib.sh
# Its snapshots are named by the second: two in one are one too many.
SYNCOID=syncoid_
syncoid_() {
    sleep 1
    syncoid --no-privilege-elevation --compress=none "$@"
}

first_copy() {
    pool src && pool dst
    zfs create src/data
    files src/data one 8
    $SYNCOID src/data dst/data
    local last
    last=$(snapshots src/data | tail -n 1)
    same "src/data@$last" "dst/data@$last"
    judge src dst
}

increments() {
    pool src && pool dst
    zfs create src/data
    local n last
    for n in one two three; do
        files src/data $n 4
        zfs snapshot "src/data@$n"
        $SYNCOID src/data dst/data
    done
    for n in one two three; do same "src/data@$n" "dst/data@$n"; done
    last=$(snapshots src/data | tail -n 1)
    same "src/data@$last" "dst/data@$last"
    judge src dst
}

# The stream is cut in its middle; syncoid finds the token and goes on.
resume() {
    pool src && pool dst
    zfs create src/data
    files src/data one 48
    zfs snapshot src/data@one
    zfs send src/data@one | head -c 30000000 | zfs receive -s -u dst/data || true
    zfs get -H -o value receive_resume_token dst/data | grep -q '^1-'
    $SYNCOID --debug src/data dst/data | tee out
    grep -q -i 'resum' out
    same src/data@one dst/data@one
    judge src dst
}

recursive() {
    pool src && pool dst
    zfs create src/tree
    zfs create src/tree/a
    zfs create src/tree/a/b
    files src/tree top 1
    files src/tree/a/b deep 2
    $SYNCOID -r src/tree dst/tree
    files src/tree/a new 1
    $SYNCOID -r src/tree dst/tree
    local last
    last=$(snapshots src/tree | tail -n 1)
    for d in tree tree/a tree/a/b; do same "src/$d@$(snapshots src/$d | tail -n 1)" "dst/$d@$(snapshots src/$d | tail -n 1)"; done
    judge src dst
}

# Raw: the target never sees the key, and opens with the passphrase in the end.
encrypted_raw() {
    pool src && pool dst
    printf 'correct horse' >key
    zfs create -o encryption=on -o keyformat=passphrase -o "keylocation=file://$WORK/key" src/data
    files src/data one 4
    $SYNCOID --sendoptions=w src/data dst/data
    files src/data two 4
    $SYNCOID --sendoptions=w src/data dst/data
    [ "$(zfs get -H -o value keystatus dst/data)" = unavailable ]
    zfs load-key -L "file://$WORK/key" dst/data
    local last
    last=$(snapshots src/data | tail -n 1)
    same "src/data@$last" "dst/data@$last"
    zfs unload-key dst/data
    judge src dst
}

# Common snapshots are gone at the source; the bookmark carries the increment.
from_a_bookmark() {
    pool src && pool dst
    zfs create src/data
    files src/data one 2
    zfs snapshot src/data@one
    $SYNCOID --no-sync-snap --create-bookmark src/data dst/data
    files src/data two 2
    zfs snapshot src/data@two
    zfs destroy src/data@one
    $SYNCOID --no-sync-snap src/data dst/data
    same src/data@two dst/data@two
    judge src dst
}

# What syncoid made for itself is pruned by itself, also at the target.
prune() {
    pool src && pool dst
    zfs create src/data
    local n
    for n in one two three; do
        files src/data $n 1
        $SYNCOID src/data dst/data
    done
    [ "$(snapshots src/data | wc -l)" = 1 ]
    [ "$(snapshots dst/data | wc -l)" = 1 ]
    same "src/data@$(snapshots src/data)" "dst/data@$(snapshots dst/data)"
    judge src dst
}

for c in first_copy increments resume recursive encrypted_raw from_a_bookmark prune; do run_case $c $c; done

suite=/peers/src/sanoid
if [ -d $suite ]; then
    cp -r $suite /tmp/sanoid
    for dir in /tmp/sanoid/tests/syncoid/*/; do
        name=$(basename "$dir")
        own_test() {
            cd "$dir"
            export PATH=/tmp/sanoid:$PATH
            echo | timeout 180 bash run.sh
        }
        run_case "$name" own_test
    done
else
    na own-tests "syncoid's own tests could not be fetched"
fi
