"""A node program as a Command: its handler of SIGTERM runs, even if a shell started it, and it is started
again after a crash.
"""

from __future__ import annotations

import os
import signal

import pytest
from programs import Programs, free_port, http, program

SERVER = """const fs = require('fs'), http = require('http');
let orders = fs.existsSync('HOME/orders') ? fs.readFileSync('HOME/orders', 'utf8') : 'none';
const server = http.createServer((request, answer) => { answer.end(orders + '\\n'); orders = 'paid'; });
server.listen(PORT, '127.0.0.1');
process.on('SIGTERM', () => { fs.writeFileSync('HOME/orders', orders); process.exit(0); });
"""


class Node:
    def __init__(self, programs: Programs) -> None:
        self.port = free_port()
        file = programs.file(
            "server.js", SERVER.replace("HOME", str(programs.home)).replace("PORT", str(self.port))
        )
        self.words = [program("node"), str(file)]


@pytest.mark.parametrize("wrapper", ["", "{node}; :"])
def test_a_stop_of_a_node_program_saves_its_data(programs: Programs, wrapper: str) -> None:
    node = Node(programs)
    words = ["sh", "-c", wrapper.format(node=" ".join(node.words))] if wrapper else node.words
    programs.command("node", *words)
    programs.context.start("--transaction", "TX")
    assert http(node.port) == "none"
    programs.context.ctl("stop", "--transaction", "TX")
    programs.context.ctl("start", "--transaction", "TX")
    assert http(node.port) == "paid"


def test_a_node_program_that_was_killed_runs_again_by_its_rule(programs: Programs) -> None:
    node = Node(programs)
    programs.command("node", *node.words, rules={"on_fail": ("restart", "node")})
    programs.context.start()
    assert http(node.port) == "none"
    first = programs.context.tasks()["node"]["pid"]
    os.kill(first, signal.SIGKILL)
    programs.context.task_is("node", "running", also=lambda task: task["pid"] != first)
    assert http(node.port) == "none"
