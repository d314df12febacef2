# Make one layer of the hosts' files, in a mount namespace of its own: layer.sh WORK CHECKOUT FILE LOWER COMMAND. COMMAND runs by chroot
# in an overlay of this machine's /, with the layer in the tar file LOWER between the two if that is not empty, and with the checkout
# at /mnt. What it has changed goes into the tar file FILE.
set -eu
work=$1 checkout=$2 file=$3 lower=$4 command=$5

mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/lower" "$work/upper" "$work/scratch" "$work/root"
[ -z "$lower" ] || tar --xattrs -C "$work/lower" -xf "$lower"
root=$work/root
mount -t overlay -o "lowerdir=$work/lower:/,upperdir=$work/upper,workdir=$work/scratch" overlay "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$checkout" "$root/mnt"
mount -o remount,bind,ro "$root/mnt"

# No package may start a service.
policy=$root/usr/sbin/policy-rc.d
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"
chroot "$root" env DEBIAN_FRONTEND=noninteractive TMPDIR=/tmp sh -euc "$command" < /dev/null
rm "$policy"

umount "$root/mnt" "$root/tmp" "$root/proc" "$root/dev" "$root"
tar --xattrs -C "$work/upper" -cf "$file" .
