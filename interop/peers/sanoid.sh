#!/bin/bash
# sanoid takes and prunes snapshots in a pool of ours.
PEER=sanoid
. /peers/scripts/lib.sh

policy() {
    mkdir -p conf
    cp /usr/share/sanoid/sanoid.defaults.conf conf/ 2>/dev/null || cp /etc/sanoid/sanoid.defaults.conf conf/
    cat >conf/sanoid.conf <<END
[src/data]
use_template = here
recursive = yes
[template_here]
frequently = 0
hourly = $1
daily = 1
weekly = 0
monthly = 0
yearly = 0
autosnap = yes
autoprune = yes
END
}

sanoid_() { sanoid --configdir="$WORK/conf" --cache-dir="$WORK/cache" --run-dir="$WORK/run" "$@"; }

take() {
    pool src
    zfs create src/data
    zfs create src/data/below
    files src/data one 1
    policy 2
    mkdir cache run
    sanoid_ --take-snapshots --verbose
    zfs list -H -o name -t snapshot -r src | tee out
    [ "$(grep -c '^src/data@autosnap_.*_hourly$' out)" = 1 ]
    [ "$(grep -c '^src/data/below@autosnap_.*_daily$' out)" = 1 ]
    judge src
}

prune() {
    pool src
    zfs create src/data
    local h
    policy 2
    mkdir cache run
    for h in 01 02 03 04 05; do zfs snapshot "src/data@autosnap_2020-01-01_$h:00:00_hourly"; done
    # sanoid goes by the time of creation, which is now: only what is more than hourly asks for and older goes.
    sanoid_ --take-snapshots --verbose
    sanoid_ --prune-snapshots --force-prune --force-update --verbose
    zfs list -H -o name -t snapshot -r src
    judge src
}

monitor() {
    pool src
    zfs create src/data
    policy 1
    mkdir cache run
    sanoid_ --take-snapshots
    sanoid_ --monitor-snapshots --force-update
    sanoid_ --monitor-health
    sanoid_ --monitor-capacity
    judge src
}

for c in take prune monitor; do run_case $c $c; done
