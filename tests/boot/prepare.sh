# First half of a test machine, in a mount namespace of its own and with the network still there: a throw-away overlay of the
# tree $1 in $2/root, in which the command "$5..." runs with the checkout $3 at /mnt. Then boot.sh continues in the machine's namespaces.
set -eu
tree=$1 work=$2 checkout=$3 boot=$4
shift 4
root=$work/root

mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/upper" "$work/scratch" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/scratch" overlay "$root"

if [ $# -gt 0 ]; then
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount --bind "$checkout" "$root/mnt"
    mount -o remount,bind,ro "$root/mnt"
    chroot "$root" env -u NOTIFY_SOCKET TMPDIR=/tmp "$@" < /dev/null
    umount "$root/mnt" "$root/tmp" "$root/proc" "$root/dev"
fi

exec unshare --pid --fork --uts --ipc --net --cgroup --mount --kill-child --propagation private sh "$boot" "$root"
