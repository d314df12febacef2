"""sd_notify over a real socket, both ends: each message arrives whole, in order and with the sender's
identity, or is refused.
"""

from __future__ import annotations

import array
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host.kernel import memfd
from zmsvc.host.systemd import datagrams, notify
from zmsvc.host.systemd.notify import Notifier


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with datagrams.bind(tmp_path / "n", 0o666) as made:
        yield made


@pytest.fixture
def path(receiver: socket.socket) -> str:
    return str(receiver.getsockname())


@pytest.fixture
def notifier(path: str) -> Iterator[Notifier]:
    made = Notifier(path)
    yield made
    made.close()


def lines(receiver: socket.socket) -> list[tuple[str, str]]:
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    return datagram.lines


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def send(path: str, data: bytes, fds: list[int] | None = None) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sender.sendmsg([data], ancillary, 0, path)


def test_the_kernel_identifies_the_sender(receiver: socket.socket, notifier: Notifier) -> None:
    notifier.ready()
    datagram = datagrams.receive(receiver)
    assert datagram == datagrams.Datagram(pid=os.getpid(), uid=os.getuid(), lines=[("READY", "1")], fds=[])


def test_receive_without_a_datagram_returns_none(receiver: socket.socket) -> None:
    assert datagrams.receive(receiver) is None


def test_every_notification_arrives(receiver: socket.socket, notifier: Notifier) -> None:
    notifier.watchdog()
    notifier.stopping()
    notifier.extend(1.5)
    notifier.reloading()
    assert lines(receiver) == [("WATCHDOG", "1")]
    assert lines(receiver) == [("STOPPING", "1")]
    assert lines(receiver) == [("EXTEND_TIMEOUT_USEC", "1500000")]
    reloading = dict(lines(receiver))
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0


def test_a_status_is_utf8_and_one_line(receiver: socket.socket, notifier: Notifier) -> None:
    notifier.status("café ☕\nREADY=1\udcff")
    assert lines(receiver) == [("STATUS", "café ☕ READY=1?")]


def test_a_long_status_is_cut(receiver: socket.socket, notifier: Notifier) -> None:
    notifier.status("x" * 1_000_000)
    assert len(lines(receiver)[0][1]) == 4096


def test_a_task_in_a_shared_process_marks_its_notifications(receiver: socket.socket, path: str) -> None:
    shared = Notifier(path, task="ts_100")
    shared.ready()
    shared.close()
    assert lines(receiver) == [("X_ZMSVC_TASK", "ts_100"), ("READY", "1")]


@pytest.mark.parametrize(
    "size", [0, 100, notify.UPDATE_INLINE - 2, notify.UPDATE_INLINE - 1, 500_000, notify.UPDATE_LIMIT - 2]
)
def test_an_update_of_any_size_arrives_whole_and_leaves_no_descriptor(
    receiver: socket.socket, notifier: Notifier, size: int
) -> None:
    before, text = open_fds(), '"' + "x" * size + '"'
    notifier.update(text, 7)
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    assert ("X_ZMSVC_SEQ", "7") in datagram.lines
    assert datagrams.texts_of(datagram)[0] == text
    assert datagram.fds == []
    assert open_fds() <= before


