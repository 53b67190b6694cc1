# After icecore's increment onto a pool that real OpenZFS had written to meanwhile: everything from the beginning on.
. ./guest.sh
take /dev/vdc backup
check "import" zpool import -N -d /tmp/disks backup
check "key" load_key backup/encrypted
same_snapshots backup expected
check "scrub finds nothing" scrubs_clean backup
check "the newest increment is everywhere" [ "$(zfs list -Hr -t snapshot -o name backup | grep -c '@month4$')" = "$(zfs list -Hr -t filesystem,volume -o name backup | grep -c .)" ]
check "export" zpool export backup
finish
