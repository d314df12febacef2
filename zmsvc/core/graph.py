"""Describe a context as a graph in the languages of Graphviz and Mermaid: tasks are nodes, rules are labeled
arrows. Lines that end in a circle lead from a task to those that it comes after or requires. Thick arrows are
messages, with their topics. Replicas of a task are one node. Pure; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from zmsvc.core.cause import rule_text
from zmsvc.core.frozen import frozen
from zmsvc.core.model import Action, Context, TaskDefinition, Trigger
from zmsvc.core.wiring import Topic

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
    Trigger.ON_RECOVER: "#00796b",
}


_ORDER = "#8a6d00"
"""The color of the lines to the tasks in `<after>` and `<requires>`."""
_MESSAGE = "#6a3d9a"
"""The color of messages."""
OTHERS = "other clients"
"""The node of the clients of the bus that are no tasks with a class."""


@frozen
class _Edge:
    """A line from a task to another one; `dot` and `mermaid` are its style in each language."""

    source: str
    target: str
    words: str
    color: str
    dot: str = "style=solid"
    mermaid: str = "-->"


@frozen
class Shown:
    """The parts of a context that a graph shows."""

    topics: Sequence[Topic] = ()
    """The messages."""
    seconds: float = 0.0
    """The time over which messages were counted; 0 if they were not."""
    rules: bool = True
    """False for messages alone."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """The other hosts on which tasks run now, by the IDs of these tasks."""


_RULES = Shown()


def dot(context: Context, states: Mapping[str, State] | None = None, shown: Shown = _RULES) -> str:
    """Return the context in Graphviz's language. `states` colors tasks by ID. Entry tasks have a double
    border, and stopping rules are dashed.
    """
    known = _states(context, states)
    names = _names(context, shown)
    lines = [
        f"digraph {_dot(context.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    for task in context.as_written.values():
        state = known.get(task.id)
        label = _dot("\n".join(_label(context, task, state, shown)))
        border = 2 if task.entry else 1
        fill = FILL.get(state or "", _PLAIN)
        lines.append(f'  {names[task.id]} [label={label}, peripheries={border}, fillcolor="{fill}"];')
    lines += [f"  {names[each]} [label={_dot(each)}, shape=plaintext, style=solid];" for each in _odd(names)]
    lines += [
        f"  {names[edge.source]} -> {names[edge.target]} [label={_dot(edge.words)}, {edge.dot}, "
        f'color="{edge.color}", fontcolor="{edge.color}"];'
        for edge in _edges(context, shown)
    ]
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(context: Context, states: Mapping[str, State] | None = None, shown: Shown = _RULES) -> str:
    """Return the context as a Mermaid flow chart. Entry tasks have round ends, stopping rules are dotted, and
    `states` colors tasks by ID.
    """
    known = _states(context, states)
    names = _names(context, shown)
    lines = ["flowchart LR"]
    in_state: dict[State, list[str]] = {}
    for task in context.as_written.values():
        state = known.get(task.id)
        label = "<br/>".join(_mermaid(line) for line in _label(context, task, state, shown))
        left, right = ('(["', '"])') if task.entry else ('["', '"]')
        lines.append(f"  {names[task.id]}{left}{label}{right}")
        if state:
            in_state.setdefault(state, []).append(names[task.id])
    lines += [f"  {names[each]}[/{_mermaid(each)}/]" for each in _odd(names)]
    edges = list(_edges(context, shown))
    for edge in edges:
        words = edge.words if edge.color != _MESSAGE else f'"{_mermaid(edge.words)}"'
        lines.append(f"  {names[edge.source]} {edge.mermaid}|{words}| {names[edge.target]}")
    for index, edge in enumerate(edges):
        lines.append(f"  linkStyle {index} stroke:{edge.color}")
    for state, nodes in in_state.items():
        lines.append(f"  classDef {state} fill:{FILL[state]},stroke:#555555,color:#000000")
        lines.append(f"  class {','.join(nodes)} {state}")
    return "\n".join(lines) + "\n"


def as_json(
    context: Context, states: Mapping[str, State] | None = None, shown: Shown = _RULES
) -> dict[str, Any]:
    """Return tasks, rules and order as data. A rule keeps its ID until it changes. The history event of its
    firing has the same words in `source` and `rule`.
    """
    known = _states(context, states)
    tasks = [
        {
            "id": task.id,
            "name": task.service_name,
            "instance": task.instance,
            "description": task.description,
            "type": task.service_type.value,
            "entry": task.entry,
            "replicas": task.replicas,
            "placement": _placement_as_json(task),
            "hosts": _hosts_of(context, task, shown),
            "state": known.get(task.id),
        }
        for task in context.as_written.values()
    ]
    rules = {each["id"]: each for each in _rules_as_json(context)}
    order = [
        {"task": task.id, "kind": "requires" if name in task.requires else "after", "target": name}
        for task in context.as_written.values()
        for name in task.predecessors
        if name in context.as_written
    ]
    return {"tasks": tasks, "rules": [*rules.values()], "order": order}


def _rules_as_json(context: Context) -> Iterator[dict[str, Any]]:
    written = context.as_written.values()
    sources = [*((task.id, task.rules) for task in written), (None, context.on_any_fail)]
    for source, rules in sources:
        for rule in rules:
            only = rule.only.value if rule.only else None
            words = (source or "", rule_text(rule), *([only] if only else []))
            yield {
                "id": ":".join(words),
                "source": source,
                "trigger": rule.trigger.value,
                "action": rule.action.value,
                "target": rule.call,
                "only": only,
                "when": " ".join(map(str, rule.when)) or None,
                "after": str(rule.after) if rule.after else None,
            }


def _names(context: Context, shown: Shown) -> dict[str, str]:
    """Return the names of all nodes: the tasks, and the two nodes that are no tasks, if lines lead to or from
    them.
    """
    names = {task: f"n{index}" for index, task in enumerate(context.as_written)}
    count = len(names)
    if shown.rules and context.on_any_fail:
        names[ANY] = f"n{count}"
    if any(OTHERS in (each.source, each.target) for each in _messages(context, shown)):
        names[OTHERS] = f"n{count + 1}"
    return names


def _odd(names: Mapping[str, str]) -> list[str]:
    return [each for each in (ANY, OTHERS) if each in names]


def _messages(context: Context, shown: Shown) -> Iterator[_Edge]:
    """Yield a line for each topic from each publisher to each subscriber. If the context has only publishers
    or only subscribers of a topic, the node of other clients takes the missing side.
    """
    for topic in shown.topics:
        senders = {each.task if each.task in context.as_written else OTHERS: each for each in topic.senders}
        hearers = [each if each in context.as_written else OTHERS for each in topic.hearers]
        for source in senders or (OTHERS,):
            words = topic.name
            if shown.seconds and source in senders and senders[source].count:
                each = senders[source]
                words += f" ({each.count / shown.seconds:.1f}/s, {each.size} B)"
            for target in hearers or (OTHERS,):
                yield _Edge(
                    source=source,
                    target=target,
                    words=words,
                    color=_MESSAGE,
                    dot="style=bold, arrowhead=vee",
                    mermaid="==>",
                )


def _edges(context: Context, shown: Shown) -> Iterator[_Edge]:
    if shown.rules:
        yield from _of_rules(context)
    yield from _messages(context, shown)


def _of_rules(context: Context) -> Iterator[_Edge]:
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
                more = [str(each) for each in (rule.only, rule.conditions) if each]
                stops = rule.action is Action.STOP
                yield _Edge(
                    source=here,
                    target=rule.call,
                    words=", ".join([f"{rule.trigger}: {rule.action}", *more]),
                    color=_STROKE[rule.trigger],
                    dot="style=dashed" if stops else "style=solid",
                    mermaid="-.->" if stops else "-->",
                )


def _label(context: Context, task: TaskDefinition, state: State | None, shown: Shown) -> list[str]:
    count = [f"{task.replicas} replicas"] if task.replicas is not None else []
    place = _placement_lines(task)
    if on := _hosts_of(context, task, shown):
        place[:1] = [f"on {', '.join(on)}"]
    return [task.id, task.instance, *count, *([state] if state else []), *place]


def _placement_lines(task: TaskDefinition) -> list[str]:
    """Return the placement of a task, its hosts in the first line."""
    if task.placement is None:
        return []
    lines = [f"for {', '.join(task.placement.hosts) or 'any host'}"]
    for word, names in (("apart from", task.placement.apart), ("with", task.placement.together)):
        lines += [f"{word} {', '.join(names)}"] if names else []
    return lines


def _placement_as_json(task: TaskDefinition) -> dict[str, Any] | None:
    placement = task.placement
    if placement is None:
        return None
    return {"hosts": [*placement.hosts], "apart": [*placement.apart], "with": [*placement.together]}


def _hosts_of(context: Context, task: TaskDefinition, shown: Shown) -> list[str]:
    """Return the other hosts on which a task or its replicas run now."""
    return sorted({shown.hosts[name] for name in context.named(task.id) if name in shown.hosts})


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
