# Real OpenZFS begins a scrub of /dev/vdc, the pool `scrubbed` that icecore made, and pauses it half-way: icecore goes on with it.
. ./guest.sh
take /dev/vdc scrubbed
check "import" zpool import -N -d /tmp/disks scrubbed
# Few bytes at a time, so that there is a half-way.
echo 131072 > /sys/module/zfs/parameters/zfs_scan_vdev_limit
echo 1 > /sys/module/zfs/parameters/zfs_vdev_scrub_max_active

percent() { zpool status scrubbed | sed -n 's/.* \([0-9]*\)\.[0-9]*% done.*/\1/p'; }
half_way() {
  local n at
  for n in $(seq 1 400); do
    zpool scrub scrubbed; sleep 0.2; zpool scrub -p scrubbed
    zpool status scrubbed | grep -q "scrub paused since" || continue
    at=$(percent); [ "${at:-0}" -ge 10 ] && [ "$at" -le 90 ] && return 0
  done
  zpool status scrubbed; return 1
}
check "a scrub is paused half-way" half_way
zpool status scrubbed | sed -n '/scan:/,/done/p'
check "export" zpool export scrubbed
give_back /dev/vdc scrubbed
finish
