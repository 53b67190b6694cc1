# Sourced on this machine by xtask's act "day" and in the guest: the folder that goes into datasets, and what tells two
# such trees apart. Needs rnd and text of tests-data/recipes/lib.sh; what the guest checks needs guest.sh.

# tree DIR: one line an entry: type mode uid gid size links mtime path -> target; then the sums. A directory's size and
# links are left out, since each file system counts them its own way (see counts).
tree() {
  (cd "$1" && {
    find . -mindepth 1 ! -path './.zfs*' \( -type d -printf '%y %m %U %G - - %T@ %p\t%l\n' -o -printf '%y %m %U %G %s %n %T@ %p\t%l\n' \) | LC_ALL=C sort -k8
    echo "# sha256"; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; })
}

# make_tree DIR: needs root for the owners
make_tree() {
  local d=$1 i p; mkdir -p "$d"/{many,odd,big,owners}
  for i in $(seq 1 2500); do printf 'letter %d\n' "$i" > "$d/many/a letter of the year, number $i.txt"; done
  p=$d/deep; for i in $(seq 1 70); do p=$p/level$i; done; mkdir -p "$p"; echo bottom > "$p/file"
  echo long > "$d/odd/$(printf 'n%.0s' $(seq 1 255))"; echo long > "$d/odd/$(printf 'm%.0s' $(seq 1 60))"
  mkdir "$d/odd/empty"; : > "$d/odd/empty file"; echo x > "$d/odd/ürgh – ☃"; printf 'x' > "$d/odd/-n new
line"
  ln -s ../many "$d/odd/link"; ln -s "$(printf 'far/%.0s' $(seq 1 200))end" "$d/odd/long link"; ln -s nowhere "$d/odd/dangling"
  echo shared > "$d/odd/one"; ln "$d/odd/one" "$d/odd/two"; ln "$d/odd/one" "$d/deep/three"; mkfifo "$d/odd/pipe"
  # Several levels of indirect blocks where records are of 4 KiB; blocks of every odd size; holes.
  rnd day 12582912 > "$d/big/levels"; text 5 60000 > "$d/big/text"
  for i in 1 511 512 513 4095 4096 4097 65535 131072 131073; do rnd "s$i" "$i" > "$d/big/of $i"; done
  truncate -s 300M "$d/big/sparse"; for i in 0 100 299; do rnd "hole$i" 9000 | dd of="$d/big/sparse" bs=1M seek="$i" conv=notrunc 2>/dev/null; done
  for i in 1 2 3 4 5; do text "$i" $((i*40)) > "$d/owners/$i"; chown "100$i:200$i" "$d/owners/$i"; done
  chmod 4755 "$d/owners/1"; chmod 000 "$d/owners/2"; chmod 077 "$d/owners/3"; chmod 1777 "$d/odd/empty"; chmod 2750 "$d/many"; chmod 705 "$d/owners/4"
  chown -h 1001:2001 "$d/odd/link"; chown 1002:2002 "$d/many"/*7.txt
  touch -d '1999-12-31 23:59:58.123456789' "$d/owners/5" "$d/big"; touch -h -d '2001-02-03 04:05:06' "$d/odd/dangling"; touch -d '1961-04-12 06:07:00' "$d/odd/one"
}

# change_tree DIR: what another day brings, also told to icecore by xtask
change_tree() {
  rm -r "$1/deep/level1/level2" "$1/odd/two" "$1"/many/*3.txt; mkdir -p "$1/new/er"; cp "$1/big/text" "$1/new/copy"
  echo more >> "$1/owners/5"; truncate -s 100000 "$1/big/text"; rm "$1/odd/link"; ln -s elsewhere "$1/odd/link"; echo now a file > "$1/new/er/file"
}

# same DIR TREE WHAT
same() {
  tree "$1" > /tmp/got.tree 2>/tmp/got.err
  if [ ! -s /tmp/got.err ] && cmp -s "$2" /tmp/got.tree; then ok "$3 ($(grep -c . "$2") lines)"
  else bad "$3"; head -5 /tmp/got.err; diff "$2" /tmp/got.tree | head -20; fi
}
# same_at DATASET TREE: mounts it for the comparison
same_at() { mkdir -p /tmp/at; if mount -t zfs "$1" /tmp/at; then same /tmp/at "$2" "$1 is as the folder was"; umount /tmp/at; else bad "$1: cannot be mounted"; fi; }
# counts DIR: a directory's size is its entries and 2, its links its directories and 2
counts() { rm -f /tmp/miscount; find "$1" -type d -print0 | while IFS= read -r -d '' d; do
  set -- $(stat -c '%s %h' "$d"); s=$(find "$d" -mindepth 1 -maxdepth 1 -type d | grep -c ^)
  e=$(find "$d" -mindepth 1 -maxdepth 1 -printf x | wc -c)
  [ "$1 $2" = "$((e+2)) $((s+2))" ] || { echo "$d: size $1 links $2, entries $e, directories $s"; touch /tmp/miscount; }; done; [ ! -e /tmp/miscount ]; }
# accounts DATASET DIR: every owner's number of files, and bytes like du's
accounts() {
  local i; sync; zpool sync
  find "$2" -xdev -printf '%i %U\n' | sort -u | awk '{n[$2]++} END{for(u in n) print u, n[u]}' | sort > /tmp/want
  for i in $(seq 1 40); do
    zfs userspace -Hpni -o name,objused "$1" 2>/dev/null | awk '{print $1, $2}' | sort > /tmp/have
    cmp -s /tmp/want /tmp/have && break; sleep 1; zpool sync
  done
  zfs userspace -Hpni -o name,used,objused "$1" | tr '\n' ';'; echo
  zfs groupspace -Hpni -o name,used,objused "$1" | tr '\n' ';'; echo
  diff /tmp/want /tmp/have || return 1
  local used; used=$(zfs userspace -Hpni -o used "$1" | awk '{s+=$1} END{print s}'); set -- $(du -skx "$2")
  # The same bytes, but that du tells whole KiB.
  echo "accounted: $used bytes, du: $1 KiB"; [ $((used / 1024)) -le "$1" ] && [ $(((used + 1023) / 1024)) -ge $(($1 - 1)) ]
}

# change_again DIR: what the day after brings to what OpenZFS made of the folder
change_again() {
  rm -r "$1/moved" "$1/odd/four" "$1"/many/of\ the\ guest\ *7; mkdir "$1/third"
  echo third >> "$1/owners/5"; truncate -s 70000 "$1/new/big"; rnd third 700000 > "$1/third/noise"; chown 1003:2003 "$1/third/noise" "$1/fresh"
  setfattr -n user.third -v yes "$1/third"; setfattr -n user.wide -v "$(rnd w 2250 | openssl base64 -A)" "$1/owners/4"; setfattr -n user.short -v no "$1/owners/5"
}
