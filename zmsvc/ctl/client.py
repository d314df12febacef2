"""Asks a supervisor over its control socket: a request line out, answer lines in. Imports little: the CLI's time is import time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from zmsvc.core.errors import ZmsvcError
from zmsvc.host import paths

REPEATABLE = frozenset({"status", "start", "stop", "events"})
"""Verbs that may be asked again when the supervisor died over them: they say what should be, not what to do once more."""

Answer = dict[str, Any]


class CtlError(ZmsvcError):
    """An outcome that is not success; `code` is the exit status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """One context's supervisor. `timeout` is in seconds, None waits for the supervisor's own limits."""

    def __init__(self, name: str, timeout: float | None = None) -> None:
        self.name = name
        self._until = time.monotonic() + timeout if timeout else None

    def ask(self, verb: str, **request: Any) -> Answer:
        """The answer to one request. Raises CtlError 5 when nobody can be reached, 124 when it takes too long."""
        for answer in self.stream(verb, **request):
            return answer
        raise CtlError(5, f"cannot {verb}: the supervisor of {self.name} has gone (zmsvcctl -c {self.name} status)")

    def stream(self, verb: str, **request: Any) -> Iterator[Answer]:
        """Every answer line to one request, asked again when the supervisor is replaced before the first of them."""
        line = json.dumps({"verb": verb, **request}).encode() + b"\n"
        while True:
            told = False
            for answer in self._once(verb, line):
                told = True
                yield answer
            if told or verb not in REPEATABLE:
                return

    def _once(self, verb: str, line: bytes) -> Iterator[Answer]:
        with self._connect() as sock:
            try:
                sock.sendall(line)
                with sock.makefile("rb") as answers:
                    while text := answers.readline():
                        yield json.loads(text)
            except TimeoutError:
                raise CtlError(124, f"cannot say what became of {verb}: no answer in time; it goes on") from None
            except (ConnectionError, ValueError):
                return

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = socket_of(self.name)
        try:
            if self._until is not None:
                sock.settimeout(max(0.001, self._until - time.monotonic()))
            sock.connect(path)
        except TimeoutError:
            sock.close()
            raise CtlError(124, f"cannot reach the supervisor of {self.name} in time") from None
        except OSError as error:
            sock.close()
            raise CtlError(5, _unreachable(self.name, error)) from None
        return sock


def socket_of(name: str) -> str:
    return str(paths.control_socket(name))


def _unreachable(name: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"cannot reach the supervisor of {name}: permission denied (root, its user and its group may)"
    return f"cannot reach the supervisor of {name}: it is not running (systemctl start zmsvc@{name}, or zmsvcd --detach {name})"


def running() -> list[str]:
    """The contexts whose supervisor can be connected to now."""
    return [name for name in paths.running_contexts() if _answers(name)]


def _answers(name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(socket_of(name))
        except PermissionError:
            return True
        except OSError:
            return False
        return True


def choose(name: str | None, transaction: str | None) -> str:
    """Which context is meant: the named one, the only one that runs, or the one that knows the transaction. Raises CtlError."""
    if name is not None:
        if os.path.exists(socket_of(name)) or name in paths.known_contexts() or name in paths.running_contexts():
            return name
        known = sorted({*paths.known_contexts(), *running()})
        raise CtlError(
            4, f"no context {name}: {'known are ' + ', '.join(known) if known else 'there is none in ' + str(paths.config_dir())}"
        )
    alive = running()
    if len(alive) == 1:
        return alive[0]
    if not alive:
        raise CtlError(5, "no context is running (zmsvcctl list shows the known ones; systemctl start zmsvc@NAME starts one)")
    if transaction is not None:
        for each in alive:
            if Client(each).ask("status", transaction=transaction)["ok"]:
                return each
        raise CtlError(4, f"no running context has the transaction {transaction} (running: {', '.join(alive)})")
    raise CtlError(2, f"several contexts are running: {', '.join(alive)}; name one with -c NAME")
