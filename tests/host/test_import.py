"""`zmsvcctl import`: the files of other managers become contexts that load, and there is a warning about each
part that is left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import imported_files
import pytest

from zmsvc.core.model import Context, TaskDefinition, Trigger
from zmsvc.core.service_options import KillMode, Restart, ServiceType
from zmsvc.ctl.__main__ import main as zmsvcctl
from zmsvc.ctl.imports import ini_file, unit_file
from zmsvc.ctl.imports.command import _name
from zmsvc.host.config import reader

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/added.conf").write_text("[program:added]\ncommand=/bin/added\n")
    return tmp_path


class Import:
    """The outcome of one import."""

    def __init__(self, capsys: Capture, file: Path, text: str, *words: str) -> None:
        file.write_text(text)
        capsys.readouterr()
        self.status = zmsvcctl(["import", *words, str(file)])
        self.out, self.err = capsys.readouterr()
        self.file = file

    @property
    def context(self) -> Context:
        assert self.status == 0, self.err
        return reader.parse(self.out.encode(), path="F.xml", name="F")

    @property
    def tasks(self) -> list[TaskDefinition]:
        return list(self.context.tasks.values())

    @property
    def warnings(self) -> dict[int, str]:
        """Return the warnings by the lines of the file."""
        found = {}
        for line in self.err.splitlines():
            match = re.fullmatch(rf"{re.escape(str(self.file))}:(\d+): warning: (.+)", line)
            assert match, line
            found[int(match[1])] = match[2]
        return found


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(("supervisord.conf", each) for each in imported_files.SUPERVISOR),
        *(("Procfile", each) for each in imported_files.PROCFILES),
        *(("circus.ini", each) for each in imported_files.CIRCUS),
    ],
)
def test_a_file_becomes_a_context_and_each_other_thing_has_a_line(
    home: Path, capsys: Capture, name: str, case: str
) -> None:
    cases = {
        "supervisord.conf": imported_files.SUPERVISOR,
        "Procfile": imported_files.PROCFILES,
        "circus.ini": imported_files.CIRCUS,
    }[name]
    text, tasks, lines = cases[case]
    done = Import(capsys, home / name, text)
    assert list(done.context.tasks) == tasks
    assert {task.service_type for task in done.tasks} == {ServiceType.COMMAND}
    assert sorted(done.warnings) == lines, done.err


def test_a_file_of_supervisor_becomes_the_same_options_of_tasks(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPORTED_TOKEN", "secret")

    def tasks(case: str) -> list[TaskDefinition]:
        return Import(capsys, home / "s.conf", imported_files.SUPERVISOR[case][0]).tasks

    server, once = tasks("signals and statuses")
    assert server.command == ("/usr/sbin/server", "-g", "daemon off;")
    assert (server.stop_signal, server.kill_mode, server.umask) == ("SIGQUIT", KillMode.MIXED, 0o027)
    assert (server.success_exit_status, server.entry) == ((2,), True)
    assert [rule.trigger for rule in server.rules] == [Trigger.ON_FAIL]
    assert (once.command, once.entry, once.rules) == (("/bin/sh", "-c", "echo hello > /tmp/x"), False, ())
    (worker,) = tasks("a worker that ends slowly")
    assert (worker.working_directory, worker.user) == ("/opt/queue", "nobody")
    assert worker.command[2] == "a@%h"
    assert (worker.limits.stop_timeout, worker.limits.start_limit_burst) == (600, 3)
    assert worker.limits.start_limit_interval > 30
    (site,) = tasks("variables")
    assert site.environment == {"STAGE": "test", "MODE": "a, b", "PATH": "/opt/bin:/bin", "LANG": "C.UTF-8"}
    assert site.pass_environment == ("IMPORTED_TOKEN",)
    first, *_, export = tasks("workers by number")
    assert (first.command[-1], first.working_directory) == ("--port=9101", str(home))
    assert export.command[-1] == "--group=jobs"
    _, sshd, cron = tasks("an image with several daemons")
    assert (sshd.restart, cron.restart) == (Restart.ALWAYS, None)
    (browser,) = tasks("a command on several lines")
    assert browser.command[1:] == ("--display=%(ENV_NO_SUCH_VARIABLE)s", "--first-run=no")
    assert browser.user is None
    (api,) = tasks("the sections of a full file")
    assert (api.command, api.rlimits) == (("/srv/api/run",), {"nofile": 512})


def test_priorities_become_the_order_of_starts_and_stops(home: Path, capsys: Capture) -> None:
    text = (
        "[program:late]\ncommand=a\n[program:by-hand]\ncommand=a\npriority=2\nautostart=false\n"
        "[program:early]\ncommand=a\npriority=1\nnumprocs=2\nprocess_name=e%(process_num)d\n"
        "[group:first]\nprograms=grouped\npriority=0\n[program:grouped]\ncommand=a\npriority=5\n"
    )
    done = Import(capsys, home / "s.conf", text)
    assert {task.id: task.after for task in done.tasks} == {
        "grouped": (),
        "e0": ("grouped",),
        "e1": ("grouped",),
        "by-hand": ("e0", "e1"),
        "late": ("e0", "e1", "by-hand"),
    }
    text = "[watcher:b]\ncmd=b\n[watcher:a]\ncmd=a\npriority=5\n"
    second, last = Import(capsys, home / "c.ini", text).tasks
    assert (second.id, last.id, last.after) == ("a", "b", ("a",))


def test_a_value_of_the_environment_of_the_import_is_announced(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPORTED_HOME", "/srv/x")
    done = Import(capsys, home / "s.conf", "[program:a]\ncommand=%(ENV_IMPORTED_HOME)s/run\n")
    assert done.tasks[0].command == ("/srv/x/run",)
    assert "IMPORTED_HOME in the environment of this import" in done.warnings[2]


def test_a_procfile_runs_in_its_directory_with_ports_and_env_file(home: Path, capsys: Capture) -> None:
    (home / ".env").write_text("A=1\n")
    text = "web: serve -p $PORT\nrelease: migrate\njobs: work 'a b'\n"
    file = home / "Procfile"
    file.write_text(text)
    assert zmsvcctl(["import", str(file)]) == 0
    out, err = capsys.readouterr()
    web, release, jobs = reader.parse(out.encode(), path="F.xml", name="F").tasks.values()
    assert web.command == ("/bin/sh", "-c", "serve -p $PORT")
    assert jobs.command == ("work", "a b")
    assert (web.environment, jobs.environment) == ({"PORT": "5000"}, {"PORT": "5200"})
    assert {each.working_directory for each in (web, release, jobs)} == {str(home)}
    assert web.environment_file == (f"{home}/.env",)
    assert (release.entry, release.rules) == (False, ())
    assert f"{home}/.env:1: warning: " in err


def test_a_file_of_circus_becomes_the_same_options_of_tasks(home: Path, capsys: Capture) -> None:
    def tasks(case: str) -> list[TaskDefinition]:
        return Import(capsys, home / "c.ini", imported_files.CIRCUS[case][0]).tasks

    (office,) = tasks("limits and a shell")
    assert office.command == ("/bin/sh", "-c", "office --accept=socket,port=2002;urp;")
    assert (office.user, office.stop_signal, office.limits.stop_timeout) == ("daemon", "SIGINT", 5)
    assert office.rlimits == {"nofile": 500, "core": -1}
    assert not office.entry
    inner, outer = tasks("variables for all")
    assert inner.command == ("python3", "in.py", "-t", "db.example.org", "-w", "1")
    assert (inner.restart, outer.restart, outer.rules) == (Restart.ALWAYS, None, ())
    assert inner.limits.stop_timeout == 30
    _, second = tasks("a site with a socket")
    assert second.command == ("/bin/sh", "-c", "exec /srv/site/bin/serve --fd 3 --name site-$ZMSVC_REPLICA")
    assert [each.address for each in second.listen] == ["tcp://*:8023"]
    assert (second.working_directory, second.id) == ("/srv/site", "site@2")


def test_the_sockets_of_circus_are_those_of_a_task(home: Path, capsys: Capture) -> None:
    text = (
        "[watcher:web]\ncmd = serve --fd $(circus.sockets.b) --fd $(circus.sockets.A)\nuse_sockets = yes\n"
        "numprocesses = 2\nworking_dir = /srv/$(circus.wid)\n"
        "[watcher:other]\ncmd = serve $(circus.sockets.a)\n"
        "[socket:a]\nport = 8001\nbacklog = 7\n[socket:b]\npath = /run/b.sock\n[socket:c]\nport = 8002\n"
    )
    done = Import(capsys, home / "circus.ini", text)
    web, _, other = done.tasks
    assert (web.command, other.command[-1]) == (("serve", "--fd", "3", "--fd", "4"), "$(circus.sockets.a)")
    assert [each.address for each in web.listen] == ["ipc:///run/b.sock", "tcp://127.0.0.1:8001"]
    # The number of a replica, the second task that wants a socket (and its command), the backlog, and a socket
    # that no watcher wants.
    assert sorted(done.warnings) == [5, 6, 7, 10, 13], done.err


UNIT = """\
[Unit]
Description=The server
After=network.target
StartLimitBurst=5
[Service]
Type=notify
User=nobody
# a comment
Environment="A=b c" D='e f' G=
EnvironmentFile=-/etc/default/%p
ExecStart=/usr/bin/server --name=%N ${A} $D $$x $(date) \\
; in between
    --file "x\\x20y" $NOWHERE
