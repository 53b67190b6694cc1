# Sourced on this machine by xtask's act "day" and in the guest: the folder that goes into datasets, and what tells two
# such trees apart. Needs rnd and text of tests-data/recipes/lib.sh.

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
