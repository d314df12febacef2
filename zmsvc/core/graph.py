"""Describe a context as a graph in the languages of Graphviz and Mermaid: tasks are nodes, rules are labeled
arrows. Replicas of a task are one node. Pure; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    for source, target, trigger, action, words in _arrows(context):
        style = "dashed" if action is Action.STOP else "solid"
        color = _STROKE[trigger]
        lines.append(
            f'  {names[source]} -> {names[target]} [label="{words}", style={style}, '
            f'color="{color}", fontcolor="{color}"];'
        )
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
    arrows = list(_arrows(context))
    for source, target, _, action, words in arrows:
        arrow = "-.->" if action is Action.STOP else "-->"
        lines.append(f"  {names[source]} {arrow}|{words}| {names[target]}")
    for index, (_, _, trigger, _, _) in enumerate(arrows):
        lines.append(f"  linkStyle {index} stroke:{_STROKE[trigger]}")
    for state, nodes in shown.items():
        lines.append(f"  classDef {state} fill:{FILL[state]},stroke:#555555,color:#000000")
        lines.append(f"  class {','.join(nodes)} {state}")
    return "\n".join(lines) + "\n"


def _arrows(context: Context) -> Iterator[tuple[str, str, Trigger, Action, str]]:
    rules = [(task.id, task.rules) for task in context.as_written.values()] + [(ANY, context.on_any_fail)]
    for here, of_one in rules:
        for rule in of_one:
            if rule.call in context.as_written:
                only = f", {rule.only}" if rule.only else ""
                words = f"{rule.trigger}: {rule.action}{only}"
                yield here, rule.call, rule.trigger, rule.action, words


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
