#!/bin/sh
# Builds the Debian package of this tree and, where lintian is installed, checks it. With DEB_BUILD_OPTIONS= (set, and empty) the build
# runs the tests of the core as well: minutes, and nothing that `make test` does not run.
# usage: scripts/deb.sh [--tree DIRECTORY] [--source DIRECTORY] OUTPUT_DIRECTORY
# --tree: build in the Debian that lies in DIRECTORY, by chroot; needs root and the network. Nothing in it changes: what is installed
#   for the build goes to a layer above it in memory, which vanishes with the script. Without it: with what this machine has installed.
# --source: the tree to be built, instead of the one that this script belongs to.
set -eu

die() { echo "cannot build the package: $*" >&2; exit 1; }

script=$(realpath "$0")
source=$(dirname "$(dirname "$script")")
tree='' inside=''
while [ $# -gt 1 ]; do
    case $1 in
        --tree) tree=$(realpath "$2"); shift 2 ;;
        --source) source=$(realpath "$2"); shift 2 ;;
        --inside) inside=yes; shift ;;
        *) die "there is no option $1" ;;
    esac
done
[ $# = 1 ] || die "usage: $0 [--tree DIRECTORY] [--source DIRECTORY] OUTPUT_DIRECTORY"
mkdir -p "$1"
output=$(realpath "$1")

# --- in a tree: this script again, by chroot in an overlay in a mount namespace of its own

if [ -n "$tree" ] && [ -z "$inside" ]; then
    [ "$(id -u)" = 0 ] || die "only root can enter $tree"
    [ -e "$tree/etc/debian_version" ] || die "there is no Debian in $tree"
    exec unshare --mount --propagation private "$script" --inside --tree "$tree" --source "$source" "$output"
fi
if [ -n "$tree" ]; then
    layer=$(mktemp -d)
    mount -t tmpfs -o mode=755 tmpfs "$layer"
    root=$layer/root
    mkdir "$layer/upper" "$layer/work" "$root"
    mount -t overlay -o "lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work" overlay "$root"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mkdir -p "$root/build/source" "$root/build/output" "$root/build/scripts"
    mount --bind "$source" "$root/build/source"
    mount --bind "$output" "$root/build/output"
    mount --bind "$(dirname "$script")" "$root/build/scripts"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # No daemon that comes with a build dependency may start.
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    chroot "$root" sh -c 'apt-get -qq update && apt-get -qq --yes --no-install-recommends build-dep /build/source &&
        apt-get -qq --yes --no-install-recommends install lintian git' > "$layer/apt.log" 2>&1 ||
        { cat "$layer/apt.log" >&2; die "the build dependencies cannot be installed in $tree"; }
    chroot "$root" /build/scripts/deb.sh --source /build/source /build/output || exit
    chown -R --reference="$output" "$output"
    exit 0
fi

# --- here

. "$(dirname "$script")/source_files.sh"
command -v dpkg-buildpackage > /dev/null || die "there is no dpkg-buildpackage (apt-get install dpkg-dev; apt-get build-dep $source)"
export DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-nocheck}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(dpkg-parsechangelog -l "$source/debian/changelog" -S Version)
upstream=zmsvc-${version%-*}
mkdir "$work/$upstream"
source_files | tar -C "$source" --null --files-from=- --ignore-failed-read -c | tar -C "$work/$upstream" --no-same-owner -x
(cd "$work/$upstream" && dpkg-checkbuilddeps) || die "build dependencies are missing (apt-get build-dep $source)"
tar -C "$work" --exclude="$upstream/debian" -czf "$work/zmsvc_${version%-*}.orig.tar.gz" "$upstream"
(cd "$work/$upstream" && dpkg-buildpackage -us -uc > "$work/log" 2>&1) || { tail -n 60 "$work/log" >&2; die "dpkg-buildpackage failed"; }
rm "$work/log"
cp "$work"/zmsvc_* "$output"
echo "built zmsvc_${version}_all.deb"
command -v lintian > /dev/null || { echo "lintian has not checked it, because there is none (apt-get install lintian)" >&2; exit 0; }
# A package outside of Debian closes no request for packaging. lintian of Debian 12 does not know a later Standards-Version; that of
# Debian 13 does not know or use some of the overrides that 12 needs. The exit status of lintian also counts suppressed tags, so it is
# ignored.
# One check of Debian 13 takes nine tenths of the time, over a minute. It looks for modules that later releases of Python lack, and the
# tests run on those.
slow=languages/python/stdlib-deprecation
[ -e /usr/share/lintian/lib/Lintian/Check/Languages/Python/StdlibDeprecation.pm ] || slow=''
lintian ${slow:+--dont-check-part "$slow"} --display-info --pedantic --fail-on none --allow-root "$work"/*.changes > "$work/tags"
# The page for Cockpit is HTML that a browser shows. It has npm's file of dagre, which npm has as one long line and whose source is not
# here, so the package is none for Debian's own archive. debian/copyright names that file also without a page.
page='package-contains-documentation-outside-usr-share-doc \[usr/share/cockpit/|source-(contains-prebuilt-javascript-object|is-missing) \[cockpit/dist/|superfluous-file-pattern cockpit/dist/'
! grep -vE "^N:|: (initial-upload-closes-no-bugs|out-of-date-standards-version|alien-tag|unused-override)( |\$)|$page" "$work/tags" ||
    die "lintian finds the above (lintian-explain-tags TAG)"
