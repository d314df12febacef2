"""The commands of the zmicroservices 1.0 manual, step by step, by the scripts with the old names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from tutorial import ROOT, Tutorial
from waiting import PATIENCE, stop_process, wait_for, wait_for_end, wait_for_line

TX = "6FDAHH3WPRVV7FGZCRIN"
ECHO = "Conf/Context-EchoAction.xml"
CONTEXT = ("--service_name=context", "--service_id=context001")
STATE = ("--service_name=state", f"--transaction={TX}")

META = """<MetaServiceConf>
<context_name>StateMachineSample</context_name>
<server_ip>127.0.0.1</server_ip>
<sub_port>5556</sub_port>
<pub_port>5557</pub_port>
<service_path>{home}</service_path>
{services}
</MetaServiceConf>
"""
SERVICE = """
<Service>
<task_service>{name}</task_service>
<task_file>{file}</task_file>
<task_class>{cls}</task_class>
<task_desc>{desc}</task_desc>
<service_name>state_update</service_name>
<task_id>{task_id}</task_id>
<device_action>pass_state{number}</device_action>
<task_topic>process</task_topic>

<entry_action>{entry}</entry_action>
{states}
</Service>
"""
STATES = "<state>\n<trigger>{}</trigger>\n<action>{}</action>\n<state_id>{}</state_id>\n</state>\n"
FOUR = (
    ("Stand", "Stand", "Standing", "Stand up without doing anything"),
    ("Walk", "Walker", "Walking", "Walk along the street"),
    ("DrinkCoffee", "CoffeeDrinker", "Drinking", "Stop and take a coffee"),
    ("Run", "Runner", "Running", "Start running"),
)
"""The services of the manual: task_service, task_file, task_class, task_desc."""


def meta(home: Path, *, ring: bool) -> str:
    """The manual's MetaServiceConf without its stray closing tags; with `ring` each service starts the
    next one when it updates.
    """
    services = []
    for number, (name, file, cls, desc) in enumerate(FOUR):
        filled = {"on_update": ("start", f"ts_{100 + (number + 1) % 4}")} if ring else {}
        states = "".join(
            STATES.format(trigger, *filled.get(trigger, ("", "")))
            for trigger in ("on_start", "on_update", "on_fail", "on_exit")
        )
        entry = "on_start" if not ring or number == 0 else "on_update"
        services.append(
            SERVICE.format(
                name=name,
                file=file,
                cls=cls,
                desc=desc,
                task_id=f"ts_{100 + number}",
                number=number + 1,
                entry=entry,
                states=states,
            )
        )
    return META.format(home=home, services="".join(services))


@pytest.fixture
def tutorial(home: Path) -> Iterator[Tutorial]:
    made = Tutorial(home)
    yield made
    made.close()


def created(tutorial: Tutorial) -> None:
    """Run the first command of the manual, with the same flags."""
    tutorial.run(
        "create_service.py",
        f"--service_path={tutorial.home}",
        "--task_service=EchoAction",
        "--task_file=task_file_name",
        "--task_class=EchoShouting",
        "--task_desc=An echo action is for shouting the time after counting 10s",
        "--context_name=EchoAction",
        "--service_name=echo_action",
        "--server_ip=127.0.0.1",
        f"--sub_port={tutorial.sub_port}",
        f"--pub_port={tutorial.pub_port}",
        "--task_id=ts_100",
        "--device_action=shout",
    )


def listening(tutorial: Tutorial, *arguments: str) -> subprocess.Popen[bytes]:
    """Start display.py with its topics, and wait until it is subscribed to them."""
    # It says that it connects before it does. The device tells us of a topic that no other asks for; libzmq sends
    # the topics in their alphabetical order.
    endpoint = f"--endpoint=tcp://127.0.0.1:{tutorial.sub_port}"
    shows = tutorial.begin("display.py", endpoint, *arguments, "--topic=~last")
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.connect(f"tcp://127.0.0.1:{tutorial.pub_port}")
        told = b""
        while told != b"\x01~last @@@ ":
            assert publisher.poll(PATIENCE * 1000), "the device does not know the subscription"
            told = publisher.recv()
    return shows


def begun(tutorial: Tutorial, file: str) -> subprocess.Popen[bytes]:
    """Start service_context.py, and wait until its device accepts connections."""
    context = tutorial.begin_context(file)
    assert context.stdout is not None
    line = wait_for_line(context.stdout, "conf_command.py")
    assert (
        f"--endpoint='tcp://127.0.0.1:{tutorial.pub_port}' --context_file='{file}' --service_name='context'"
        in line
    )
    return context


def states(tutorial: Tutorial) -> dict[str, tuple[str, int | None]]:
    """Return the action and the PID of each task, by a `state` request."""
    tasks = tutorial.ask(*STATE, "--action=request")["content"]["tasks"]
    return {task["service_id"]: (task["action"], task["pid"]) for task in tasks}


def test_a_display_at_the_publisher_port_is_told_so(tutorial: Tutorial) -> None:
    created(tutorial)
    begun(tutorial, ECHO)
    shows = tutorial.begin("display.py", f"--endpoint=tcp://127.0.0.1:{tutorial.pub_port}")
    told = tutorial.home / "display.py.log"
    wait_for(lambda: b"is it the sub_port" in told.read_bytes())
    assert shows.poll() is None, "others may be there"
    right = tutorial.begin(
        "display.py", f"--endpoint=tcp://127.0.0.1:{tutorial.sub_port}", "--topic=control", "--count=1"
    )
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    assert right.wait(PATIENCE) == 0
    assert told.read_bytes().count(b"is it the sub_port") == 1


def test_the_tutorial_from_create_to_exit(tutorial: Tutorial) -> None:
    created(tutorial)
    assert {path.name for path in (tutorial.home / "Services/EchoAction").iterdir()} == {
        "__init__.py", "ServiceEchoAction.py", "task_file_name.py",
    }  # fmt: skip
    context = begun(tutorial, ECHO)
    # Nothing runs before an order.
    silence = tutorial.conf(*STATE, "--action=request", f"--context_file={ECHO}", "--timeout=5", status=124)
    assert "no reply" in silence.stderr
    shows = listening(tutorial, "--topic=control", "--action=updated", "--count=1")
    start = (*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    first, second = tutorial.conf(*start).stdout.splitlines()
    assert first == f"+ Connecting endpoint [tcp://127.0.0.1:{tutorial.pub_port}] in topic [context]"
    assert second.startswith("+ Sending message of [")
    assert second.endswith("e] bytes")
    # Wait for the first result of the task on the bus.
    assert shows.stdout is not None
    wait_for_line(shows.stdout, '"shout":')
    assert shows.wait(PATIENCE) == 0
    wait_for(lambda: list(states(tutorial)) == ["ts_100"])
    tutorial.conf("--service_name=all", "--service_id=context001", "--action=exit")
    assert context.wait(30) == 0


START = (*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")


def test_an_order_right_after_service_context_was_begun_is_carried_out(tutorial: Tutorial) -> None:
    created(tutorial)
    tutorial.begin("service_context.py", ECHO)
    tutorial.conf(*START)
    assert list(states(tutorial)) == ["ts_100"]


def test_an_order_waits_for_the_supervisor_and_is_not_sent_when_none_comes(tutorial: Tutorial) -> None:
    created(tutorial)
    context = begun(tutorial, ECHO)
    # A stopped keeper does not replace the supervisor; the device goes on.
    stop_process(context.pid)
    os.kill(supervisor := supervisor_of(context), signal.SIGKILL)
    wait_for_end(supervisor)
    endpoint = f"tcp://127.0.0.1:{tutorial.pub_port}"
    refused = tutorial.conf(*START, "--timeout=5", status=1)
    assert (
        refused.stderr
        == f"conf_command.py: cannot deliver: no context at {endpoint} hears [context] within 5 s\n"
    )
    order = tutorial.begin("conf_command.py", f"--endpoint={endpoint}", *START)
    assert order.stdout is not None
    wait_for_line(order.stdout, "Sending message")
    context.send_signal(signal.SIGCONT)
    assert order.wait(PATIENCE) == 0
    wait_for(lambda: states(tutorial)["ts_100"][0] == "updated")


def test_the_exit_of_1_0_with_the_context_for_a_task_ends_the_context(tutorial: Tutorial) -> None:
    created(tutorial)
    context = begun(tutorial, ECHO)
    # A report needs no subscriber.
    report = (
        "--topic=control",
        "--service_name=sniffer",
        "--service_id=ts_100",
        "--transaction=TX",
        "--action=updated",
    )
    assert "nobody is subscribed to [control]" in tutorial.conf(*report).stderr
    tutorial.conf(
        f"--context_file={ECHO}",
        "--use_file",
        "--task_id=context001",
        "--service_name=context",
        "--action=exit",
    )
    assert context.wait(PATIENCE) == 0


def supervisor_of(keeper: subprocess.Popen[bytes]) -> int:
    """Return the child that is the supervisor."""
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    (pid,) = [
        int(child) for child in children if b"zmsvc.supervisor" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return pid


def test_orders_of_the_manual_start_stop_and_restart(tutorial: Tutorial) -> None:
    created(tutorial)
    begun(tutorial, ECHO)
    shows = listening(tutorial, "--topic=control", "--service_id=ts_100")
    assert shows.stdout is not None

    def order(action: str, *more: str, name: tuple[str, ...] = CONTEXT) -> None:
        tutorial.conf(*name, f"--context_file={ECHO}", f"--transaction={TX}", f"--action={action}", *more)

    def now(word: str) -> int | None:
        """Return the PID of the task if its last action is this one."""
        return wait_for(
            lambda: [pid for action, pid in [states(tutorial)["ts_100"]] if action in (word, "updated")]
        )[0]

    order("start")
    wait_for_line(shows.stdout, '"started"')
    first = now("started")
    order("restart")
    wait_for_line(shows.stdout, '"stopped"')
    wait_for_line(shows.stdout, '"started"')
    second = now("started")
    assert first != second
    order("stop")
    wait_for_line(shows.stdout, '"stopped"')
    assert now("stopped") is None
    order("start", name=("--service_name=all",))
    wait_for_line(shows.stdout, '"started"')
    # This is one task, in the form of the file.
    order(
        "stop", "--use_file", "--task_id=ts_100", name=("--service_name=process", "--service_id=context001")
    )
    wait_for_line(shows.stdout, '"stopped"')
    order("start", "--use_file", "--task_id=ts_100")
    wait_for_line(shows.stdout, '"started"')


def test_top_with_each_of_its_options(tutorial: Tutorial) -> None:
    created(tutorial)
    task = tutorial.home / "Services/EchoAction/task_file_name.py"
    task.write_text(task.read_text().replace("steps = 0", "steps = 0\n    opened = open(__file__)"))
    begun(tutorial, ECHO)
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    wait_for(lambda: states(tutorial)["ts_100"][1])
    fields = {"open_connections": "connections", "opened_files": "opened_files", "memory_maps": "memory_map"}
    for options in ([], ["open_connections"], ["opened_files"], ["memory_maps"], list(fields)):
        (row,) = tutorial.ask(*STATE, "--action=top", *(f"--{option}" for option in options))["content"][
            "tasks"
        ]
        assert {field for field in fields.values() if field in row} == {
            fields[option] for option in options
        }, options
        assert row["rss"] > 0


def test_context_information_is_published_on_state_for_everyone(tutorial: Tutorial) -> None:
    created(tutorial)
    begun(tutorial, ECHO)
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    wait_for(lambda: states(tutorial)["ts_100"][1])
    shows = listening(tutorial, "--topic=state", "--action=reply_context", "--count=1")
    # This command of the manual names only the endpoint to publish at, so it cannot wait for the reply.
    asked = tutorial.conf(*STATE, "--action=request")
    assert len(asked.stdout.splitlines()) == 2
    assert shows.stdout is not None
    told = shows.communicate(timeout=PATIENCE)[0].decode()
    content = json.loads(told[told.index("\n{") :])["content"]
    (task,) = content["tasks"]
    assert {
        "service_id": "ts_100",
        "serviceName": "echo_action",
        "instance": "EchoAction",
    }.items() <= task.items()
    assert task["pid"] > 0
    assert task["action"] in ("started", "updated")
    assert content["configuration"]["FrontEndEndpoint"] == f"tcp://127.0.0.1:{tutorial.sub_port}"


def test_many_services_at_once_from_the_manuals_file_run_together(tutorial: Tutorial) -> None:
    file = tutorial.home / "Conf/Services-StateMachine.xml"
    file.parent.mkdir()
    broken = meta(tutorial.home, ring=False).replace(
        "</Service>\n\n<Service>", "</Service>\n</Service>\n\n<Service>", 1
    )
    file.write_text(broken)
    refused = tutorial.run("create_service.py", f"--xml_file={file}", status=2)
    assert "is closed by </Service>, expected </MetaServiceConf>" in refused.stderr
    assert not (tutorial.home / "Services").exists(), "nothing is half-written"
    file.write_text(meta(tutorial.home, ring=False))
    tutorial.own_ports(file)
    tutorial.run("create_service.py", f"--xml_file={file}")
    made = {
        str(path.relative_to(tutorial.home / "Services"))
        for path in (tutorial.home / "Services").rglob("*.py")
    }
    assert made == {
        f"{name}/{each}.py"
        for name, task_file, _, _ in FOUR
        for each in ("__init__", f"Service{name}", task_file)
    }
    begun(tutorial, "Conf/Context-StateMachineSample.xml")
    tutorial.conf(
        *CONTEXT,
        "--context_file=Conf/Context-StateMachineSample.xml",
        f"--transaction={TX}",
        "--action=start",
    )
    # Empty rules do nothing, and all four have entry_action on_start.
    wait_for(lambda: all(pid for _, pid in states(tutorial).values()))
    assert list(states(tutorial)) == ["ts_100", "ts_101", "ts_102", "ts_103"]


def test_the_manuals_four_services_cycle_when_their_rules_are_filled_in(tutorial: Tutorial) -> None:
    file = tutorial.home / "Services-StateMachine.xml"
    file.write_text(meta(tutorial.home, ring=True))
    tutorial.own_ports(file)
    tutorial.run("create_service.py", f"--xml_file={file}")
    begun(tutorial, "Conf/Context-StateMachineSample.xml")
    shows = listening(tutorial, "--topic=control", "--action=started", "--count=4")
    tutorial.conf(
        *CONTEXT,
        "--context_file=Conf/Context-StateMachineSample.xml",
        f"--transaction={TX}",
        "--action=start",
    )
    told = shows.communicate(timeout=PATIENCE)[0].decode()
    order = [line.split('"')[3] for line in told.splitlines() if '"service_id"' in line]
    assert order == ["ts_100", "ts_101", "ts_102", "ts_103"]


def test_a_service_that_is_added_to_a_running_context_joins_its_file(tutorial: Tutorial) -> None:
    created(tutorial)
    edited = tutorial.home / "Services/EchoAction/task_file_name.py"
    edited.write_text(edited.read_text() + "# mine\n")
    before = (tutorial.home / ECHO).read_text()
    created(tutorial)
    assert (tutorial.home / ECHO).read_text() == before
    assert edited.read_text().endswith("# mine\n")
    tutorial.run(
        "create_service.py",
        f"--service_path={tutorial.home}",
        "--task_service=Second",
        "--task_desc=Another",
        "--context_name=EchoAction",
        "--service_name=second",
        "--server_ip=127.0.0.1",
        f"--sub_port={tutorial.sub_port}",
        f"--pub_port={tutorial.pub_port}",
        "--task_id=ts_101",
        "--device_action=whisper",
    )
    begun(tutorial, ECHO)
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    wait_for(lambda: [name for name, (_, pid) in states(tutorial).items() if pid] == ["ts_100", "ts_101"])


def test_ctrl_c_ends_the_context(tutorial: Tutorial) -> None:
    created(tutorial)
    context = begun(tutorial, ECHO)
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    pid = wait_for(lambda: states(tutorial)["ts_100"][1])
    context.send_signal(signal.SIGINT)
    assert context.wait(30) == 0
    assert not Path(f"/proc/{pid}").exists()


def test_an_old_service_says_how_it_is_ported(tutorial: Tutorial) -> None:
    created(tutorial)
    old = tutorial.home / "Services/EchoAction/ServiceEchoAction.py"
    old.write_text(
        "from Utils import Utilities\nfrom Provider.IServiceHandler import ServiceHandler\nprint 'Python 2'\n"
    )
    (old.parent / "__init__.py").write_text("from task_file_name import EchoShouting\n")
    begun(tutorial, ECHO)
    shows = listening(tutorial, "--topic=control", "--action=failed", "--count=1")
    tutorial.conf(*CONTEXT, f"--context_file={ECHO}", f"--transaction={TX}", "--action=start")
    told = shows.communicate(timeout=PATIENCE)[0].decode()
    assert f"{old} is a service of zmicroservices 1.0" in told
    assert "docs/from-zmicroservices.md" in told


def test_service_context_reports_a_broken_file(tutorial: Tutorial) -> None:
    (tutorial.home / "Context-Broken.xml").write_text("<Context>\n<")
    done = tutorial.run("service_context.py", "Context-Broken.xml", status=2)
    assert done.stderr.startswith("Context-Broken.xml:2: ")


@pytest.mark.parametrize(
    "script", ["create_service.py", "service_context.py", "conf_command.py", "display.py"]
)
def test_scripts_explain_themselves(tutorial: Tutorial, script: str) -> None:
    assert "usage:" in tutorial.run(script, "--help").stdout
    assert len((ROOT / "scripts" / script).read_text().splitlines()) < 35
