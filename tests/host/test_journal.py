"""Logging: the entries that journald receives, the lines in a file, and no error in the code that logs."""

from __future__ import annotations

import array
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE

from zmsvc.core import logline
from zmsvc.host.kernel import memfd
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.stdout_lines import LineWriter

CATALOG = Path(journal.__file__).parents[2] / "data" / "zmsvc.catalog"
FIELDS = {"ZMSVC_CONTEXT": "C", "ZMSVC_TRANSACTION": "TX", "ZMSVC_TASK": "ts_100", "ZMSVC_INSTANCE": "Echo"}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} (.*)")


class Journald:
    """Both sockets of a journald that reads https://systemd.io/JOURNAL_NATIVE_PROTOCOL."""

    def __init__(self, folder: Path) -> None:
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket, self.stdout = str(folder / "socket"), str(folder / "stdout")
        self.datagrams.bind(self.socket)
        self.streams = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.streams.bind(self.stdout)
        self.streams.listen()
        for each in (self.datagrams, self.streams):
            each.settimeout(PATIENCE)

    def configure(self, level: int = logging.INFO) -> journal.Sink:
        return configure("journal", level, self.socket)

    def stream(self, *, seen: bool = False) -> int:
        return journal.stream("Echo", "journal", seen=seen, journald=self.stdout)

    def entry(self) -> dict[str, bytes]:
        data, ancillary, _, _ = self.datagrams.recvmsg(4 << 20, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        for _, _, payload in ancillary:
            fd = array.array("i", payload)[0]
            data = memfd.read(fd, 1 << 30)
            os.close(fd)
        return parsed(data)

    def close(self) -> None:
        self.datagrams.close()
        self.streams.close()


def parsed(data: bytes) -> dict[str, bytes]:
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        fields[name.decode()] = value
    return fields


@pytest.fixture(autouse=True)
def own_root_logger() -> Iterator[None]:
    """Undo what `configure` does to the root logger; keep the handlers that it would close."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


def configure(target: object, level: int = logging.INFO, journald: str = journal.SOCKET) -> journal.Sink:
    return journal.configure(
        identifier="Echo", fields=FIELDS, target=str(target), level=level, journald=journald
    )


def heads_off(text: str) -> list[str]:
    """Return the lines of a log without their times."""
    return [found[1] if (found := LINE.fullmatch(line)) else line for line in text.splitlines()]


# --- journald


def test_an_entry_carries_every_field(journald: Journald) -> None:
    journald.configure()
    logging.getLogger("lib").warning("disk at %d %%", 93)
    entry = journald.entry()
    assert entry.pop("CODE_LINE").isdigit()
    assert entry == {
        "MESSAGE": b"disk at 93 %",
        "PRIORITY": b"4",
        "LOGGER": b"lib",
        "CODE_FILE": __file__.encode(),
        "CODE_FUNC": b"test_an_entry_carries_every_field",
        "SYSLOG_IDENTIFIER": b"Echo",
        **{name: value.encode() for name, value in FIELDS.items()},
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_log_levels_map_to_syslog_priorities(journald: Journald, level: str, priority: int) -> None:
    journald.configure(logging.DEBUG)
    getattr(logging.getLogger("x"), level)("text")
    assert journald.entry()["PRIORITY"] == str(priority).encode()


def test_the_fields_of_a_record_override_the_defaults(journald: Journald) -> None:
    journald.configure()
    extra = {
        "MESSAGE_ID": "ab",
        "SYSLOG_IDENTIFIER": "Other",
        "ZMSVC_TASK": "ts_101",
        "a-b": 1,
        "_PID": "0",
        "NONE": None,
    }
    logging.info("text", extra={"journal": extra})
    entry = journald.entry()
    assert (entry["MESSAGE_ID"], entry["SYSLOG_IDENTIFIER"], entry["ZMSVC_TASK"]) == (
        b"ab",
        b"Other",
        b"ts_101",
    )
    assert entry["A_B"] == b"1"
    assert entry["PID"] == b"0"  # journald would refuse an entry with a field whose name begins with _
    assert "NONE" not in entry
    assert entry["ZMSVC_TRANSACTION"] == b"TX"


def test_a_thread_may_have_fields_of_its_own(journald: Journald) -> None:
    journald.configure()

    def work() -> None:
        journal.scope({"ZMSVC_TASK": "ts_200"})
        logging.info("inside")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    logging.info("outside")
    assert [journald.entry()["ZMSVC_TASK"], journald.entry()["ZMSVC_TASK"]] == [b"ts_200", b"ts_100"]


def test_an_exception_is_in_the_message_and_in_its_field(journald: Journald) -> None:
    journald.configure()
    try:
        raise ValueError("bad\nworse")
    except ValueError:
        logging.exception("Failed")
    entry = journald.entry()
    assert entry["MESSAGE"].startswith(b"Failed\nTraceback")
    assert entry["EXCEPTION"].endswith(b"ValueError: bad\nworse\n")


def test_undecodable_bytes_arrive(journald: Journald) -> None:
    journald.configure()
    logging.info(
        "name: %s", b"a\xff".decode(errors="surrogateescape"), extra={"journal": {"RAW": b"\x00\n\xff"}}
    )
    entry = journald.entry()
    assert entry["MESSAGE"] == b"name: a\xff"
    assert entry["RAW"] == b"\x00\n\xff"


def test_an_entry_beyond_a_datagram_arrives_whole_and_leaves_no_descriptor(journald: Journald) -> None:
    journald.configure()
    before = {*os.listdir("/proc/self/fd")}
    text = "x" * 900_000
    logging.info(text)
    assert journald.entry()["MESSAGE"] == text.encode()
    # Some of an earlier test may be gone by now.
    assert {*os.listdir("/proc/self/fd")} <= before


def test_a_huge_message_is_truncated(journald: Journald) -> None:
    journald.configure()
    logging.info("x" * 3_000_000)
    message = journald.entry()["MESSAGE"]
    assert len(message) < 1_100_000
    assert message.endswith(b"x [3000000 characters, cut]")


def test_a_journald_that_is_gone_is_replaced_by_stderr(
    journald: Journald, capfd: pytest.CaptureFixture[str]
) -> None:
    journald.configure()
    journald.datagrams.close()
    logging.info("still here")
    assert heads_off(capfd.readouterr().err) == [f"Echo[{os.getpid()}] TX/ts_100 INFO: still here"]


def test_without_journald_the_journal_is_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    configure("journal", journald="/nonexistent/socket")
    logging.info("text")
    assert heads_off(capfd.readouterr().err) == [f"Echo[{os.getpid()}] TX/ts_100 INFO: text"]


# --- lines


def test_a_file_has_a_line_for_a_record(file: Path) -> None:
    configure(file)
    logging.error("text")
    logging.debug("not this")
    assert heads_off(file.read_text()) == [f"Echo[{os.getpid()}] TX/ts_100 ERROR: text"]
    assert file.stat().st_mode & 0o777 == 0o640


def test_lines_of_a_process_without_a_task_name_none(file: Path) -> None:
    journal.configure(identifier="zmsvc-C", fields={"ZMSVC_CONTEXT": "C"}, target=str(file))
    logging.info("a")
    logging.info("b", extra={"journal": {"ZMSVC_TRANSACTION": "TX"}})
    assert heads_off(file.read_text()) == [
        f"zmsvc-C[{os.getpid()}] INFO: a",
        f"zmsvc-C[{os.getpid()}] TX INFO: b",
    ]


def test_no_message_can_forge_another_record(file: Path) -> None:
    configure(file)
    logging.info("a\n2026-01-01T00:00:00.000+0000 Echo[1] INFO: forged\n")
    assert file.read_text().splitlines()[1] == "    2026-01-01T00:00:00.000+0000 Echo[1] INFO: forged"


def test_a_record_goes_to_the_file_and_to_stderr(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure(f"{file}+stderr")
    logging.info("text")
    assert file.read_text() == capfd.readouterr().err != ""


def test_a_log_file_that_cannot_be_opened_is_reported_and_stderr_is_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path / "none" / "log")
    logging.info("text")
    first, second = heads_off(capfd.readouterr().err)
    assert first.endswith(
        f"WARNING: Cannot log to {tmp_path}/none/log, logging to stderr: No such file or directory"
    )
    assert second.endswith("INFO: text")


def test_a_full_disk_stops_the_file_log_only(capfd: pytest.CaptureFixture[str]) -> None:
    configure("/dev/full+stderr")
    logging.info("text")
    assert heads_off(capfd.readouterr().err) == [f"Echo[{os.getpid()}] TX/ts_100 INFO: text"]


def test_logging_never_raises(file: Path) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    configure(file)
    logging.info("%d", "no number")
    logging.info(Broken())
    logging.info("text", extra={"journal": "no dict"})
    logging.info("last")
    assert "(cannot format it: " in file.read_text()
    assert file.read_text().endswith("INFO: last\n")


def test_configure_replaces_what_was_there_and_leaves_no_descriptor(file: Path) -> None:
    # A collection may meanwhile close descriptors that other tests have left.
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        configure(f"{file}+stderr")
    assert len(logging.getLogger().handlers) == 1
    logging.getLogger().handlers[0].close()
    logging.getLogger().handlers.clear()
    assert set(os.listdir("/proc/self/fd")) <= before


# --- streams of other programs


def test_a_stream_to_journald_begins_with_its_header(journald: Journald) -> None:
    fd = journald.stream()
    subprocess.run([sys.executable, "-c", "print('<3>hello', flush=True)"], stdout=fd, check=True)
    os.close(fd)
    connection, _ = journald.streams.accept()
    with connection, connection.makefile("rb") as got:
        assert got.read() == b"Echo\n\n6\n1\n0\n0\n0\n\n<3>hello\n"


def test_a_stream_is_returned_after_journald_has_read_its_header(journald: Journald) -> None:
    """journald reads twice. When it reads again, it has processed what it read before."""
    given: list[int] = []
    waiting = threading.Thread(target=lambda: given.append(journald.stream(seen=True)))
    waiting.start()
    connection, _ = journald.streams.accept()
    with connection:
        assert connection.recv(8192).rstrip(b"\n") == b"Echo\n\n6\n1\n0\n0\n0"
        connection.settimeout(PATIENCE)
        assert not given
        assert connection.recv(8192).strip(b"\n") == b""
        waiting.join(PATIENCE)
        os.write(given[0], b"hello\n")
        os.close(given[0])
        assert connection.recv(8192) == b"hello\n"


def test_a_stream_is_returned_although_journald_hangs(journald: Journald) -> None:
    given: list[int] = []
    waiting = threading.Thread(target=lambda: given.append(journald.stream(seen=True)))
    waiting.start()
    waiting.join(PATIENCE)
    os.close(given[0])


def test_a_stream_to_a_file_appends(file: Path) -> None:
    file.write_text("first\n")
    for target in (str(file), f"{file}+stderr"):
        fd = journal.stream("Echo", target)
        subprocess.run(["sh", "-c", "echo more"], stdout=fd, check=True)
        os.close(fd)
    assert file.read_text() == "first\nmore\nmore\n"


@pytest.mark.parametrize("target", ["stderr", "journal", "/nonexistent/log"])
def test_a_stream_falls_back_to_stderr(target: str, capfd: pytest.CaptureFixture[str]) -> None:
    fd = journal.stream("Echo", target, journald="/nonexistent/stdout")
    os.write(fd, b"text\n")
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert capfd.readouterr().err == "text\n"


# --- what Python prints


class Kept(logging.Handler):
    """A handler that keeps its records as (text, level, PRIORITY)."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, int, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(
            (record.getMessage(), record.levelno, getattr(record, "journal", {}).get("PRIORITY"))
        )

    @property
    def texts(self) -> list[str]:
        return [text for text, _, _ in self.records]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def out(kept: Kept) -> LineWriter:
    return LineWriter(kept, name="stdout", level=logging.INFO, fd=1)


