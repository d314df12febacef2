"""`zmsvcctl -H` with a program `ssh` of the test, which runs the words by a shell, as sshd does: contexts on hosts
that answer, and hosts that hang, flood, lie and die.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import fake_supervisor as fake
import json_shapes
import pytest
from fake_supervisor import House, Supervisor, more, no, status, task, transaction, yes
from waiting import wait_for, wait_for_end, wait_for_line

from zmsvc import __version__
from zmsvc.ctl.__main__ import main, parse
from zmsvc.ctl.remote import answers, command, lifeline
from zmsvc.ctl.verb_table import GLOBAL, VERBS, Argument, VerbEntry

Capture = pytest.CaptureFixture[str]
SSH = """\
#!/bin/sh
# Each host is a script in the directory of the hosts, which gets the command as ssh sends it.
while [ "$1" != -- ]; do shift; done
shift
host=$1
shift
[ -e "{hosts}/$host" ] || {{ echo "ssh: Could not resolve hostname $host: Name or service not known" >&2; exit 255; }}
command="$*"
. "{hosts}/$host"
"""
EVENT = {
    "seq": 1,
    "at": "2026-11-23T12:00:00.000+00:00",
    "transaction": "TX",
    "task": "ts_1",
    "event": "started",
}


class Hosts:
    """Hosts of a test. A host has a home of its own, and perhaps a supervisor in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin, self.scripts = root / "bin", root / "hosts"
        for folder in (self.bin, self.scripts):
            folder.mkdir()
        self.program("ssh", SSH.format(hosts=self.scripts))
        self.program("zmsvcctl", f'#!/bin/sh\nexec {sys.executable} -P -m zmsvc.ctl "$@"\n')
        self._houses: list[House] = []
        self._supervisors: list[Supervisor] = []

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def script(self, name: str, text: str) -> None:
        """Make a host that does something else. $command has the words that ssh has sent."""
        (self.scripts / name).write_text(text)

    def supervised(self, name: str, **replies: Any) -> Supervisor:
        """Make a host with a context that runs."""
        root = self.root / f"home of {name}"
        root.mkdir()
        house = House(root)
        places = " ".join(f"{each}='{value}'" for each, value in house.environment.items())
        self.script(name, f'export {places}\nexec sh -c "$command"\n')
        made = Supervisor(house.runtime, **replies)
        self._supervisors.append(made)
        return made

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run zmsvcctl in the background, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "zmsvc.ctl", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def close(self) -> None:
        for each in self._supervisors:
            each.close()


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("SYSTEMD_COLORS", "0")
    yield made
    made.close()


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    if "--json" in words:
        # The answers themselves are those of a fake.
        shape = json_shapes.definitions()["hosts" if '"hosts"' in out else "host_line"]
        assert [
            fault
            for line in out.splitlines()
            for fault in json_shapes.problems(json.loads(line), shape, "-H")
        ] == []
    return code, out, err


# --- the command that arrives


def samples(option: Argument) -> list[str]:
    """Return the words of a command line for an option."""
    choices = option.settings.get("choices")
    kind = getattr(option.settings.get("type"), "__name__", "")
    value = list(choices)[-1] if choices else {"": "it's", "_span": "1min"}.get(kind, "7")
    if option.positional:
        return [value, "$(id)"] if option.settings.get("nargs") == "+" else [value]
    if not option.takes_value:
        return [option.flags[0]]
    return [option.flags[0], value]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.local], ids=lambda verb: verb.name)
def test_a_host_gets_each_option_as_it_was_given(verb: VerbEntry) -> None:
    needed = [each for each in verb.options if each.settings.get("required") or each.positional]
    for option in (*GLOBAL, *verb.options):
        chosen = [*(each for each in needed if each is not option), option]
        # A positional argument needs those before it.
        before = [each for each in verb.options if each.positional and each not in chosen]
        chosen = [each for each in (*GLOBAL, *verb.options) if each in (*chosen, *before)]
        words = [word for each in sorted(chosen, key=lambda each: each.positional) for word in samples(each)]
        _, here = parse(["-H", "a", verb.name, *words], VERBS)
        _, there = parse(command.command_words(verb, here), VERBS)
        own = {name: getattr(here, name) for name in command.NOT_SENT}
        there = Namespace(**vars(there) | own)
        assert there == here, (option.flags, words)


