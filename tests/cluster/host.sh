# Boot a host, in the namespaces of the bench: host.sh WORK NUMBER BOOT. The upper directory of its files stays when the host dies, as a
# disk does. BOOT is the second half of a test machine of tests/boot, which becomes systemd.
set -eu
work=$1 number=$2 boot=$3
here=$work/h$number
root=$here/root
mkdir -p "$here/upper" "$here/scratch" "$root"
! mountpoint -q "$root" || umount -l "$root"
mount -t overlay -o "lowerdir=$work/layer-1:$work/layer-0:/,upperdir=$here/upper,workdir=$here/scratch" overlay "$root"
mkdir -p "$root/share"
mount --bind "$work/share" "$root/share"
echo "h$number" > "$root/etc/hostname"
printf '127.0.0.1 localhost\n10.77.0.1 h1\n10.77.0.2 h2\n10.77.0.3 h3\n' > "$root/etc/hosts"
printf '%032x\n' "$((0x2a0000 + number))" > "$root/etc/machine-id"
# The addresses that the cluster had given to the host are gone with its power.
ip -n "h$number" address flush dev e0
ip -n "h$number" address add "10.77.0.$number/24" dev e0
exec nsenter --net="/run/netns/h$number" unshare --pid --fork --uts --ipc --cgroup --mount --kill-child --propagation private \
    sh -euc 'hostname "$2"; exec sh "$0" "$1"' "$boot" "$root" "h$number"
