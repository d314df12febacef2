"""Context files and MetaServiceConf files of any content: each fault is reported as one, and an accepted file
can be used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from damage import bytes_of, trees_of
from effort import DEADLINE, effort
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import checks, graph
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.engine import step
from zmsvc.core.errors import ConfigError, UsageError
from zmsvc.core.world import World
from zmsvc.ctl.create import command
from zmsvc.ctl.imports.command import imported
from zmsvc.ctl.imports.import_report import Report, UnreadableError
from zmsvc.host.config import reader

PACKAGE = Path(reader.__file__).parents[2]
EXAMPLES = PACKAGE / "data" / "examples"
FULL = b"""<Context><FrontEndEndpoint>tcp://127.0.0.1:5556</FrontEndEndpoint><BackendEndpoint>tcp://127.0.0.1:5557</BackendEndpoint>
<FrontBind>tcp://*:5557</FrontBind><BackendBind>tcp://*:5556</BackendBind><ContextID>context001</ContextID><TaskLogName>Fuzz</TaskLogName>
<TaskService id="ts_1" topic="process" instance="Echo" serviceType="Thread"><Task><description>d</description><message><header>
<action>start</action><service_name>echo</service_name></header><content><configuration><device_action>act</device_action><a b="c">1</a>
<a>2</a></configuration></content></message><service><start_timeout>1min 30s</start_timeout><stop_timeout>5</stop_timeout>
<watchdog>500ms</watchdog><restart_delay>1s</restart_delay><restart_max_delay>1h</restart_max_delay><nice>5</nice>
<start_limit_burst>3</start_limit_burst><environment><A>b</A></environment></service><state type="on_start"><on_start><action/><call/>
</on_start><on_update><action>start</action><call>ts_2</call></on_update><on_fail><action>restart</action><call>ts_1</call></on_fail>
<on_exit><action>stop</action><call>ts_2</call></on_exit></state></Task></TaskService>
<TaskService id="ts_2" topic="process" instance="Sleep" serviceType="Command"><Task><description/><message><header><action>start</action>
<service_name>s</service_name></header><content><configuration><command>sleep 1</command><notify>yes</notify></configuration></content>
</message><state type=""><on_exit><action>start</action><call>ts_1</call></on_exit></state></Task></TaskService></Context>"""
CONTEXTS = [FULL, *(file.read_bytes() for file in sorted(EXAMPLES.glob("Context-*.xml")))]
METAS = [file.read_bytes() for file in sorted(EXAMPLES.glob("Services-*.xml"))]


def told_of(file: str, error: ConfigError) -> None:
    """Check that every fault has a place in the file or in a flag."""
    assert error.faults
    assert all(fault.startswith((file, "--")) for fault in error.faults), error.faults


def use(text: bytes) -> None:
    """Read a context file. If it is accepted, check it, draw it, write it as JSON, and start it in a
    world.
    """
    try:
        context = reader.parse(text, path="/nowhere/Context-Fuzz.xml", name="Fuzz")
    except ConfigError as error:
        told_of("/nowhere/Context-Fuzz.xml:", error)
        return
    assert all(isinstance(line, str) for line in checks.warnings(context))
    assert graph.dot(context)
    assert graph.mermaid(context)
    json.dumps(context.source, allow_nan=False)
    started = ft.SupervisorStarted(keeper_id="e", generated="T")
    world, effects = step(World(context=context), started, 1.0)
    launched = {effect.key[1] for effect in effects if isinstance(effect, fx.Launch)}
    assert launched == {task.id for task in context.tasks.values() if task.entry}
    again = reader.parse(text, path="/nowhere/Context-Fuzz.xml", name="Fuzz")
    assert again == context
    same, replied = step(world, ft.ContextReloaded(context=again, request=1), 2.0)
    (reply,) = [effect for effect in replied if isinstance(effect, fx.Reply)]
    assert reply.ok
    assert not [effect for effect in replied if isinstance(effect, fx.Launch | fx.Terminate)], (
        "the same file changes nothing"
    )
    assert same.tasks.keys() == world.tasks.keys()


def test_the_examples_themselves_are_accepted() -> None:
    accepted = reader.parse(FULL, path="/nowhere/Context-Fuzz.xml", name="Fuzz")
    assert set(accepted.tasks) == {"ts_1", "ts_2"}
    assert METAS


@pytest.mark.deadline(DEADLINE)
@given(trees_of(CONTEXTS))
@effort(1500)
def test_context_files_with_damaged_elements_are_refused_in_order(text: bytes) -> None:
    use(text)


@pytest.mark.deadline(DEADLINE)
@given(bytes_of(CONTEXTS) | st.binary(max_size=200))
@effort(2000)
def test_context_files_with_damaged_bytes_are_refused_in_order(text: bytes) -> None:
    use(text)


@pytest.mark.deadline(DEADLINE)
@given(text=trees_of(METAS) | bytes_of(METAS))
@effort(1200)
def test_damaged_metafiles_are_refused_in_order(
    text: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.getbasetemp()
    file = home / "Services.xml"
    file.write_bytes(text)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = parser.parse_args(["--xml_file", str(file), "--service_path", str(home / "made")])
    try:
        made, warnings = command.plan(arguments)
    except ConfigError as error:
        told_of(str(file), error)
        return
    except UsageError:
        return
    assert all(isinstance(line, str) for line in warnings)
    outcomes = list(command._file_plans(made))
    assert outcomes
    inside = home.resolve() / "made"
    assert all(inside in (outcome.path.resolve(), *outcome.path.resolve().parents) for outcome in outcomes), (
        "nothing is written elsewhere"
    )
    assert not inside.exists(), "a plan writes nothing"
    for outcome in outcomes:
        if outcome.path.suffix == ".py":
            compile(outcome.data, str(outcome.path), "exec")
        elif outcome.path.name.startswith("Context-"):
            use_made(outcome)


IMPORTED = [
    b"[supervisord]\nenvironment=A=\"b\"\n[program:web]\ncommand=serve -p 80%(process_num)02d 'a b' ; c\n"
    b"process_name=%(program_name)s_%(process_num)d\nnumprocs=2\nautorestart=true\nexitcodes=0,2\nstartretries=3\n"
    b'environment=C=%(ENV_C)s,D="%(here)s"\nuser=root\n[group:g]\nprograms=web\n[include]\nfiles=nothing*\n',
    b"[circus]\numask=022\n[env]\nA=b\n[watcher:web]\ncmd=serve $(circus.wid)\nargs=$(circus.env.A) $WID\nshell=1\n"
    b"numprocesses=2\nrlimit_nofile=5\nmax_retry=3\nstop_signal=INT\ngraceful_timeout=1\n[socket:s]\nport=1\n",
    b"# c\nweb: cd a && serve -p $PORT\njobs: work 'a b'\nrelease: true\n",
    b'[Unit]\nDescription=d %n\nAfter=a\n[Service]\nType=notify\nEnvironment="A=b c" D=e\nExecStart=-/bin/x ${A} $D \\\n y\n'
    b"ExecReload=/bin/kill -HUP $MAINPID\nRestart=always\nRestartSec=5\nLimitNOFILE=1:2\nSuccessExitStatus=1 TEMPFAIL\n",
]


@pytest.mark.deadline(DEADLINE)
@given(text=bytes_of(IMPORTED) | st.binary(max_size=200))
@effort(300)
def test_damaged_files_of_other_managers_become_contexts_that_load_or_are_refused(
    text: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "file"
    file.write_bytes(text)
    report, made, why = Report(), "", ""
    try:
        made = imported(file, "Fuzz", None, report)
    except UnreadableError as error:
        why = str(error)
    assert "would be faulty" not in why
    assert why or reader.parse(made.encode(), path="/nowhere/Context-Fuzz.xml", name="Fuzz").tasks
    assert all(line.startswith(f"{file}:") for line in report.lines())


def use_made(outcome: command.Outcome) -> None:
    """Check the context file that `create` would write. Its only fault is that its services do not exist
    yet.
    """
    try:
        reader.parse(outcome.data, path=str(outcome.path), name="Fuzz")
    except ConfigError as error:
        others = [fault for fault in error.faults if "location" not in fault]
        assert not others, others
