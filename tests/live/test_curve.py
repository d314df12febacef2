"""Beyond loopback only clients with an allowed key can receive and publish. Processes of the context find
their keys by themselves.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from context import Context
from needs import need
from outside import ADDRESS, Client, Pair, own_network, pair, public
from waiting import PATIENCE, wait_for, wait_for_end

TX = "5HGAHZ3WPZUI71PACRPP"
SCRIPTS = Path(__file__).parents[2] / "scripts"

BEACON = """
interval = 0.02
def step(self):
    self.publish("beacon", {"header": {"service_transaction": self.transaction}, "content": {}})
"""


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    need(os.geteuid() == 0, "only root can make a network")
    need(shutil.which("ip"), "iproute2 is not installed")
    need(zmq.has("curve"), "this libzmq has no CURVE")
    with own_network():
        yield


@pytest.fixture
def context(context: Context) -> Context:
    """A context with endpoints beyond loopback, whose task publishes all the time."""
    context.subscribe_endpoint, context.publish_endpoint = f"tcp://{ADDRESS}:5556", f"tcp://{ADDRESS}:5557"
    context.looped("Beacon", BEACON)
    context.task("ts_100", "Beacon")
    return context


@pytest.fixture
def guarded(context: Context) -> Context:
    """The same context with keys, which runs."""
    context.write()
    context.ctl("keys", "make")
    context.start("--transaction", TX)
    return context


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(kind: int, endpoint: str, **keys: object) -> Client:
        made.append(Client(kind, endpoint, **keys))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def keys_of(context: Context) -> Path:
    return context.home / "keys" / context.name


def server_key(context: Context) -> bytes:
    return public(keys_of(context) / "server.key")


def admitted(
    context: Context, client: Callable[..., Client], kind: int = zmq.SUB, endpoint: str = ""
) -> Client:
    """Return a client with the own key of the context."""
    made = client(
        kind, endpoint or context.subscribe_endpoint, server=server_key(context), pair=pair(keys_of(context))
    )
    assert made.let_in()
    return made


def script(context: Context, name: str, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    return subprocess.run(
        command, env=context.environment, capture_output=True, text=True, timeout=30, check=True
    ).stdout


def order_by_script(context: Context, service_name: str, action: str, transaction: str = TX) -> str:
    """Run conf_command.py with the context file. Return its output."""
    order = ("--service_name", service_name, "--action", action, "--transaction", transaction)
    return script(context, "conf_command.py", "--context_file", str(context.file), *order)


# --- without keys


def test_without_keys_a_bind_beyond_loopback_is_refused_with_its_line_and_the_way_out(
    context: Context,
) -> None:
    context.start(ready=False)
    assert context.wait() == 2
    told = context.log.read_text()
    for endpoint in (context.subscribe_endpoint, context.publish_endpoint):
        assert f"{context.file}:1: cannot bind {endpoint} without CURVE keys" in told
    assert "zmsvcctl -c Live keys make" in told
    checked = context.ctl("check", str(context.file)).stdout
    assert f"{context.file}:1: warning: cannot bind {context.publish_endpoint} without CURVE keys" in checked
    context.ctl("keys", "make")
    assert "CURVE" not in context.ctl("check", str(context.file)).stdout


def test_without_keys_every_address_means_loopback(context: Context) -> None:
    context.subscribe_endpoint, context.publish_endpoint = "tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557"
    context.edit = lambda text: text.replace("Bind>tcp://127.0.0.1:", "Bind>tcp://*:")
    context.start()
    for port in (5556, 5557):
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ADDRESS, port))


# --- with keys, the context's own


def test_tasks_supervisor_and_commands_find_their_keys(guarded: Context) -> None:
    assert guarded.ctl("watch", "--topic", "beacon", "--count", "1", "--timeout", "25").stdout
    guarded.send_state_request(TX)
    assert "reply_context" in order_by_script(guarded, "state", "request")
    assert "[beacon]" in script(
        guarded, "display.py", "--topic", "beacon", "--count", "1", guarded.subscribe_endpoint
    )
    order_by_script(guarded, "context", "start", "OTHER")
    guarded.task_is("ts_100", "running", "OTHER")


def test_clients_reconnect_after_a_crash_of_supervisor_and_device(
    guarded: Context, client: Callable[..., Client]
) -> None:
    guarded.kill_supervisor()
    device = guarded.status()["device_pid"]
    os.kill(device, signal.SIGKILL)
    wait_for_end(device)
    admitted(guarded, client).receive()
    guarded.ctl("restart", "--task", "ts_100")
    guarded.ctl(
        "watch", "--topic", "control", "--count", "1", "--timeout", "25", "--transaction", TX, check=None
    )
    order_by_script(guarded, "state", "request")


def test_replaced_keys_apply_at_the_next_start(guarded: Context, client: Callable[..., Client]) -> None:
    old = keys_of(guarded).rename(guarded.home / "old")
    shutil.copytree(old / "clients", keys_of(guarded) / "clients")
    server, own = public(old / "server.key"), pair(old)
    for pid in (guarded.status()["device_pid"], guarded.tasks()["ts_100"]["pid"]):
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    # An order that comes before the supervisor knows the end would find a task that runs.
    guarded.task_is("ts_100", "failed")
    guarded.ctl("start", "--transaction", TX)
    hearing = client(zmq.SUB, guarded.subscribe_endpoint, server=server, pair=own)
    wait_for(lambda: b"beacon" in hearing.receive())


def test_a_task_of_another_user_connects_with_keys_that_it_could_not_read(
    context: Context, client: Callable[..., Client]
) -> None:
    context.clear_tasks()
    context.task("ts_100", "Beacon", service="<user>daemon</user>")
    context.home.chmod(0o755)
    context.write()
    context.ctl("keys", "make")
    context.start("--transaction", TX)
    pid = context.tasks()["ts_100"]["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid != 0
    hearing = admitted(context, client)
    wait_for(lambda: b"beacon" in hearing.receive())


# --- with keys, strangers


STRANGERS: dict[str, Callable[[bytes], tuple[bytes, Pair | None]]] = {
    "no key": lambda server: (b"", None),
    "a key that is not allowed": lambda server: (server, zmq.curve_keypair()),
    "a wrong key of the server": lambda server: (zmq.curve_keypair()[0], zmq.curve_keypair()),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_a_client_without_a_key_receives_nothing(
    guarded: Context, client: Callable[..., Client], who: str
) -> None:
    server, own = STRANGERS[who](server_key(guarded))
    stranger = client(zmq.SUB, guarded.subscribe_endpoint, server=server, pair=own)
    assert not stranger.let_in()
    friend = admitted(guarded, client)
    for _ in range(50):
        friend.receive()
    assert not stranger.socket.poll(0)


@pytest.mark.parametrize("who", STRANGERS)
def test_a_client_without_a_key_publishes_nothing(
    guarded: Context, client: Callable[..., Client], who: str
) -> None:
    server, own = STRANGERS[who](server_key(guarded))
    order = order_to_start("EVIL")
    stranger = client(zmq.PUB, guarded.publish_endpoint, server=server, pair=own)
    assert not stranger.let_in()
    stranger.socket.send(order)
    friend = admitted(guarded, client, zmq.XPUB, guarded.publish_endpoint)
    friend.receive()
    friend.socket.send(order_to_start("GOOD"))
    guarded.task_is("ts_100", "running", "GOOD")
    stranger.socket.send(order)
    assert "EVIL" not in [each["id"] for each in guarded.status()["transactions"]]


def order_to_start(transaction: str) -> bytes:
    head = {
        "action": "start",
        "service_id": "context001",
        "service_name": "context",
        "service_transaction": transaction,
    }
    return b"context @@@ " + json.dumps({"header": head, "content": {}}).encode()


@pytest.mark.parametrize("port", [5556, 5557])
def test_a_hand_written_handshake_is_disconnected(guarded: Context, port: int) -> None:
    """The client sends greeting, READY and an order without security at once, and waits for no answer."""
    frame = order_to_start("EVIL")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
    with socket.create_connection((ADDRESS, port)) as wire:
        wire.settimeout(PATIENCE)
        wire.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready + b"\x00" + bytes([len(frame)]) + frame)
        told = b""
        try:
            while more := wire.recv(4096):
                told += more
        except ConnectionResetError:
            pass
    assert len(told) <= 64, "more than a greeting came back"
    assert "EVIL" not in [each["id"] for each in guarded.status()["transactions"]]


def test_a_machine_with_a_client_pair_alone_hears_and_orders(guarded: Context) -> None:
    """Two directories stand for two machines. This one has the public key of the device and its own pair, and
    no file of the context.
    """
    other = guarded.home / "elsewhere"
    other.mkdir()
    environment = guarded.environment | {
        f"ZMSVC_{name}_DIR": str(other) for name in ("CONFIG", "RUNTIME", "STATE")
    }

    def there(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", guarded.name, *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert there("keys", "join", str(keys_of(guarded) / "server.key")).returncode == 0
    assert sorted(file.name for file in (other / "keys" / guarded.name).iterdir()) == [
        "client.key",
        "client.key_secret",
        "server.key",
    ]
    watch = (
        "watch",
        "--endpoint",
        guarded.subscribe_endpoint,
        "--topic",
        "beacon",
        "--count",
        "1",
        "--timeout",
        "25",
    )
    refused = there(*watch)
    assert (refused.returncode, "the device does not let us in" in refused.stderr) == (5, True), (
        refused.stderr
    )
    shutil.copy(other / "keys" / guarded.name / "client.key", guarded.home / "laptop.key")
    guarded.ctl("keys", "allow", str(guarded.home / "laptop.key"))
    assert "beacon" in there(*watch).stdout
    sent = there(
        "send",
        "--endpoint",
        guarded.publish_endpoint,
        "context",
        order_to_start("FAR").partition(b" @@@ ")[2].decode(),
    )
    assert sent.returncode == 0, sent.stderr
    guarded.task_is("ts_100", "running", "FAR")
    order = (
        *("--service_id", "context001", "--service_name", "context", "--action", "start"),
        *("--transaction", "OLD"),
    )
    own = ("--endpoint", guarded.publish_endpoint, "--keys", str(other / "keys" / guarded.name))
    command = [sys.executable, str(SCRIPTS / "conf_command.py"), *own, *order]
    subprocess.run(command, env=environment, check=True, timeout=30, capture_output=True)
    guarded.task_is("ts_100", "running", "OLD")


def test_without_a_key_a_command_says_how_to_get_one(guarded: Context) -> None:
    for verb in (("watch",), ("send", "context", "{}")):
        done = guarded.ctl(*verb, "--endpoint", "tcp://192.0.2.77:5556", "-c", "Unknown", check=5)
        assert "keys join server.key" in done.stderr
    assert "is not an endpoint" in guarded.ctl("watch", "--endpoint", "nonsense", check=2).stderr
    assert "--keys is for --endpoint" in guarded.ctl("watch", "--keys", str(guarded.home), check=2).stderr


def test_allow_and_revoke_need_no_restart(guarded: Context, client: Callable[..., Client]) -> None:
    laptop = guarded.home / "laptop"
    guarded.ctl("keys", "make", str(laptop))
    server, own = public(laptop / "server.key"), pair(laptop)
    assert client(zmq.SUB, guarded.subscribe_endpoint, server=server, pair=own).let_in()
    assert "[beacon]" in script(
        guarded,
        "display.py",
        "--keys",
        str(laptop),
        "--count",
        "1",
        "--topic",
        "beacon",
        guarded.subscribe_endpoint,
    )
    guarded.ctl("keys", "revoke", "laptop")
    assert not client(zmq.SUB, guarded.subscribe_endpoint, server=server, pair=own).let_in()
    shutil.copy(laptop / "client.key", guarded.home / "again.key")
    guarded.ctl("keys", "allow", str(guarded.home / "again.key"))
    assert client(zmq.SUB, guarded.subscribe_endpoint, server=server, pair=own).let_in()
    told = json.loads(guarded.ctl("--json", "keys").stdout)
    assert sorted(told["clients"]) == ["again", "context"]
    assert told["server"].encode() == server


def test_revoke_now_ends_the_connections_that_are_open(
    context: Context, client: Callable[..., Client]
) -> None:
    place = f"tcp://{ADDRESS}:6558"
    context.task(
        "ts_000",
        "Monitor",
        config=f"<service><endpoint>{place}</endpoint><frequency_s>0.05</frequency_s></service>",
    )
    context.write()
    context.ctl("keys", "make")
    context.start("--transaction", TX)
    laptop = context.home / "laptop"
    context.ctl("keys", "make", str(laptop))
    server, own = public(laptop / "server.key"), pair(laptop)
    stolen = [
        client(zmq.SUB, endpoint, server=server, pair=own) for endpoint in (context.subscribe_endpoint, place)
    ]
    publisher = client(zmq.XPUB, context.publish_endpoint, server=server, pair=own)
    friend = admitted(context, client)
    assert [each.let_in() for each in (*stolen, publisher)] == [True] * 3
    for each in stolen:
        each.receive()
    tasks = {name: task["pid"] for name, task in context.tasks(TX).items()}
    context.ctl("keys", "revoke", "--now", "laptop")
    assert [each.let_in() for each in (*stolen, publisher)] == [False] * 3, "the connection has ended"
    assert [each.let_in() for each in (*stolen, publisher)] == [False] * 3, "and no other is let in"
    for each in stolen:
        while each.socket.poll(0):
            each.socket.recv()
    while friend.socket.poll(0):
        friend.socket.recv()
    friend.receive()
    assert [each.socket.poll(0) for each in stolen] == [0, 0]
    assert context.tasks(TX)["ts_100"]["pid"] == tasks["ts_100"]
    assert context.status()["device_restarts"] == 1
    context.ctl("keys", "revoke", "--now")
    assert context.status()["device_restarts"] == 2


def test_keys_that_another_user_could_change_are_refused(context: Context) -> None:
    context.write()
    context.ctl("keys", "make")
    clients = keys_of(context) / "clients"
    clients.chmod(0o777)
    context.start(ready=False)
    assert context.wait() == 1
    assert f"cannot use CURVE keys: {clients} may be changed by everybody" in context.log.read_text()
    assert (
        "may be changed by everybody"
        in context.ctl("keys", "make", str(context.home / "laptop"), check=1).stderr
    )


def test_a_command_without_the_keys_says_so(guarded: Context) -> None:
    keys_of(guarded).rename(guarded.home / "elsewhere")
    told = guarded.ctl("watch", check=5).stderr
    assert told.startswith("zmsvcctl: cannot connect to Live: it requires CURVE keys")
    assert told.count("\n") == 1


# --- the Monitor


@pytest.mark.parametrize("kind", ["Process", "Thread"])
@pytest.mark.parametrize("host", ["*", ADDRESS])
def test_the_monitor_of_a_context_with_keys_answers_those_who_are_allowed(
    context: Context, client: Callable[..., Client], kind: str, host: str
) -> None:
    settings = f"<service><endpoint>tcp://{host}:6558</endpoint><frequency_s>0.05</frequency_s></service>"
    context.task("ts_000", "Monitor", kind=kind, config=settings)
    context.write()
    context.ctl("keys", "make")
    context.start("--transaction", TX)
    place = f"tcp://{ADDRESS}:6558"
    stranger = client(zmq.SUB, place)
    assert not stranger.let_in()
    wait_for(lambda: TX in admitted(context, client, endpoint=place).receive().decode())
    assert "ts_000" in script(context, "display.py", "--count", "1", place)
    assert not stranger.socket.poll(0)


# --- where secrets are not


def test_no_secret_key_is_anywhere_but_in_its_file(guarded: Context, client: Callable[..., Client]) -> None:
    secrets = [
        file.read_bytes().split(b'secret-key = "')[1][:40] for file in keys_of(guarded).glob("*.key_secret")
    ]
    assert len(secrets) == 2
    friend = admitted(guarded, client)
    guarded.kill_supervisor()
    guarded.ctl("restart", "--task", "ts_100")
    heard = [friend.receive() for _ in range(100)]
    status = guarded.status()
    pids = [status["pid"], status["keeper_pid"], status["device_pid"], guarded.tasks()["ts_100"]["pid"]]
    seen = [Path(f"/proc/{pid}/{file}").read_bytes() for pid in pids for file in ("environ", "cmdline")]
    guarded.stop()
    elsewhere = {
        file
        for folder in (guarded.home / "state", guarded.runtime)
        for file in folder.rglob("*")
        if file.is_file()
    }
    assert {file.name for file in elsewhere} >= {"state.db", "zmsvcd.log"}
    seen += [
        *heard,
        json.dumps(status).encode(),
        guarded.log.read_bytes(),
        *(file.read_bytes() for file in elsewhere),
    ]
    assert [text for text in seen for secret in secrets if secret in text] == []


def test_only_the_device_has_the_secret_of_the_device_in_its_memory(guarded: Context) -> None:
    text = (keys_of(guarded) / "server.key_secret").read_bytes().split(b'secret-key = "')[1][:40]
    forms = (text, zmq.utils.z85.decode(text))
    status = guarded.status()
    pids = {name: status[name] for name in ("pid", "keeper_pid", "device_pid")} | {
        "task": guarded.tasks()["ts_100"]["pid"]
    }
    assert [
        name for name, pid in pids.items() if any(form in part for part in memory(pid) for form in forms)
    ] == ["device_pid"]


def memory(pid: int) -> Iterator[bytes]:
    """Yield all writable memory of a process, one mapping at a time. A guard page below the stack of a
    thread, as in glibc 2.42, is inside of a mapping and cannot be read.
    """
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if rights.startswith("rw"):
                while start < end:
                    file.seek(start)
                    try:
                        part = file.read(end - start)
                    except OSError:
                        start += mmap.PAGESIZE
                        continue
                    yield part
                    start += len(part)
