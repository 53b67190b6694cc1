# Real OpenZFS in datasets that it had mounted and icecore wrote into since. /dev/vdc, /dev/vdd: the mirror `day`. Beside
# this script: the key of day/enc, and enc.three and plain.three, what icecore says they hold.
. ./guest.sh
. ./day-lib.sh
take /dev/vdc a
take /dev/vdd c
check "import" zpool import -N -d /tmp/disks day
check "key" zfs load-key -L file:///root/key day/enc
for fs in enc plain; do
  d=/day/$fs
  zfs mount day/$fs; zfs userspace -Hpni -o name,used,objused day/$fs | tr '\n' ';'; echo
  same $d $fs.three "day/$fs is as icecore wrote it"
  check "directories of day/$fs count right" counts $d
  check "the accounts of day/$fs were kept up" accounts day/$fs $d
  check "extended attributes of day/$fs" sh -c "[ \"\$(getfattr --only-values -n user.third $d/third)\" = yes ] && [ \"\$(getfattr --only-values -n user.short $d/owners/5)\" = no ] && [ \"\$(getfattr --only-values -n user.wide $d/owners/4 | wc -c)\" = 3000 ]"
  # OpenZFS takes away and changes what icecore counted.
  (set -e; setfattr -x user.wide $d/owners/4; setfattr -n user.fourth -v 4 $d/third; rm $d/third/noise; rm -r $d/big; chown -R 1011:2011 $d/many; echo more >> $d/owners/5; sync)
  [ $? = 0 ] && ok "OpenZFS goes on in day/$fs" || bad "OpenZFS goes on in day/$fs"
  check "the accounts of day/$fs go with it" accounts day/$fs $d
done
zfs umount -a; zfs unload-key -a
check "scrub finds nothing" scrubs_clean day
zpool status -v day
check "export" zpool export day
give_back /dev/vdc a; give_back /dev/vdd c
finish
