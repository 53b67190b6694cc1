# Real OpenZFS reads what icecore wrote. /dev/vdc: the pool `backup`, created by icecore and filled by its raw
# receives. Beside this script: expected/ (what the source must hold), full.zfs and incremental.zfs (icecore's own raw
# sends of the source), optionally plain.zfs (its non-raw send).
. ./guest.sh
take /dev/vdc backup
check "import of the pool icecore created" zpool import -N -d /tmp/disks backup
zpool status backup
check "the passphrase opens the backup" load_key backup/encrypted
check "children inherit the key" [ "$(zfs get -H -o value encryptionroot backup/encrypted/docs)" = backup/encrypted ]
same_snapshots backup expected
check "the volume equals the source" sum_is expected/vol.sha256 /dev/zd0
check "guids of snapshots are the source's" [ "$(zfs get -Hp -o value guid backup/encrypted/docs@newsnapshot)" = 13423760618850522443 ]
check "scrub finds nothing" scrubs_clean backup
zfs unload-key -a; check "export" zpool export backup

truncate -s 256M /tmp/fresh.img; zpool create -O canmount=off -m none fresh /tmp/fresh.img
check "OpenZFS receives icecore's raw stream" sh -c 'zfs receive -u fresh/main < full.zfs'
check "OpenZFS receives icecore's raw incremental" sh -c 'zfs receive -u -F fresh/main < incremental.zfs'
check "the passphrase opens that copy" load_key fresh/main/encrypted
same_snapshots fresh/main expected
if [ -f plain.zfs ]; then
  check "OpenZFS receives icecore's plain stream" sh -c 'zfs receive -u fresh/plain < plain.zfs'
  mkdir plainly; for s in root 2023-09-27 newsnapshot; do cp "expected/main%plain@$s.manifest" "plainly/plain@$s.manifest"; done
  same_snapshots fresh/plain plainly
fi
check "scrub of that copy finds nothing" scrubs_clean fresh
finish
