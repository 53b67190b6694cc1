# Real OpenZFS in pools of a random walk. /dev/vdc, /dev/vdd, ...: tars, each of a moment of the walk (icecore_check::walk):
# the drives of three pools, the keys, and what has to be in them.
. ./guest.sh
export LC_ALL=C
inhibit() { echo "$1" > /sys/module/zfs/parameters/zvol_inhibit_dev; }
mkdir -p /tmp/mnt

# listing DIR: a line for each entry, as the walk writes them
listing() {
  (cd "$1" && { find . -path ./.zfs -prune -o -mindepth 1 -type d -printf 'd %P\n' -o -type l -printf 'l %P %l\n'
    find . -path ./.zfs -prune -o -type f -exec sha256sum {} + | sed 's|^\([0-9a-f]*\)  \./|f \1 |'; } | sort)
}
# image NAME: the same line for a volume or a snapshot of one; its clone is the only volume that has a device
image() {
  local of=$1 clone=${1%%[/@]*}/walked-clone i sum
  case $of in *@*) ;; *) of=$of@walked; zfs snapshot "$of" || return;; esac
  inhibit 0; zfs clone "$of" "$clone" || return
  for i in $(seq 1 100); do set -- /dev/zd*; [ -b "$1" ] && break; sleep 0.1; done
  sum=$(sha256sum < "$1") || return
  zfs destroy "$clone"; inhibit 1
  for i in $(seq 1 100); do [ -e "$1" ] || break; sleep 0.1; done
  echo "f ${sum%% *} image"
}
# seen KIND NAME: what OpenZFS finds there, in /tmp/got; 1 if it does not get that far
seen() {
  if [ "$1" = volume ]; then image "$2" > /tmp/got; return; fi
  mount -t zfs "$2" /tmp/mnt 2> /tmp/why || return
  listing /tmp/mnt > /tmp/got; umount /tmp/mnt
}

inhibit 1
for disk in /dev/vd[c-z]; do
  [ -b "$disk" ] || continue
  rm -rf /tmp/moment; mkdir /tmp/moment; cd /tmp/moment && tar xf "$disk"; cd /root
  at=$(cat /tmp/moment/moment/step)
  for pool in one two cold; do
    if ! zpool import -N -d /tmp/moment/$pool $pool; then bad "step $at: import of $pool"; continue; fi
    while read -r root file; do
      case $root in $pool|$pool/*) zfs load-key -L "file:///tmp/moment/keys/$file" "$root" > /tmp/why 2>&1 || sed "s|^|step $at: |" /tmp/why;; esac
    done < /tmp/moment/moment/roots
    same=0 locked=0 wrong=0
    while read -r number kind open name; do
      case $name in $pool|$pool/*|$pool@*) ;; *) continue;; esac
      if ! seen "$kind" "$name"; then
        if [ "$open" = perhaps ]; then locked=$((locked+1)); continue; fi
        echo "step $at: $name cannot be opened: $(cat /tmp/why)"; wrong=$((wrong+1)); continue
      fi
      if cmp -s "/tmp/moment/moment/$number" /tmp/got; then same=$((same+1)); continue; fi
      echo "step $at: $name is not as the walk left it"; wrong=$((wrong+1)); diff "/tmp/moment/moment/$number" /tmp/got | head -10
    done < /tmp/moment/moment/trees
    check "step $at: $pool: $same heads and snapshots as the walk left them, $locked whose key changed on the way" [ $wrong = 0 ]
    zfs unload-key -a > /dev/null 2>&1
    check "step $at: $pool: scrub finds nothing" scrubs_clean $pool
    check "step $at: $pool: export" zpool export $pool
    zdb -e -p /tmp/moment/$pool -bcc $pool > /tmp/zdb 2>&1
    check "step $at: $pool: zdb" grep -q 'No leaks (block sum matches space maps exactly)' /tmp/zdb
  done
done
finish
