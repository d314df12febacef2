"""The record of a context: a bounded ring, whose faults of disk or directory do no harm to the supervisor,
and bundles of unknown origin, which `replay` reads without harm.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import resource
import stat
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import pytest
from fake_supervisor import House
from lxml import etree
from needs import need

from zmsvc.core import facts as ft
from zmsvc.core.engine import step
from zmsvc.core.model import Context
from zmsvc.core.replay import Begin, Step, replay
from zmsvc.core.world import World
from zmsvc.ctl import bundle
from zmsvc.ctl.__main__ import main
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.redaction import Redaction
from zmsvc.host import record_ring
from zmsvc.host.config import reader
from zmsvc.host.record_ring import RecordRing
from zmsvc.protocol.recording import FORMAT, SegmentHead, essence, head_line, read_segment, snapshot_lines
from zmsvc.supervisor.fact_recorder import RETRY, FactRecorder

FILE = """
<Context><record>yes</record><TaskService id="ts_1" instance="Echo"><Task><description>d</description>
<message><header><action>start</action><service_name>echo</service_name></header>
<content><configuration><device_action>x</device_action></configuration></content></message>
<state type="on_start"/><service><environment><TOKEN>a secret value</TOKEN></environment></service>
</Task></TaskService></Context>
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with fake.house(tmp_path) as made:
        yield made


def context() -> Context:
    return reader.parse(FILE.encode(), path="/etc/zmsvc/Context-c.xml", name="c")


class Supervisor:
    """The engine and the recorder of a supervisor in `directory`."""

    def __init__(self, directory: Path, **bounds: int) -> None:
        self.world = World(context=context())
        self.now = 1000.0
        self.ring = directory / "record"
        self._soon: deque[Callable[[], None]] = deque()
        self.recorder = FactRecorder(RecordRing(self.ring, **bounds), "c", lambda: "boot", self._soon.append)
        self.facts: list[ft.Fact] = []

    def take(self, *facts: ft.Fact) -> None:
        """Take one turn."""
        before, effects = self.world, []
        for fact in facts:
            self.world, more = step(self.world, fact, self.now)
            effects.append(more)
        self.recorder.turn(before, facts, effects, self.now, self.now)
        self.facts += facts
        while self._soon:
            self._soon.popleft()()

    def live(self, turns: int) -> None:
        """Start the task, and let it report its status again and again."""
        self.take(ft.SupervisorStarted(keeper_id="k", transaction="T1"))
        self.take(ft.TaskLaunched(launch=1, pid=10, start_time=1), ft.TaskReady(launch=1))
        for number in range(turns):
            self.now += 1
            self.take(ft.TaskSaid(launch=1, status=f"{number}"))

    def replayed(self) -> list[Step]:
        found = list(replay(map(read_segment, record_ring.read(self.ring)), essence))
        assert [each for each in found if each.differs] == []
        assert isinstance(found[0], Begin)
        return [each for each in found if isinstance(each, Step)]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    made = []

    def make(**bounds: int) -> Supervisor:
        made.append(Supervisor(tmp_path, **bounds))
        return made[-1]

    yield make
    for each in made:
        each.recorder.close()


# --- the ring


def test_the_ring_is_bounded_and_what_it_still_has_replays(supervisor: Callable[..., Supervisor]) -> None:
    one = supervisor(ring=30_000, segment=10_000)
    one.live(500)
    assert sum(file.stat().st_size for file in one.ring.iterdir()) <= 30_000
    steps = one.replayed()
    assert 20 < len(steps) < 500
    assert [each.fact for each in steps] == one.facts[-len(steps) :]
    assert steps[-1].world.tasks == one.world.tasks
    assert one.recorder.unrecorded == 0


