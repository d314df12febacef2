#!/bin/sh
# Renews packaging/locked: the versions that `make install` installs, with the hash of each of their files in the index.
# It needs the network. Afterwards pip checks, for each Python and machine below, that wheels with these hashes exist.
# usage: scripts/lock.sh WORK_DIRECTORY
set -eu
cd "$(dirname "$0")/.."
work=$1
pythons='3.11 3.12 3.13 3.14'
machines='x86_64 aarch64'

# Wheels that were built on this machine have hashes that are valid nowhere else.
export PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= PIP_DISABLE_PIP_VERSION_CHECK=1

[ -x "$work/bin/pip-compile" ] || scripts/venv.sh "$work" "${PYTHON:-}"
"$work/bin/python" -m pip install --quiet --upgrade pip-tools

# compile FILE ABOUT OPTION...
compile() {
    file=packaging/locked/$1 about=$2
    shift 2
    "$work/bin/pip-compile" --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-options \
        "$@" --output-file="$work/compiled" pyproject.toml
    { printf '# %s\n# Written by `make lock`; edit setup.cfg or pyproject.toml instead.\n\n' "$about"; cat "$work/compiled"; } > "$file"
    rm "$work/compiled"
}

compile libraries.txt 'The libraries that zmsvc runs with, and what they need.'
compile build.txt 'Builds zmsvc, and the libraries that are published as source only.' --only-build-deps --build-deps-for=wheel

# sdnotify is published as source only, and is pure Python.
sed '/^sdnotify==/,/^ *#/d' packaging/locked/libraries.txt > "$work/wheels.txt"
for python in $pythons; do
    for machine in $machines; do
        "$work/bin/python" -m pip install --quiet --dry-run --ignore-installed --no-deps --require-hashes --only-binary=:all: \
            --target "$work/target" --python-version "$python" --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" \
            --platform "manylinux_2_26_$machine" -r "$work/wheels.txt"
        echo "lock: every compiled library has a wheel for Python $python on $machine"
    done
done
