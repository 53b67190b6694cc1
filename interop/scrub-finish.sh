# Real OpenZFS goes on with a scrub of /dev/vdc, the pool `scrubbed`, that icecore has paused half-way. Beside this script: the
# names of the files in which a bit has rotted (`rotten`).
. ./guest.sh
take /dev/vdc scrubbed
check "import" zpool import -N -d /tmp/disks scrubbed
check "icecore's pause is known" grep -q "scrub paused since" <(zpool status scrubbed)
zpool status scrubbed | sed -n '/scan:/,/done/p'
check "icecore's finished scrub is known" [ "$(zpool get -Hp -o value last_scrubbed_txg scrubbed)" -gt 0 ]
check "it goes on" zpool scrub -w scrubbed
zpool status -v scrubbed > /tmp/status
count=$(grep -c . rotten)
check "it ends with $count errors" grep -q " with $count errors on " /tmp/status
while read -r name; do check "$name is named" grep -q "scrubbed/fs:.*$name\$" /tmp/status; done < rotten
check "nothing else is named" [ "$(grep -c 'scrubbed/fs:' /tmp/status)" = "$count" ]
check "export" zpool export scrubbed
finish
