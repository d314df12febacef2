#!/bin/sh
# Makes a virtual environment with a Python that is new enough, or prints what to install.
# usage: scripts/venv.sh [--service] [--system-site-packages] DIRECTORY [PYTHON]
# --service: a Python that the user zmsvc can run, too, also under ProtectHome=.
# --system-site-packages: the environment sees the libraries of the distribution.
set -eu

service='' options=''
while :; do
    case $1 in
        --service) service=yes ;;
        --system-site-packages) options=$1 ;;
        *) break ;;
    esac
    shift
done
directory=$1
candidates=${2:-python3 python3.14 python3.13 python3.12 python3.11}

die() { echo "cannot make $directory: $*" >&2; exit 1; }

# -I: root's working directory may belong to another user, and -c and -m search it for modules first.
fits() { "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

reachable() {
    real=$("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    case $real in /home/*|/root/*|/run/user/*) return 1 ;; esac
    # Only root can test this; 65534 is the user nobody.
    [ "$(id -u)" != 0 ] || setpriv --reuid=65534 --regid=65534 --clear-groups "$real" -c 'import encodings' 2>/dev/null
}

found=
for python in $candidates; do
    if fits "$python"; then found=$python; break; fi
done
[ -n "$found" ] || die "none of [$candidates] is a Python >= 3.11 with venv; install one" \
    "(Debian, Ubuntu: apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python3"
[ -z "$service" ] || reachable "$found" || die "the user zmsvc cannot run $found, because it is in a home directory" \
    "or a closed directory; name another: PYTHON=/usr/bin/python3"
exec "$found" -I -m venv $options "$directory"
