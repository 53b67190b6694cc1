#!/bin/bash
# Stands as zdb in the sandbox. OpenZFS's own finds imported pools in the kernel's cache file; ours are not there, so it is told to
# look where the suite's pools lie. What names a device or says where to look itself is left as it is.
for word in "$@"; do
    case $word in
    --*) ;;
    -*[eElU]* | /*) exec /usr/sbin/zdb "$@" ;;
    esac
done
exec /usr/sbin/zdb -e -p /var/tmp/zts "$@"