def test_each_supervisor_begins_a_segment_and_only_its_user_can_read_it(
    supervisor: Callable[..., Supervisor],
) -> None:
    for _ in range(3):
        supervisor().live(1)
    files = sorted(supervisor().ring.iterdir())
    assert [file.name for file in files] == ["0000000001", "0000000002", "0000000003"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


def test_many_starts_of_supervisors_fill_no_directory(supervisor: Callable[..., Supervisor]) -> None:
    one = supervisor()
    one.ring.mkdir(mode=0o700)
    for number in range(record_ring.MAX_SEGMENTS + 20):
        (one.ring / f"{number:010}").touch()
    (one.ring / "another file").touch()
    one.live(1)
    names = [file.name for file in one.ring.iterdir()]
    assert len(names) == record_ring.MAX_SEGMENTS + 1
    assert "another file" in names


@contextlib.contextmanager
def disk_of(most: int) -> Iterator[None]:
    """Let no file of this process become larger than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_facts_that_are_counted_and_reported_once(
    supervisor: Callable[..., Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    one = supervisor()
    one.live(1)
    (file,) = one.ring.iterdir()
    size = file.stat().st_size
    with disk_of(size + 50):
        for number in range(5):
            one.now += RETRY / 8
            one.take(ft.TaskSaid(launch=1, status=f"lost {number}"))
    assert file.stat().st_size == size, "a part of a line was left"
    assert one.recorder.unrecorded == 5
    (told,) = caplog.messages
    assert "The record cannot be written" in told
    one.now += 3 * RETRY
    with caplog.at_level(logging.INFO):
        one.take(ft.TaskSaid(launch=1, status="back"))
    assert caplog.messages[1:] == ["The record goes on; 5 facts were not recorded"]
    steps = one.replayed()
    assert steps[-1].world.tasks == one.world.tasks
    assert not [each for each in steps if isinstance(each.fact, ft.TaskSaid) and "lost" in each.fact.status]


@pytest.mark.parametrize("obstacle", ["link", "file", "owner", "mode"])
def test_a_directory_of_another_user_or_a_link_is_not_written_to(
    supervisor: Callable[..., Supervisor], tmp_path: Path, obstacle: str
) -> None:
    one, elsewhere = supervisor(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    if obstacle == "link":
        one.ring.symlink_to(elsewhere)
    elif obstacle == "file":
        one.ring.write_text("kept")
    else:
        one.ring.mkdir()
        if obstacle == "owner":
            need(os.geteuid() == 0, "only root can give a directory away")
            os.chown(one.ring, 12345, -1)
        else:
            one.ring.chmod(0o777)
    one.live(2)
    assert one.recorder.unrecorded == len(one.facts) == 5
    assert not [*elsewhere.iterdir()]
    assert not one.ring.is_dir() or not [*one.ring.iterdir()]


def test_a_segment_of_a_killed_supervisor_is_read_up_to_its_last_whole_line(
    supervisor: Callable[..., Supervisor],
) -> None:
    first = supervisor()
    first.live(3)
    first.recorder.close()
    (file,) = first.ring.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    second = supervisor()
    second.live(1)
    facts = [each.fact for each in second.replayed()]
    assert facts == [*first.facts[:-1], *second.facts]


def test_a_value_that_is_not_json_costs_facts_and_nothing_else(supervisor: Callable[..., Supervisor]) -> None:
    one = supervisor()
    one.live(1)
    one.take(ft.TaskUpdated(launch=1, items={"x": {1, 2}}, sequence=1))
    assert one.recorder.unrecorded == 1
    one.now += 2 * RETRY
    one.take(ft.TaskSaid(launch=1, status="on"))
    assert one.recorder.unrecorded == 2, "the snapshot of the world has that value, too"


def test_a_context_that_does_not_fit_is_not_recorded(supervisor: Callable[..., Supervisor]) -> None:
    one = supervisor(segment=300)
    one.live(100)
    assert one.recorder.unrecorded == len(one.facts)


# --- bundles


def segment(world: World | None = None, number: int = FORMAT) -> bytes:
    head = SegmentHead(format=number, version="9.0", context="c", boot="b", run="r", first=1)
    return b"".join([head_line(head), *snapshot_lines(world or World(context=context()), 1.0, 2.0)])


def manifest(**changed: Any) -> bytes:
    return json.dumps({"kind": "zmsvc report", "format": bundle.FORMAT, "context": "c", **changed}).encode()


def archive(path: Path, *entries: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for each in entries:
            if isinstance(each, tarfile.TarInfo):
                tar.addfile(each)
            else:
                made = tarfile.TarInfo(each[0])
                made.size = len(each[1])
                tar.addfile(made, io.BytesIO(each[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def test_a_bundle_is_never_unpacked(tmp_path: Path) -> None:
    name = bundle.segment_name(1)
    file = archive(
        tmp_path / "b.tar.gz",
        (bundle.MANIFEST, manifest()),
        ("../outside", b"x"),
        ("/tmp/zmsvc-outside", b"x"),
        special("record", tarfile.SYMTYPE, "/etc"),
        special(bundle.segment_name(2), tarfile.SYMTYPE, "/etc/passwd"),
        special(bundle.segment_name(3), tarfile.LNKTYPE, name),
        special(bundle.segment_name(4), tarfile.FIFOTYPE),
        (name, segment()),
    )
    assert bundle.read(file).segments == [segment()]
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a report"),
        (b"plain text", "not a report"),
        (gzip.compress(b"plain text"), "not a report"),
        (gzip.compress(b"\0" * 10240), "has no manifest"),
        (gzip.compress(bytes(range(256)) * 40)[:-20], "not a report"),
    ],
    # Compressed data has the time, and the processes of pytest-xdist have to find the same names.
    ids=["empty", "text", "compressed text", "no files", "torn"],
)
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(data)
    with pytest.raises(CtlError, match=why) as error:
        bundle.read(file)
    assert error.value.code == 2


def test_a_bundle_of_another_format_is_refused_with_its_number(tmp_path: Path) -> None:
    file = archive(tmp_path / "b", (bundle.MANIFEST, manifest(format=7)))
    with pytest.raises(CtlError, match="format 7, and this zmsvc reads format 1"):
        bundle.read(file)
    for name in ("another", 3):
        file = archive(tmp_path / "b", (bundle.MANIFEST, manifest(kind=name)))
        with pytest.raises(CtlError, match="not that of a report"):
            bundle.read(file)


def test_a_bundle_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    big = b"\0" * (3 << 20)
    file = archive(tmp_path / "b", (bundle.MANIFEST, manifest()), (bundle.segment_name(1), big))
    assert file.stat().st_size < 10_000
    assert len(bundle.read(file).segments[0]) == len(big)
    with pytest.raises(CtlError, match="more than 2 MiB"):
        bundle.read(file, most=2 << 20)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    hostile = tmp_path / "pax"
    hostile.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT if 0 else tarfile.GNU_FORMAT) + big))
    with pytest.raises(CtlError, match="not a report"):
        bundle.read(hostile)


def test_replay_refuses_a_record_of_another_format(
    home: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b"
    for number in (FORMAT + 1, FORMAT - 1):
        archive(file, (bundle.MANIFEST, manifest()), (bundle.segment_name(1), segment(number=number)))
        assert main(["replay", str(file)]) == 2
        assert f"format {number} of zmsvc 9.0, and this zmsvc reads format 1" in capsys.readouterr().err
    archive(file, (bundle.MANIFEST, manifest()), (bundle.segment_name(1), b'{"op":"head"'))
    assert main(["replay", str(file)]) == 1
    assert "no complete snapshot" in capsys.readouterr().err


def test_replay_shows_no_control_characters_of_a_bundle(
    home: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = context()
    world = World(context=replace(given, name="\x1b]0;x\x07", id="\x1b[31m"))
    contents = [(bundle.MANIFEST, manifest(context="\x1b[2J")), (bundle.segment_name(1), segment(world))]
    assert main(["replay", "--step", str(archive(tmp_path / "b", *contents))]) == 0
    assert "\x1b" not in capsys.readouterr().out


# --- the verbs


def test_status_shows_the_tasks_at_a_time_of_the_record(
    home: House, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = home.state / "Echo"
    directory.mkdir(parents=True)
    assert main(["-c", "Echo", "status", "--at", "now"]) == 1
    assert "Echo has no record" in capsys.readouterr().err
    one = Supervisor(directory)
    one.live(10)
    one.take(ft.TaskExited(launch=1, code=3))
    one.recorder.close()
    assert main(["-c", "Echo", "--json", "status", "--at", "@1005.5"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["contexts"]
    assert (told["state"], told["transactions"][0]["tasks"][0]["status"]) == ("active", "4")
    assert main(["-c", "Echo", "status", "--at", "@1011"]) == 3
    assert "ts_1  Echo  failed (failed)" in capsys.readouterr().out
    assert main(["-c", "Echo", "status", "--at", "@999"]) == 1
    assert "it begins at 19" in capsys.readouterr().err
    assert main(["-c", "Echo", "status", "--at", "now", "ts_9"]) == 4
    assert main(["-c", "Echo", "status", "--at", "now", "--transaction", "T9"]) == 4
    assert main(["-c", "Echo", "status", "--at", "some day"]) == 2


def test_replay_says_where_this_zmsvc_decides_otherwise(
    home: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Supervisor(tmp_path)
    one.live(2)
    one.recorder.close()
    (data,) = record_ring.read(one.ring)
    changed = data.replace(b'"action":"started"', b'"action":"begun"')
    assert changed != data
    contents = [(bundle.MANIFEST, manifest()), (bundle.segment_name(1), changed)]
    file = archive(tmp_path / "b", *contents)
    assert main(["replay", str(file)]) == 1
    told = capsys.readouterr().out
    assert "decides otherwise at 1 facts" in told
    assert "TaskReady launch=1" in told
    assert "recorded: PublishControl key=T1/ts_1 action=begun" in told
    assert "today: PublishControl key=T1/ts_1 action=started" in told


class Terminal(io.StringIO):
    """A person who answers at a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_report_names_what_it_cannot_have_and_asks(
    home: House, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.file("Echo", FILE)
    file = tmp_path / "r.tar.gz"
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert main(["report", "Echo", "-o", str(file)]) == 2
    told = capsys.readouterr()
    assert "context.xml" in told.out
    assert "the record is not in the report: Echo has no record" in told.err
    assert "--yes writes it without a question" in told.err
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    assert main(["report", "Echo", "-o", str(file)]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not file.exists()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["report", "Echo", "-o", str(file)]) == 0
    assert b"a secret value" not in gzip.decompress(file.read_bytes())
    assert main(["report", "Echo", "--yes", "-o", str(file)]) == 1
    assert "it exists already" in capsys.readouterr().err
    assert main(["replay", str(file)]) == 1
    assert "no complete snapshot" in capsys.readouterr().err


# --- secrets


def test_environment_values_are_replaced_alike_everywhere_and_remain_different() -> None:
    redaction = Redaction()
    root = etree.fromstring(
        "<Context><!-- a secret value --><TaskService><Task><service environment='by attribute'>"
        "<environment><A>a secret value</A><B>a secret value</B><C>another value</C></environment>"
        "</service><configuration><environment x='in attribute'>in text</environment></configuration>"
        "</Task></TaskService></Context>",
        etree.XMLParser(remove_comments=True),
    )
    shown = redaction.xml(root).decode()
    record = redaction.lines(
        b'{"op":"x","environment":{"A":"a secret value","C":"another value"},"environment_file":["/etc/f"]}\n'
        b'torn {"environment":{"A":"in a torn line"}}\n'
    ).decode()
    assert not [
        word
        for word in ("secret", "another", "by attr", "in attr", "in text", "torn")
        if word in shown + record
    ]
    first, second = json.loads(record)["environment"].values()
    assert first != second
    assert shown.count(first) == 2
    assert "/etc/f" in record
    assert redaction.text("it said: a secret value.") == f"it said: {first}."
