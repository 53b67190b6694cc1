# Real OpenZFS in file systems whose files came through mounts of icecore. /dev/vdc: the pool `mounted`. Beside this script: what
# each was at the snapshot @first and in the end.
. ./guest.sh
. ./day-lib.sh
take /dev/vdc mounted
check "import" zpool import -N -d /tmp/disks mounted
check "key" load_key mounted/enc
for fs in enc plain; do
  same_at mounted/$fs@first $fs.first
  check "mount of mounted/$fs" zfs set mountpoint=/mounted/$fs mounted/$fs
  check "mounted/$fs is mounted" [ "$(zfs get -H -o value mounted mounted/$fs)" = yes ]
  same /mounted/$fs $fs.second "mounted/$fs is as it was left"
  check "directories of mounted/$fs count right" counts /mounted/$fs
  check "the accounts of mounted/$fs are right" accounts mounted/$fs /mounted/$fs
done
check "scrub finds nothing" scrubs_clean mounted
check "export" zpool export mounted
finish
