# Sourced by the guest scripts of `cargo xtask interop`, which run as root inside the virtual machine with the inputs
# in /root, beside lib.sh (the recipes' own `manifest`). Every check prints one line; `finish` is the exit status.
. ./lib.sh
PASSPHRASE="correct horse battery staple"
checks=0; failures=0
ok() { checks=$((checks+1)); echo "ok $checks - $*"; }
bad() { checks=$((checks+1)); failures=$((failures+1)); echo "NOT OK $checks - $*"; }
# check WHAT COMMAND...: the command's exit status decides
check() { local what=$1; shift; if "$@"; then ok "$what"; else bad "$what (rc $?: $*)"; fi; }
finish() { echo "interop: $checks checks, $failures failed"; [ "$failures" = 0 ]; }

# OpenZFS opens a vdev of type file only as a regular file, and the images are pools on files: so each virtual disk
# is copied to a file and, where the host goes on with it, copied back.
take() { mkdir -p /tmp/disks; dd if="$1" of="/tmp/disks/$2.img" bs=1M conv=sparse 2>/dev/null; }
give_back() { dd if="/tmp/disks/$2.img" of="$1" bs=1M conv=notrunc,fsync 2>/dev/null; }

load_key() { echo "$PASSPHRASE" | zfs load-key "$1"; }

# same_snapshots POOL EXPECTED: mounts every snapshot that EXPECTED/POOLNAME…@SNAP.manifest tells of, and compares
# all of it: names, types, modes, owners, sizes, times, links, contents, extended attributes.
same_snapshots() {
  local pool=$1 expected=$2 f name target
  mkdir -p /tmp/snap
  for f in "$expected"/*@*.manifest; do
    name=$(basename "$f" .manifest | tr % /); target=$pool${name#"${name%%[/@]*}"}
    if ! mount -t zfs "$target" /tmp/snap; then bad "$target: cannot be mounted"; continue; fi
    manifest /tmp/snap > /tmp/got.manifest; umount /tmp/snap
    if cmp -s "$f" /tmp/got.manifest; then ok "$target equals the source ($(grep -c . "$f") lines)"
    else bad "$target differs from the source"; diff "$f" /tmp/got.manifest | head -20; fi
  done
}

# sum_is SUMFILE DEVICE: the volume's contents
sum_is() {
  local i; for i in $(seq 1 60); do [ -e "$2" ] && break; sleep 0.5; done
  [ "$(cut -d' ' -f1 < "$1")" = "$(sha256sum < "$2" | cut -d' ' -f1)" ]
}

# scrubs_clean POOL: reads and verifies every copy of every block
scrubs_clean() {
  zpool scrub -w "$1" || return 1
  zpool status -v "$1" > /tmp/status; grep -q "with 0 errors" /tmp/status && grep -q "No known data errors" /tmp/status && return
  cat /tmp/status; return 1
}
