"""A user who may not connect sends garbage to the loopback tcp endpoints of a context: nothing of it arrives,
and permitted users can connect.
"""

from __future__ import annotations

import json
import subprocess
import sys

import hostile
import pytest
import zmq
from context import Context
from damage import bytes_of
from effort import DEADLINE, effort
from hypothesis import given
from hypothesis import strategies as st
from others import command, others
from tutorial import free_ports
from waiting import PATIENCE

SAY = """
import contextlib, socket, sys
for line in sys.stdin:
    port, *parts = line.split()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))) as wire:
        wire.settimeout(0.05)
        for part in parts:
            wire.sendall(bytes.fromhex(part))
            with contextlib.suppress(TimeoutError):
                wire.recv(4096)
    print("said", flush=True)
"""

HEAD = {
    "action": "start",
    "service_id": "context001",
    "service_name": "context",
    "service_transaction": "EVIL",
}
ORDER = b"context @@@ " + json.dumps({"header": HEAD, "content": {}}).encode()
GREETINGS = [hostile.GREETING, *hostile.OLD_GREETINGS]
COMMANDS = [hostile.ready(kind) for kind in (b"PUB", b"XPUB", b"SUB", b"XSUB", b"")] + [
    b"\x04\x06\x05ERROR",
    b"\x06" + b"\xff" * 8,
]
FRAMES = [hostile.frame(ORDER), hostile.frame(b"\x01"), b"\x02" + b"\0" * 7 + b"\xff", b"\x00\x05EV"]


def conversations() -> st.SearchStrategy[list[bytes]]:
    """A greeting, commands and frames, each whole or damaged, in any order."""
    parts = (
        st.sampled_from([*GREETINGS, *COMMANDS, *FRAMES])
        | bytes_of([*GREETINGS, *COMMANDS, *FRAMES])
        | st.binary(max_size=80)
    )
    return st.lists(parts, min_size=1, max_size=5).map(lambda given: [hostile.GREETING, *given]) | st.lists(
        parts, min_size=1, max_size=5
    )


@pytest.mark.deadline(DEADLINE)
def test_garbage_of_a_user_who_may_not_connect_does_no_harm(context: Context) -> None:
    stranger = others(1)[0]
    ports = free_ports(3)
    *bus, monitor = (f"tcp://127.0.0.1:{port}" for port in ports)
    context.subscribe_endpoint, context.publish_endpoint = bus
    context.task(
        "monitor",
        "Monitor",
        config=f"<service><endpoint>{monitor}</endpoint><frequency_s>0.1</frequency_s></service>",
    )
    context.task("still", "sleep", kind="Command", config="<command>sleep 1000</command>")
    (context.home / "Services").mkdir()
    context.start("--transaction", "FUZZ")
    before = context.status()
    with subprocess.Popen(
        [*command(stranger), sys.executable, "-P", "-c", SAY],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as speaker:
        assert speaker.stdin is not None
        assert speaker.stdout is not None

        @effort(100)
        @given(st.sampled_from(ports), conversations())
        def say(port: int, said: list[bytes]) -> None:
            assert speaker.stdin is not None
            assert speaker.stdout is not None
            speaker.stdin.write(" ".join([str(port), *(part.hex() for part in said if part)]) + "\n")
            speaker.stdin.flush()
            assert speaker.stdout.readline() == "said\n"

        say()
        speaker.stdin.close()
    with zmq.Context() as ctx, ctx.socket(zmq.XPUB) as member:
        member.linger = 0
        member.connect(context.publish_endpoint)
        assert member.poll(PATIENCE * 1000)
    with zmq.Context() as ctx, ctx.socket(zmq.SUB) as member:
        member.linger = 0
        member.subscribe(b"")
        member.connect(monitor)
        assert member.poll(PATIENCE * 1000)
    after = context.status()
    for name in ("pid", "device_pid", "restarts", "device_restarts"):
        assert after[name] == before[name], name
    # The garbage itself is counted.
    assert {name: after["dropped"][name] for name in before["dropped"]} == before["dropped"]
    assert after["dropped"].keys() - before["dropped"].keys() <= {"handshakes", "disconnected", "connections"}
    assert [each["id"] for each in after["transactions"]] == ["FUZZ"]
    assert context.stop() == 0
