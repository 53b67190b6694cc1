#!/bin/sh
# Pools made by OpenZFS's ztest at random, for the test `layouts::of_ztest` (ICECORE_ZTEST=DIR). Debian has ztest in
# zfs-test, which wants dkms; `dpkg -x` is enough: ZTEST=path. Takes about six minutes.
# Usage: ztest.sh DIR (absolute)
set -eu
ztest=${ZTEST:-ztest}
run() { # NAME SECONDS OPTIONS...
    name=$1 seconds=$2; shift 2
    mkdir -p "$dir/$name"
    "$ztest" -f "$dir/$name" -p "$name" -C special=off -P 20 -k 0 -t 6 -d 2 -T "$seconds" -V "$@" > "$dir/$name.log" 2>&1
}
dir=$1
run mirrors 60 -v 3 -m 2 -r 1 -R 1 -K raidz -s 128M -a 12
# Nothing but single disks at first: ztest removes some of them, one after the other.
run removed 120 -v 4 -m 1 -r 1 -R 1 -K raidz -s 64M -a 9
run draid2 60 -v 1 -m 1 -r 8 -R 2 -K draid -D 3 -S 2 -s 256M -a 12
run narrow 90 -v 1 -m 1 -r 6 -R 2 -K draid -D 2 -S 2 -s 256M -a 12
