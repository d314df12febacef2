"""Tasks on other hosts: they are started there, their true ends are known, their rules act on other hosts,
and they go on without the supervisor and without the connection.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
import zmq
from context import Context
from crowd import history
from needs import need
from other_hosts import Host, other_hosts, placement, start_all
from waiting import wait_for

TALKER = """
def setup(self):
    import os, socket, time
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.connect(os.environ["NOTIFY_SOCKET"])
    while not os.path.exists("{home}/go"):
        time.sleep(0.01)
    for number in range(2000):
        said.send(b"STATUS=status %d" % number)
    for number in range(40):
        self.update(number=number, text="x" * 900_000)
    open("{home}/said", "w").close()
"""


@pytest.fixture
def hosts(context: Context) -> Iterator[tuple[Host, ...]]:
    need(zmq.has("curve"), "this libzmq has no CURVE")
    with other_hosts(context) as made:
        yield made


@pytest.fixture
def running(context: Context, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
    """A context with the task `one` on h2, whose failure starts `two` on h3."""
    context.looped("Steady")
    context.task("one", "Steady", rules={"on_fail": ("start", "two")}, service=placement("h2"))
    context.task("two", "Steady", entry=False, service=placement("h3"))
    start_all(context, hosts, PATH=f"{context.home}/bin:{os.environ['PATH']}")
    context.task_is("one", "running")
    return hosts


def fired(context: Context) -> int:
    """Return how often the rule of `one` has started `two`."""
    return sum(row.task == "two" and row.event == "launching" for row in history(context))


def test_the_true_end_of_a_task_starts_the_task_of_its_rule_on_another_host_whatever_else_ends(
    context: Context, running: tuple[Host, ...]
) -> None:
    h2, h3 = running

    def kill_supervisor(_task: int) -> None:
        before = adopted(context)
        context.kill_supervisor()
        wait_for(lambda: adopted(context) > before)

    def kill_envoy_and_task(task: int) -> None:
        envoy = h2.envoy
        os.kill(envoy, signal.SIGSTOP)
        os.kill(task, signal.SIGKILL)
        os.kill(envoy, signal.SIGKILL)

    def replace_envoy(_task: int) -> None:
        envoy = h2.envoy
        os.kill(h2.keeper, signal.SIGHUP)
        wait_for(lambda: h2.envoy != envoy)

    troubles = [lambda _task: None, kill_supervisor, kill_envoy_and_task, replace_envoy]
    for number, trouble in enumerate(troubles, 1):
        one = context.task_is("one", "running")
        assert h2.holds() == {one["launch"]}
        trouble(one["pid"])
        assert context.tasks()["one"]["pid"] in (one["pid"], None), "it keeps its process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(one["pid"], signal.SIGKILL)
        two = context.task_is("two", "running")
        assert h3.holds() == {two["launch"]}
        assert context.tasks()["one"]["exit"]["signal"] == "SIGKILL"
        assert fired(context) == number
        os.kill(two["pid"], signal.SIGKILL)
        context.task_is("two", "failed")
        context.ctl("start", "one")


def adopted(context: Context) -> int:
    """Return how often `one` was adopted by a new supervisor."""
    return sum(row.task == "one" and row.event == "adopted" for row in history(context))


def test_nothing_follows_from_a_cut_cable_and_an_end_is_known_when_it_is_whole_again(
    context: Context, running: tuple[Host, ...]
) -> None:
    h2, _ = running
    one = context.tasks()["one"]
    h2.cable.cut()
    wait_for(lambda: [row for row in history(context) if row.event == "host-silent"])
    wait_for(lambda: "no supervisor is heard" in h2.log)
    assert h2.holds() == {one["launch"]}
    os.kill(one["pid"], signal.SIGKILL)
    wait_for(lambda: not h2.holds())
    assert context.tasks()["one"]["sub"] == "running"
    assert fired(context) == 0
    h2.cable.mend()
    context.task_is("two", "running")
    assert context.tasks()["one"]["exit"]["signal"] == "SIGKILL"
    assert fired(context) == 1


def test_a_rule_fires_once_when_the_cluster_says_that_a_host_is_off(
    context: Context, running: tuple[Host, ...]
) -> None:
    h2, h3 = running
    one = context.tasks()["one"]
    h2.cable.cut()
    wait_for(lambda: [row for row in history(context) if row.event == "host-silent"])
    assert fired(context) == 0
    say_off(context, "h2")
    two = context.task_is("two", "running")
    assert h3.holds() == {two["launch"]}
    assert context.tasks()["one"]["exit"]["reason"] == "lost"
    # The cluster was wrong, so a task comes back that does not belong to the context any more.
    h2.cable.mend()
    wait_for(lambda: [row for row in history(context) if row.event == "stranger"])
    wait_for(lambda: one["launch"] not in h2.holds())
    assert fired(context) == 1


def test_tasks_of_a_keeper_that_is_killed_are_lost(context: Context, running: tuple[Host, ...]) -> None:
    h2, _ = running
    h2.kill()
    h2.start()
    context.task_is("two", "running")
    assert context.tasks()["one"]["exit"]["reason"] == "lost"
    assert fired(context) == 1


def test_what_a_task_says_while_the_cable_is_cut_is_told_when_it_is_whole_again(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, _ = hosts
    context.looped("Talker", TALKER.format(home=context.home))
    rules = {"on_update": ("start", "two")}
    context.task("talker", "Talker", entry=False, rules=rules, service=placement("h2"))
    context.looped("Steady")
    context.task("home", "Steady")
    context.task("two", "Steady", entry=False, service=placement("h3"))
    start_all(context, hosts)
    context.ctl("start", "--no-block", "talker")
    talker = context.task_is("talker", "start")
    h2.cable.cut()
    wait_for(lambda: "no supervisor is heard" in h2.log)
    (context.home / "go").touch()
    # It sends more than a notify socket holds and than the envoy keeps, and does not have to wait.
    wait_for(lambda: (context.home / "said").exists())
    assert context.tasks()["talker"]["sub"] == "start"
    # The envoy reads what it was sent after the task has gone on.
    wait_for(lambda: "h2 drops what its tasks say" in h2.log)
    h2.cable.mend()
    context.task_is("talker", "running", also=lambda task: task["status"] == "status 1999")
    context.task_is("two", "running")
    assert context.tasks()["talker"]["pid"] == talker["pid"]
    # The next sign of life of the envoy has the number.
    dropped = wait_for(lambda: {each["name"]: each["dropped"] for each in context.status()["hosts"]}["h2"])
    assert dropped < 40
    assert f"h2 has dropped {dropped} facts of its tasks since its start" in context.log.read_text()
    assert f"h2 has dropped {dropped} facts of its tasks since its start" in h2.log


def test_an_envoy_connects_again_after_an_error_of_the_protocol(
    context: Context, running: tuple[Host, ...]
) -> None:
    """libzmq does not connect again after such an error, for example a message that is too long."""
    one = context.task_is("one", "running")
    h2 = running[0]
    h2.cable.garble()
    wait_for(lambda: "no supervisor is heard any more" in h2.log)
    wait_for(lambda: h2.log.count("takes the facts of h2") == 2)
    os.kill(one["pid"], signal.SIGKILL)
    context.task_is("two", "running")
    assert fired(context) == 1


def test_large_results_for_a_pending_start_do_not_stop_its_host_or_status(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    """40 results of 0.9 MB are causes of one start."""
    context.looped("Talker", TALKER.format(home=context.home))
    context.task("talker", "Talker", entry=False, rules={"on_update": ("restart", "two")})
    held = "def close(self):\n    import os\n    while not os.path.exists('{home}/said'): self.pause(0.05)"
    context.looped("Holds", held.format(home=context.home))
    context.task("two", "Holds", service=placement("h3"))
    (context.home / "go").touch()
    start_all(context, hosts)
    before = context.task_is("two", "running")
    context.ctl("start", "talker")
    two = context.task_is("two", "running", also=lambda task: task["launch"] > before["launch"])
    assert hosts[1].holds() == {two["launch"]}
    for source in two["cause"]["sources"]:
        assert source["update"] is None
        assert source["update_bytes"] > 900_000


def test_a_launch_that_is_too_long_for_a_message_has_failed(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    context.looped("Steady")
    context.task("one", "Steady", entry=False, service=placement("h2"))
    # JSON has six bytes for each of these characters.
    text = f"<text>{'é' * 3_000_000}</text>"
    context.task("long", "Steady", entry=False, config=text, service=placement("h2"))
    start_all(context, hosts)
    refused = context.ctl("start", "long", check=1).stderr
    assert "cannot-launch" in refused
    assert "another host takes at most 16777216" in context.tasks()["long"]["status"]
    context.ctl("start", "one")


def test_the_tasks_of_a_host_that_leaves_move_and_it_takes_tasks_again_when_it_is_back(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, h3 = hosts
    context.looped("Steady")
    context.task("one", "Steady", service=placement("h2", "h3"))
    start_all(context, hosts)
    one = context.task_is("one", "running")
    assert h2.holds() == {one["launch"]}
    assert h2.stop() == 0
    one = context.task_is("one", "running", also=lambda task: task["launch"] != one["launch"])
    assert h3.holds() == {one["launch"]}
    h2.start()
    wait_for(lambda: "undrained" in [row.event for row in history(context)])
    h3.kill()
    h3.start()
    context.task_is("one", "failed")
    context.ctl("start", "one")
    one = context.task_is("one", "running")
    assert h2.holds() == {one["launch"]}


def test_a_host_leaves_although_its_envoy_is_killed_meanwhile(
    context: Context, running: tuple[Host, ...]
) -> None:
    h2, _ = running
    os.kill(h2.envoy, signal.SIGSTOP)
    os.kill(h2.keeper, signal.SIGTERM)
    h2.kill_envoy()
    assert h2.wait() == 0
    # It was stopped in order, and no other host takes it.
    context.task_is("one", "unplaced")
    assert fired(context) == 0


def test_the_tasks_of_a_host_that_leaves_without_a_supervisor_are_asked_to_end(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, _ = hosts
    asked = context.home / "asked"
    context.looped("Tidy", f'def close(self):\n    open("{asked}", "w").close()')
    context.task("tidy", "Tidy", service=placement("h2"))
    start_all(context, hosts)
    h2.cable.cut()
    assert h2.stop() == 0
    assert asked.exists()
    # The context does not end while it is not known what a silent host runs.
    h2.cable.mend()
    h2.start()


def test_tasks_on_other_hosts_outlive_an_orderly_move_of_the_context(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, h3 = hosts
    context.looped("Steady")
    context.task("home", "Steady")
    context.task("one", "Steady", rules={"on_fail": ("start", "two")}, service=placement("h2"))
    context.task("two", "Steady", entry=False, service=placement("h3"))
    context.task("three", "Steady", service=placement("h3"))
    start_all(context, hosts)
    before = {name: context.task_is(name, "running") for name in ("home", "one", "three")}
    context.ctl("exit", "--home")
    assert context.wait() == 0
    assert (h2.holds(), h3.holds()) == ({before["one"]["launch"]}, {before["three"]["launch"]})
    # Its end is known to the next supervisor, which fires its rule.
    os.kill(before["one"]["pid"], signal.SIGKILL)
    wait_for(lambda: not h2.holds())
    context.start()
    context.task_is("two", "running")
    tasks = context.tasks()
    assert tasks["one"]["exit"]["signal"] == "SIGKILL"
    assert tasks["three"]["pid"] == before["three"]["pid"]
    assert tasks["home"]["pid"] != before["home"]["pid"]
    assert fired(context) == 1
    assert [row.task for row in history(context) if row.event == "adopted"] == ["three"]


def test_the_context_ends_without_a_host_that_is_silent_and_names_its_tasks(
    context: Context, running: tuple[Host, ...]
) -> None:
    h2, _ = running
    one = context.tasks()["one"]
    h2.cable.cut()
    done = context.ctl("exit", check=1)
    assert "nothing is heard from its host h2, where it may run until the context starts again" in done.stderr
    assert context.wait() == 0
    assert [row.detail for row in history(context) if row.event == "host-given-up"] == [
        {"host": "h2", "tasks": ["one"]}
    ]
    assert h2.holds() == {one["launch"]}
    h2.cable.mend()
    context.start()
    again = context.task_is("one", "running", also=lambda task: task["launch"] != one["launch"])
    assert h2.holds() == {again["launch"]}
    assert fired(context) == 0


def test_a_client_of_the_bus_cannot_be_a_host(context: Context, hosts: tuple[Host, ...]) -> None:
    h2, h3 = hosts
    keys = context.home / "keys" / context.name
    (keys / "clients/h2.key").rename(keys / "clients/laptop.key")
    context.looped("Steady")
    context.task("home", "Steady")
    context.task("one", "Steady", entry=False, service=placement("h2"))
    start_all(context, hosts)
    context.ctl("start", "--no-block", "one")
    wait_for(lambda: "its key is laptop.key, expected h2.key" in h2.log)
    one = context.tasks()["one"]
    assert one["sub"] == "unplaced"
    assert h2.holds() == h3.holds() == set()


def test_a_host_without_keys_or_a_place_in_the_file_says_what_it_needs(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, h3 = hosts
    context.looped("Steady")
    context.task("one", "Steady", service=placement("h2"))
    h3.name = "h4"
    h3.launch()
    assert h3.wait() == 2
    assert "<hosts> does not list h4, expected one of h2, h3" in h3.log
    shutil.rmtree(context.home / "h2/keys")
    h2.launch()
    assert h2.wait() == 2
    assert "it needs the CURVE keys of a client" in h2.log


def test_a_reload_places_a_task_on_another_host(context: Context, hosts: tuple[Host, ...]) -> None:
    h2, _ = hosts
    context.looped("Steady")
    context.task("one", "Steady", service=placement("h2"))
    h2.start()
    edit = context.edit
    context.edit = lambda text: edit(text).replace(placement("h2"), "")
    context.start("--transaction", "T")
    one = context.tasks()["one"]
    context.edit = edit
    context.write()
    context.ctl("reload")
    context.ctl("restart", "one")
    there = context.task_is("one", "running", also=lambda task: task["launch"] != one["launch"])
    assert h2.holds() == {there["launch"]}


def say_off(context: Context, *names: str) -> None:
    """Have the cluster say that these hosts are off."""
    nodes = "".join(f'<node name="{name}" online="false" unclean="false"/>' for name in names)
    program = context.home / "bin/crm_mon"
    program.parent.mkdir(exist_ok=True)
    written = program.with_suffix(".new")
    written.write_text(f"#!/bin/sh\necho '<pacemaker-result><nodes>{nodes}</nodes></pacemaker-result>'\n")
    written.chmod(0o755)
    written.rename(program)