def test_an_update_that_is_too_large_is_refused_with_the_figures(
    receiver: socket.socket, notifier: Notifier
) -> None:
    with pytest.raises(ValueError, match="1048577 bytes of JSON, at most 1048576"):
        notifier.update("x" * (notify.UPDATE_LIMIT + 1), 1)
    with pytest.raises(ValueError, match="bytes of JSON"):
        notifier.update("é" * (notify.UPDATE_LIMIT // 2 + 1), 1)
    assert datagrams.receive(receiver) is None


def test_a_full_queue_raises_and_has_room_after_a_read(receiver: socket.socket, notifier: Notifier) -> None:
    taken = 0
    while notifier.update(str(taken), taken + 1):
        taken += 1
    assert taken > 0
    assert not notifier.update("x" * 100_000, taken + 1), "nor one that travels as a file"
    for number in range(taken):
        assert dict(lines(receiver))["X_ZMSVC_UPDATE"] == str(number)
    assert notifier.update("more", taken + 1)


def test_an_update_without_a_receiver_raises(receiver: socket.socket, notifier: Notifier, path: str) -> None:
    receiver.close()
    with pytest.raises(OSError, match="refused"):
        notifier.update("{}", 1)


def test_a_full_queue_makes_the_sender_wait_and_loses_nothing(
    receiver: socket.socket, notifier: Notifier
) -> None:
    def work() -> None:
        for number in range(100):
            notifier.notify(f"X_ZMSVC_UPDATE={number}")

    sender = threading.Thread(target=work)
    sender.start()
    receiver.setblocking(True)
    found = [dict(lines(receiver))["X_ZMSVC_UPDATE"] for _ in range(100)]
    sender.join()
    assert found == [str(number) for number in range(100)]


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    before = open_fds()
    silent = Notifier()
    silent.ready()
    silent.update("{}", 1)
    assert silent.fileno() == -1
    assert open_fds() <= before


def test_the_environment_names_the_socket(
    receiver: socket.socket, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    told = Notifier()
    told.ready()
    told.close()
    assert lines(receiver) == [("READY", "1")]


def test_an_abstract_address_works() -> None:
    name = f"zmsvc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"\0{name}")
        told = Notifier(f"@{name}")
        told.ready()
        told.close()
        assert other.recv(100) == b"READY=1"


def test_a_rebound_socket_is_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "n"
    first = datagrams.bind(path, 0o600)
    told = Notifier(str(path))
    first.close()
    with caplog.at_level(logging.WARNING):
        told.ready()
        told.ready()
    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot notify {path}: Connection refused; notifications are lost until it can be reached"
    ]
    with datagrams.bind(path, 0o600) as second:
        told.ready()
        assert lines(second) == [("READY", "1")]
    told.close()


def test_a_socket_that_is_bound_later_is_found(tmp_path: Path) -> None:
    told = Notifier(str(tmp_path / "n"))
    with datagrams.bind(tmp_path / "n", 0o600) as late:
        told.ready()
        assert lines(late) == [("READY", "1")]
    told.close()


def test_malformed_assignments_are_ignored(receiver: socket.socket, path: str) -> None:
    send(path, b"READY=1\nnonsense\n=empty\nSTATUS=a=b\nX=\xff\n\nX_OTHER=\n")
    assert lines(receiver) == [("READY", "1"), ("STATUS", "a=b"), ("X", "\ufffd"), ("X_OTHER", "")]
    send(path, b"")
    assert lines(receiver) == []


def test_the_truncated_line_of_an_oversized_datagram_is_ignored(receiver: socket.socket, path: str) -> None:
    send(path, b"READY=1\nSTATUS=" + b"x" * 150_000)
    assert lines(receiver) == [("READY", "1")]


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        (b"X_ZMSVC_UPDATE={}", True),
        (b"X_ZMSVC_UPDATE={}\nBARRIER=1", True),
        (b"X_ZMSVC_UPDATE_FD=1", True),
        (b"X_ZMSVC_SEQ=3\nX_ZMSVC_UPDATE={}", False),
        (b"X_ZMSVC_UPDATE={}\nREADY=1", False),
        (b"BARRIER=1", False),
    ],
)
def test_a_result_of_a_script_is_one_without_a_number_and_without_other_lines(
    receiver: socket.socket, path: str, lines: bytes, result: bool
) -> None:
    send(path, lines)
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    assert datagrams.only_reports_a_result(datagram) is result


def test_unexpected_descriptors_are_closed(receiver: socket.socket, path: str) -> None:
    reader, writer = os.pipe()
    send(path, b"BARRIER=1", [writer] * 12)
    os.close(writer)
    before = open_fds()
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    assert datagram.fds == []
    assert open_fds() <= before
    assert os.read(reader, 1) == b""  # the end that the sender of a barrier waits for
    os.close(reader)


