"""The sockets that outlive every supervisor: the control socket and the notify sockets. The keeper creates
them once, and each supervisor inherits their descriptors. While no supervisor runs, clients wait in the
backlog of the control socket, and notifications in the queue of the notify socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from zmsvc.core.errors import UsageError
from zmsvc.host import directories
from zmsvc.host.kernel import unix_sockets
from zmsvc.host.paths import Places
from zmsvc.host.systemd import datagrams

BACKLOG = 1024


class Listeners:
    """The open sockets of a context, and the lock of its only keeper. `close` removes their files."""

    def __init__(self, places: Places, *, owns_directory: bool = False) -> None:
        """With `owns_directory`, which says that this daemon has made the runtime directory, `close` removes
        that, too. Otherwise systemd or an administrator has made it and expects it to stay.
        """
        self._places = places
        self._owns_directory = owns_directory
        directories.claim(places.runtime, 0o755)
        try:
            self._lock = self._take_lock()
        except FileNotFoundError:
            # A daemon that has just ended may have removed the directory in between.
            directories.claim(places.runtime, 0o755)
            self._lock = self._take_lock()
        self.control = self._listen(places.control_socket)
        # This socket is only for tasks of the daemon's own user: another user could send descriptors that
        # hang the process which receives them.
        self.notify = datagrams.bind(places.notify_socket, 0o600)
        self.notify_of: dict[int, socket.socket] = {}
        """The notify sockets of tasks that run as other users, by user ID."""
        self.keeper = datagrams.bind(places.runtime / "keeper.sock", 0o600)
        unix_sockets.refuse_descriptors(self.keeper)

    @property
    def keeper_path(self) -> Path:
        return self._places.runtime / "keeper.sock"

    def notify_path(self, uid: int) -> Path:
        """Return the path of the notify socket for tasks of this user, and create the socket if necessary.
        Raises ZmsvcError.
        """
        path = self._places.runtime / f"notify-{uid}.sock"
        if uid not in self.notify_of:
            self.notify_of[uid] = datagrams.bind(path, 0o600, uid)
        return path

    def _take_lock(self) -> int:
        """Allow one keeper per context. The kernel releases the lock whenever the keeper dies."""
        fd = directories.open_file(self._places.lock_file, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise UsageError(
                f"cannot start {self._places.name}: it is already running (zmsvcctl -c {self._places.name} "
                f"status)"
            ) from None
        directories.write_new(self._places.pid_file, f"{os.getpid()}\n")
        return fd

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        # With the umask the socket has its mode before a client can connect; chmod would come too late.
        old = os.umask(0o117)
        try:
            sock.bind(str(path))
        except OSError as error:
            raise UsageError(f"cannot bind {path}: {error.strerror}") from error
        finally:
            os.umask(old)
        sock.listen(BACKLOG)
        return sock

    def close(self) -> None:
        """Remove the files, the lock last. The kernel closes the sockets when this process ends.

        A client may have sent descriptors that no supervisor has received. To close the socket would close
        those, too, and a descriptor with SO_LINGER would block the keeper. When a process ends, the kernel
        closes its descriptors without that wait.
        """
        for sock in (self.control, self.notify, self.keeper, *self.notify_of.values()):
            sock.detach()
        for uid in self.notify_of:
            self.notify_path(uid).unlink(missing_ok=True)
        places = self._places
        for path in (
            places.control_socket,
            places.notify_socket,
            self.keeper_path,
            places.members_file,
            places.pid_file,
        ):
            path.unlink(missing_ok=True)
        self._places.lock_file.unlink(missing_ok=True)
        if self._owns_directory:
            with contextlib.suppress(OSError):
                self._places.runtime.rmdir()
        os.close(self._lock)
