#!/bin/bash
# The pools of ../states: layouts and states that are hard to come by. Run in the virtual machine:
#   mkdir in && cp tests-data/recipes/{states,lib}.sh in && mv in/states.sh in/run.sh && interop/openzfs-vm run in out
# and compress each image with zstd -19. Files are text, and not compressed in the pools, so that the images are small.
. ./lib.sh
T=/tmp P=/sys/module/zfs/parameters
fin() { for p in "$@"; do zpool sync $p; manifests $p out/$p.expected; rm -f out/$p.expected/zpool-get.tsv; zpool export -f $p || { umount -a -t zfs 2>/dev/null; zpool export -f $p; } || echo "EXPORT FAILED $p"; done; }
mk() { truncate -s $1 ${@:2}; }
rep() { head -c $2 /dev/zero | tr '\0' "$1"; }
say() { echo "== $* $(cut -d. -f1 /proc/uptime)"; }
set_() { echo $2 > $P/$1 || echo "NO PARAM $1"; }
lay() { local n=$1; shift; zpool create -f -o ashift=${ASHIFT:-12} -O atime=off -O compression=off -m /$n $n "$@" || return; zfs create $n/data; text 7 900 > /$n/data/text; for i in 1 2 3 4 5 6; do echo $i$n > /$n/data/f$i; done; zfs snapshot -r $n@s; echo later > /$n/data/later; }
say expmid   # a raidz in the middle of its second expansion, with blocks of all three kinds of birth, some without a checksum
mk 64M $T/expmid-{0,1,2,3,4}.img
lay expmid raidz1 $T/expmid-{0,1,2}.img; zfs create -o checksum=off expmid/nosum; text 1 1500 > /expmid/nosum/f; zpool sync expmid; zpool attach expmid raidz1-0 $T/expmid-3.img; zpool wait -t raidz_expand expmid; text 2 1500 > /expmid/nosum/g; text 3 4000 > /expmid/data/more; zpool sync expmid
set_ raidz_expand_max_reflow_bytes 400000; zpool attach expmid raidz1-0 $T/expmid-4.img; sleep 8; zpool status expmid; text 4 600 > /expmid/data/post; text 5 300 > /expmid/nosum/h; fin expmid; set_ raidz_expand_max_reflow_bytes 0
say spares   # a distributed spare in use on a draid3; a raidz side replaced by a spare, the resilver not begun
mk 64M $T/drthree-{0,1,2,3,4,5,6,7,8}.img $T/spraz-{0,1,2,3}.img
lay drthree draid3:2d:9c:2s $T/drthree-{0,1,2,3,4,5,6,7,8}.img; zpool offline -f drthree $T/drthree-3.img; zpool replace drthree $T/drthree-3.img draid3-0-0; zpool wait -t resilver drthree; text 8 300 > /drthree/data/pp; zpool status drthree; fin drthree
lay spraz raidz1 $T/spraz-{0,1,2}.img spare $T/spraz-3.img; zpool offline -f spraz $T/spraz-1.img; set_ zfs_scan_suspend_progress 1; zpool replace spraz $T/spraz-1.img $T/spraz-3.img; echo s3 > /spraz/data/s3; zpool status spraz; fin spraz; set_ zfs_scan_suspend_progress 0
say removed  # two vdevs removed one after the other, files on the first deleted in between
mk 256M $T/rmtwo-{0,1,2}.img
lay rmtwo $T/rmtwo-{0,1,2}.img; for i in $(seq 1 30); do text $i 120 > /rmtwo/data/q$i; done; zpool sync rmtwo; zpool remove rmtwo $T/rmtwo-1.img; zpool wait -t remove rmtwo; zfs destroy rmtwo/data@s; for i in $(seq 1 2 30); do rm /rmtwo/data/q$i; done; zpool sync rmtwo; zpool remove rmtwo $T/rmtwo-2.img; zpool wait -t remove rmtwo; zpool sync rmtwo; echo post > /rmtwo/data/post; zpool status rmtwo; fin rmtwo
say classes
mk 64M $T/classes-{0,1,2,3,4,5,6}.img
lay classes $T/classes-{0,1}.img special mirror $T/classes-{2,3}.img $T/classes-4.img dedup $T/classes-5.img cache $T/classes-6.img; zfs create -o dedup=on -o special_small_blocks=8K classes/dd; text 9 1500 > /classes/dd/a; cp /classes/dd/a /classes/dd/b; for i in 1 2 3; do text $i 60 > /classes/dd/s$i; done; zpool list -v classes; fin classes
say salvage
mk 64M $T/salvage.img
lay salvage $T/salvage.img; zfs create -o recordsize=4k salvage/tree; mkdir -p /salvage/tree/a/b/c /salvage/tree/many; for d in . a a/b a/b/c; do text 3 150 > /salvage/tree/$d/text; echo $d > /salvage/tree/$d/small; done; (cd /salvage/tree/many; for i in $(seq 1 300); do echo $i > "file number $i, with a name that is long enough"; done); zfs create -o recordsize=4k salvage/other; text 2 200 > /salvage/other/f; ln -s f /salvage/other/l; zfs snapshot -r salvage@t; echo more > /salvage/tree/a/more; fin salvage
say errlog   # the same damage, logged in either form
for p in errnew errold; do mk 64M $T/$p.img; [ $p = errold ] && F="-o feature@head_errlog=disabled" || F=; zpool create $F -O compression=off -o ashift=12 -O atime=off -m /$p $p $T/$p.img; zfs create $p/d; zfs create "$p/d/sp ace"; for i in 1 2 3 4; do text $i 200 > /$p/d/f$i; done; mkdir "/$p/d/dir ü"; text 5 200 > "/$p/d/dir ü/x y"; text 6 200 > "/$p/d/sp ace/q"; zfs snapshot -r $p@s; text 7 200 > /$p/d/f1; rm /$p/d/f3; zfs clone $p/d@s $p/cl; text 8 200 > /$p/cl/c; zpool sync $p; zpool export $p; zpool import -d $T $p
 rot() { [ -n "$1" ] && dd if=/dev/urandom of=$T/$p.img bs=4096 seek=$(( (0x$1 + 4194304) / 4096 )) count=1 conv=notrunc 2>/dev/null; }
 for f in d/f2 "d/dir ü/x y" "d/sp ace/q" cl/c; do case $f in "d/sp ace"*) ds="$p/d/sp ace";; *) ds=$p/${f%%/*};; esac; rot $(zdb -dddddd "$ds" $(stat -c %i "/$p/$f") 2>/dev/null | awk '/ L0 /{split($3,a,":"); print a[2]; exit}'); done
 for f in f1 f3; do rot $(zdb -dddddd $p/d@s 2>/dev/null | awk -v f="path.*$f" '$0~f{g=1} g&&/ L0 /{split($3,a,":"); print a[2]; exit}'); done
 echo 3 > /proc/sys/vm/drop_caches; zpool export $p; zpool import -d $T $p; cat /$p/d/f2 > /dev/null; zpool scrub -w $p; zpool status -v $p; zfs unmount -a; zpool status -v $p | sed -n '/^errors:/,$p' > out/$p.errors; zpool export $p; done
say keys
mk 96M $T/keys.img; zpool create -O atime=off -O compression=lz4 -m /keys keys $T/keys.img; rnd key 32 > out/other.key; rnd hexkey 32 | od -An -tx1 | tr -d ' \n' > out/hex.key; rnd key3 32 > out/third.key; cp out/*.key $T/; echo "pass phrase with ü and  spaces" > $T/pp; cp $T/pp out/pp.key
zfs create -o encryption=aes-192-ccm -o keyformat=raw -o keylocation=file://$T/other.key keys/raw; zfs create -o encryption=aes-128-gcm -o keyformat=hex -o keylocation=file://$T/hex.key keys/raw/hex; zfs create -o encryption=aes-256-gcm -o keyformat=passphrase -o keylocation=file://$T/pp -o pbkdf2iters=100000 -o compression=zstd -o checksum=blake3 -o dedup=on -o xattr=sa -o dnodesize=auto keys/raw/pp
for d in raw raw/hex raw/pp; do zfs create keys/$d/kid; for k in "" /kid; do text 4 300 > /keys/$d$k/text; echo tiny > /keys/$d$k/tiny; setfattr -n user.x -v "$(rep e 4000)" /keys/$d$k/tiny; ln -s $(rep t 500) /keys/$d$k/sl; truncate -s 10M /keys/$d$k/hole; done; done; zfs create -o recordsize=1m -o compression=off keys/raw/pp/big; text 9 3000 > /keys/raw/pp/big/text; zfs create -o longname=on -o dnodesize=auto keys/raw/ln; echo l > /keys/raw/ln/$(rep n 900)
zpool sync keys; zfs snapshot -r keys@one; cp --reflink=always /keys/raw/text /keys/raw/text2; cp --reflink=always /keys/raw/text /keys/raw/kid/text2 || echo nolinkacross
zfs change-key -o keyformat=raw -o keylocation=file://$T/third.key keys/raw; zfs change-key -i keys/raw/hex; zfs clone keys/raw/kid@one keys/raw/clone; echo c > /keys/raw/clone/c; zfs snapshot -r keys@two; zfs promote keys/raw/clone; fin keys
say done
mv $T/*.img out/; ls -la out | awk '{print $5,$9}'
