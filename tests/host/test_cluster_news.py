"""The supervisor asks the cluster about silent hosts, and takes a host for lost only if it is off for certain."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from zmsvc.core.facts import Fact, HostLost
from zmsvc.core.hosts import Host
from zmsvc.core.model import Context, DeviceEndpoints
from zmsvc.core.world import World
from zmsvc.supervisor.cluster_news import PATIENCE, ClusterNews

ENDS = DeviceEndpoints(
    subscribe_endpoint="ipc:///a",
    publish_endpoint="ipc:///b",
    publish_bind="ipc:///b",
    subscribe_bind="ipc:///a",
)
NODES = """<pacemaker-result><nodes>
<node name="h1" online="true" unclean="false"/>
<node name="h2" online="false" unclean="true"/>
<node name="h3" online="false" unclean="false"/>
<node name="h4" online="false" unclean="false"/>
</nodes><resources><resource><node name="h2" online="false" unclean="false"/></resource></resources>
</pacemaker-result>"""


@dataclass
class Taker:
    """A supervisor that knows h3, and never heard of h4."""

    world: World = field(
        default_factory=lambda: World(
            context=Context(name="C", id="c", log_name="C", endpoints=ENDS, tasks={}),
            transactions={},
            tasks={},
            hosts={"h3": Host(epoch="e3")},
        )
    )
    taken: list[Fact] = field(default_factory=list)

    def take(self, *facts: Fact) -> None:
        self.taken += facts


@pytest.fixture
def crm_mon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program of the cluster, without content."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "crm_mon"


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def asked(*silent: str, patience: float = PATIENCE) -> list[Fact]:
    """Return the facts that follow from one question about silent hosts."""
    taker = Taker()

    async def ask() -> None:
        news = ClusterNews(taker, lambda: list(silent), patience)
        news.follow()
        if news._work is not None:
            await news._work
        news.close()

    asyncio.run(ask())
    return taker.taken


def test_only_a_host_that_is_off_for_certain_is_lost(crm_mon: Path) -> None:
    write(crm_mon, f"cat <<'END'\n{NODES}\nEND")
    assert asked("h1", "h2", "h3", "h4") == [HostLost(host="h3", epoch="e3"), HostLost(host="h4", epoch="")]
    assert asked("h2") == []


def test_the_cluster_is_not_asked_while_no_host_is_silent(crm_mon: Path, tmp_path: Path) -> None:
    write(crm_mon, f"touch {tmp_path}/asked")
    assert asked() == []
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("script", ["exit 102", "echo no XML", "echo '<pacemaker-result/>'"])
def test_without_a_readable_answer_nothing_is_lost(
    crm_mon: Path, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(crm_mon, script)
    assert asked("h3") == []
    assert ("its tasks stay as they are" in caplog.text) is ("result" not in script)


def test_a_cluster_that_does_not_answer_is_given_up(crm_mon: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(crm_mon, "exec sleep 1000")
    assert asked("h3", patience=0.1) == []
    assert "crm_mon takes longer than 0.1 s" in caplog.text


def test_without_pacemaker_the_log_says_why_nothing_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked("h3") == []
    assert "Cannot ask the cluster whether h3 is off: crm_mon is not installed" in caplog.text
