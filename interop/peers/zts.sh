#!/bin/bash
# zts.sh GROUP...: OpenZFS's own tests of these groups (the last part of a group's folder, or GROUP/TEST for one), each with its
# log in /peers/out. Only ever in the sandbox: they remove what `zfs get mountpoint` names, as root.
# Some tests import a pool by its name, so its files have to be where `zpool import` looks: ZPOOL_IMPORT_PATH.
set -u
[ -d /peers/out ] || exit 1
useradd -m -s /bin/bash zts
echo 'zts ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/zts
chmod 440 /etc/sudoers.d/zts
chmod 755 /root # tests run python and others as an ordinary user
mkdir -p /tmp/run
for r in common linux; do
    sed "s/^timeout = .*/timeout = ${ZTS_TIMEOUT:-300}/" /usr/share/zfs/runfiles/$r.run >/tmp/run/$r.run
done
chmod -R a+rX /tmp/run
mkdir -p /var/tmp/zts
chmod 1777 /var/tmp/zts
for group in "$@"; do
    case $group in
    */*) what="-t tests/functional/$group" ;;
    *) what="-r /tmp/run/common.run,/tmp/run/linux.run -T $group" ;;
    esac
    log=/peers/out/zts.$(echo "$group" | tr / _)
    su zts -c "cd /; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ZPOOL_IMPORT_PATH=/var/tmp/zts:/dev \
        ZFS=/usr/local/sbin/zfs ZPOOL=/usr/local/sbin/zpool TESTFAIL_CALLBACKS=: \
        /usr/share/zfs/zfs-tests.sh -f -d /var/tmp/zts $what" >"$log.log" 2>&1 </dev/null
    cp /var/tmp/test_results/current/log "$log.full" 2>/dev/null
    # Another group's pools are none of this one's.
    for pool in $(zpool list -H -o name 2>/dev/null); do zpool destroy -f "$pool" || zpool export -f "$pool"; done
done
exit 0