def test_a_printed_line_is_a_record(out: LineWriter, kept: Kept) -> None:
    print("a", 1, file=out)
    print("100 %s", file=out)
    print("b\r\n\nc", end="", file=out, flush=True)
    print("d", file=out)
    assert kept.records == [("a 1", 20, None), ("100 %s", 20, None), ("b", 20, None), ("cd", 20, None)]


def test_text_without_a_newline_is_a_record_at_the_flush(out: LineWriter, kept: Kept) -> None:
    out.write("half")
    assert kept.texts == []
    out.close()
    assert kept.texts == ["half"]


def test_a_priority_may_stand_before_a_line(out: LineWriter, kept: Kept) -> None:
    out.write("<3>bad\n<7>detail\n<9>no\n<3\n")
    assert kept.records == [("bad", 40, "3"), ("detail", 10, "7"), ("<9>no", 20, None), ("<3", 20, None)]


def test_a_line_is_bounded(out: LineWriter, kept: Kept) -> None:
    out.write("x" * 100_000)
    out.write("\n" + "y" * 100_000 + "\n")
    assert max(map(len, kept.texts)) == 48 << 10
    assert "".join(kept.texts) == "x" * 100_000 + "y" * 100_000


def test_lines_of_threads_are_not_mixed(out: LineWriter, kept: Kept) -> None:
    barrier = threading.Barrier(4)

    def work(name: str) -> None:
        for _ in range(50):
            barrier.wait()
            print(name, name, name, file=out)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kept.texts) == sorted(f"{name} {name} {name}" for name in "abcd" for _ in range(50))