def test_zero_lines_are_not_all_lines_and_a_positional_may_look_like_an_option() -> None:
    verb, args = parse(["-H", "a", "logs", "-n", "0", "--since", "-2h", "--", "-x"])
    assert command.command_words(verb, args) == ["logs", "--lines=0", "--since=-2h", "--", "-x"]


def test_a_verb_of_this_machine_is_refused_with_the_way_out(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("a", "echo asked >&2\n")
    for words, why in {
        ("check", "x.xml"): "it reads files of this machine; ssh HOST zmsvcctl check runs it there",
        ("create", "--task_id", "ts_1"): "it writes files of this machine",
        ("report", "Echo"): "it writes a file where it runs",
        ("update", "a=1"): "it is for a program of a task",
        ("graph", "./Echo"): "./Echo is a file of this machine (name the context)",
        ("wiring", "Context-Echo.xml"): "Context-Echo.xml is a file of this machine",
        ("-c", "/x/Context-Echo.xml", "status"): "is a file of this machine",
        ("metrics", "--listen", "127.0.0.1:9"): "--listen and --output are about the machine where they run",
        ("send", "price"): "each host needs the message",
        ("send", "price", "-"): "each host needs the message",
    }.items():
        code, out, err = run(capsys, "-H", "a", *words)
        assert (code, out) == (2, ""), words
        assert err.startswith("zmsvcctl: cannot use -H with "), err
        assert why in err
        assert err.count("\n") == 1


def test_the_live_table_is_that_of_one_host_to_which_ssh_gives_the_terminal(
    hosts: Hosts, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.supervised("a", status=status(transaction(tasks=[])))
    hosts.script("b", 'echo "$command"; exit 3')
    hosts.script("lost", 'echo "ssh: connect to host lost port 22: Connection refused" >&2; exit 255')
    hosts.script("without", "exit 127")
    monkeypatch.setattr(command.terminal, "on_terminal", lambda: True)
    assert main(["-H", "a,b", "top"]) == 2
    assert "cannot use -H with top: it draws the tasks of one machine" in capfd.readouterr().err
    assert main(["-H", "b", "-c", "Echo", "top", "--sort", "rss"]) == 3
    out = capfd.readouterr().out
    assert out.endswith(" zmsvcctl top --context=Echo --sort=rss\n"), out
    # ssh has no other end to hold: the terminal of the host ends with the connection.
    assert lifeline.VARIABLE not in out
    assert main(["-H", "lost", "top"]) == 5
    assert capfd.readouterr().err == (
        "ssh: connect to host lost port 22: Connection refused\n"
        "zmsvcctl: the connection to lost is lost, or ssh could not make it\n"
    )
    assert main(["-H", "without", "top"]) == 5
    assert "cannot find zmsvcctl on without" in capfd.readouterr().err
    assert main(["-H", "a", "top", "--once"]) == 0
    assert "0 of 0 tasks active" in capfd.readouterr().out
    hosts.program("ssh", "").chmod(0o644)
    monkeypatch.setenv("PATH", str(hosts.bin))
    assert main(["-H", "a", "top"]) == 5
    assert "cannot run ssh for a: " in capfd.readouterr().err


# --- answers


def test_each_host_answers_under_its_heading_in_the_order_of_the_command_line(
    hosts: Hosts, capsys: Capture
) -> None:
    hosts.supervised("web1")
    hosts.supervised("web2", status=status(transaction(tasks=[task(state="failed", sub="failed")])))
    code, out, err = run(capsys, "-H", "root@web2:2222,web1", "status")
    lines = out.splitlines()
    assert (code, err) == (3, "")
    assert [line for line in lines if not line.startswith(" ")] == ["root@web2:2222", "web1"]
    assert "failed" in out.split("web1")[0]
    assert all(line.startswith("  ") for line in lines if line not in ("root@web2:2222", "web1", ""))


def test_one_host_answers_as_it_does_itself(hosts: Hosts, capsys: Capture) -> None:
    hosts.supervised("web1")
    code, out, _ = run(capsys, "-H", "web1", "is-active")
    assert (code, out) == (0, "active\n")


def test_with_json_each_answer_is_beside_its_host(hosts: Hosts, capsys: Capture) -> None:
    hosts.supervised("web1")
    hosts.supervised("web2", status=no(4, "cannot find it"))
    code, out, err = run(capsys, "--json", "-H", "web1,web2,gone", "status")
    first, second, third = json.loads(out)["hosts"]
    assert code == 5
    assert (first["host"], first["code"], first["error"]) == ("web1", 0, None)
    assert first["answer"]["contexts"][0]["name"] == "Echo"
    assert second == {
        "host": "web2", "code": 4, "error": "cannot find it", "answer": {"error": "cannot find it", "code": 4},
    }  # fmt: skip
    assert (third["code"], third["answer"]) == (5, None)
    assert "Could not resolve hostname gone" in third["error"]
    assert "zmsvcctl: web2: cannot find it\n" in err


def test_an_order_says_where_it_was_carried_out_and_is_sent_once(hosts: Hosts, capsys: Capture) -> None:
    first = hosts.supervised("web1", stop=yes(done=True))
    second = hosts.supervised("web2", stop=no(1, "cannot stop it"))
    code, out, err = run(capsys, "-H", "web1,web2,gone", "stop", "ts_100")
    assert code == 5
    assert out == "web1\n  done\n"
    assert "zmsvcctl: web2: cannot stop it (see zmsvcctl -c Echo status)\n" in err
    assert err.endswith("zmsvcctl: stop: done on web1; not done on web2 (1), gone (5)\n")
    assert (len(first.asked("stop")), len(second.asked("stop"))) == (1, 1)
    assert run(capsys, "-H", "web1", "stop", "ts_100") == (0, "", "")


def test_words_with_signs_of_shells_arrive_and_nothing_is_executed(hosts: Hosts, capsys: Capture) -> None:
    asked = hosts.supervised("web1")
    evil = f"$(touch {hosts.root}/x); touch {hosts.root}/x; 'ts'"
    code, _, _ = run(capsys, "-H", "web1", "stop", evil)
    assert [request["tasks"] for request in asked.asked("stop")] == [[evil]]
    assert code != 0
    assert not (hosts.root / "x").exists()


# --- hosts that misbehave


def test_a_host_that_hangs_does_not_hold_up_the_others(hosts: Hosts, capsys: Capture) -> None:
    hosts.supervised("web1")
    hosts.script("hung", f'echo $$ > "{hosts.root}/pid"\ntrap "" TERM\nsleep 1000\n')
    code, out, err = run(capsys, "-H", "hung,web1", "--host-timeout", "5", "is-active")
    assert (code, out) == (124, "web1\n  active\n")
    assert err == "zmsvcctl: timed out: hung has not answered within 5 s (--host-timeout sets the limit)\n"
    wait_for_end(int((hosts.root / "pid").read_text()))


def test_a_host_that_floods_is_cut_off(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("flood", "exec cat /dev/zero\n")
    hosts.script("noise", "yes | head -c 300000 >&2\nexit 1\n")
    hosts.script("shout", "exec yes zmsvcctl: help >&2\n")
    code, out, err = run(capsys, "-H", "flood,noise,shout", "--host-timeout", "0", "status")
    assert (code, out) == (5, "")
    assert "cannot read the answer of flood: it is longer than 16 MiB" in err
    assert "cannot read the answer of shout: it is longer than 16 MiB" in err
    assert 100 < err.count("zmsvcctl: noise: y\n") < 1100
    assert "more lines)\nzmsvcctl: noise: y\n" in err


def test_a_line_without_an_end_is_cut_off(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("flood", "exec cat /dev/zero\n")
    code, out, err = run(capsys, "-H", "flood", "watch")
    assert (code, out) == (5, "")
    assert err == "zmsvcctl: cannot read the answer of flood: a line of it is longer than 16 MiB\n"


def test_control_characters_of_a_host_do_not_reach_the_terminal(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("evil", "printf 'x\\033[2J\\033]0;t\\007\\rweb1\\n\\033[0;1;31mred\\n\\233' ; "
                         "printf 'zmsvcctl: \\033[2J\\nssh: \\033[2J\\n' >&2; exit 255\n")  # fmt: skip
    hosts.supervised("web1")
    for words in (["status"], ["watch"], ["--json", "status"]):
        code, out, err = run(capsys, "-H", "evil,web1", *words, "--host-timeout", "5")
        assert code == 5
        assert (
            set(out + err) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))} == set()
        )


def test_no_host_can_write_the_heading_of_another_one(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("evil", "printf 'active\\nweb1\\n  failed\\n'\n")
    hosts.supervised("web1")
    _, out, _ = run(capsys, "-H", "evil,web1", "is-active")
    assert out == "evil\n  active\n  web1\n    failed\nweb1\n  active\n"


def test_an_answer_that_is_no_json_is_an_error(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("odd", "echo hello\n")
    hosts.script("deep", "head -c 100000 /dev/zero | tr '\\0' '['\n")
    for words in (["status"], ["watch"]):
        code, out, err = run(capsys, "--json", "-H", "odd,deep", *words)
        assert code == 5
        assert "cannot understand odd: its answer is not JSON" in err
        assert "cannot understand deep: its answer is not JSON" in err
        assert "hello" not in out


def test_a_host_without_zmsvcctl_says_so(hosts: Hosts, capsys: Capture) -> None:
    hosts.script("bare", 'PATH=/nowhere exec /bin/sh -c "PATH=/usr/bin:/bin; $command"\n')
    hosts.program("zmsvcctl", "").unlink()
    code, _, err = run(capsys, "-H", "bare", "status")
    assert (code, err) == (5, "zmsvcctl: cannot find zmsvcctl on bare: the PATH of ssh there lacks it (install zmsvc there)\n")  # fmt: skip


def test_a_host_with_an_earlier_release_says_which(hosts: Hosts, capsys: Capture) -> None:
    hosts.program("zmsvcctl", """#!/bin/sh
[ "$*" = --version ] && { echo zmsvcctl 1.0.0; exit; }
echo "zmsvcctl: cannot understand the command: there is no verb 'why' (see zmsvcctl --help)" >&2
exit 2
""")  # fmt: skip
    hosts.script("old", 'exec sh -c "$command"\n')
    code, _, err = run(capsys, "-H", "old", "why", "ts_1")
    assert code == 2
    assert err.splitlines() == [
        "zmsvcctl: old: cannot understand the command: there is no verb 'why' (see zmsvcctl --help)",
        f"zmsvcctl: old has zmsvc 1.0.0, and this is {__version__}: one of them lacks what the other knows",
    ]


def test_without_ssh_there_is_one_line(
    hosts: Hosts, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = run(capsys, "-H", "a", "status")
    assert (code, err) == (
        5,
        "zmsvcctl: cannot run ssh for a: ssh: no such file or directory (is openssh-client installed?)\n",
    )


def test_a_host_for_which_ssh_cannot_run_does_not_keep_the_order_from_the_others(
    hosts: Hosts, capsys: Capture
) -> None:
    hosts.supervised("web1", stop=yes())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {*map(int, os.listdir("/proc/self/fd"))}
    # Enough for the first ssh and the start of the second. The limit is one of numbers, and some may be free.
    twelfth = next(islice((number for number in count() if number not in used), 11, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (twelfth + 1, hard))
    try:
        code, out, err = run(capsys, "-H", "web1,web2,web3", "stop", "ts_100")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (code, out) == (5, "web1\n  done\n")
    assert "zmsvcctl: cannot run ssh for web3: too many open files\n" in err
    assert "stop: done on web1; not done on web2 (5), web3 (5)\n" in err


def test_an_ssh_that_leaves_a_process_with_its_pipes_has_ended(hosts: Hosts, capsys: Capture) -> None:
    """As ssh does with ControlPersist. Otherwise zmsvcctl would wait for the end of that process."""
    hosts.script("kept", f'echo active\nsleep 1000 & echo $! > "{hosts.root}/pid"\n')
    code, out, _ = run(capsys, "-H", "kept", "is-active")
    os.kill(int((hosts.root / "pid").read_text()), signal.SIGKILL)
    assert (code, out) == (0, "active\n")


# --- streams


def test_lines_of_streams_have_their_host_and_no_host_waits_for_another(hosts: Hosts) -> None:
    hosts.supervised("web1", events=[more(**EVENT), fake.Silence])
    hosts.script("slow", "sleep 1000\n")
    with hosts.start("-H", "slow,web1,gone", "events", "-f") as following:
        assert following.stdout is not None
        assert following.stderr is not None
        line = wait_for_line(following.stdout, "ts_1")
        assert line.startswith("web1: 2026-"), line
        wait_for_line(following.stderr, "cannot reach gone")
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0


def test_with_json_a_line_of_a_stream_has_its_host(hosts: Hosts, capsys: Capture) -> None:
    hosts.supervised("web1", events=[more(**EVENT), yes()])
    code, out, _ = run(capsys, "--json", "-H", "web1", "events")
    assert (code, json.loads(out)) == (0, {"host": "web1", "answer": EVENT})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_what_runs_on_the_hosts_ends_with_this_zmsvcctl(hosts: Hosts, number: signal.Signals) -> None:
    hosts.supervised("web1", events=[more(**EVENT), fake.Silence])
    with hosts.start("-H", "web1", "events", "-f") as following:
        assert following.stdout is not None
        wait_for_line(following.stdout, "ts_1")
        (group,) = Path(f"/proc/{following.pid}/task/{following.pid}/children").read_text().split()
        there = wait_for(lambda: descendants(int(group)))
        following.send_signal(number)
        code = following.wait(20)
    assert code == {signal.SIGINT: 0, signal.SIGKILL: -9}.get(number, 128 + number)
    for pid in there:
        wait_for_end(pid)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("say(); import sys; sys.exit(7)", 7),
        ("import time; say(); time.sleep(1000)", -signal.SIGINT),
        (
            "signal.signal(signal.SIGINT, signal.SIG_IGN); import time; say(); time.sleep(1000)",
            -signal.SIGKILL,
        ),
        ("say(); os.execvp('sleep', ['sleep', '1000'])", -signal.SIGINT),
    ],
)
def test_a_process_with_a_lifeline_ends_with_its_standard_input(body: str, code: int) -> None:
    program = (
        "import os, signal; from zmsvc.ctl.remote import lifeline; lifeline.PATIENCE = 0.1; "
        f"signal.signal(signal.SIGINT, signal.SIG_DFL); os.environ[lifeline.VARIABLE] = 'stdin'; "
        f"lifeline.hold(); say = lambda: print(flush=True); {body}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        assert held.stdout.readline() == b"\n"
        if code < 0:
            held.stdin.close()
        assert held.wait(20) == code


def descendants(pid: int) -> list[int]:
    """Return the processes of a tree: here the ssh, and zmsvcctl with its watcher on the host."""
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(each for child in children for each in descendants(child))]


def test_ctrl_c_during_an_order_says_where_it_was_not_carried_out(hosts: Hosts) -> None:
    hosts.supervised("web1", stop=yes())
    hung = hosts.supervised("web2", stop=fake.Silence)
    with hosts.start("-H", "web1,web2", "stop", "ts_100") as stopping:
        assert stopping.stdout is not None
        wait_for_line(stopping.stdout, "done")
        wait_for(lambda: hung.asked("stop"))
        stopping.send_signal(signal.SIGINT)
        _, err = stopping.communicate(timeout=20)
    assert stopping.returncode == 130
    assert err.decode().splitlines() == [
        "zmsvcctl: broken off: web2 has not answered; the order may go on there (zmsvcctl -H web2 status)",
        "zmsvcctl: stop: done on web1; not done on web2 (130)",
    ]


def test_the_processes_end_when_nobody_reads_the_output(hosts: Hosts) -> None:
    hosts.script("web1", f'echo $$ > "{hosts.root}/pid"\nexec yes\n')
    with hosts.start("-H", "web1", "watch") as watching:
        assert watching.stdout is not None
        wait_for_line(watching.stdout, "y")
        watching.stdout.close()
        assert watching.wait(20) == 0
    wait_for_end(int((hosts.root / "pid").read_text()))


# --- the limits


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("status", 30), ("--timeout 5 status", 35), ("--host-timeout 3 --timeout 5 status", 3), ("stop", 600),
        ("--no-block stop", 30), ("--timeout 90 stop", 120), ("restart --one-by-one", 3600),
        ("--timeout 5 restart --one-by-one", 3600), ("wait --for active ts_1", 600), ("events -f", None),
        ("events", 30), ("watch", None), ("--timeout 5 watch", 35), ("--host-timeout 0 status", None),
        ("wiring --for 1min", 90),
    ],
)  # fmt: skip
def test_the_time_limit_of_a_host_follows_from_the_verb(words: str, seconds: float | None) -> None:
    assert command.seconds_of(*parse(["-H", "a", *words.split()])) == seconds


def test_a_color_does_not_go_on_in_the_line_of_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers._safe("\x1b[0;1;31mred") == "\\x1b[0;1;31mred"
    monkeypatch.setenv("SYSTEMD_COLORS", "1")
    assert answers._safe("\x1b[0;1;31mred") == "\x1b[0;1;31mred\x1b[0m"
