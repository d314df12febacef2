"""`systemctl stop` while a member of the daemon's group attacks every socket of the context that it can
reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from installed import Installed, alive, task
from lingering import LINGERING
from machine import Machine
from waiting import wait_for

PLACES = {
    "ipc": ("ipc:///run/zmsvc/Talk/front", "ipc:///run/zmsvc/Talk/back"),
    "tcp": ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557"),
}

ATTACK = (
    LINGERING
    + r'''
# PROGRAM: attacks sockets. Arguments: their paths and ports, that of the control socket first.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
held = []


def connect(place):
    made = socket.socket(socket.AF_UNIX if place.startswith("/") else socket.AF_INET)
    made.setblocking(False)
    try:
        made.connect(place if place.startswith("/") else ("127.0.0.1", int(place)))
    except BlockingIOError:
        pass
    return made


def give_descriptors(place, words):
    """The process that closes the descriptor last waits for it, so this one closes it at once."""
    made = lingering(3600)
    for _ in range(10):
        victim = connect(place)
        try:
            victim.sendmsg([words], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()] * 10))])
        except (BlockingIOError, PermissionError):
            pass
        held.append(victim)
    # In a thread, for the last one may be us.
    threading.Thread(target=os.close, args=[made.detach()], daemon=True).start()


def say(place, words, times):
    made = connect(place)
    try:
        for _ in range(times):
            made.send(words)
    except OSError:
        pass
    held.append(made)


control, *bus = sys.argv[1:]
for place in (control, *bus):
    if place.startswith("/"):
        give_descriptors(place, b"{" if place == control else GREETING[:9])
for _ in range(50):
    # Requests whose answers are not read, one that never ends, and connections that say nothing.
    say(control, b'{"verb": "status"}\n' * 100, 20)
    say(control, b"{", 1)
    for place in (control, *bus):
        held.append(connect(place))
    for place in bus:
        say(place, GREETING, 1)
print("ready", flush=True)
while True:
    for place in (control, *bus):
        try:
            connect(place).close()
        except OSError:
            time.sleep(0.001)
'''
)


@contextmanager
def attacked(machine: Machine, *places: str) -> Iterator[None]:
    machine.sh("useradd --no-create-home member; usermod -aG zmsvc member", check=False)
    machine.put("/usr/local/share/attack.py", ATTACK)
    machine.sh(
        f"setsid python3 /usr/local/share/attack.py {' '.join(places)} > /tmp/attack 2>&1 &", user="member"
    )
    try:
        wait_for(lambda: "ready" in machine.sh("cat /tmp/attack", check=False).stdout)
        yield
    finally:
        machine.sh("pkill -KILL -u member; rm -f /tmp/attack", check=False)


@pytest.fixture
def talk(context: Callable[..., Installed], machine: Machine) -> Iterator[Installed]:
    """A context in whose sockets the kernel does not refuse descriptors, as before Linux 6.16."""
    made = context("Talk", task("ts_100", "Talker"), task("ts_101", "Talker"))
    drop_in = f"/run/systemd/system/{made.unit}.d"
    machine.put(f"{drop_in}/disable.conf", "[Service]\nEnvironment=ZMSVC_DISABLE=passrights\n")
    machine.sh("systemctl daemon-reload")
    yield made
    machine.sh(f"systemctl stop {made.unit}; rm -r {drop_in}; systemctl daemon-reload", check=False)


def stop(talk: Installed) -> None:
    """Stop the context, and check that nothing of it is left. With zmsvc 1.0 an attack delayed the stop up to its
    limit of 90 s, and then systemd killed the context. `Machine.sh` gives up after a minute.
    """
    pids = talk.processes()
    assert len(pids) >= 5, "it runs"
    talk.stop()
    assert talk.show("Result") == "success"
    assert alive(talk.machine, pids) == []
    assert talk.machine.sh("pgrep -u zmsvc", check=False).stdout == ""


@pytest.mark.parametrize("scheme", PLACES)
def test_systemctl_stop_does_not_wait_for_an_attack(talk: Installed, machine: Machine, scheme: str) -> None:
    publish_endpoint, subscribe_endpoint = PLACES[scheme]
    file = machine.root / "etc/zmsvc/Context-Talk.xml"
    for ours, place in zip(PLACES["ipc"], (publish_endpoint, subscribe_endpoint), strict=True):
        file.write_text(file.read_text().replace(ours, place))
    talk.start()
    bus = [
        place.removeprefix("ipc://").removeprefix("tcp://127.0.0.1:")
        for place in (publish_endpoint, subscribe_endpoint)
    ]
    with attacked(machine, "/run/zmsvc/Talk/control.sock", *bus):
        stop(talk)
