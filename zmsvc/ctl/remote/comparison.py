"""`zmsvcctl -H HOST,HOST cluster check`: the findings of each host, and what differs between the hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zmsvc.core import cluster
from zmsvc.core.remote_hosts import RemoteHost
from zmsvc.ctl import terminal
from zmsvc.ctl.remote.answers import Documents


class Comparison(Documents):
    """The checks of all hosts. Each has answered in JSON."""

    def __init__(self, hosts: Sequence[RemoteHost], *, as_json: bool) -> None:
        super().__init__(hosts)
        self._as_json = as_json
        self.differ = False
        """True if a difference is a fault."""

    def close(self) -> None:
        found = {
            host.name: row["answer"] for host, row in self.rows.items() if isinstance(row["answer"], dict)
        }
        facts = {
            name: told for name, answer in found.items() if isinstance(told := answer.get("facts"), dict)
        }
        differences = cluster.differences(facts)
        self.differ = any(each.level == "fault" for each in differences)
        if self._as_json:
            shown = [{"level": each.level, "text": each.text} for each in differences]
            terminal.out(json.dumps({"hosts": list(self.rows.values()), "differences": shown}) + "\n")
            return
        lines = [f"{name}: {line}" for name, answer in found.items() for line in _findings(answer)]
        lines += [f"{each.level}: {each.text}" for each in differences]
        if len(facts) == len(self.rows) > 1 and not differences:
            lines.append("the hosts do not differ")
        for line in lines:
            terminal.out(terminal.clean(line) + "\n")


def _findings(answer: Mapping[str, Any]) -> list[str]:
    told = answer.get("findings")
    found = told if isinstance(told, list) else []
    lines = [f"{each.get('level')}: {each.get('text')}" for each in found if isinstance(each, dict)]
    return [*lines, "ready" if answer.get("ok") is True else "not ready"]
