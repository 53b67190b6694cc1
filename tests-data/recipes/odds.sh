#!/bin/bash
# The pools of ../odds: what OpenZFS says of a pool beside its files. Run in the virtual machine:
#   mkdir in && cp tests-data/recipes/{odds,lib}.sh in && mv in/odds.sh in/run.sh && interop/openzfs-vm run in out
# and compress each image with zstd -19. What the pools hold is all the same byte, so that the images are small.
. ./lib.sh
T=/tmp P=/sys/module/zfs/parameters
rep() { head -c $2 /dev/zero | tr '\0' "$1"; }
set_() { echo $2 > $P/$1 || echo "NO PARAM $1"; }
space() { zfs list -Hp -r -t filesystem -o name $1 | while read -r n; do for k in userspace groupspace; do echo "## $k $n"; zfs $k -Hpn $n 2>&1; done; echo "## projectspace $n"; zfs projectspace -Hp $n 2>&1; done; }
fin() { zpool sync $1; manifests $1 out/$1.expected; space $1 > out/$1.expected/space.txt; zpool export -f $1 || { umount -a -t zfs 2>/dev/null; zpool export -f $1; } || echo "EXPORT FAILED $1"; }
# A checkpoint, with blocks that only it still has; a destroyed file system that is being freed, one block in a txg;
# quotas of owners who own nothing; an empty attribute.
truncate -s 64M $T/odds.img $T/v13.img $T/ratio.img
zpool create -o ashift=12 -O atime=off -O compression=off -O recordsize=4k -m /odds odds $T/odds.img
zfs create odds/gone; rep g 300000 > /odds/gone/f; zfs create odds/freed; rep f 400000 > /odds/freed/f
zfs create -o userquota@1000=10M -o groupquota@1001=9M -o groupobjquota@3=5 -o projectquota@7=8M odds/q; for i in 1 2 3; do rep q $((i*5000)) > /odds/q/$i; chown ${i}000:7 /odds/q/$i; done
setfattr -n user.empty /odds/q/1; setfattr -n user.full -v f /odds/q/1
zpool sync odds; zpool checkpoint odds; zfs destroy odds/gone; rm /odds/q/2; rep n 40000 > /odds/q/new; zfs snapshot odds/q@after
set_ zfs_txg_timeout 600; set_ zfs_async_block_max_blocks 1; set_ zfs_free_min_time_ms 1; zfs destroy odds/freed; fin odds
set_ zfs_async_block_max_blocks 18446744073709551615; set_ zfs_txg_timeout 5
# Deduplicated blocks, some of which only one has.
zpool create -o ashift=12 -O atime=off -O compression=off -O dedup=sha512 -O recordsize=8k -m /ratio ratio $T/ratio.img; for f in a b c; do rep $f 30000 > /ratio/$f; cp /ratio/$f /ratio/$f$f; done; fin ratio
# Blocks in parts, of which a vdev was removed.
truncate -s 128M $T/gangrm-{0,1,2}.img; set_ metaslab_force_ganging_pct 100; set_ metaslab_force_ganging 3000
zpool create -o ashift=12 -O atime=off -O compression=off -m /gangrm gangrm $T/gangrm-{0,1,2}.img; for f in a b c d; do rep $f 40000 > /gangrm/$f; done; zpool sync gangrm; set_ metaslab_force_ganging 16777217
zpool remove gangrm $T/gangrm-1.img; zpool wait -t remove gangrm; zpool sync gangrm; fin gangrm; rm $T/gangrm-1.img
# Before feature flags; file systems of versions 1 and 3.
zpool create -o version=13 -o ashift=9 -O atime=off -O compression=off -m /v13 v13 $T/v13.img
for z in 1 3; do zfs create -o version=$z v13/z$z; mkdir /v13/z$z/d; ln -s $(rep l 200) /v13/z$z/d/link; setfattr -n user.x -v 1 /v13/z$z/d; rep a 3000 > /v13/z$z/a; chown 5:6 /v13/z$z/a; chmod 4711 /v13/z$z/a; done
zfs snapshot -r v13@s; echo n > /v13/z1/n; zfs clone v13/z1@s v13/clone; fin v13
# A destroyed clone's livelist, freed in parts of one block: the export comes before the last. Asked after an import for reading.
truncate -s 128M $T/livel.img; set_ zfs_livelist_max_entries 1; set_ zfs_livelist_min_percent_shared 0
zpool create -o ashift=12 -O atime=off -O compression=off -O recordsize=4k -m /livel livel $T/livel.img; zfs create livel/o; rep o 300000 > /livel/o/base; zfs snapshot livel/o@s; zfs clone livel/o@s livel/c1; zfs clone livel/o@s livel/c2
for i in $(seq 1 12); do rep $i 200000 > /livel/c1/f$i; zpool sync livel; done; rm /livel/c1/base /livel/c1/f3; zpool sync livel; rep z 100000 > /livel/c2/own; zpool sync livel
zfs unmount -a; zfs destroy livel/c1; zpool export livel; cp --sparse=always $T/livel.img out/; zpool import -d $T -o readonly=on livel; manifests livel out/livel.expected; zpool export livel; rm $T/livel.img
mv $T/*.img out/; ls -ls out
