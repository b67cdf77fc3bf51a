#!/bin/sh
# The master's name as the first sentinel says it that knows; nothing where none does. Usage: master.sh SENTINEL:PORT…
set -u
for sentinel in "$@"; do
    master=$(timeout 3 redis-cli -h "${sentinel%:*}" -p "${sentinel#*:}" sentinel get-master-addr-by-name fulcrum 2>/dev/null | head -n 1)
    [ -z "$master" ] || { echo "$master"; exit; }
done
