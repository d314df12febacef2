"""`zmsvcctl check --prove`: a counter-example names the lines of the rules, and the exit status says if there is
one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zmsvc.ctl.__main__ import main
from zmsvc.ctl.verbs.prove import ProofReport
from zmsvc.host.config import reader

Capture = pytest.CaptureFixture[str]
HEADER = "<header><action>start</action><service_name>x</service_name></header>"


def task(name: str, *rules: str, entry: bool = True, service: str = "") -> str:
    """Return a TaskService on two lines and one for each rule: `on_fail restart a`."""
    blocks = "".join(
        f"\n<{trigger}><action>{action}</action><call>{call}</call></{trigger}>"
        for trigger, action, call in map(str.split, rules)
    )
    return (
        f"<TaskService id='{name}' instance='{name}' serviceType='Command'><Task><message>{HEADER}<content>"
        f"<configuration><command>sleep 9</command></configuration></content></message>"
        f"<service>{service}</service><state type='{'on_start' if entry else ''}'>{blocks}\n"
        "</state></Task></TaskService>"
    )


def written(tmp_path: Path, *tasks: str, part: str = "") -> str:
    file = tmp_path / "Context-Web.xml"
    file.write_text("<Context>\n" + "\n".join(tasks) + "\n</Context>\n")
    if part:
        (tmp_path / "Context-Web.d").mkdir()
        (tmp_path / "Context-Web.d/more.xml").write_text(f"<Context>\n{part}\n</Context>\n")
    return str(file)


def told(capsys: Capture, file: str, status: int) -> dict[str, Any]:
    assert main(["--json", "check", "--prove", file]) == status
    (one,) = json.loads(capsys.readouterr().out)["files"]
    proof: dict[str, Any] = one["proof"]
    return proof


def test_a_context_is_proven(tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path, task("a", "on_fail restart a", service="<replicas>3</replicas>"))
    assert main(["check", "--prove", file]) == 0
    assert f"{file}: proven: every task can start" in capsys.readouterr().out
    proof = told(capsys, file, 0)
    assert (proof["proven"], proof["exhausted"], proof["violations"]) == (True, True, [])
    assert (proof["important"], proof["folded"]) == (["a@1", "a@2", "a@3"], 2)


def test_a_counter_example_has_a_timeline_the_lines_of_the_rules_and_a_way_out(
    tmp_path: Path, capsys: Capture
) -> None:
    part = task("b", "on_start stop c", entry=False)
    file = written(
        tmp_path, task("a", "on_fail restart a", "on_fail start b"), task("c", "on_fail restart c"), part=part
    )
    assert main(["check", "--prove", file]) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = "\n".join(lines)
    more = f"{tmp_path}/Context-Web.d/more.xml"
    assert f"{file}:2: after fail(a) c is not active again, but inactive (stopped)" in lines
    assert "  counter-example: start, then fail(a)" in lines
    assert f"  {file}:4: a on_fail:start:b" in lines
    assert f"  {more}:3: b on_start:stop:c" in lines
    assert "source=b" in shown
    assert "way out: let a rule start c again, or remove the one that stops it" in shown
    assert f"{file}: disproved" in lines[-1]
    (violation,) = told(capsys, file, 1)["violations"]
    assert violation["claim"] == "active-again"
    assert [each["place"] for each in violation["rules"]][-1] == f"{more}:3"
    assert violation["timeline"][0]["event"] == "launching"


def test_the_rule_of_an_option_has_the_line_of_its_task(tmp_path: Path, capsys: Capture) -> None:
    watched = "<watchdog>4s</watchdog><restart>on-watchdog</restart>"
    file = written(tmp_path, task("z", "on_fail restart z"), task("a", service=watched))
    (violation,) = told(capsys, file, 1)["violations"]
    assert (violation["tasks"], violation["rules"]) == ([{"id": "a", "place": f"{file}:5"}], [])


def test_a_task_that_may_stay_down_is_no_counter_example(tmp_path: Path, capsys: Capture) -> None:
    down = task("a", service="<important>no</important>")
    assert told(capsys, written(tmp_path, down, task("b", "on_fail restart b")), 0)["important"] == ["b"]


def test_a_bound_that_is_reached_is_told_and_is_no_proof(tmp_path: Path) -> None:
    tasks = [
        task(f"t{n}", f"on_fail restart t{n}", *([f"on_start start t{n + 1}"] if n < 9 else ()), entry=not n)
        for n in range(10)
    ]
    file = written(tmp_path, *tasks)
    report = ProofReport(reader.load(file), file, bound=500)
    (line,) = report.lines()
    assert line.startswith(
        f"{file}: not proven, and no counter-example found: the bound of 500 decisions was reached before all "
        "states were seen; each sequence of events was tried in which at most 1 task without an <on_exit> ends"
    )
    assert not report.found


def test_a_bad_file_is_not_tried(tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path, task("a", "on_fail restart z"))
    assert main(["check", "--prove", file]) == 2
    assert "on_fail calls" in capsys.readouterr().err


def test_a_placement_is_left_out_and_the_result_says_so(tmp_path: Path, capsys: Capture) -> None:
    hosts = "<hosts endpoint='tcp://10.0.0.9:5558'>h2 h3</hosts>"
    bus = "".join(
        f"<{name}>tcp://10.0.0.9:{port}</{name}>"
        for name, port in (("FrontEndEndpoint", 5556), ("BackendEndpoint", 5557))
    )
    placed = task("a", "on_fail restart a", service="<placement><host>h2</host></placement>")
    file = written(tmp_path, bus, hosts, placed, task("b"))
    assert main(["check", "--prove", file]) in (0, 1)
    line = f"{file}: assumed: all tasks run on one host: the <placement> of 1 is left out"
    assert line in capsys.readouterr().out.splitlines()
    main(["--json", "check", "--prove", file])
    (one,) = json.loads(capsys.readouterr().out)["files"]
    assert one["proof"]["placements_left_out"] == 1
    assert main(["simulate", file]) == 0
    assert capsys.readouterr().out.endswith("all tasks run on one host: the <placement> of 1 is left out\n")
    assert main(["--json", "simulate", file]) == 0
    assert json.loads(capsys.readouterr().out)["assumed"]["placements_left_out"] == 1
