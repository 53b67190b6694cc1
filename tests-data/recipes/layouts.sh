#!/bin/sh
# Makes tests-data/layouts anew. Needs gcc, zstd and Debian's libzfslinux-dev (headers) with libzpool6linux.
# Usage: layouts.sh DIR (absolute; the images and what zdb says of them end up there)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
headers=${HEADERS:-/usr/include}
# The package lacks one header, of structures that nothing here looks into.
mkdir -p "$1/stub/sys"
echo 'struct abd_scatter { int unused; }; struct abd_linear { int unused; };' > "$1/stub/sys/abd_os.h"
gcc -I"$1/stub" -D_GNU_SOURCE -DHAVE_ISSETUGID -I"$headers/libzfs" -I"$headers/libspl" -o "$1/make" "$here/layouts.c" \
    -l:libzpool.so.6 -l:libnvpair.so.3
"$1/make" "$1"
for pool in gone spared; do zdb -e -p "$1" -bcc "$pool" > "$1/$pool.zdb"; done
for image in "$1"/*.img; do zstd -19 --long=27 -q -f "$image"; done
