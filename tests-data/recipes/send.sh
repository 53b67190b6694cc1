# What the send tests compare with beyond the fixtures: interrupted streams, clones, -I, estimates, decrypted compressed streams,
# and a pool with holes punched, files truncated, object numbers reused and spill blocks changed between snapshots.
# openzfs-vm run IN OUT main.img shapes.img; then OUT is ICECORE_ZOO/send.
mkdir -p out
dd if=/dev/vdc of=/tmp/main.img bs=1M conv=sparse; dd if=/dev/vdd of=/tmp/shapes.img bs=1M conv=sparse; zpool import -N -f -d /tmp main; zpool import -N -f -d /tmp shapes
truncate -s 256M /tmp/r.img; zpool create -m none r /tmp/r.img
try() { # name, bytes, target, send args
  local n=$1 b=$2 t=$3; shift 3
  zfs send "$@" | head -c $b | zfs receive -s -u $t
  zfs get -H -o value receive_resume_token $t > out/$n.token
  zfs send -t $(cat out/$n.token) > out/$n.resume.zfs
  zfs send -nvP -t $(cat out/$n.token) > out/$n.est 2>&1
}
try photos 900000 r/photos -w main/encrypted/photos@root
try vol 300000 r/vol -w main/encrypted/vol@root
try plain 400000 r/plain -L -e -c main/plain@root
zfs send -w main/encrypted/docs@root | zfs receive -u r/docs
try docs 600000 r/docs -w -i @root main/encrypted/docs@newsnapshot
try shallow 100000 r/deep shapes/deep@$(zfs list -H -t snap -o name shapes/deep | head -1 | cut -d@ -f2)
est() { echo "$*"; zfs send -nvP "$@" 2>&1 | tail -1; }
{ for d in main/plain main/encrypted/docs main/encrypted/photos main/encrypted/vol main/encrypted/music; do
  est -w $d@newsnapshot; est -c $d@newsnapshot; est $d@newsnapshot; est -w -i @2023-09-27 $d@newsnapshot; done
  est -w -i '#kept' main/encrypted/docs@newsnapshot; est -w -R main@newsnapshot; est -w -R -I main@root main@newsnapshot; } > out/estimates
zfs list -H -o name,origin -r shapes | awk '$2!="-"' > out/clones
while read n o; do for s in $(zfs list -H -t snap -o name -d 1 $n); do zfs send -i $o $s > out/clone-$(echo $s | tr / _).zfs; echo "$o $s" >> out/clone-list; done; done < out/clones
zfs send -I @root main/plain@newsnapshot > out/plain.I.zfs
zfs send -p -i @root main/plain@newsnapshot > out/plain.pi.zfs
# holes and reuse
truncate -s 128M /tmp/holes.img; zpool create -o ashift=12 -O recordsize=4k -O compression=off -O xattr=sa -O dnodesize=auto -m /holes holes /tmp/holes.img
echo passphrase | zfs create -o encryption=on -o keyformat=passphrase holes/enc
zfs create -o recordsize=16k holes/plain
for d in plain enc; do B=/holes/$d
 for i in $(seq 1 40); do dd if=/dev/urandom of=$B/f$i bs=4k count=$((i*3)) 2>/dev/null; done
 dd if=/dev/urandom of=$B/deep bs=1M count=9 2>/dev/null
 truncate -s 200M $B/sparse; dd if=/dev/urandom of=$B/sparse bs=4k seek=20000 count=5 conv=notrunc 2>/dev/null
 for i in 1 2 3 4 5; do setfattr -n user.big -v $(head -c 900 /dev/urandom | base64 -w0 | head -c 1200) $B/f$i; done
done
zfs snapshot -r holes@a; zfs bookmark holes/enc@a holes/enc#a; zpool sync
for d in plain enc; do B=/holes/$d
 for i in $(seq 1 10); do rm $B/f$i; done
 fallocate -p -o $((1024*1024)) -l $((3*1024*1024+8192)) $B/deep
 truncate -s 5M $B/deep; truncate -s 7M $B/deep
 fallocate -p -o 80M -l 4M $B/sparse; truncate -s 10M $B/sparse; truncate -s 300M $B/sparse
 setfattr -x user.big $B/f3 2>/dev/null; setfattr -n user.big -v $(head -c 700 /dev/urandom | base64 -w0 | head -c 900) $B/f20; setfattr -n user.big -v small $B/f21
 for i in $(seq 11 15); do truncate -s 0 $B/f$i; dd if=/dev/urandom of=$B/f$i bs=4k count=1 conv=notrunc 2>/dev/null; done
done
zpool sync
zfs snapshot -r holes@b
for d in plain enc; do B=/holes/$d
 for i in $(seq 50 70); do dd if=/dev/urandom of=$B/g$i bs=4k count=2 2>/dev/null; done
 truncate -s 1M $B/deep; dd if=/dev/urandom of=$B/deep bs=4k seek=900 count=3 conv=notrunc 2>/dev/null
 rm $B/f30 $B/f31; mkdir $B/dir; for i in $(seq 1 300); do : > $B/dir/some-longer-name-$i; done
 dd if=/dev/urandom of=$B/sparse bs=4k seek=3 count=1 conv=notrunc 2>/dev/null; chmod 600 $B/f4 $B/f5 $B/f20
done
zpool sync; zfs snapshot -r holes@c; rm -rf /holes/plain/dir /holes/enc/dir; zpool sync; zfs snapshot -r holes@d
for d in plain enc; do w=; [ $d = enc ] && w=-w
 for p in a-b b-c a-c c-d b-d a-d; do zfs send $w -i @${p%-*} holes/$d@${p#*-} > out/holes-$d-$p.zfs; done
 zfs send $w holes/$d@d > out/holes-$d-d.zfs; done
zfs send -w -i '#a' holes/enc@c > out/holes-enc-mark.zfs
zfs send -w -R holes@d > out/holes.raw-R.zfs; zfs send -w -R -i @a holes@c > out/holes.raw-R-i.zfs
echo "correct horse battery staple" | zfs load-key main/encrypted
zfs send -c main/encrypted/docs@root > out/docs.c.zfs; zfs send -L -e -c main/encrypted/photos@newsnapshot > out/photos.Lec.zfs
zfs send -c -i @root main/encrypted/docs@newsnapshot > out/docs-i.c.zfs
zfs send main/encrypted/photos@newsnapshot > out/photos.zfs; zfs send main/encrypted/vol@newsnapshot > out/vol.zfs
zpool export holes; mv /tmp/holes.img out/; zpool export r; zpool export main; zpool export shapes
