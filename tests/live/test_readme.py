"""The examples of the README and of the pages that it begins with run without changes: their commands in their
order, their services, and the examples that they name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from context import Context, Subscriber
from needs import need
from ports import free_ports
from tutorial import ROOT
from waiting import PATIENCE, wait_for, wait_for_line

from zmsvc import testing

PAGES = ("README.md", "docs/tutorial.md", "docs/installation.md", "docs/access.md")


def blocks(language: str, *pages: str) -> list[str]:
    text = "".join((ROOT / page).read_text() for page in pages or PAGES)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(first: str, page: str = "docs/tutorial.md") -> list[str]:
    """Return the commands of the block of a page that begins with `first`, without comments."""
    (block,) = [block for block in blocks("sh", page) if block.startswith(first)]
    lines = [re.sub(r"\s+# .*", "", line) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


class Person:
    """A person who types commands in one directory. The ports are not those of the README, because other
    programs may use them.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        programs = Path(sys.executable).parent
        need((programs / "zmsvcctl").exists(), "zmsvc is not installed beside this Python")
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("ZMSVC_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))
        }
        places = {f"ZMSVC_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "STATE")}
        self.environment = (
            kept | places | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        )
        self.ports = free_ports()

    def own(self, text: str) -> str:
        return text.replace("5556", str(self.ports[0])).replace("5557", str(self.ports[1]))

    def type(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.own(command)],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def try_alone(self, command: str) -> None:
        """Run a command until Ctrl-C."""
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.home,
            env=self.environment,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as it:
            assert it.stderr is not None
            wait_for_line(it.stderr, "step 1")
            it.send_signal(signal.SIGINT)
            assert it.wait(PATIENCE) in (0, 130)


@pytest.fixture
def person(home: Path) -> Iterator[Person]:
    made = Person(home)
    yield made
    running = subprocess.run(
        ["zmsvcctl", "--json", "list"], env=made.environment, capture_output=True, text=True, check=False
    ).stdout
    for name in re.findall(r'"name": ?"(\w+)"', running):
        subprocess.run(
            ["zmsvcctl", "-c", name, "exit"], env=made.environment, capture_output=True, check=False
        )


def test_the_programs_of_the_readme_run_as_they_stand(person: Person) -> None:
    first, *typed = commands(". .venv/bin/activate", "README.md")
    assert first == ". .venv/bin/activate"
    port = re.search(r"http\.server (\d+)", "".join(typed))
    assert port is not None
    (free,) = free_ports(1)
    told = {}
    for command in typed:
        command = command.replace(port[1], str(free))
        if command.startswith("zmsvcctl logs"):
            # Five seconds between two lines are long for a test: it waits for the first.
            wait_for(lambda: "still here" in person.type("zmsvcctl logs -n 5 talker"))
        told[command] = person.type(command)
    status, why = (told[f"zmsvcctl {verb}"] for verb in ("status", "why web"))
    assert "web " in status
    assert "2 active in 1 transaction" in status
    assert "SIGKILL" in why
    assert person.type("zmsvcctl list").count("running") == 0


def test_the_classes_of_the_readme_talk_to_each_other(zmsvc_simulation: testing.Simulation) -> None:
    (code,) = blocks("python", "README.md")
    names: dict[str, type] = {}
    exec(code.replace("20.5", "30.5"), names)
    alarm = zmsvc_simulation.start(names["Alarm"])
    zmsvc_simulation.start(names["Sensor"], service_id="ts_sensor")
    zmsvc_simulation.run(0.25)
    assert alarm.updates[:2] == [{"alarm": "ts_sensor"}] * 2


def test_the_five_minutes_run_as_they_stand(person: Person) -> None:
    first, *make, check = commands(". .venv/bin/activate")
    assert first == ". .venv/bin/activate"
    for command in make:
        person.type(command)
    assert "ok (1 task)" in person.type(check)
    # The README asks to edit the step. Ten seconds between two steps are long for a test.
    task = person.home / "hello/Services/Hello/hello.py"
    task.write_text(task.read_text().replace("interval = 10.0", "interval = 0.2"))
    (alone,) = commands("python -m zmsvc.task")
    person.try_alone(alone)
    said = {command: person.type(command) for command in commands("zmsvcd --detach hello/")}
    assert [command.split()[1] for command in said] == [
        "--detach",
        "status",
        "watch",
        "start",
        "logs",
        "events",
        "stop",
        "exit",
    ]
    told = {command.split()[1]: text for command, text in said.items()}
    assert "ts_100  Hello  active (running)" in told["status"]
    assert len(told["watch"].splitlines()) == 3
    assert "MYRUN/ts_100" in told["start"] + told["logs"]
    assert "by=operator" in told["events"]
    assert person.type("zmsvcctl list").count("running") == 0
    # A second pass through the tutorial has one run, as the first one had.
    start = next(iter(said))
    assert "resumes" not in person.type(f"{start} 2>&1")
    assert " in 1 transaction\n" in person.type("zmsvcctl status")
    person.type("zmsvcctl exit")


def test_the_state_machine_runs_as_the_tutorial_says(person: Person) -> None:
    examples = person.home / "zmsvc/data/examples"
    shutil.copytree(ROOT / "zmsvc/data/examples", examples)
    for file in examples.glob("*.xml"):
        file.write_text(person.own(file.read_text()))
    told = {
        command.split()[3 if "-c " in command else 1]: person.type(command)
        for command in commands("zmsvcd --detach zmsvc/data")
    }
    assert list(told) == ["--detach", "graph", "top", "events", "exit", "create"]
    assert told["graph"].count("on_exit") == 4
    for service in ("Stand", "Walk", "DrinkCoffee", "Run"):
        assert service in told["graph"]
        assert (person.home / "walk/Services" / service / f"Service{service}.py").is_file()
    assert "ts_100" in told["top"]
    assert "launching" in told["events"]


def test_the_service_of_the_tutorial_says_hello(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    task, _, test = blocks("python", "docs/tutorial.md")
    assert task.startswith("# Services/Hello/hello.py\n")
    side = (
        "from zmsvc.task import TaskService\nfrom .hello import SayHello\nclass ServiceHello(TaskService):\n"
        "    task_class = SayHello\n"
    )
    context.service("Hello", side)
    (context.home / "Services/Hello/hello.py").write_text(task)
    (context.home / "test_hello.py").write_text(test)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_hello.py"]
    tested = subprocess.run(
        words,
        cwd=context.home,
        env=context.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (tested.returncode, "1 passed" in tested.stdout) == (0, True), tested.stdout + tested.stderr
    context.task("ts_100", "Hello", config="<interval>0.1</interval>")
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    assert listener.control("updated", "ts_100")["content"]["status"]["text"] == "hello"


def test_the_task_of_the_tutorial_that_hears_messages_gives_the_alarm(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    _, task, _ = blocks("python", "docs/tutorial.md")
    side = (
        "from zmsvc.task import TaskService\nfrom .alarm import Alarm\nclass ServiceAlarm(TaskService):\n"
        "    task_class = Alarm\n"
    )
    context.service("Alarm", side)
    (context.home / "Services/Alarm/alarm.py").write_text(task)
    context.task("ts_100", "Alarm")
    context.start("--transaction", "T")
    listener = subscriber(b"control @@@ ")
    for celsius in (20, 31):
        head = {"service_id": f"sensor at {celsius}", "service_transaction": "T"}
        context.ctl("send", "temperature", json.dumps({"header": head, "content": {"celsius": celsius}}))
    assert listener.control("updated", "ts_100")["content"]["status"]["alarm"] == "sensor at 31"


def test_every_command_of_these_pages_is_tested_somewhere() -> None:
    """A test has to run each block that is added to one of these pages: this file, or tests/boot as root, or
    make itself.
    """
    begins = [block.splitlines()[0].split("#")[0].strip() for block in blocks("sh")]
    assert (
        begins
        == [
            "make demo",
            ". .venv/bin/activate",
            "systemctl start zmsvc@EchoAction",  # tests/boot/test_boot_service.py
            # tests/packages/test_deb.py
            "apt install git make dpkg-dev && apt install --no-install-recommends npm",
            "apt install --no-install-recommends prometheus",
            "sed -i 's/<interval>10</<interval>ten</' /etc/zmsvc/Context-EchoAction.xml",
            "sed -i 's/<interval>ten</<interval>10</' /etc/zmsvc/Context-EchoAction.xml",
            ". .venv/bin/activate",
            "python -m zmsvc.task hello/Services/Hello",
            "zmsvcd --detach hello/Conf/Context-Hello.xml",
            "zmsvcd --detach zmsvc/data/examples/Context-StateMachine.xml",
            "systemctl start zmsvc@EchoAction",  # tests/boot/test_boot_service.py
            "mkdir -p ~/.config/zmsvc && cp hello/Conf/Context-Hello.xml ~/.config/zmsvc/",  # tests/boot/test_boot_user.py
            "make test-on SUITE=trixie",  # .ci/run
            "zmsvcctl -c NAME keys make",
            "zmsvcctl -c NAME keys join server.key",  # tests/live/test_curve.py
            # tests/boot/test_boot_drop_ins.py
            "install -D -m 644 /usr/share/doc/zmsvc/drop-ins/own-user.conf "
            "/etc/systemd/system/zmsvc@NAME.service.d/own-user.conf",
        ]
    )
