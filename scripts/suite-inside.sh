# The inner half of suite.py, in mount and PID namespaces of its own: a throw-away overlay of the tree $1 becomes the root, with a copy
# of the checkout $3 in it; $2 is an empty directory to mount things at. Then come files to copy from outside, "--", and the command.
set -eu
tree=$1 work=$2 checkout=$3
shift 3

mount -t tmpfs -o mode=755 tmpfs "$work"
root=$work/root
mkdir "$work/upper" "$work/scratch" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/scratch" overlay "$root"

while [ "$1" != -- ]; do
    [ ! -e "$1" ] || cp --dereference "$1" "$root$1"
    shift
done
shift

inside=/srv/zmsvc
mkdir -p "$root$inside"
tar -C "$checkout" '--exclude=./.venv*' --exclude=./build --exclude=./dist --exclude='./.*_cache' --exclude=./.hypothesis \
    --exclude='*.egg-info' --exclude=__pycache__ -cf - . | tar -C "$root$inside" --no-same-owner -xf -

for part in dev sys; do
    mount --rbind "/$part" "$root/$part"
    mount --make-rslave "$root/$part"
done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# The boot tests put an overlay of their own above the same tree. Above this one it could exceed the kernel's limit of stacked overlays.
mkdir -p "$root/run/suite"
mount --bind "$tree" "$root/run/suite"

cd "$root"
mkdir -p run/outside
pivot_root . run/outside
cd "$inside"
umount -l /run/outside
rmdir /run/outside
# This shell stays the first process, because it reaps processes that lose their parent.
ZMSVC_BOOT_TREE=/run/suite "$@" && status=0 || status=$?
exit "$status"
