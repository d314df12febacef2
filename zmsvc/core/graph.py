"""Describe a context as a graph in the languages of Graphviz and Mermaid: tasks are nodes, rules are labeled
arrows. Lines that end in a circle lead from a task to those that it comes after or requires. Replicas of a
task are one node. Pure; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zmsvc.core.model import Action, Context, TaskService, Trigger

State = str
"""A state in systemd's words: inactive, activating, active, deactivating, failed."""

FILL: Mapping[State, str] = {
    "inactive": "#e4e4e4",
    "activating": "#fff2b3",
    "active": "#c8ecc0",
    "deactivating": "#fbd9a8",
    "failed": "#f6b8b0",
}
ANY = "any task"
"""The node from which the rules of the context lead. It cannot be the ID of a task, which has no blank."""
_PLAIN = "#ffffff"
_STROKE: Mapping[Trigger, str] = {
    Trigger.ON_START: "#2a7d2e",
    Trigger.ON_UPDATE: "#2b5fa8",
    Trigger.ON_FAIL: "#b3261e",
    Trigger.ON_ANY_FAIL: "#b3261e",
    Trigger.ON_EXIT: "#555555",
}


_ORDER = "#8a6d00"
"""The color of the lines to the tasks in `<after>` and `<requires>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """A line from a task to another one; `dot` and `mermaid` are its style in each language."""

    source: str
    target: str
    words: str
    color: str
    dot: str = "style=solid"
    mermaid: str = "-->"


def dot(context: Context, states: Mapping[str, State] | None = None) -> str:
    """Return the context in Graphviz's language. `states` colors tasks by ID. Entry tasks have a double
    border, and stopping rules are dashed.
    """
    known = _states(context, states)
    names = {task: f"n{index}" for index, task in enumerate([*context.as_written, ANY])}
    lines = [
        f"digraph {_dot(context.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    for task in context.as_written.values():
        state = known.get(task.id)
        label = _dot("\n".join(_label(task, state)))
        border = 2 if task.entry else 1
        fill = FILL.get(state or "", _PLAIN)
        lines.append(f'  {names[task.id]} [label={label}, peripheries={border}, fillcolor="{fill}"];')
    if context.on_any_fail:
        lines.append(f"  {names[ANY]} [label={_dot(ANY)}, shape=plaintext, style=solid];")
    lines += [
        f'  {names[edge.source]} -> {names[edge.target]} [label="{edge.words}", {edge.dot}, '
        f'color="{edge.color}", fontcolor="{edge.color}"];'
        for edge in _edges(context)
    ]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(context: Context, states: Mapping[str, State] | None = None) -> str:
    """Return the context as a Mermaid flow chart. Entry tasks have round ends, stopping rules are dotted, and
    `states` colors tasks by ID.
    """
    known = _states(context, states)
    names = {task: f"n{index}" for index, task in enumerate([*context.as_written, ANY])}
    lines = ["flowchart LR"]
    shown: dict[State, list[str]] = {}
    for task in context.as_written.values():
        state = known.get(task.id)
        label = "<br/>".join(_mermaid(line) for line in _label(task, state))
        left, right = ('(["', '"])') if task.entry else ('["', '"]')
        lines.append(f"  {names[task.id]}{left}{label}{right}")
        if state and state in FILL:
            shown.setdefault(state, []).append(names[task.id])
    if context.on_any_fail:
        lines.append(f"  {names[ANY]}[/{_mermaid(ANY)}/]")
    edges = list(_edges(context))
    for edge in edges:
        lines.append(f"  {names[edge.source]} {edge.mermaid}|{edge.words}| {names[edge.target]}")
    for index, edge in enumerate(edges):
        lines.append(f"  linkStyle {index} stroke:{edge.color}")
    for state, nodes in shown.items():
        lines.append(f"  classDef {state} fill:{FILL[state]},stroke:#555555,color:#000000")
        lines.append(f"  class {','.join(nodes)} {state}")
    return "\n".join(lines) + "\n"


def _edges(context: Context) -> Iterator[_Edge]:
    yield from _arrows(context)
    for task in context.as_written.values():
        for name in task.predecessors:
            if name in context.as_written:
                # `predecessors` has both: a task also comes after those that it requires.
                words = "requires" if name in task.requires else "after"
                yield _Edge(
                    source=task.id,
                    target=name,
                    words=words,
                    color=_ORDER,
                    dot="style=solid, arrowhead=odot",
                    mermaid="--o",
                )


def _arrows(context: Context) -> Iterator[_Edge]:
    rules = [(task.id, task.rules) for task in context.as_written.values()] + [(ANY, context.on_any_fail)]
    for here, of_one in rules:
        for rule in of_one:
            if rule.call in context.as_written:
                only = f", {rule.only}" if rule.only else ""
                stops = rule.action is Action.STOP
                yield _Edge(
                    source=here,
                    target=rule.call,
                    words=f"{rule.trigger}: {rule.action}{only}",
                    color=_STROKE[rule.trigger],
                    dot="style=dashed" if stops else "style=solid",
                    mermaid="-.->" if stops else "-->",
                )


def _label(task: TaskService, state: State | None) -> list[str]:
    count = [f"{task.replicas} replicas"] if task.replicas is not None else []
    return [task.id, task.instance, *count, *([state] if state else [])]


_WORST_FIRST = ("failed", "deactivating", "activating", "inactive", "active")


def _states(context: Context, states: Mapping[str, State] | None) -> Mapping[str, State]:
    """Return the states by the IDs in the file. That of replicas is the worst one."""
    found: dict[str, State] = {}
    for name in context.as_written if states else ():
        own = {(states or {}).get(task) for task in context.named(name)}
        if worst := next((each for each in _WORST_FIRST if each in own), None):
            found[name] = worst
    return found


def _dot(text: str) -> str:
    """Return a quoted string for Graphviz, in which only the quote is special. Labels also interpret `\\n`
    and similar escapes.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _mermaid(text: str) -> str:
    """Return a text for use between quotes in Mermaid, which writes entities with `#` in place of `&`."""
    special = {
        "#": "#35;",
        '"': "#quot;",
        "<": "#lt;",
        ">": "#gt;",
        "&": "#amp;",
        "`": "#96;",
        "\n": " ",
        "\r": " ",
    }
    return "".join(special.get(letter, letter) for letter in text)
