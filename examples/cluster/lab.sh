#!/usr/bin/env bash
# Three machines in network namespaces: nodes a and b, and a witness w, around one bridge; and an address that moves.
# Root; iproute2, nftables, python3. Usage: lab.sh [path of trimtab]. Leaves a shell; all is gone when it ends.
set -euo pipefail
trimtab=$(realpath "${1:-$(command -v trimtab)}")
dir=$(mktemp -d)
shared=198.18.0.100
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    for ns in lab-a lab-b lab-w lab-sw; do ip netns delete $ns 2>/dev/null || true; done
    rm -rf "$dir"
}
trap cleanup EXIT

ip netns add lab-sw
ip -n lab-sw link add br0 type bridge
ip -n lab-sw link set br0 up
# The bridge's own address is the client.
ip -n lab-sw address add 198.18.0.9/24 dev br0
head -c 32 /dev/urandom | base64 > "$dir/key"
number=0
for node in a b w; do
    number=$((number + 1))
    ip netns add lab-$node
    ip -n lab-$node link set lo up
    ip -n lab-$node link add eth0 type veth peer name p$node netns lab-sw
    ip -n lab-sw link set p$node master br0 up
    ip -n lab-$node address add 198.18.0.$number/24 dev eth0
    ip -n lab-$node link set eth0 up
    file=$dir/$node.toml
    : > "$file"
    if [ $node != w ]; then
        ip -n lab-$node address add $shared/32 dev eth0
        mkdir "$dir/www-$node"
        echo "served by $node" > "$dir/www-$node/index.html"
        ip netns exec lab-$node python3 -m http.server -b 127.0.0.1 -d "$dir/www-$node" 9000 2>/dev/null &
        pids+=($!)
        printf '[[listener]]\nlisten = "0.0.0.0:80"\n[pool.main]\nbackends = ["127.0.0.1:9000"]\n' >> "$file"
    fi
    printf '[cluster]\nname = "lab"\nnode = "%s"\nkey_file = "key"\n' $node >> "$file"
    if [ $node != w ]; then
        printf 'takeover = "address"\naddresses = ["%s"]\ninterface = "eth0"\n' $shared >> "$file"
    fi
    for member in "a 1 node" "b 2 node" "w 3 witness"; do
        read -r name last role <<< "$member"
        printf '[[cluster.member]]\nname = "%s"\naddress = "198.18.0.%s:7946"\nrole = "%s"\n' "$name" "$last" "$role" >> "$file"
    done
done
for node in a b w; do
    ip netns exec lab-$node "$trimtab" run "$dir/$node.toml" > "$dir/$node.log" 2>&1 &
    pids+=($!)
    echo "$node: process $!, log $dir/$node.log"
done
cat <<END
try:  curl http://$shared/
      ip netns exec lab-a $trimtab cluster status
      ip netns exec lab-a $trimtab cluster failover
      kill -9 PROCESS;  kill -STOP PROCESS;  ip link set pa down
END
if [ -t 0 ]; then
    ip netns exec lab-sw bash -i
else
    ip netns exec lab-sw bash -s
fi
