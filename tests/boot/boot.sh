# Second half of a test machine: PID 1 of the new namespaces dresses the overlay $1 up as a root and becomes systemd.
# $NOTIFY_SOCKET is where systemd sends READY=1 when the boot is finished.
set -eu
root=$1

# No sysctl, clock or module of the host may be touched from inside.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for part in sys bus fs irq; do
    mount --bind "$root/proc/$part" "$root/proc/$part"
    mount -o remount,bind,ro "$root/proc/$part"
done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

# The host's own units would take half a minute to start and are not what is tested: only basic.target and D-Bus remain.
etc=$root/etc/systemd
rm -rf "$etc/system" "$root/var/log/journal" "$root/etc/fstab"
mkdir -p "$etc/system" "$etc/journald.conf.d" "$etc/system.conf.d"
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-binfmt systemd-update-utmp systemd-timesyncd \
    systemd-sysusers systemd-journal-flush modprobe@ kmod-static-nodes systemd-random-seed; do
    ln -s /dev/null "$etc/system/$unit.service"
done
for unit in dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-journald-audit.socket systemd-initctl.socket \
    timers.target cryptsetup.target integritysetup.target veritysetup.target systemd-ask-password-console.path; do
    ln -s /dev/null "$etc/system/$unit"
done
printf '[Unit]\nRequires=basic.target dbus.socket\nAfter=basic.target dbus.socket\nAllowIsolate=yes\n' > "$etc/system/zmtest.target"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' > "$etc/journald.conf.d/test.conf"
printf '[Manager]\nDefaultTimeoutStopSec=10\n' > "$etc/system.conf.d/test.conf"

: > "$root/run/booted"
mount --bind "$NOTIFY_SOCKET" "$root/run/booted"
cd "$root"
mkdir -p run/host
pivot_root . run/host
cd /
umount -l /run/host
# Without this, LoadCredential= gives an empty directory.
mount --make-rshared /
ip link set lo up
exec setpriv --bounding-set -sys_module,-sys_time,-syslog,-mknod,-sys_rawio,-wake_alarm,-audit_read \
    env -i container=zmtest LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin NOTIFY_SOCKET=/run/booted \
    /lib/systemd/systemd --unit=zmtest.target --log-target=journal-or-kmsg --show-status=no
