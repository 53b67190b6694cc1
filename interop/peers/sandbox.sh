#!/bin/bash
# unshare -m -p -f -i -u --kill-child sandbox.sh STAGE COMMAND...
#
# Runs COMMAND as root in a throw-away copy of this machine: whatever it writes, removes or leaves running is gone when it ends.
# The peers' suites need that: OpenZFS's own runs `rm -rf $mountpoint/*` with whatever `zfs get` says.
#
# - the root file system is an overlay whose upper side is a tmpfs, so nothing of the machine can be changed;
# - /dev, /tmp and /var/tmp are its own, /proc shows its processes only, /sys and /proc/sys are read-only;
# - STAGE is seen at /peers read-only, and only its folder out can be written to;
# - STAGE/sbin is seen as /usr/local/sbin, which stands before Debian's folders on every PATH: there are our zfs and zpool.
set -eu
stage=$(realpath "$1")
shift
mount --make-rprivate /
top=$(mktemp -d)
mount -t tmpfs -o size=10G top "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
r=$top/root

mount -t proc proc "$r/proc"
mount --bind "$r/proc/sys" "$r/proc/sys"
mount -o remount,bind,ro "$r/proc/sys"
mount -t sysfs -o ro sysfs "$r/sys"
mount -t tmpfs -o mode=755 run "$r/run"
mount -t tmpfs -o mode=755 dev "$r/dev"
for node in null:1:3 console:5:1 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 kmsg:1:11 fuse:10:229; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "$r/dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd "$r/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${n%:*}" "$r/dev/${n#*:}"; done
mkdir -p "$r/dev/shm" "$r/dev/pts" "$r/dev/mapper" "$r/dev/zvol" "$r/dev/disk"
mount -t tmpfs shm "$r/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$r/dev/pts"
ln -s pts/ptmx "$r/dev/ptmx"

mkdir -p "$r/peers" "$r/usr/local/sbin"
mount --bind "$stage" "$r/peers"
mount -o remount,bind,ro "$r/peers"
mount --bind "$stage/out" "$r/peers/out"
mount --bind "$stage/sbin" "$r/usr/local/sbin"
mount -o remount,bind,ro "$r/usr/local/sbin"
# Where mount(8) looks, and nowhere else.
ln -sf /usr/local/sbin/mount.zfs "$r/usr/sbin/mount.zfs"
ln -sf /usr/local/sbin/mount.fuse.zfs "$r/usr/sbin/mount.fuse.zfs"
# After the stage, which may lie below one of them.
mount -t tmpfs -o mode=1777,size=8G tmp "$r/tmp"
mount -t tmpfs -o mode=1777,size=8G tmp "$r/var/tmp"

cd "$r"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec chroot "$r" "$@"
