"""The hosts of `zmsvcctl -H`: their names, the words of ssh, and the meaning of its end."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from zmsvc.core import remote_hosts
from zmsvc.core.errors import UsageError
from zmsvc.core.remote_hosts import RemoteHost, code_of, gravest, parse, reason_of, ssh_words


@pytest.mark.parametrize(
    ("name", "host", "user", "port"),
    [
        ("web1", "web1", None, None),
        ("web1.example.org:2222", "web1.example.org", None, 2222),
        ("anna@web1", "web1", "anna", None),
        ("anna@example.org@web1:22", "web1", "anna@example.org", 22),
        ("10.0.0.1", "10.0.0.1", None, None),
        ("fe80::1%eth0", "fe80::1%eth0", None, None),
        ("[::1]:2222", "::1", None, 2222),
        ("root@[::1]", "::1", "root", None),
        ("_dmz", None, None, None),
        ("", None, None, None),
        ("-oProxyCommand=id", None, None, None),
        ("anna@-oProxyCommand=id", None, None, None),
        ("-l@web1", None, None, None),
        ("web1;id", None, None, None),
        ("$(id)", None, None, None),
        ("web 1", None, None, None),
        ("web1\n", None, None, None),
        ("web1\x1b[2J", None, None, None),
        ("@web1", None, None, None),
        ("a@b`id`@web1", None, None, None),
        ("web1:", None, None, None),
        ("web1:0", None, None, None),
        ("web1:65536", None, None, None),
        ("web1:٢٢", None, None, None),
        ("[::1]x", None, None, None),
        ("ssh://web1", None, None, None),
    ],
)
def test_a_host_is_a_name_with_a_user_and_a_port_or_is_refused(
    name: str, host: str | None, user: str | None, port: int | None
) -> None:
    if host is None:
        with pytest.raises(UsageError, match="cannot use -H"):
            parse([name])
    else:
        assert parse([name]) == (RemoteHost(name=name, host=host, user=user, port=port),)


def test_hosts_may_be_given_in_one_list_or_in_several_but_not_twice() -> None:
    assert [host.name for host in parse(["a,b", "root@a", "a:23"])] == ["a", "b", "root@a", "a:23"]
    with pytest.raises(UsageError, match="b is named twice"):
        parse(["a,b", "b"])
    with pytest.raises(UsageError, match="128 is the most"):
        parse([",".join(f"h{number}" for number in range(129))])


def test_words_arrive_on_the_host_as_they_were() -> None:
    words = ["zmsvcctl", "send", "a b", "$(id) `id` \\ \"'\n*", "", "-x", "~", "ä"]
    (host,) = parse(["anna@web1:23"])
    told = ssh_words(host, words, 5)
    place = told.index("--")
    assert told[place + 1] == "web1"
    assert (" ".join(told[place - 4 : place - 2]), " ".join(told[place - 2 : place])) == ("-l anna", "-p 23")
    assert {"BatchMode=yes", "ConnectTimeout=5"} <= set(told[:place])
    # ssh joins its words with blanks, and the shell on the host splits them.
    printed = subprocess.run(
        ["sh", "-c", "printf '%s\\0' " + " ".join(told[place + 2 :])], capture_output=True, check=True
    )
    assert printed.stdout.decode().split("\0")[:-1] == words
    assert shlex.split(" ".join(told[place + 2 :])) == words


def test_a_command_that_draws_gets_the_terminal_and_ssh_may_ask_there() -> None:
    told = ssh_words(RemoteHost(name="a", host="a"), ["true"], terminal=True)
    assert (told[0], "BatchMode=no" in told, "BatchMode=yes" in told) == ("-t", True, False)


@pytest.mark.parametrize(("seconds", "connect"), [(None, 10), (600, 10), (2.4, 2), (0.1, 1)])
def test_to_connect_takes_no_longer_than_the_limit_of_the_host(seconds: float | None, connect: int) -> None:
    assert f"ConnectTimeout={connect}" in ssh_words(RemoteHost(name="a", host="a"), ["true"], seconds)


def test_an_unreachable_host_is_told_with_the_last_line_of_ssh() -> None:
    web1 = RemoteHost(name="web1", host="web1")
    (other,) = parse(["anna@web1:2222"])
    told = ["*** WARNING ***", "ssh: connect to host web1 port 22: Connection refused", ""]
    assert reason_of(web1, 255, told) == (
        "cannot reach web1: connect to host web1 port 22: Connection refused (ssh web1 tries the same)"
    )
    assert str(reason_of(other, 255, told)).endswith("(ssh -p 2222 anna@web1 tries the same)")
    assert "gives no reason" in str(reason_of(web1, 255, []))
    assert "\x1b" not in str(reason_of(web1, 255, ["\x1b[2Jhello"]))
    assert "cannot find zmsvcctl on web1" in str(reason_of(web1, 127, ["env: zmsvcctl: no"]))
    assert "signal 9 has ended ssh" in str(reason_of(web1, -9, []))
    assert reason_of(web1, 3, ["noise"]) is None
    assert [code_of(status) for status in (0, 3, 255, 127, -9, 124)] == [0, 3, 5, 5, 5, 124]


def test_one_exit_status_stands_for_all_hosts() -> None:
    assert gravest([0, 0]) == 0
    assert gravest([0, 3]) == 3
    assert gravest([3, 1]) == 1
    assert gravest([1, 4]) == 4
    assert gravest([4, 2]) == 2
    assert gravest([2, 124]) == 124
    assert gravest([124, 5]) == 5
    assert gravest([0, 3, 130]) == 130


def test_the_answers_of_all_hosts_together_have_a_limit() -> None:
    assert remote_hosts.answer_limit(1) == remote_hosts.answer_limit(8) == 16 << 20
    assert remote_hosts.answer_limit(remote_hosts.MAX_HOSTS) == 1 << 20
