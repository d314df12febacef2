"""nginx as a Command: reload and log rotation by signals, a graceful stop, and the mistake of a start in the
background.
"""

from __future__ import annotations

import os
import signal

import pytest
from programs import Programs, free_port, http, program
from waiting import wait_for, wait_for_end


class Nginx:
    """A task `nginx` whose page is a word of its configuration."""

    def __init__(self, programs: Programs) -> None:
        self.home, self.port = programs.home, free_port()
        self.path = program("nginx")
        self.say("first")

    def say(self, word: str) -> None:
        temporary = "".join(
            f"{kind}_temp_path {self.home}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.home / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} pid {self.home}/nginx.pid; error_log {self.home}/error.log; events {{}}"
            f"http {{ {temporary} access_log {self.home}/access.log; server {{ listen 127.0.0.1:{self.port};"
            f'location / {{ return 200 "{word}\\n"; }} }} }}'
        )

    @property
    def words(self) -> list[str]:
        return [self.path, "-e", f"{self.home}/error.log", "-c", f"{self.home}/nginx.conf"]


@pytest.fixture
def nginx(programs: Programs) -> Nginx:
    made = Nginx(programs)
    rules = {"on_fail": ("restart", "nginx")}
    programs.command(
        "nginx", *made.words, "-g", "daemon off;", service="<stop_signal>QUIT</stop_signal>", rules=rules
    )
    return made


def test_nginx_that_was_killed_serves_again_and_its_workers_are_gone(
    programs: Programs, nginx: Nginx
) -> None:
    programs.serves_again_after_a_kill("nginx", nginx.port)


def test_nginx_reads_its_configuration_again_on_sighup(programs: Programs, nginx: Nginx) -> None:
    programs.context.start()
    assert http(nginx.port) == "first"
    before = programs.context.tasks()["nginx"]
    nginx.say("second")
    os.kill(before["pid"], signal.SIGHUP)
    wait_for(lambda: http(nginx.port) == "second")
    after = programs.context.tasks()["nginx"]
    assert (after["pid"], after["sub"], after["restarts"]) == (before["pid"], "running", before["restarts"])


def test_nginx_writes_to_a_new_log_after_sigusr1(programs: Programs, nginx: Nginx) -> None:
    programs.context.start()
    assert http(nginx.port) == "first"
    log = programs.home / "access.log"
    log.rename(programs.home / "access.log.1")
    os.kill(programs.context.tasks()["nginx"]["pid"], signal.SIGUSR1)
    wait_for(log.exists)
    wait_for(lambda: http(nginx.port) == "first" and "GET /" in log.read_text())


def test_nginx_stops_gracefully_by_its_stop_signal(programs: Programs, nginx: Nginx) -> None:
    programs.context.start("--transaction", "TX")
    assert http(nginx.port) == "first"
    programs.context.ctl("stop", "--transaction", "TX")
    exit_of = programs.context.tasks("TX")["nginx"]["exit"]
    assert (exit_of["code"], exit_of["reason"]) == (0, "requested")
    assert not (programs.home / "nginx.pid").exists(), "nginx removes it at an end in order"


def test_nginx_in_the_background_is_ended_and_status_says_daemon_off(programs: Programs) -> None:
    made = Nginx(programs)
    programs.command("nginx", *made.words)
    assert "daemon off;" in programs.context_check()
    programs.context.start()
    task = programs.context.task_is("nginx", "exited")
    assert "daemon off;" in task["status"], task
    shown = programs.context.ctl("status", check=None).stdout
    assert "daemon off;" in shown, shown
    for each in task["ended"]:
        wait_for_end(each["pid"], 0)
    assert task["ended"]
