#!/bin/sh
# Builds the RPM package of this tree with rpmbuild, on any distribution.
# usage: scripts/rpm.sh OUTPUT_DIRECTORY
set -eu

die() { echo "cannot build the package: $*" >&2; exit 1; }

source=$(realpath "$(dirname "$0")/..")
command -v rpmbuild > /dev/null || die "there is no rpmbuild (Debian: apt-get install rpm; elsewhere: rpm-build)"
# If RPM's database has no Python, it cannot check the build requirements.
nodeps=$(rpm -q python3 > /dev/null 2>&1 || echo --nodeps)
/usr/bin/python3 -W ignore -c 'import setuptools, pip' || die "/usr/bin/python3 has no pip or no setuptools"

mkdir -p "$1"
output=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$source/zmsvc/__init__.py")
# 1.1.0.dev0 is before 1.1.0, which RPM writes with a tilde, as Debian does.
rpm_version=$(echo "$version" | sed -E 's/\.?(dev|a|b|rc)/~\1/')
mkdir "$work/SOURCES" "$work/zmsvc-$version"
[ -e "$source/cockpit/dist/index.html" ] ||
    echo "the package will be without the page for Cockpit, because cockpit/dist is missing (make cockpit makes it)" >&2
if [ -e "$source/.git" ]; then
    git -c safe.directory='*' -C "$source" ls-files -z --cached --others --exclude-standard
    # git ignores the page for Cockpit, which `make cockpit` has made.
    [ ! -d "$source/cockpit/dist" ] || (cd "$source" && find cockpit/dist -type f -print0)
else
    (cd "$source" && find . \( -name .venv -o -name build -o -path ./dist -o -name node_modules -o -name __pycache__ -o -name '*.egg-info' -o -name '.*_cache' \) \
        -prune -o \( -type f -o -type l \) -printf '%P\0')
fi | tar -C "$source" --null --files-from=- --ignore-failed-read -c | tar -C "$work/zmsvc-$version" -x
tar -C "$work" -czf "$work/SOURCES/zmsvc-$version.tar.gz" "zmsvc-$version"
rpmbuild -ba $nodeps --define "_topdir $work" --define "zmsvc_version $rpm_version" --define "zmsvc_source_version $version" \
    "$source/packaging/zmsvc.spec" > "$work/log" 2>&1 || { tail -n 60 "$work/log" >&2; die "rpmbuild failed"; }
cp "$work"/RPMS/noarch/*.rpm "$work"/SRPMS/*.rpm "$output"
ls "$output"/*.rpm
