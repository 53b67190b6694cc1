# Real OpenZFS goes on where icecore stopped. /dev/vdc: `backup`, written by icecore; /dev/vdd: the source `main`.
# The source gains two months; OpenZFS sends the first into the backup, icecore will have to send the second.
. ./guest.sh
take /dev/vdc backup
take /dev/vdd main
check "import of the backup" zpool import -N -d /tmp/disks backup
check "import of the source" zpool import -N -d /tmp/disks main
check "the source's key" load_key main/encrypted
for d in main main/encrypted main/encrypted/docs main/encrypted/photos main/encrypted/music main/plain; do zfs mount $d; done
B=/main/encrypted
for i in $(seq 100 130); do text $i $((i*7)) > $B/docs/letter-$i.txt; done
rm $B/docs/letter-1*.txt; text 31 9000 > $B/docs/ledger.csv; rnd m3 300000 > $B/music/track02.flac
rnd patch3 70000 | dd of=$B/photos/IMG_0003.jpg bs=1 seek=100000 conv=notrunc 2>/dev/null; rm $B/photos/IMG_0001.jpg
zfs snapshot -r main@month3
check "OpenZFS sends raw" sh -c 'zfs send -w -R -I main@newsnapshot main@month3 > /tmp/m3.zfs'
check "OpenZFS receives onto icecore's backup" sh -c 'zfs receive -u -F backup < /tmp/m3.zfs'
text 41 3000 > $B/docs/april.txt; truncate -s 5000 $B/docs/ledger.csv; mkdir $B/photos/april; rnd a1 250000 > $B/photos/april/IMG_1.jpg
rm $B/music/track01.flac; text 42 60000 > /main/plain/notes.txt
for v in /dev/zd*; do [ -e "$v" ] || continue; case $v in *p*) continue;; esac; rnd vol4 90000 | dd of="$v" bs=64k seek=30 conv=notrunc 2>/dev/null; break; done
sync; zfs snapshot -r main@month4
mkdir -p out/expected /tmp/snap
zfs list -Hp -r -t snapshot -o name main | grep -E '@(month3|month4)$' | while read -r s; do
  mount -t zfs "$s" /tmp/snap 2>/dev/null || continue
  manifest /tmp/snap > "out/expected/$(echo "$s" | tr / %).manifest"; umount /tmp/snap; done
zfs umount -a; zfs unload-key -a
check "export of the source" zpool export main
check "scrub of the backup finds nothing" scrubs_clean backup
check "export of the backup" zpool export backup
give_back /dev/vdc backup; give_back /dev/vdd main
finish
