"""The output of `zmsvcctl -H`: the answers under headings, the lines of streams after the name of their host,
and both as JSON. terminal.py removes the control characters that a host may have sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from zmsvc.core import remote_hosts
from zmsvc.core.remote_hosts import COMPLAINT, UNREACHABLE, RemoteHost
from zmsvc.ctl import terminal
from zmsvc.ctl.remote.ssh_processes import Why, senseless

_RESET = "\x1b[0m"
_INDENT = "  "


class Answers(Protocol):
    """Prints the answers of hosts."""

    def take(self, host: RemoteHost, data: bytes) -> Why | None:
        """Take a part of a host's answer. Return the reason if the host has to be stopped."""

    def end(self, host: RemoteHost, code: int, error: str | None) -> tuple[int, str | None]:
        """Take the end of a host's answer. Return its exit status and error, which this method may change.
        `error` says why the end did not come from zmsvcctl there.
        """

    def close(self) -> None:
        """Print what is left when all hosts have ended."""


def complain(host: RemoteHost, line: str) -> None:
    """Show a line on stderr of a host."""
    terminal.complain(f"{host.name}: {line.removeprefix(COMPLAINT)}")


class Headings:
    """Each answer under the name of its host, in the order of the command line. The lines of an answer are
    indented, so that no host can write the heading of another one. A single host has no heading.
    """

    def __init__(self, hosts: Sequence[RemoteHost], *, order: bool, pages: bool) -> None:
        """`order`: say that a host has carried out an order without an answer. `pages`: use the pager."""
        self._waiting = list(hosts)
        self._single = len(hosts) == 1
        self._order, self._pages = order, pages
        self._data = {host: bytearray() for host in hosts}
        self._ended: dict[RemoteHost, str] = {}
        self._pile: list[str] = []

    def take(self, host: RemoteHost, data: bytes) -> Why | None:
        self._data[host] += data
        return None

    def end(self, host: RemoteHost, code: int, error: str | None) -> tuple[int, str | None]:
        data = self._data.pop(host)
        # An answer that is not complete is not shown.
        text = "" if error is not None else data.decode(errors="backslashreplace")
        if not text and self._order and not code and not self._single:
            text = "done\n"
        self._ended[host] = self._shown(host, text)
        while self._waiting and self._waiting[0] in self._ended:
            text = self._ended.pop(self._waiting.pop(0))
            if self._pages:
                self._pile.append(text)
            else:
                terminal.out(text, flush=True)
        return code, error

    def _shown(self, host: RemoteHost, text: str) -> str:
        if self._single or not text:
            return "\n".join(map(_safe, text.split("\n")))
        heading = terminal.style().paint("bold", terminal.clean(host.name))
        lines = text.removesuffix("\n").split("\n")
        return f"{heading}\n" + "".join(f"{_INDENT}{_safe(each)}".rstrip() + "\n" for each in lines)

    def close(self) -> None:
        if self._pile:
            terminal.page("".join(self._pile))


class Lines:
    """The lines of each host as they come, with the name of the host before them."""

    def __init__(self, hosts: Sequence[RemoteHost]) -> None:
        self._single = len(hosts) == 1
        self._width = max(len(host.name) for host in hosts) + 1
        self._rests = {host: bytearray() for host in hosts}

    def take(self, host: RemoteHost, data: bytes) -> Why | None:
        rest = self._rests[host]
        rest += data
        if b"\n" not in data:
            return Why.LONG if len(rest) > remote_hosts.MAX_ANSWER else None
        *lines, self._rests[host] = rest.split(b"\n")
        return None if all(self._show(host, line) for line in lines) else Why.SENSELESS

    def end(self, host: RemoteHost, code: int, error: str | None) -> tuple[int, str | None]:
        rest = self._rests.pop(host)
        # The last line of a host whose ssh was ended is not complete.
        if not rest or error is not None or self._show(host, rest):
            return code, error
        return UNREACHABLE, senseless(host.name)

    def _show(self, host: RemoteHost, line: bytearray) -> bool:
        """Print a line; return False if it makes no sense."""
        name = "" if self._single else f"{host.name + ':':<{self._width}} "
        terminal.out(f"{name}{_safe(line.decode(errors='backslashreplace'))}\n", flush=True)
        return True

    def close(self) -> None:
        pass


class JsonLines(Lines):
    """The same with --json: a document on each line, with the host beside the answer."""

    def _show(self, host: RemoteHost, line: bytearray) -> bool:
        try:
            answer = _parsed(line.decode(errors="backslashreplace"))
        except ValueError:
            return False
        terminal.out(json.dumps({"host": host.name, "answer": answer}) + "\n", flush=True)
        return True


class Documents:
    """One document with the answer of each host, in the order of the command line."""

    def __init__(self, hosts: Sequence[RemoteHost]) -> None:
        self._data = {host: bytearray() for host in hosts}
        self.rows: dict[RemoteHost, dict[str, Any]] = {host: {} for host in hosts}

    def take(self, host: RemoteHost, data: bytes) -> Why | None:
        self._data[host] += data
        return None

    def end(self, host: RemoteHost, code: int, error: str | None) -> tuple[int, str | None]:
        text = self._data.pop(host).decode(errors="backslashreplace").strip()
        answer = None
        try:
            # As above.
            answer = _parsed(text) if text and error is None else None
        except ValueError:
            code, error = UNREACHABLE, senseless(host.name)
        told = answer.get("error") if isinstance(answer, dict) else None
        self.rows[host] = {
            "host": host.name,
            "code": code,
            "answer": answer,
            "error": error if error is not None or not isinstance(told, str) else told,
        }
        return code, error

    def close(self) -> None:
        terminal.out(json.dumps({"hosts": list(self.rows.values())}) + "\n")


def _safe(line: str) -> str:
    """Return a line of a host so that its color ends with it, and without color if the output has none."""
    if "\x1b" not in line:
        return line
    return line + _RESET if terminal.style().colors else line.replace("\x1b", "\\x1b")


def _parsed(text: str) -> Any:
    """Parse JSON. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