@pytest.mark.parametrize("kind", ["pipe", "unsealed", "huge"])
def test_an_update_in_a_file_that_cannot_be_trusted_is_refused(
    receiver: socket.socket, path: str, kind: str
) -> None:
    before = open_fds()
    reader, writer = os.pipe()
    fd = {
        "pipe": lambda: reader,
        "unsealed": lambda: os.memfd_create("x", os.MFD_ALLOW_SEALING),
        "huge": lambda: memfd.sealed("x", b"x" * (notify.UPDATE_LIMIT + 1)),
    }[kind]()
    send(path, b"X_ZMSVC_UPDATE_FD=1", [fd])
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    with pytest.raises(ProtocolError, match="cannot read passed file"):
        datagrams.texts_of(datagram)[0]
    for each in {fd, reader, writer}:
        os.close(each)
    assert open_fds() <= before


def test_a_datagram_without_an_update_has_none(receiver: socket.socket, path: str) -> None:
    send(path, b"READY=1\nSTATUS=well")
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    assert datagrams.texts_of(datagram)[0] is None


def test_an_update_whose_file_did_not_arrive_is_refused(receiver: socket.socket, path: str) -> None:
    send(path, b"X_ZMSVC_UPDATE_FD=1")
    datagram = datagrams.receive(receiver)
    assert datagram is not None
    with pytest.raises(ProtocolError, match="no file came with it"):
        datagrams.texts_of(datagram)[0]


def test_peeked_datagrams_stay_until_they_are_discarded(receiver: socket.socket, notifier: Notifier) -> None:
    datagrams.peek_from_start(receiver)
    for number in range(3):
        notifier.status(str(number))
    seen = [datagrams.receive(receiver, peek=True) for _ in range(4)]
    assert [datagram and datagram.lines[0][1] for datagram in seen] == ["0", "1", "2", None]
    datagrams.discard(receiver, 2)
    assert lines(receiver) == [("STATUS", "2")]


def test_a_reader_may_keep_further_descriptors_and_learns_if_some_are_missing(
    receiver: socket.socket, path: str
) -> None:
    before = open_fds()
    for keep, count, incomplete in (
        (True, 253, False),
        (False, 253, True),
        (False, 1, True),
        (True, 1, False),
    ):
        send(path, b"FDSTORE=1", [0] * count)
        datagram = datagrams.receive(receiver, keep_others=keep)
        assert datagram is not None
        assert (len(datagram.others), datagram.incomplete) == (count if keep else 0, incomplete)
        for fd in datagram.others:
            os.close(fd)
    assert open_fds() <= before


@pytest.mark.parametrize("size", [notify.UPDATE_INLINE, 80_000, 150_000])
def test_an_oversized_datagram_is_peeked_at_once(receiver: socket.socket, path: str, size: int) -> None:
    datagrams.peek_from_start(receiver)
    before = open_fds()
    send(path, b"A=1\nB=" + b"x\n" * (size // 2), [0, 1])
    send(path, b"C=2")
    peeked = [datagrams.receive(receiver, peek=True) for _ in range(3)]
    assert [datagram.lines[0] if datagram else None for datagram in peeked] == [("A", "1"), ("C", "2"), None]
    assert open_fds() <= before
    datagrams.discard(receiver, 2)
    with pytest.raises(BlockingIOError):
        receiver.recv(1)


def test_a_bound_socket_has_its_mode_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "n"
    for mode in (0o600, 0o666):
        with datagrams.bind(path, mode):
            assert path.stat().st_mode & 0o777 == mode


def test_a_socket_that_cannot_be_bound_says_why(tmp_path: Path) -> None:
    before = open_fds()
    with pytest.raises(ZmsvcError, match=r"cannot listen at .*/none/n: No such file or directory"):
        datagrams.bind(tmp_path / "none" / "n", 0o600)
    with pytest.raises(ZmsvcError, match=r"cannot listen at .*: AF_UNIX path too long"):
        datagrams.bind(tmp_path / ("x" * 120), 0o600)
    assert open_fds() <= before
