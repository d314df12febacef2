"""Read a context file and the files of its directory to `core.model`, with each fault as `FILE:LINE: what is
wrong, what was expected`, all in one pass.

A bad value is noted and replaced by its default, so that one fault never hides another. Reading changes
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmsvc.core import listening
from zmsvc.core.access import BusAccess
from zmsvc.core.checks import ConfigWarning, Fault, faults
from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.core.expansion import expand
from zmsvc.core.model import MAX_TRANSACTIONS, Context, ContextPart, DeviceEndpoints, Rule, Trigger
from zmsvc.core.placement import ListedHosts
from zmsvc.core.placement_checks import placement_faults
from zmsvc.core.values import (
    TASK_ID,
    WHITE,
    BoundEndpoints,
    Endpoint,
    boolean,
    endpoint,
    quote,
    timespan,
    whole,
)
from zmsvc.host import paths
from zmsvc.host.config import context_files, listed_hosts, settings_lines
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.file_bytes import MAX_SIZE
from zmsvc.host.config.merged_tree import MergedTree, merged
from zmsvc.host.config.preflight import check_binds, check_ports, check_services
from zmsvc.host.config.rule_places import places_of
from zmsvc.host.config.schema import explain, passed_over
from zmsvc.host.config.task_service import ParsedService, note_rules_that_never_fire, read_rules, read_service
from zmsvc.host.config.xml_text import leaf, lines, shared, text_of, to_json, tree

if TYPE_CHECKING:
    from lxml import etree

__all__ = [
    "MAX_SIZE",
    "SCHEMA",
    "check_binds",
    "check_ports",
    "check_services",
    "lines_of",
    "load",
    "parse",
    "placed",
    "timespan",
    "to_json",
]

SCHEMA = Path(__file__).parents[2] / "data" / "context.rng"
"""The published schema of context files, in RELAX NG."""

_DEFAULT_ID = "context001"


def load(path: str | Path, *, name: str | None = None) -> Context:
    """Read a context file. The name of the context is NAME for `Context-NAME.xml`, and the stem of any other
    file name. Raises ConfigError.
    """
    shown = os.fspath(path)
    try:
        files = context_files.read(path)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError([f"{shown}:1: cannot read the file ({why}), expected a context file"]) from error
    name = name or Path(path).stem.removeprefix("Context-")
    return parse(files.text, path=shown, name=name, parts=files.parts)


def parse(text: bytes, *, path: str, name: str, parts: Sequence[ContextPart] = ()) -> Context:
    """Read a context from the bytes of its file and of the files of its directory. `path` is for messages,
    and relative paths in all files lead from its directory. Raises ConfigError.
    """
    size = 0
    for file, data in ((path, text), *((each.path, each.text) for each in parts)):
        size += len(data)
        if size > MAX_SIZE:
            files = "file is" if file == path else "files of the context are together"
            raise ConfigError([f"{file}:1: the {files} too large, expected at most {MAX_SIZE >> 20} MiB"])
    whole = merged(text, path, parts)
    root = whole.root
    schema = _schema()
    notes = FaultList(found=[*whole.faults])
    # The schema is fast and complete, but its messages do not help. `explain` is slower.
    valid = schema.validate(root)
    if not valid:
        notes.found += explain(root)
    if root.tag != "Context":
        raise whole.errors(notes.found)
    unknown, misspelled = passed_over(root)
    notes.found += misspelled
    folder = os.path.dirname(os.path.abspath(path))
    elements = root.findall("TaskService")
    source = shared(_without_secrets(to_json(root), len(elements)))
    sources = _sources(source, len(elements))
    reads = [read_service(*pair, notes, folder) for pair in zip(elements, sources, strict=True)]
    ends, places = _endpoints(root, notes, name)
    settings = _settings(root, places, notes)
    _monitors(reads, places, notes)
    any_fail = list(read_rules(root, (Trigger.ON_ANY_FAIL,), notes))
    note_rules_that_never_fire(any_fail, [read.task for read in reads], notes)
    _check_across(whole, reads, any_fail, places, notes)
    _check_placements(whole, reads, settings["listed"], places, notes)
    if not notes.found and not valid:
        # This happens only if the schema is stricter than `explain`. A test compares the two.
        notes.fault(
            root,
            f"the schema refuses the file ({schema.error_log[0].message}), expected what context.rng says",
        )
    if notes.found:
        raise whole.errors(notes.found)
    warnings = [*unknown, *notes.warnings]
    passed = whole.lined(warnings) if warnings else [()] * (1 + len(parts))
    written = {read.task.id: read.task for read in reads}
    return Context(
        name=name,
        id=text_of(root.find("ContextID")) or _DEFAULT_ID,
        log_name=text_of(root.find("TaskLogName")) or name,
        endpoints=ends,
        tasks=expand(written.values()),
        path=os.path.abspath(path),
        **settings,
        on_any_fail=tuple(rule for rule, _ in any_fail),
        source=source,
        text=text,
        passed_over=passed[0],
        written=written,
        parts=tuple(replace(part, passed_over=odd) for part, odd in zip(parts, passed[1:], strict=True)),
    )


def _schema() -> etree.RelaxNG:
    # Only here: the supervisor has these modules without lxml, see separate_reader.py.
    from lxml import etree

    return etree.RelaxNG(etree.parse(SCHEMA))


def lines_of(context: Context) -> tuple[dict[str, tuple[str, int]], dict[str, int]]:
    """Return the file and line at which each task of a context begins, by their IDs, and the lines of its
    other elements, by their names. The file is empty for the context file itself.
    """
    root = tree(context.text, context.path)
    line = lines(context.text, root)
    tasks = {_id(each): ("", line[each]) for each in root.findall("TaskService")}
    for part in context.parts:
        added = tree(part.text, part.path)
        line_of_part = lines(part.text, added)
        tasks |= {_id(each): (part.path, line_of_part[each]) for each in added.findall("TaskService")}
    return tasks, {str(each.tag): line[each] for each in (root, *root) if each.tag != "TaskService"}


def placed(context: Context, found: Sequence[ConfigWarning]) -> list[ConfigWarning]:
    """Add file and line to each warning about an element of a file. To find the lines takes time, and most
    files have no warnings.
    """
    tasks, elements = lines_of(context) if found else ({}, {})
    rules = places_of(context, "").rules if any(each.rule for each in found) else {}
    settings = []
    if any(each.setting for each in found):
        settings = settings_lines.of_context(context.text, "", context.parts)
    placed = []
    for each in found:
        file, line = tasks.get(each.task, ("", elements.get(each.element, 0)))
        if each.rule:
            # An option of the task may stand for the rule, which then has no place of its own.
            file, line = rules.get((each.task, each.rule), (file, line))
        if each.setting:
            place = ((each.setting, 0),)
            line = next((one.line(each.task, place) for one in settings if one.has(each.task)), line)
        placed.append(each if each.line else replace(each, file=file, line=line))
    return placed


def _id(task: etree._Element) -> str:
    return str(task.get("id")).strip(WHITE)


def _sources(source: Any, count: int) -> list[Any]:
    """Return the JSON of each of the `count` tasks, in the order of the file. The list is longer in a bad
    file with an attribute TaskService, whose value comes first.
    """
    found = source.get("TaskService") if isinstance(source, dict) else None
    tasks = found if isinstance(found, list) else [found]
    return tasks[len(tasks) - count :]


def _without_secrets(source: Any, count: int) -> Any:
    for each in _sources(source, count):
        _keep_secret(each)
    return source


def _keep_secret(source: Any) -> None:
    """Remove the environment and its files from the JSON of a task, which the supervisor publishes on the
    bus. Both are for the task alone.
    """
    inner = source.get("Task") if isinstance(source, dict) else None
    for task in inner if isinstance(inner, list) else [inner]:
        service = task.get("service") if isinstance(task, dict) else None
        for each in service if isinstance(service, list) else [service]:
            if isinstance(each, dict):
                each.pop("environment", None)
                each.pop("environment_file", None)


@dataclass(slots=True, kw_only=True)
class _Places:
    """The endpoints of a context that could be read. `four` has them by the names of their elements; `bound`
    has each endpoint that is bound, as messages show it; `of_hosts` is the bind of `<hosts>`.
    """

    four: dict[str, Endpoint] = field(default_factory=dict)
    bound: BoundEndpoints[str] = field(default_factory=BoundEndpoints)
    of_hosts: Endpoint | None = None


def _bound(text: str) -> Endpoint | None:
    return endpoint(text, bind=True)


def _connected(text: str) -> Endpoint | None:
    return endpoint(text, bind=False)


def _settings(root: etree._Element, places: _Places, notes: FaultList) -> dict[str, Any]:
    """Return fields of the context that one element or attribute has."""
    listed, places.of_hosts = listed_hosts.read(root, places.bound, notes)
    return {
        "bus_access": _bus_access(root, notes),
        "max_transactions": _max_transactions(root, notes),
        "record": _record(root, notes),
        "listed": listed,
    }


def _bus_access(root: etree._Element, notes: FaultList) -> BusAccess:
    given = str(root.get("bus_access", BusAccess.MEMBERS)).strip(WHITE)
    if given not in set(BusAccess):
        notes.fault(root, f"the bus_access {quote(given)} is unknown, expected members or anyone")
        return BusAccess.MEMBERS
    return BusAccess(given)


def _max_transactions(root: etree._Element, notes: FaultList) -> int:
    element = root.find("max_transactions")
    return (
        MAX_TRANSACTIONS
        if element is None
        else notes.value(element, lambda text: whole(text, 1, 1_000_000), MAX_TRANSACTIONS)
    )


def _record(root: etree._Element, notes: FaultList) -> bool:
    element = root.find("record")
    return False if element is None else notes.value(element, boolean, False)


def _left_out(root: etree._Element, notes: FaultList, name: str) -> dict[str, str]:
    """Return the endpoints for a file that names none: sockets in the runtime directory, which only the user
    and the group of the daemon can open.
    """
    named = [tag for tag in ("FrontEndEndpoint", "BackendEndpoint") if root.find(tag) is not None]
    if len(named) == 1:
        other = "BackendEndpoint" if named == ["FrontEndEndpoint"] else "FrontEndEndpoint"
        notes.fault(root, f"<Context> has <{named[0]}> and no <{other}>, expected both or neither")
    if named:
        return {}
    try:
        # If a user asks about a context of the system, these are the sockets of the system.
        where = paths.control_socket(name).parent
        found = {"FrontEndEndpoint": f"ipc://{where}/sub", "BackendEndpoint": f"ipc://{where}/pub"}
        for text in found.values():
            endpoint(text, bind=True)
    except (ValueError, PlaceError) as error:
        notes.fault(
            root, f"<Context> has no endpoints, and those in the runtime directory cannot be used: {error}"
        )
        return {}
    return found


def _endpoints(root: etree._Element, notes: FaultList, name: str) -> tuple[DeviceEndpoints, _Places]:
    places = _Places()
    given: dict[str, str] = {}
    defaults = _left_out(root, notes, name)
    for connect, bind in (("FrontEndEndpoint", "BackendBind"), ("BackendEndpoint", "FrontBind")):
        if connect in defaults:
            places.four[connect] = endpoint(defaults[connect], bind=False)
        given[connect] = text_of(root.find(connect)) or defaults.get(connect, "")
        # By default the device binds the endpoint to which clients connect.
        given[bind] = text_of(root.find(bind)) or given[connect]
        for tag in (connect, bind):
            element = root.find(tag)
            if element is None or not (leaf(element) or tag == connect):
                continue
            read = _bound if tag == bind else _connected
            if place := notes.value(element, read, None):
                places.four[tag] = place
    for tag in ("FrontBind", "BackendBind"):
        other = "BackendEndpoint" if tag == "FrontBind" else "FrontEndEndpoint"
        if place := places.four.get(tag) or (None if text_of(root.find(tag)) else places.four.get(other)):
            places.bound.add(place, f"{tag} {place}")
    ends = DeviceEndpoints(
        subscribe_endpoint=given["FrontEndEndpoint"],
        publish_endpoint=given["BackendEndpoint"],
        publish_bind=given["FrontBind"],
        subscribe_bind=given["BackendBind"],
    )
    return ends, places


def _monitors(reads: Sequence[ParsedService], places: _Places, notes: FaultList) -> None:
    """Note each Monitor whose own endpoint collides with one of the device or of another Monitor."""
    for read in reads:
        if read.task.instance != "Monitor" or read.configuration is None:
            continue
        for tag in ("service", "publisher"):
            element = read.configuration.find(f"{tag}/endpoint")
            place = None if element is None else notes.value(element, _bound, None)
            if element is None or place is None:
                continue
            if (read.task.replicas or 1) > 1:
                notes.fault(
                    element,
                    f"<endpoint> {place} is for one process, and the task has {read.task.replicas} replicas, "
                    f"expected none",
                )
            if other := places.bound.first_collision(place):
                notes.fault(
                    element, f"<endpoint> {place} collides with {other}, expected another port or path"
                )
            places.bound.add(place, f"the endpoint of {read.task.id} {place}")


def _check_across(
    whole: MergedTree,
    reads: Sequence[ParsedService],
    any_fail: Sequence[tuple[Rule, etree._Element]],
    places: _Places,
    notes: FaultList,
) -> None:
    """Note the faults between elements, each at the element where the author of the file looks for it."""
    root = whole.root
    ident = root.find("ContextID")
    if ident is not None and leaf(ident) and not TASK_ID.fullmatch(leaf(ident)):
        notes.fault(
            ident, f"<ContextID> {quote(leaf(ident))} is no id, expected 1 to 64 of A-Z a-z 0-9 _ . -"
        )
    rules = [rule for rule, _ in any_fail]
    for fault in faults([read.task for read in reads], places.four, rules, places.of_hosts):
        _note(whole, reads, any_fail, fault, notes)


def _check_placements(
    whole: MergedTree, reads: Sequence[ParsedService], listed: ListedHosts, places: _Places, notes: FaultList
) -> None:
    if listed.names or whole.root.find("hosts") is None:
        for fault in placement_faults([read.task for read in reads], listed, places.four):
            _note(whole, reads, (), fault, notes)


def _note(
    whole: MergedTree,
    reads: Sequence[ParsedService],
    any_fail: Sequence[tuple[Rule, etree._Element]],
    fault: Fault,
    notes: FaultList,
) -> None:
    """Note a fault at the element that it is about."""
    root = whole.root
    element = root.find(fault.element) if fault.element else None
    if fault.task is not None:
        read = reads[fault.task]
        element = read.element if fault.rule is None else read.rules[fault.rule]
        if fault.option:
            element = _option_element(read, fault.option, fault.word, fault.number)
    elif fault.rule is not None:
        element = any_fail[fault.rule][1]
    other = ""
    if fault.other is not None:
        there = reads[fault.other]
        place = there.element
        if fault.other_number is not None:
            place = _option_element(there, fault.option, "", fault.other_number)
        other = f" (see {whole.place(place)})"
    elif fault.other_element and (owner := root.find(fault.other_element)) is not None:
        other = f" (see {whole.place(owner)})"
    notes.fault(root if element is None else element, f"{fault.text}{other}")


def _option_element(read: ParsedService, option: str, word: str, number: int | None) -> etree._Element:
    """Return the element of an option that has this word or this index; options may be repeated."""
    found = read.element.findall(f"Task/service/{option}")
    if number is not None:
        # The task that was read lacks the elements whose address is itself a fault.
        found = [each for each in found if _is_address(text_of(each))]
        return found[number] if number < len(found) else read.element
    return next((each for each in found if not word or word in text_of(each).split()), read.element)


def _is_address(text: str) -> bool:
    try:
        listening.address(text)
    except ValueError:
        return False
    return True
