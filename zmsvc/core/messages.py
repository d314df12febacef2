"""The messages on the bus: the conversion of bytes to a topic and a body and back, and the form of each body.
This module neither decides nor sends.

A message is one ZMQ frame, `TOPIC @@@ JSON` in UTF-8. zmsvc's own JSON is compact, with `header` first and
its keys in a fixed order. So the device can filter by a ZMQ prefix subscription such as `control @@@
{"header":{"service_transaction":"TX"`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from zmsvc.core.errors import ProtocolError, UsageError
from zmsvc.core.frozen import frozen
from zmsvc.core.json_depth import check_depth
from zmsvc.core.updates import result_of

SEPARATOR = b" @@@ "
LOADED = ("", "none")
"""The service IDs by which a `context` message addresses the loaded context. conf_command.py of
zmicroservices 1.0 sends `none` if it has no --service_id.
"""

UNHEARD_ORDERS = b"unheard."
"""The prefix of the topic on which the device tells a supervisor how many orders arrived while none was
connected; the supervisor's origin follows.

In byte order it is the last of the topics of a supervisor. libzmq passes subscriptions on in that order, so a
publisher that has this one has all of them.
"""
PUBLISHED = "published"
"""The action in the header of a message of a task."""
LAST_NUMBER = "zmsvc.sequence."
"""The prefix of the topic on which a task that has fallen silent repeats the number of its last message; the
topic of that message follows. So a subscriber notices that it has missed the last message. Other clients
subscribe to the topic alone and do not receive it.
"""
RECIPIENT = "recipient"
"""The key in the header of a message that is for one task alone, with the ID of that task."""
HEADER_ORDER = ("service_transaction", "service_id", "action", "service_name")
MAX_ECHO = 4096
"""Maximum bytes of a request's header, which the answer repeats."""
MAX_FRAME = 16 << 20
"""The most bytes of a message. Without a limit one peer could make the device allocate any amount."""
MAX_TOPIC = 1000
"""The most bytes of a topic. The device ends the connection of a client that subscribes to more than 1,024
bytes, each time that it connects.
"""
MAX_INFO = 1 << 20
"""The limit in bytes of one round of `context_info` messages. Up to this size each message contains all
transactions.
"""

Body = dict[str, Any]


dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""Encodes a value as compact JSON, for the bus and for the state file."""


def prefix(topic: str) -> bytes:
    """Return the subscription for exactly this topic (`topic` alone would also match `topic2`)."""
    return topic.encode() + SEPARATOR


def check_topic(topic: str) -> None:
    """Raise ValueError if a text cannot be the topic of a task's own message."""
    if not topic or SEPARATOR in f"{topic} ".encode():
        raise ValueError(f"cannot publish: {topic!r} cannot be a topic")
    if fault := too_long(topic):
        raise ValueError(f"cannot publish: {topic[:50]!r}... cannot be a topic: {fault}")


def too_long(topic: str) -> str:
    """Return what is wrong with a topic that is too long, as a part of an error; otherwise an empty text. The
    device would end the connection of its subscriber each time that libzmq makes it.
    """
    size = len(topic.encode(errors="replace"))
    return f"it has {size} bytes, {MAX_TOPIC} are allowed" if size > MAX_TOPIC else ""


def published_head(topic: str, header: bytes) -> bytes:
    """Return the start of the frames of a task's numbered messages on a topic. `header` is encoded JSON, see
    `encoded`.
    """
    return b'%b @@@ {"header":%b,"sequence":' % (topic.encode(), header[:-1])


def published(head: bytes, sequence: int, content: bytes, dropped: int = 0) -> bytes:
    """Return the frame of a numbered message. `content` is encoded JSON. `dropped` is the number of messages
    of the launch and topic that the sender itself has dropped.
    """
    count = b'%d,"dropped":%d' % (sequence, dropped) if dropped else b"%d" % sequence
    return b"".join((head, count, b'},"content":', content, b"}"))


def encode(topic: str, body: Mapping[str, Any]) -> bytes:
    """Return the frame of a message, header first."""
    if "header" in body:
        # A key that occurs twice keeps its first position and has the last value.
        head = _ordered(body["header"])
        body = {"header": head, **body} | {"header": head}
    return topic.encode() + SEPARATOR + encoded(body if type(body) is dict else dict(body))


def encoded(value: Any) -> bytes:
    """Return a value as compact JSON. Raises TypeError if it is not JSON."""
    try:
        return dumps(value).encode()
    except UnicodeEncodeError:
        # A text has half of a surrogate pair, which UTF-8 cannot encode. Written as an escape (\udc80), it is
        # valid JSON and UTF-8 for every reader.
        return json.dumps(value, separators=(",", ":")).encode()