ExecStop=/bin/kill -s QUIT $MAINPID
Restart=always
RestartSec=5
TimeoutSec=1min
LimitNOFILE=100:200
SuccessExitStatus=143 TEMPFAIL SIGKILL
ProtectSystem=strict
StandardOutput=journal
MemoryMax=1G
CPUQuota=50%
TasksMax=100
OnFailure=mail.service
[Install]
WantedBy=multi-user.target
"""


def test_a_unit_becomes_the_same_options_of_a_task(home: Path, capsys: Capture) -> None:
    done = Import(capsys, home / "server.service", UNIT)
    (task,) = done.tasks
    assert task.command == (
        "/usr/bin/server", "--name=server", "b c", "e", "f", "$x", "$(date)", "--file", "x y", "$NOWHERE",
    )  # fmt: skip
    assert (task.id, task.description, task.notify, task.user) == ("server", "The server", True, "nobody")
    assert task.environment == {"A": "b c", "D": "e f", "G": ""}
    assert task.environment_file == ("-/etc/default/server",)
    assert (task.restart, task.stop_signal) == (Restart.ALWAYS, "SIGQUIT")
    limits = task.limits
    assert (limits.restart_delay, limits.restart_max_delay, limits.start_limit_burst) == (5, 5, 5)
    assert (limits.start_timeout, limits.stop_timeout) == (60, 60)
    assert task.rlimits == {"nofile": 100}
    assert set(task.success_exit_status) == {143, 75, "SIGKILL"}
    assert (task.memory_max, task.cpu_quota, task.tasks_max) == (1 << 30, 5000, 100)
    assert sorted(done.warnings) == [3, 11, 18, 20, 25], done.err


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        (
            ["/usr/sbin/nginx -g 'daemon on;' -s reload"],
            ("/usr/sbin/nginx", "-g", "daemon on;", "-s", "reload"),
        ),
        (["/usr/bin/tool $MAINPID 'a b'"], ("/bin/sh", "-c", """/usr/bin/tool "$MAINPID" 'a b'""")),
        (
            ["/usr/sbin/sshd -t", "/bin/kill -HUP ${MAINPID}"],
            ("/bin/sh", "-c", """/usr/sbin/sshd -t && /bin/kill -HUP "$MAINPID\""""),
        ),
        (["-/bin/false x"], ("/bin/sh", "-c", "/bin/false x || :")),
    ],
)
def test_the_commands_with_which_a_unit_reloads_become_one(
    lines: list[str], command: tuple[str, ...], home: Path, capsys: Capture
) -> None:
    reloads = "".join(f"ExecReload={line}\n" for line in lines)
    done = Import(capsys, home / "server.service", f"[Service]\nExecStart=/bin/true\n{reloads}")
    (task,) = done.tasks
    assert (task.reload_command, task.signal_to_reload, done.err) == (command, "", "")


