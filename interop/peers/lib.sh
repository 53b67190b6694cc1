# What the cases of all peers share. Sourced in the sandbox; prints one line a case into /peers/out/results:
#   PASS CASE | FAIL CASE why | NA CASE why        (separated by TABs)
set -u
export LC_ALL=C TZ=UTC
: "${PEER:?}"
RESULTS=/peers/out/results

# A text of one line, for a table.
line() { tr '\t\n' '  ' | cut -c 1-300; }

na() { printf 'NA\t%s\t%s\n' "$1" "$2" >>"$RESULTS"; }

# run_case NAME FUNCTION: the function in a folder and a shell of its own, stopped at its first failure.
run_case() {
    local name=$1 log=/peers/out/$PEER.$1.log status
    export PEERS_CASE=$name
    WORK=/tmp/$PEER/$name
    mkdir -p "$WORK"
    (
        set -eEu -o pipefail
        trap 'echo "stopped at: $BASH_COMMAND"' ERR
        cd "$WORK"
        "$2"
    ) >"$log" 2>&1 </dev/null
    status=$?
    if [ $status = 130 ]; then # the word of syncoid's own tests for it
        na "$name" "skips itself"
    elif [ $status = 0 ]; then
        printf 'PASS\t%s\n' "$name" >>"$RESULTS"
    else
        printf 'FAIL\t%s\t%s\n' "$name" "$(tail -n 3 "$log" | line)" >>"$RESULTS"
    fi
    local pool
    for pool in $(zpool list -H -o name 2>/dev/null); do
        zpool destroy -f "$pool" >>"$log" 2>&1 || zpool export -f "$pool" >>"$log" 2>&1
    done
    rm -rf "$WORK"
    unset PEERS_CASE
}

# pool NAME: a pool on a file in a folder of its own.
pool() {
    mkdir -p "$WORK/$1"
    truncate -s "${2:-512M}" "$WORK/$1/drive.img"
    zpool create -o ashift=12 -m none "$1" "$WORK/$1/drive.img"
}

# files DATASET NAME MIB: a folder NAME with a big file of random bytes, and some small ones.
files() {
    local from=$WORK/files/$2 i
    mkdir -p "$from/$2"
    head -c "${3}M" /dev/urandom >"$from/$2/big"
    for i in 1 2 3 4 5; do echo "$2 $i" >"$from/$2/small$i"; done
    icecore import-tree "$from" "$1"
}

guid() { zfs get -H -p -o value guid "$1"; }

# same A@X B@Y: the same snapshot by guid, and the same files.
same() {
    local a b
    a=$(guid "$1")
    b=$(guid "$2")
    echo "guids: $1 $a, $2 $b"
    [ "$a" = "$b" ]
    rm -rf "$WORK/a" "$WORK/b"
    mkdir "$WORK/a" "$WORK/b"
    icecore cp -r "$1" "$WORK/a/x"
    icecore cp -r "$2" "$WORK/b/x"
    diff -r "$WORK/a/x" "$WORK/b/x"
    [ -n "$(find "$WORK/a/x" -type f)" ]
}

# The names of a dataset's snapshots, oldest first.
snapshots() { zfs list -H -o name -t snapshot -s createtxg -d 1 "$1" | sed 's/.*@//'; }

# Exports the pools and lets OpenZFS's zdb judge each.
judge() {
    local pool
    for pool in "$@"; do
        zpool export "$pool"
        /peers/xtask judge "$WORK/$pool" "$pool"
    done
}
