"""The four services of the manual, as they are installed: each ends by itself, and its rule starts the next
one, without end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from context import Context, Subscriber

EXAMPLE = Path(__file__).parents[2] / "zmsvc" / "data" / "examples" / "Context-StateMachine.xml"


def test_the_example_cycles_and_the_operators_stop_ends_it(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    text = EXAMPLE.read_text().replace("</device_action>", "</device_action><seconds>0.2</seconds>")
    # This file names no endpoints.
    place = context.runtime / context.name
    context.subscribe_endpoint, context.publish_endpoint = f"ipc://{place}/sub", f"ipc://{place}/pub"
    context.edit = lambda _: text
    context.start("--no-autostart")
    listener = subscriber(b"control @@@ ")
    context.ask(verb="start", transaction="T", block=False)
    started = []
    while len(started) < 6:
        body = listener.until(lambda topic, body: body["header"]["action"] == "started")
        started.append(body["header"]["service_id"])
    assert started == ["ts_100", "ts_101", "ts_102", "ts_103", "ts_100", "ts_101"]
    cause = context.tasks("T")["ts_101"]["cause"]
    # On a busy machine the ring has gone on by now.
    assert cause["depth"] in range(5, 1000, 4)
    assert cause["sources"][-1]["rule"] == "on_exit:start:ts_101"
    context.ctl("stop", "--transaction", "T")
    assert {task["state"] for task in context.tasks("T").values()} == {"inactive"}
