#!/bin/sh
# Starts a Redis as what the sentinels say it is. Where none knows anything yet, the first one is the master.
# Usage: redis.sh SELF FIRST SENTINEL:PORT… (names; Redis is at port 6379)
set -eu
self=$1 first=$2
shift 2
master=$(sh "$(dirname "$0")/master.sh" "$@")
master=${master:-$first}
if [ "$master" = "$self" ]; then
    echo "as master"
    exec redis-server /etc/redis/redis.conf --replica-announce-ip "$self"
fi
echo "as replica of $master"
exec redis-server /etc/redis/redis.conf --replica-announce-ip "$self" --replicaof "$master" 6379
