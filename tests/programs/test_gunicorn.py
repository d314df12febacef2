"""gunicorn as a Command: reload by a signal, crashes of the master and of a worker, and a stop that waits for
a request.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest
from programs import Programs, children, free_port, http, program
from waiting import wait_for, wait_for_end

APP = """import os, time
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if {slow}:
        open("{home}/asked", "w").close()
        while not os.path.exists("{home}/go"):
            time.sleep(0.01)
    return [b"{word}\\n"]
"""


class Gunicorn:
    """A task `gunicorn` whose page is a word of its application."""

    def __init__(self, programs: Programs) -> None:
        self.home, self.port = programs.home, free_port()
        self.say("first")
        words = [
            program("gunicorn"),
            "-b",
            f"127.0.0.1:{self.port}",
            "-w",
            "1",
            "--chdir",
            str(self.home),
            "--worker-tmp-dir",
            "/dev/shm",
        ]
        programs.command("gunicorn", *words, "shop:app", rules={"on_fail": ("restart", "gunicorn")})

    def say(self, word: str, *, slow: bool = False) -> None:
        (self.home / "shop.new").write_text(APP.format(word=word, slow=slow, home=self.home))
        (self.home / "shop.new").rename(self.home / "shop.py")


@pytest.fixture
def gunicorn(programs: Programs) -> Gunicorn:
    return Gunicorn(programs)


def test_gunicorn_loads_the_application_again_on_sighup(programs: Programs, gunicorn: Gunicorn) -> None:
    programs.context.start()
    assert http(gunicorn.port) == "first"
    before = programs.context.tasks()["gunicorn"]
    gunicorn.say("longer than before")
    os.kill(before["pid"], signal.SIGHUP)
    wait_for(lambda: http(gunicorn.port) == "longer than before")
    assert programs.context.tasks()["gunicorn"]["pid"] == before["pid"]


def test_gunicorn_that_was_killed_serves_again_and_its_workers_are_gone(
    programs: Programs, gunicorn: Gunicorn
) -> None:
    programs.serves_again_after_a_kill("gunicorn", gunicorn.port)


def test_a_killed_worker_is_replaced_by_gunicorn(programs: Programs, gunicorn: Gunicorn) -> None:
    programs.context.start()
    assert http(gunicorn.port) == "first"
    before = programs.context.tasks()["gunicorn"]
    (worker,) = children(before["pid"])
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: children(before["pid"]) not in ([], [worker]))
    assert http(gunicorn.port) == "first"
    assert programs.context.tasks()["gunicorn"]["pid"] == before["pid"]


def test_a_stop_of_gunicorn_lets_a_request_end(programs: Programs, gunicorn: Gunicorn) -> None:
    gunicorn.say("answered", slow=True)
    programs.context.start("--transaction", "TX")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(http(gunicorn.port)))
    asking.start()
    wait_for((programs.home / "asked").exists)
    programs.context.ctl("stop", "--no-block", "--transaction", "TX")
    programs.context.task_is("gunicorn", "stop-sigterm", "TX")
    (programs.home / "go").touch()
    asking.join()
    assert answers == ["answered"]
    programs.context.task_is("gunicorn", "stopped", "TX")


def test_gunicorn_replaces_its_master_on_sigusr2_and_the_task_goes_on(programs: Programs) -> None:
    port = free_port()
    programs.file("shop.py", APP.format(word="first", slow=False, home=programs.home))
    programs.file(
        "conf.py",
        "import os, socket\n"
        "def when_ready(server):\n"
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:\n"
        "        sock.connect(os.environ['NOTIFY_SOCKET'])\n"
        "        sock.send(b'READY=1\\nMAINPID=%d' % os.getpid())\n",
    )
    words = [
        program("gunicorn"),
        "-c",
        str(programs.home / "conf.py"),
        "-b",
        f"127.0.0.1:{port}",
        "--chdir",
        str(programs.home),
    ]
    programs.command(
        "gunicorn",
        *words,
        "--worker-tmp-dir",
        "/dev/shm",
        "shop:app",
        service="<notify_access>all</notify_access>",
    )
    programs.context.start("--transaction", "TX")
    assert http(port) == "first"
    old = programs.context.tasks()["gunicorn"]["pid"]
    os.kill(old, signal.SIGUSR2)
    new = programs.context.task_is("gunicorn", "running", also=lambda task: task["pid"] != old)["pid"]
    os.kill(old, signal.SIGTERM)
    wait_for_end(old)
    assert http(port) == "first"
    assert programs.context.tasks()["gunicorn"]["pid"] == new
    programs.context.ctl("stop", "--transaction", "TX")
    wait_for_end(new, 0)
