#!/bin/sh
# Starts a sentinel that watches over what the others watch, or at first over the first Redis. What it learnt before stays.
# Usage: sentinel.sh SELF FIRST SENTINEL:PORT…
set -eu
self=$1 first=$2
shift 2
own=/data/sentinel.conf
if [ ! -s "$own" ]; then
    master=$(sh "$(dirname "$0")/master.sh" "$@")
    master=${master:-$first}
    until [ "$(timeout 3 redis-cli -h "$master" ping 2>/dev/null)" = PONG ]; do echo "waiting for $master"; sleep 1; done
    cat /etc/redis/sentinel.conf - >"$own" <<CONF
sentinel announce-ip $self
sentinel monitor fulcrum $master 6379 2
sentinel down-after-milliseconds fulcrum 3000
sentinel failover-timeout fulcrum 10000
CONF
fi
exec redis-server "$own" --sentinel
