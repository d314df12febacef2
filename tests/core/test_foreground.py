"""core/foreground: commands that leave the foreground are recognized, and so are options that keep them
there.
"""

from __future__ import annotations

import shlex

import pytest

from zmsvc.core import foreground

LEAVE = [
    "nginx",
    "/usr/sbin/nginx -c x.conf",
    "nginx -g 'pid /run/x.pid;'",
    "redis-server --port 1 --daemonize yes",
    "redis-server /etc/redis/redis.conf",
    "gunicorn -w 2 --daemon app:app",
    "gunicorn -D app:app",
    "php-fpm8.2",
    "memcached -m 64 -d",
    "celery multi start w1",
    "sh -c 'nginx; exec tail -F access.log'",
    "sh -c 'cd /srv && FOO=1 exec nginx -c x.conf'",
    "env A=b nginx",
    "zmsvcd --detach X",
    "nice -n 5 nginx",
    "sudo -u www nginx",
    "timeout -s INT 60 nginx",
    "env -i -u X A=b nohup /usr/sbin/nginx",
    "tini -- nginx",
    "gosu www nginx",
    "setsid -f sleep 1000",
    "setsid --fork nginx -g 'daemon off;'",
    "sh -c 'exec nice nginx'",
    "nice bash -ec 'sh -c nginx'",
    "sh -c 'sleep 1000 &'",
    "rsyslogd -f x.conf",
    "rsync --daemon",
    "docker run -d redis",
]
STAY = [
    "nginx -g 'daemon off;'",
    "nginx -t",
    "nginx -c off.conf",
    "redis-server --port 1",
    "redis-server /etc/redis/redis.conf --daemonize no",
    "gunicorn -w 2 app:app",
    "php-fpm8.2 -F",
    "sh -c \"nginx -g 'daemon off;'\"",
    "echo nginx",
    "sh -c 'echo nginx'",
    "nice -n 5 nginx -g 'daemon off;'",
    "timeout 60 sleep 1000",
    "setsid sleep 1000",
    "sh -c 'sleep 1000 & wait'",
    "sh -c 'true && sleep 1000'",
    "sh -c 'nice'",
    "env",
    "rsyslogd -n",
    "chronyd -d",
    "docker run redis",
    "ssh host -N",
    "sleep 1000",
    "sh -c 'unbalanced \"'",
    "sh",
]
FILES = {"/etc/redis/redis.conf": "# x\ndaemonize yes\n", "off.conf": "worker_processes 1;\n  daemon off;\n"}


def told(command: str) -> list[str]:
    return foreground.warnings(shlex.split(command), lambda path: FILES.get(path, ""))


@pytest.mark.parametrize("command", LEAVE)
def test_a_command_that_leaves_the_foreground_is_recognized(command: str) -> None:
    assert len(told(command)) == 1, command


@pytest.mark.parametrize("command", STAY)
def test_a_command_that_stays_in_the_foreground_is_not_warned_about(command: str) -> None:
    assert told(command) == []


def test_the_advice_names_the_option_that_keeps_it_in_the_foreground() -> None:
    assert "give it -g 'daemon off;'" in told("nginx")[0]