def decoded(text: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, RecursionError and ProtocolError."""
    words = text.decode("utf-8", "surrogatepass")
    check_depth(words)
    return json.loads(words)


def decode(frame: bytes, read: Callable[[bytes], Any] = decoded) -> tuple[str, Body]:
    """Return the topic and body of a frame from any sender. `read` reads JSON.

    Raises ProtocolError for a frame without separator, a body that is not a JSON object, or a header that is
    not one.
    """
    topic, separator, text = frame.partition(SEPARATOR)
    if not separator:
        raise ProtocolError("cannot read message: no ' @@@ ' between topic and body")
    try:
        name = topic.decode().strip()
    except ValueError as error:
        raise ProtocolError(f"cannot read message: {error}") from error
    return name, body_of(text, read)


def body_of(text: bytes, read: Callable[[bytes], Any] = decoded) -> Body:
    """Return the body of the text after the separator. `read` reads JSON. Raises ProtocolError."""
    try:
        body = read(text)
    except (ValueError, RecursionError, ProtocolError) as error:
        raise ProtocolError(f"cannot read message: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError("cannot read message: the body is not a JSON object")
    if not isinstance(body.get("header", {}), dict):
        raise ProtocolError("cannot read message: the header is not a JSON object")
    return body


def _ordered(header: Mapping[str, Any]) -> Body:
    return {key: header[key] for key in HEADER_ORDER if key in header} | dict(header)


def header(*, transaction: str, service_id: str, action: str, service_name: str, **more: Any) -> Body:
    """Return a header with its keys in the order of the wire."""
    known = {
        "service_transaction": transaction,
        "service_id": service_id,
        "action": action,
        "service_name": service_name,
    }
    return known | more


@frozen
class Order:
    """An order from the bus, in a `context` or `process` message. If `tasks` is empty, the order is for all
    tasks. `configurations` holds the TaskService JSON of the message, by task ID.
    """

    topic: str
    action: str
    transaction: str
    service_id: str
    service_name: str
    tasks: tuple[str, ...] = ()
    configurations: Mapping[str, Body] = field(default_factory=dict)


def order(topic: str, body: Body) -> Order:
    """Read a `context` or `process` message from any sender. Raises ProtocolError, whose text names the
    missing part.
    """
    return _process_order(body) if topic == "process" else _context_order(topic, body)


def _context_order(topic: str, body: Body) -> Order:
    head = _required_object(body, "header", topic)
    content = body.get("content")
    configuration = content.get("configuration") if isinstance(content, dict) else None
    services = configuration.get("TaskService") if isinstance(configuration, dict) else None
    named = {_task_id(entry, topic): entry for entry in _as_list(services)}
    return Order(
        topic=topic,
        action=_text(head, "action", topic),
        transaction=_text(head, "service_transaction", topic, default=""),
        service_id=_text(head, "service_id", topic),
        service_name=_text(head, "service_name", topic, default="context"),
        tasks=tuple(named),
        configurations=named,
    )


def _process_order(body: Body) -> Order:
    content = body.get("content")
    service = next((s for s in (content, body) if isinstance(s, dict) and "TaskService" in s), None)
    service = service["TaskService"] if service else body
    if not isinstance(service, dict) or not isinstance(service.get("Task"), dict):
        raise ProtocolError("cannot read process message: no Task in it")
    head = _required_object(_required_object(service["Task"], "message", "process"), "header", "process")
    task = head.get("service_id") or service.get("id")
    if not isinstance(task, str) or not task:
        raise ProtocolError("cannot read process message: no service_id in its header")
    transaction = head.get("transaction", head.get("service_transaction"))
    return Order(
        topic="process",
        action=_text(head, "action", "process"),
        transaction=transaction if isinstance(transaction, str) else "",
        service_id=task,
        service_name=_text(head, "service_name", "process", default=""),
        tasks=(task,),
        configurations={task: service},
    )


def _required_object(body: Mapping[str, Any], key: str, topic: str) -> Body:
    value = body.get(key)
    if not isinstance(value, dict):
        raise ProtocolError(f"cannot read {topic} message: no {key} in it")
    return value


def _text(head: Mapping[str, Any], key: str, topic: str, default: str | None = None) -> str:
    value = head.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ProtocolError(f"cannot read {topic} message: header.{key} is missing or not a string")
    return value


def _as_list(value: Any) -> list[Any]:
    """Return the tasks that a message names. An empty value of any type names no task; zmicroservices sends
    `{}` with `exit`.
    """
    if value is None or value in ("", {}):
        return []
    return value if isinstance(value, list) else [value]


def _task_id(entry: Any, topic: str) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, dict) and isinstance(entry.get("id"), str):
        return str(entry["id"])
    raise ProtocolError(f"cannot read {topic} message: a TaskService without id")


def unheard_orders(count: int) -> Body:
    """Return the body of the device's message on UNHEARD_ORDERS."""
    return {"header": {"action": "unheard"}, "content": {"orders": count}}


def unheard_orders_in(body: Mapping[str, Any]) -> int:
    """Return the count in such a message. Raises ProtocolError."""
    content = body.get("content")
    count = content.get("orders") if isinstance(content, Mapping) else None
    if type(count) is not int or not 0 < count < 2**53:
        raise ProtocolError("cannot read unheard message: no count in it")
    return count


def with_last_order(
    source: Mapping[str, Any], *, transaction: str, action: str, service_id: str, service_name: str
) -> Body:
    """Return a task's own TaskService JSON with the header of its last order, as zmicroservices sends and
    keeps it.
    """
    task = source.get("Task")
    task = task if isinstance(task, Mapping) else {}
    message = task.get("message")
    message = message if isinstance(message, Mapping) else {}
    own_header = message.get("header")
    inner = {
        "action": action,
        "service_id": service_id,
        "service_name": service_name,
        "transaction": transaction,
    }
    inner = (dict(own_header) if isinstance(own_header, Mapping) else {}) | inner
    rest = {key: value for key, value in source.items() if key != "Task"}
    return {**rest, "Task": {**task, "message": {**message, "header": inner}}}


def process(
    source: Mapping[str, Any],
    *,
    transaction: str,
    action: str,
    service_id: str,
    service_name: str,
    origin: str,
) -> Body:
    """Return the `process` message of a task: its own TaskService JSON with the header of this order, after a
    routing header.

    `origin` marks the supervisor's own messages, so that it does not take them for orders.
    """
    routing = header(
        transaction=transaction,
        service_id=service_id,
        action=action,
        service_name=service_name,
        origin=origin,
    )
    service = with_last_order(
        source, transaction=transaction, action=action, service_id=service_id, service_name=service_name
    )
    return {"header": routing, "content": {}, **service}


def reply(request_header: Mapping[str, Any], action: str) -> Body:
    """Return the header of a reply: the header of the request, with another action. A client recognizes its
    reply by this header. `origin`, which only messages of a supervisor have, is left out. Raises UsageError
    for a header of more than MAX_ECHO bytes.
    """
    head = {key: value for key, value in request_header.items() if key != "origin"} | {"action": action}
    if len(encoded(head)) > MAX_ECHO:
        raise UsageError(f"its header has more than {MAX_ECHO} bytes, which the answer would repeat")
    return head


def control(
    head: Body, *, success: bool, device_action: str, pid: int | None, items: Mapping[str, Any]
) -> Body:
    """Return a `control` message about a task. An item of the task cannot replace a field that zmsvc
    promises; only the result of an update can be set.
    """
    result = "failure" if not success else result_of(items) if head.get("action") == "updated" else "success"
    status = {"result": result, "device_action": device_action, "pid": pid}
    return {
        "header": head,
        "content": {"status": status | {k: v for k, v in items.items() if k not in status}},
    }


def without_configurations(content: Body) -> Body:
    """Return the state of a transaction (the content of `reply_context`) without the elements of the context
    file: that is what makes it long.
    """
    return {
        **content,
        "configuration": {},
        "tasks": [
            {**task, "task": {}} if isinstance(task, dict) else task for task in content.get("tasks", ())
        ],
    }


def bare_service(source: Mapping[str, Any]) -> Body:
    """Return the TaskService JSON of a task without its <Task>."""
    return {key: value for key, value in source.items() if key != "Task"}


def context_infos(
    heads: Sequence[Body], contents: Mapping[str, Body], *, longest: int = MAX_FRAME
) -> list[bytes]:
    """Return the `control`/`update` frames with the state of the context, one per header. `data` is
    `[{TRANSACTION: {...}}]`.

    Each frame contains all transactions. If many of them change at once, the total size would grow with the
    square of their number. So above MAX_INFO bytes each frame contains only its own transaction, for the
    subscribers of that transaction, and only the last frame contains all. A subscriber to every message
    receives that frame last.

    If a frame with all would be longer than `longest` bytes, the last one has only its own transaction, too.
    A transaction that is longer alone is shown without configurations.
    """
    room = longest - MAX_ECHO
    parts = {name: encoded({name: content}) for name, content in contents.items()}
    for name, part in parts.items():
        if len(part) > room:
            parts[name] = encoded({name: without_configurations(contents[name])})
    whole = b",".join(parts.values())
    if len(whole) <= room and len(heads) * len(whole) <= MAX_INFO:
        return [_context_info(head, whole) for head in heads]
    own = [parts.get(head["service_transaction"], b"") for head in heads]
    if own and len(whole) <= room:
        own[-1] = whole
    return [_context_info(head, part) for head, part in zip(heads, own, strict=True)]


def _context_info(head: Body, data: bytes) -> bytes:
    """Return a frame. `data` is the text between the brackets; it is encoded only once for all frames."""
    status = {"result": "success", "device_action": "context_info", "data": []}
    start, bracket, end = encode("control", {"header": head, "content": {"status": status}}).rpartition(b"]")
    return start + data + bracket + end
