#!/bin/sh
# Builds the RPM package of this tree with rpmbuild, on any distribution.
# usage: scripts/rpm.sh OUTPUT_DIRECTORY
set -eu

die() { echo "cannot build the package: $*" >&2; exit 1; }

source=$(realpath "$(dirname "$0")/..")
. "$source/scripts/source_files.sh"
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
source_files | tar -C "$source" --null --files-from=- --ignore-failed-read -c | tar -C "$work/zmsvc-$version" -x
tar -C "$work" -czf "$work/SOURCES/zmsvc-$version.tar.gz" "zmsvc-$version"
rpmbuild -ba $nodeps --define "_topdir $work" --define "zmsvc_version $rpm_version" --define "zmsvc_source_version $version" \
    "$source/packaging/zmsvc.spec" > "$work/log" 2>&1 || { tail -n 60 "$work/log" >&2; die "rpmbuild failed"; }
cp "$work"/RPMS/noarch/*.rpm "$work"/SRPMS/*.rpm "$output"
ls "$output"/*.rpm
