# The first process of the bench, in mount, network and PID namespaces of its own: a tmpfs with the layers of the hosts' files, and a
# network switch with a cable to each host. When it is killed, all hosts, mounts and interfaces are gone. switch.sh WORK HOSTS LAYER...
set -eu
work=$1 hosts=$2
shift 2
mount -t tmpfs -o mode=755,size=4g tmpfs "$work"
mkdir -p "$work/share"
chmod 1777 "$work/share"
number=0
for layer in "$@"; do
    mkdir "$work/layer-$number"
    tar --xattrs -C "$work/layer-$number" -xf "$layer"
    number=$((number + 1))
done
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link set lo up
ip link add switch type bridge
ip link set switch up
for host in $hosts; do
    ip netns add "h$host"
    ip link add "p$host" type veth peer name e0 netns "h$host"
    ip link set "p$host" master switch up
    ip -n "h$host" address add "10.77.0.$host/24" dev e0
    ip -n "h$host" link set e0 up
done
echo ready
exec sleep infinity
