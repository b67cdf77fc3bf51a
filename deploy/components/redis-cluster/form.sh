#!/bin/sh
# Makes a cluster of the nodes that are named, the first half masters. One that is whole is left alone; nodes that have lost sight of each
# other, because all were started again at once and have other addresses, are introduced again. So it may run at each apply.
# Usage: form.sh HOST:PORT…
set -eu
ask() { node=$1; shift; redis-cli -h "${node%:*}" -p "${node#*:}" "$@"; }
says() { ask "$first" cluster info | tr -d '\r' | grep -qx "$1"; }
first=$1
addresses=
for node in "$@"; do
    until [ "$(ask "$node" ping 2>/dev/null)" = PONG ]; do echo "waiting for $node"; sleep 1; done
    # Nodes are introduced by address, not by name.
    address=$(getent ahostsv4 "${node%:*}" | awk 'NR == 1 { print $1 }')
    addresses="$addresses ${address:?no address of $node}:${node#*:}"
done
if ! says cluster_slots_assigned:16384; then
    # shellcheck disable=SC2086
    redis-cli --cluster create $addresses --cluster-replicas 1 --cluster-yes
elif ! says cluster_state:ok; then
    for address in $addresses; do ask "$first" cluster meet "${address%:*}" "${address#*:}"; done
fi
until says cluster_state:ok; do echo "waiting for the cluster"; sleep 1; done
echo "the cluster is whole"
