"""redis-server as a Command: its data outlives stop and crash, and its log is rotated while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from programs import Programs, program, talk
from test_output_of_tasks import log_file
from waiting import wait_for, wait_for_end

CHECKOUT = Path(__file__).parents[2]


class Redis:
    """A task `redis` that serves at a Unix socket, and dumps into the directory of the test."""

    def __init__(self, programs: Programs) -> None:
        self.home, self.socket = programs.home, programs.home / "redis.sock"
        self.dump = programs.home / "dump.rdb"
        self.words = [
            program("redis-server"),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "900 1",
            "--dir",
            str(self.home),
        ]

    def script(self) -> str:
        return " ".join(f"'{word}'" for word in self.words)

    def __call__(self, line: str) -> str:
        answer = talk(
            self.socket,
            f"{line}\r\n".encode(),
            lambda heard: heard.endswith(b"\r\n") and not heard.startswith(b"-LOADING"),
        )
        return answer.decode().split("\r\n")[-2]


@pytest.fixture
def redis(programs: Programs) -> Redis:
    return Redis(programs)


def test_redis_starts_and_answers(programs: Programs, redis: Redis) -> None:
    programs.command("redis", *redis.words)
    programs.context.start()
    assert programs.context.tasks()["redis"]["sub"] == "running"
    assert redis("PING") == "+PONG"


def test_redis_that_was_killed_runs_again_by_its_rule(programs: Programs, redis: Redis) -> None:
    programs.command("redis", *redis.words, rules={"on_fail": ("restart", "redis")})
    programs.context.start()
    assert redis("PING") == "+PONG"
    first = programs.context.tasks()["redis"]["pid"]
    os.kill(first, signal.SIGKILL)
    again = programs.context.task_is("redis", "running", also=lambda task: task["pid"] != first)
    assert redis("PING") == "+PONG"
    assert again["exit"]["signal"] == "SIGKILL"


@pytest.mark.parametrize("wrapper", ["", "{redis}; :", "{redis} & wait", "cd / && {redis} | cat"])
def test_a_stop_of_redis_saves_its_data(programs: Programs, redis: Redis, wrapper: str) -> None:
    words = ["sh", "-c", wrapper.format(redis=redis.script())] if wrapper else redis.words
    programs.command("redis", *words)
    programs.context.start("--transaction", "TX")
    assert redis("SET order paid") == "+OK"
    programs.context.ctl("stop", "--transaction", "TX")
    assert redis.dump.exists()
    redis.socket.unlink(missing_ok=True)
    programs.context.ctl("start", "--transaction", "TX")
    assert redis("GET order") == "paid"


def test_redis_in_the_background_is_ended_with_its_task_saves_its_data_and_is_named(
    programs: Programs, redis: Redis
) -> None:
    pid_file = programs.home / "redis.pid"
    script = f"{redis.script()} --daemonize yes --pidfile {pid_file}; exec sleep 1000"
    programs.command("redis", "sh", "-c", script)
    programs.context.start()
    assert redis("SET order paid") == "+OK"
    pid = int(pid_file.read_text())
    answer = programs.context.ctl("stop", "--task", "redis").stdout
    wait_for_end(pid, 0)
    assert f"redis-server (PID {pid})" in answer, answer
    assert redis.dump.exists()


def test_redis_that_leaves_its_task_is_ended_and_status_says_what_keeps_it(
    programs: Programs, redis: Redis
) -> None:
    pid_file = programs.home / "redis.pid"
    programs.command("redis", *redis.words, "--daemonize", "yes", "--pidfile", str(pid_file))
    assert "--daemonize no" in programs.context_check()
    programs.context.start()
    task = programs.context.task_is("redis", "exited")
    assert "redis-server" in task["status"], task
    assert "--daemonize no" in task["status"], task
    left = [each["pid"] for each in task["ended"]]
    for pid in left:
        wait_for_end(pid, 0)


def test_the_log_of_redis_is_rotated_while_it_runs(programs: Programs, redis: Redis) -> None:
    logrotate = program("logrotate")
    programs.command("redis", *redis.words)
    programs.context.start()
    assert redis("PING") == "+PONG"
    log = log_file(programs.context)
    wait_for(
        lambda: "Ready to accept connections" in log.read_text() or "accept connections" in log.read_text()
    )
    example = (
        (CHECKOUT / "etc/logrotate.d/zmsvc").read_text().replace("/var/lib/zmsvc/*/zmsvcd.log", str(log))
    )
    rotation = programs.file("logrotate.conf", example)
    subprocess.run([logrotate, "--force", "--state", programs.home / "logrotate.state", rotation], check=True)
    assert redis("SET order paid") == "+OK"
    assert redis("BGSAVE").startswith("+Background saving")
    wait_for(lambda: "Background saving terminated with success" in log.read_text())
    assert "Background saving" not in log.with_name(f"{log.name}.1").read_text()