def test_printed_bytes_are_text(out: LineWriter, kept: Kept) -> None:
    data = "é\n".encode()
    for byte in data:
        out.buffer.write(bytes([byte]))
    out.buffer.write(b"\xff\n")
    assert kept.texts == ["é", "\ufffd"]


def test_a_program_inherits_the_descriptor(out: LineWriter) -> None:
    assert (out.fileno(), out.isatty(), out.writable(), out.encoding) == (1, False, True, "utf-8")


def test_a_handler_that_prints_does_not_call_itself_for_ever(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = configure(file)
    monkeypatch.setattr(sys, "stderr", LineWriter(sink, name="stderr", level=logging.WARNING, fd=2))
    chatty = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(chatty)
    logging.info("once")
    logging.getLogger().removeHandler(chatty)
    assert [line.partition(" TX/ts_100 ")[2] for line in file.read_text().splitlines()] == [
        "INFO: once",
        "WARNING: once",
    ]


# --- the catalog


def test_every_message_id_has_its_text() -> None:
    blocks = re.split(r"^-- ", CATALOG.read_text(), flags=re.MULTILINE)[1:]
    texts = {block[:32]: block[32:] for block in blocks}
    assert sorted(texts) == sorted(journal.MESSAGE_ID.values())
    for text in texts.values():
        assert re.match(r"\nSubject: \S.*\nDefined-By: zmsvc\nDocumentation: man:.*\n\n\S", text)
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in texts)