@pytest.mark.parametrize(
    ("lines", "notify", "signal"),
    [
        ("Type=notify-reload", "reload", "SIGHUP"),
        ("Type=notify-reload\nReloadSignal=USR1", "reload", "SIGUSR1"),
        ("Type=notify\nExecReload=/bin/kill -HUP $MAINPID", "ready", "SIGHUP"),
        ("Type=notify", "ready", ""),
    ],
)
def test_a_unit_that_reloads_by_a_signal_does_so_as_a_task(
    lines: str, notify: str, signal: str, home: Path, capsys: Capture
) -> None:
    done = Import(capsys, home / "server.service", f"[Service]\nExecStart=/bin/true\n{lines}\n")
    (task,) = done.tasks
    assert (task.notify, task.notify_reload) == (True, notify == "reload")
    assert (task.signal_to_reload, done.err) == (signal, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  'b c' \"d\\te\"", ["a", "b c", "d\te"]),
        ("a\\x20b \\101 \\u00e9", ["a b", "A", "é"]),
        ('A="b c"d \'\' ""', ["A=b cd", "", ""]),
        ("\\q", ["\\q"]),
    ],
)
def test_a_value_of_a_unit_is_split_as_systemd_does(text: str, words: list[str]) -> None:
    assert unit_file.words(text) == words


def test_an_empty_assignment_of_a_unit_removes_those_before_it() -> None:
    parsed = unit_file.parse("[Service]\nExecStart=a\nExecStart=\nExecStart=b\n", Path("x.service"))
    assert [value.text for value in parsed["Service"].values["ExecStart"]] == ["b"]


