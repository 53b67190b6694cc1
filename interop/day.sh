# Real OpenZFS in datasets whose files icecore wrote. /dev/vdc, /dev/vdd: the mirror `day`. Beside this script: the key
# of day/enc, and one.tree and two.tree, what the source folder was at the snapshots @one and @two.
. ./guest.sh
. ./day-lib.sh
take /dev/vdc a
take /dev/vdd c
zpool import -d /tmp/disks | head -20
check "import" zpool import -N -d /tmp/disks day
zpool status -v day | tee /tmp/status
check "no errors, both sides online" sh -c 'grep -q "No known data errors" /tmp/status && [ "$(grep -c "disks/.*ONLINE  *0  *0  *0" /tmp/status)" = 2 ]'
check "what destroy -R took is gone" sh -c '! zfs list -H -r -t all -o name day | grep -q gone'
check "key" zfs load-key -L file:///root/key day/enc
zfs list -r -t all -o name,used,avail,refer,usedbysnapshots,usedbydataset,logicalused,origin day

for fs in enc plain; do
  same_at day/$fs@one one.tree; same_at day/$fs@two two.tree
  check "mount of day/$fs" zfs mount day/$fs
  same /day/$fs two.tree "day/$fs is as the folder is"
  check "directories of day/$fs count right" counts /day/$fs
  check "the accounts of day/$fs are right once OpenZFS has begun them" accounts day/$fs /day/$fs
done
check "the clone that was promoted" [ "$(zfs get -Hp -o value origin day/was)" = day/clone@base ]
same_at day/clone@base one.tree; same_at day/clone two.tree; same_at day/was one.tree
check "a volume's reservation" [ "$(zfs get -Hp -o value refreservation day/vol)" -ge 33554432 ]
check "a sparse volume has none" [ "$(zfs get -Hp -o value refreservation day/thin)" = 0 ]
for v in /dev/zd0 /dev/zd16; do [ "$(head -c 1048576 $v | tr -d '\0' | wc -c)" = 0 ] && ok "$v reads as zeros" || bad "$v"; rnd v 3000000 | dd of=$v bs=64k seek=20 conv=notrunc 2>/dev/null; done

# OpenZFS goes on in them.
mkdir -p out
for fs in enc plain; do
  d=/day/$fs
  go_on() {
    set -e
    touch $d/fresh "$d/many/a letter of the year, number 1.txt"; mkdir $d/many/dir $d/new/er/still; rm "$d"/many/*5.txt; rm -r $d/deep
    rnd big 9000000 > $d/new/big; echo appended >> "$d/many/a letter of the year, number 2.txt"; rnd app 300000 >> $d/big/of\ 513
    mv $d/owners/1 $d/new/er/; mv $d/new/er $d/moved; chmod 600 $d/owners/4; chown 1009:2009 $d/owners/4; truncate -s 1000001 $d/big/levels
    fallocate -p -o 65536 -l 1000000 $d/big/sparse; rnd mid 50000 | dd of=$d/big/sparse bs=1M seek=150 conv=notrunc 2>/dev/null
    ln $d/odd/one $d/odd/four; setfattr -n user.short -v yes $d/owners/5; setfattr -n user.long -v "$(rnd x 900 | openssl base64 -A)" "$d/many/a letter of the year, number 9.txt"
    setfattr -n user.dir -v 1 $d/many; for i in $(seq 1 400); do echo $i > "$d/many/of the guest $i"; done; sync
  }
  (go_on); [ $? = 0 ] && ok "OpenZFS changes day/$fs" || bad "OpenZFS changes day/$fs"
  check "extended attributes" sh -c "[ \"\$(getfattr --only-values -n user.short $d/owners/5 2>/dev/null)\" = yes ] && [ \"\$(getfattr --only-values -n user.long '$d/many/a letter of the year, number 9.txt' 2>/dev/null | wc -c)\" = 1200 ]"
  check "directories of day/$fs count right afterwards" counts $d
  check "the accounts of day/$fs go with it" accounts day/$fs $d
  check "snapshot" zfs snapshot day/$fs@vm
  tree $d > out/$fs.tree
  rm -r $d/many; echo lost > $d/odd/lost; sync
  check "rollback of day/$fs" zfs rollback day/$fs@vm
  same $d out/$fs.tree "day/$fs is as it was before"
done
# A snapshot of icecore's, from before the accounts.
check "rollback to icecore's snapshot" zfs rollback -r day/back@one
check "mount of day/back" zfs mount day/back; same /day/back one.tree "day/back is as it was at icecore's snapshot"
check "its accounts" accounts day/back /day/back
check "OpenZFS sends the encrypted one raw" sh -c 'zfs send -w -R day/enc@vm > /tmp/enc.zfs'
check "and receives it" sh -c 'zfs receive -u day/copy < /tmp/enc.zfs'
check "key of the copy" zfs load-key -L file:///root/key day/copy
for s in one two; do same_at day/copy@$s $s.tree; done; same_at day/copy@vm out/enc.tree
zfs umount -a; zfs unload-key -a
check "scrub finds nothing" scrubs_clean day
zpool status -v day; zpool events 2>/dev/null | grep -v -E 'history|config|scrub|TIME|import|sysevent' | tail -20
check "export" zpool export day
give_back /dev/vdc a; give_back /dev/vdd c
finish