def test_extra_fields_reach_the_journal_under_names_that_it_takes(journald: Journald) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    journald.configure()
    extra = {
        "order_id": 17,
        "Who": "a\nb",
        "_private": 1,
        "2nd": 2,
        "a-b": 3,
        "none": None,
        "bad": Bad(),
        "ZMSVC_TASK": "x",
        "priority": 0,
    }
    logging.info("text", extra=extra)
    entry = journald.entry()
    assert (entry["ORDER_ID"], entry["WHO"]) == (b"17", b"a\nb")
    assert entry["BAD"] == b"(cannot be shown: RuntimeError)"
    assert (entry["ZMSVC_TASK"], entry["PRIORITY"]) == (b"ts_100", b"6")
    assert not {"_PRIVATE", "PRIVATE", "2ND", "A_B", "A-B", "NONE"} & entry.keys()


def test_extra_fields_are_bounded(journald: Journald) -> None:
    journald.configure()
    logging.info("text", extra={f"field_{number}": "x" * 100_000 for number in range(100)})
    entry = journald.entry()
    assert len([name for name in entry if name.startswith("FIELD_")]) == 64
    assert len(entry["FIELD_0"]) == 65536


def test_extra_fields_stand_at_the_end_of_the_first_line_of_a_file(file: Path) -> None:
    configure(file)
    logging.info("text\nmore", extra={"order_id": 17, "who": 'a "b"', "empty": ""})
    first, second = heads_off(file.read_text())
    assert first.endswith('INFO: text [ORDER_ID=17 WHO="a \\"b\\"" EMPTY=""]')
    assert second == "    more"


def test_a_file_that_was_renamed_is_left_for_the_one_in_its_place(file: Path) -> None:
    configure(file)
    logging.info("first")
    file.rename(file.with_suffix(".1"))
    logging.info("second")
    file.touch()
    logging.info("third")
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == ["third"]
    assert [line.rpartition(" ")[2] for line in file.with_suffix(".1").read_text().splitlines()] == [
        "first",
        "second",
    ]


def test_custom_levels_have_a_searchable_name(file: Path) -> None:
    configure(file)
    logging.log(25, "text")
    logging.log(60, "text")
    assert [line.split()[-2] for line in file.read_text().splitlines()] == ["INFO:", "CRITICAL:"]


def test_a_pipe_gets_a_record_on_one_line() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = journal.configure(identifier="Echo", fields=FIELDS, target="/nowhere", pipe=writer)
    try:
        logging.error("a\nb")
        assert logline.decode_record(os.read(reader, 4096).rstrip(b"\n")) == (3, "Echo", "ts_100", "a\nb")
    finally:
        sink.close()
        os.close(reader)


@pytest.mark.parametrize("priority", range(8))
def test_a_log_level_lets_through_what_has_its_priority_or_a_worse_one(priority: int) -> None:
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    shown = [journal._priority(level) for level in levels if level >= journal.level_of(priority)]
    assert shown == [number for number in (7, 6, 4, 3, 2) if number <= priority]
    assert journal.level_of(None) == logging.INFO
