"""`<listen>` under the unit: the keeper opens the sockets in its sandbox, and connections wait for a task that
restarts.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task

SERVER = """
    import os

    import zmsvc.task
    from zmsvc.task import SingleTask, TaskService


    class Serving(SingleTask):
        \"\"\"Tells its PID and its group to each client of its socket.\"\"\"

        def run(self):
            (sock,) = zmsvc.task.listen_sockets("web")
            while True:
                peer, _ = sock.accept()
                with peer:
                    peer.sendall(str(os.getpid()).encode())


    class ServiceServer(TaskService):
        service_name = "server"
        task_class = Serving
"""
ASK = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect('/run/zmsvc/Web/web.sock'); "
    "print(s.recv(100).decode())"
)


def ask(web: Installed, user: str = "root") -> int:
    """Return the PID of the task that serves a client."""
    return int(web.machine.sh(f'setpriv --reuid {user} --clear-groups /usr/bin/python3 -c "{ASK}"').stdout)


def test_a_socket_of_a_task_outlives_its_restarts_under_the_unit(context: Callable[..., Installed]) -> None:
    listen = '<listen name="web" mode="0666">/run/zmsvc/Web/web.sock</listen>'
    again = "<restart>on-failure</restart><restart_delay>500ms</restart_delay>"
    low = "<listen>127.0.0.1:80</listen>"
    web = context(
        "Web", task("ts_1", "Server", service=f"{listen}{again}"), task("ts_2", "Server", service=low)
    )
    web.machine.put("/etc/zmsvc/services/Server/__init__.py", "")
    web.machine.put("/etc/zmsvc/services/Server/ServiceServer.py", SERVER)
    web.start()
    (first,) = web.pids().values()
    assert ask(web) == ask(web, "nobody") == first
    web.machine.sh(f"kill -KILL {first}")
    assert ask(web) not in (0, first)
    web.machine.sh(f"kill -KILL {web.status()['pid']}")
    assert [ask(web)] == [*web.pids().values()]
    states = [each for (_, name), each in web.tasks().items() if name == "ts_2"]
    assert [each["exit"]["reason"] for each in states] == ["cannot-launch"]
    assert "a port below 1024 needs root or CAP_NET_BIND_SERVICE" in states[0]["status"]
    web.stop()
    assert web.machine.sh("test -e /run/zmsvc/Web/web.sock", check=False).returncode == 1