def test_restart_no_leaves_out_every_restart(home: Path, capsys: Capture) -> None:
    text = "[program:a]\ncommand=a\nautorestart=true\n[program:b]\ncommand=b\n"
    done = Import(capsys, home / "s.conf", text, "--restart", "no")
    assert [(task.restart, task.rules) for task in done.tasks] == [(None, ()), (None, ())]


def test_json_has_the_context_and_the_warnings(home: Path, capsys: Capture) -> None:
    done = Import(
        capsys, home / "s.conf", "[program:a]\ncommand=a\nserverurl=AUTO\n", "--json", "--name", "Web"
    )
    answer = json.loads(done.out)
    assert answer["context"] == "Web"
    assert "<TaskLogName>Web</TaskLogName>" in answer["xml"]
    assert [each.startswith(f"{done.file}:3: warning: serverurl") for each in answer["warnings"]] == [True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a file of Supervisor or Circus, a Procfile or a service unit of systemd"),
        ("hello\n", "expected a file of Supervisor"),
        ("[section]\na=b\n", "expected a file of Supervisor"),
        ("command=x\n[program:a]\ncommand=a\n", ":1: a line stands before the first [section]"),
        ("[program:a]\ncommand=a\n\nwhat is this\n", ":4: expected NAME=VALUE or [section]"),
        ("[program:a]\n", "it has no program that could be a task"),
        ("[Service]\nType=simple\n", ":1: [Service] has no ExecStart="),
        ("[Service]\nExecStart=a 'b\n", ":2: a quote is not closed"),
        ("[Service]\nExecStart=a\nnonsense\n", ":3: expected NAME=VALUE in a [section]"),
    ],
)
def test_a_file_that_cannot_be_read_ends_with_2(home: Path, capsys: Capture, text: str, why: str) -> None:
    done = Import(capsys, home / "file", text)
    assert (done.status, done.out) == (2, "")
    assert f"zmsvcctl: cannot import {done.file}" in done.err
    assert why in done.err


def test_a_file_that_is_missing_or_has_other_bytes_ends_with_2(home: Path, capsys: Capture) -> None:
    assert zmsvcctl(["import", str(home / "missing")]) == 2
    (home / "bytes").write_bytes(b"[program:a]\ncommand=\xff\n")
    assert zmsvcctl(["import", str(home / "bytes")]) == 2
    err = capsys.readouterr().err
    assert "no such file" in err
    assert f"{home}/bytes:2: it is not in UTF-8" in err


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("umask=9", 3, "umask=9: <umask> '9' is not a mode"),
        ("stopsignal=NOPE", 3, "stopsignal=NOPE: <stop_signal>"),
        ("environment=A=b=c", 3, "environment: it cannot be read"),
        ("environment=A-B=c", 3, "the variable 'A-B' is left out"),
        ("numprocs=many", 3, "numprocs=many: not a number"),
        ("numprocs=-1\n[program:b]\ncommand=b", 3, "numprocs=-1: expected 0 to 1000"),
        ("directory=sub", 3, "directory=sub: <working_directory>"),
        ("startretries=0", 3, "startretries=0"),
        ("[program:b]\ncommand=b 'c", 3, "the task 'b' is left out: its command cannot be split"),
    ],
)
def test_a_bad_value_is_left_out_with_a_warning(
    home: Path, capsys: Capture, text: str, line: int, says: str
) -> None:
    done = Import(capsys, home / "s.conf", f"[program:a]\ncommand=a\n{text}\n")
    assert len(done.tasks) == 1
    assert done.warnings[line].startswith(says), done.err


def test_ids_are_made_fit_and_unique(home: Path, capsys: Capture) -> None:
    text = "[program:my site]\ncommand=a\n[program:my-site]\ncommand=b\nnumprocs=2\n"
    done = Import(capsys, home / "s.conf", text)
    assert list(done.context.tasks) == ["my-site", "my-site-2", "my-site-3"]
    assert done.warnings[1] == "the task 'my site' has the id my-site"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/supervisord.conf", "supervisord"), ("/srv/my site/Procfile.dev", "my-site"), ("/a/.x", "imported")],
)
def test_the_context_is_named_after_the_file(path: str, name: str) -> None:
    assert _name(Path(path)) == name


def test_a_large_file_is_refused(home: Path) -> None:
    file = home / "s.conf"
    file.write_text("[program:a]\n")
    assert ini_file.read_text(file, max_size=12) == "[program:a]\n"
    with pytest.raises(ini_file.UnreadableError, match="larger than"):
        ini_file.read_text(file, max_size=11)
