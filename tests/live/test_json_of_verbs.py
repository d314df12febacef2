"""`--json` of every verb: one document a line, with the fields of docs/zmsvcctl.schema.json and no other.
`Context.ctl` checks each output; tests of single verbs do so as well.
"""

from __future__ import annotations

import json
import os
from typing import Any

import json_shapes
import pytest
from context import Context

from zmsvc.ctl.__main__ import main
from zmsvc.ctl.verb_table import VERBS

TX = "5HGAHZ3WPZUI71PACRPP"
INSIDE = {"publish", "update"}
"""The verbs of programs of a task, which other tests run."""
ENDLESS = {"watch"}
TASK = json_shapes.definitions()["task"]["properties"]


def test_every_verb_answers_with_the_documents_of_the_schema(
    context: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(context)
    file, seen = str(context.file), set(INSIDE | ENDLESS)

    for name in os.environ.keys() - context.environment.keys():
        monkeypatch.delenv(name)
    for name, value in context.environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, check: int = 0) -> Any:
        """Run zmsvcctl in this process, since 45 processes would take ten times as long."""
        arguments = ["-c", context.name, "--json", *words]
        capsys.readouterr()
        status = main(arguments)
        output, errors = capsys.readouterr()
        assert status == check, (words, status, output, errors)
        json_shapes.check_output(arguments, status, output)
        seen.add(words[0])
        documents = [json.loads(line) for line in output.splitlines()]
        assert documents, words
        return documents[-1]

    assert "ValueError" in run("start", "ts_2", check=1)["error"]
    (shown,) = run("status", check=3)["contexts"]
    (transaction,) = shown["transactions"]
    # A supervisor of this release sends all fields; `last` is of a context that does not run.
    assert all(task.keys() | {"last"} == TASK.keys() for task in transaction["tasks"])
    usage = {task["id"]: task["usage"] for task in transaction["tasks"]}
    assert usage["ts_1"]["memory_bytes"] > 1 << 20
    assert usage["ts_2"] is None
    for words in (
        ("list",), ("is-active", "ts_1"), ("is-enabled", "ts_1"), ("show", "ts_1"), ("show",), ("why", "ts_2"),
        ("stack", "ts_1"), ("wait", "--for", "active", "ts_1"), ("top",), ("metrics",), ("logs", "-n", "3"),
        ("logs", "--show-query"), ("events",), ("send", "price", '{"header": {}, "content": {}}'),
        ("quarantine", "list"), ("check", file), ("wiring", "--for", "0"), ("simulate", file, "--fail", "ts_1"),
        ("simulate", file, "--matrix"), ("units", "--user"), ("import", str(context.home / "Procfile")),
        ("create", "--service_path", str(context.home / "made"), "--command", "/bin/true"),
        ("restart", "ts_1"), ("restart", "--one-by-one", "ts_1"), ("signal", "CONT", "ts_1"), ("reload",),
        ("reload", "--dry-run"), ("is-failed", "ts_2"), ("reset-failed",), ("disable", "ts_1"),
        ("enable", "--now", "ts_1"), ("stop", "ts_1"), ("stop",), ("forget",), ("keys", "make"), ("keys", "list"),
        ("reexec",), ("cluster", "commands", "--ip", "10.0.0.9/24"),
    ):  # fmt: skip
        run(*words)
    graph_agrees(run("graph", context.name))
    run("report", "--yes", "--output", report := str(context.home / "report.tar.gz"))
    assert run("replay", "--step", report)["differing"] == 0
    run("status", "--at", "now")
    assert not run("check", "--prove", file, check=1)["files"][0]["proof"]["proven"]
    assert {each["level"] for each in run("cluster", "check", check=1)["findings"]} >= {"fault"}
    run("stop", "ts_9", check=4)
    run("exit")
    assert context.wait() == 0
    run("status", check=3)
    run("list")
    assert seen == {verb.name for verb in VERBS}


def begin(context: Context) -> None:
    """Start a context with a record, a task that runs, and one that cannot start."""
    context.looped("Echo", "topics = ('price',)\ndef on_message(self, message):\n    pass")
    context.looped("Bad", "def setup(self):\n    raise ValueError('no money')")
    context.task("ts_1", "Echo", rules={"on_fail": ("restart", "ts_1")})
    context.task(
        "ts_2", "Bad", entry=False, service="<after>ts_1</after>", rules={"on_exit": ("start", "ts_1")}
    )
    context.edit = lambda text: text.replace("<ContextID>", "<record>yes</record><ContextID>")
    context.start("--transaction", TX)
    (context.home / "Procfile").write_text("web: /bin/true\n")


def graph_agrees(graph: dict[str, Any]) -> None:
    assert [(task["id"], task["entry"]) for task in graph["tasks"]] == [("ts_1", True), ("ts_2", False)]
    assert {rule["id"] for rule in graph["rules"]} == {"ts_1:on_fail:restart:ts_1", "ts_2:on_exit:start:ts_1"}
    assert graph["order"] == [{"task": "ts_2", "kind": "after", "target": "ts_1"}]
    assert [(topic["topic"], topic["hearers"]) for topic in graph["topics"]] == [("price", ["ts_1"])]


def test_the_schema_has_every_verb_and_nothing_that_leads_nowhere() -> None:
    definitions = json_shapes.definitions()
    assert {verb.name for verb in VERBS} <= definitions.keys()
    text = json_shapes.SCHEMA.read_text()
    used = {name for name in definitions if f'"#/$defs/{name}"' in text}
    assert used <= definitions.keys()
    of_all_verbs = {"failure", "hosts", "host_line"}
    assert definitions.keys() - used - {verb.name for verb in VERBS} == of_all_verbs
