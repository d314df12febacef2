"""Neither a directory of another user nor a link of one leads zmsvcd or zmsvcctl to other files."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context
from others import give, others, python, run
from waiting import wait_for_line

DAEMON = [sys.executable, "-P", "-m", "zmsvc.keeper"]


@pytest.fixture
def victim(context: Context) -> Iterator[int]:
    """Yield a user who starts the context without XDG_RUNTIME_DIR, as after `su`, in cron, or over ssh
    without pam_systemd.
    """
    uid = others(1)[0]
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    context.write()
    (context.home / "Services").mkdir()
    give(context.home, uid)
    yield uid
    run(uid, sys.executable, "-P", "-m", "zmsvc.ctl", "exit", env=environment(context))
    shutil.rmtree(f"/tmp/zmsvc-{uid}", ignore_errors=True)
    Path(f"/tmp/zmsvc-{uid}").unlink(missing_ok=True)


def environment(context: Context) -> dict[str, str]:
    return {
        name: value
        for name, value in context.environment.items()
        if name not in ("ZMSVC_RUNTIME_DIR", "XDG_RUNTIME_DIR")
    }


MAKE_TRAP = """
import os, sys
root, name, precious, made = sys.argv[1:]
os.umask(0)
os.makedirs(f"{root}/{name}")
os.symlink(precious, f"{root}/{name}/zmsvcd.pid")
os.symlink(made, f"{root}/{name}/zmsvcd.lock")
"""

LINK = "import os, sys; os.symlink(sys.argv[2], sys.argv[1])"


@pytest.mark.parametrize(
    ("variable", "directory"),
    [
        ("HOME", "/proc"),
        ("HOME", "/dev/null"),
        ("HOME", "/nonexistent/\u00e9"),
        ("XDG_RUNTIME_DIR", "/proc"),
        ("XDG_STATE_HOME", "/etc"),
        ("ZMSVC_STATE_DIR", "/proc/1"),
    ],
)
def test_a_directory_that_cannot_be_created_is_one_sentence(
    context: Context, victim: int, variable: str, directory: str
) -> None:
    given = {
        name: value
        for name, value in environment(context).items()
        if not name.startswith(("XDG_", "ZMSVC_STATE"))
    }
    if variable == "XDG_RUNTIME_DIR":
        given["ZMSVC_STATE_DIR"] = str(context.home / "state")
    done = run(victim, *DAEMON, str(context.file), env={**given, variable: directory})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"zmsvcd: cannot start {context.name}: cannot make the directory {directory}"), (
        line
    )
    assert (
        ": permission denied (set" in line
        or "no such file or directory (set" in line
        or ": not a directory (set" in line
    ), line
    assert "[Errno" not in line


@pytest.mark.parametrize(
    "verb", [("status",), ("list",), ("keys",), ("keys", "make"), ("units", "--user", "--install")]
)
def test_a_home_that_is_not_a_directory_is_reported_in_words(
    context: Context, victim: int, verb: tuple[str, ...]
) -> None:
    given = {
        name: value for name, value in environment(context).items() if not name.startswith(("XDG_", "ZMSVC_"))
    }
    done = run(victim, sys.executable, "-P", "-m", "zmsvc.ctl", *verb, env={**given, "HOME": "/proc"})
    assert "Errno" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_in_tmp_that_another_user_made_is_refused_by_zmsvcd_and_zmsvcctl(
    context: Context, victim: int
) -> None:
    attacker, root = victim + 1, Path(f"/tmp/zmsvc-{victim}")
    precious, made = context.home / "precious", context.home / "made-by-lock"
    precious.write_text("mine\n")
    give(context.home, victim)
    assert python(attacker, MAKE_TRAP, str(root), context.name, str(precious), str(made)).returncode == 0
    started = run(victim, *DAEMON, "--detach", str(context.file), env=environment(context))
    assert (precious.read_text(), made.exists()) == ("mine\n", False)
    assert started.returncode == 1
    assert started.stderr.startswith(f"zmsvcd: cannot use {root}: it is a directory of uid {attacker}")
    asked = run(victim, sys.executable, "-P", "-m", "zmsvc.ctl", "status", env=environment(context))
    assert asked.returncode == 1
    for told in (started.stderr, asked.stderr):
        assert "set XDG_RUNTIME_DIR" in told
        assert told.count("\n") == 1


def test_a_link_in_tmp_that_another_user_made_is_refused(context: Context, victim: int) -> None:
    own = context.home / "own"
    own.mkdir(mode=0o700)
    give(own, victim)
    python(victim + 1, LINK, f"/tmp/zmsvc-{victim}", str(own), check=True)
    started = run(victim, *DAEMON, "--detach", str(context.file), env=environment(context))
    assert started.returncode == 1
    assert "it is a link of uid" in started.stderr
    assert list(own.iterdir()) == []


def test_an_own_directory_in_tmp_that_others_may_read_is_refused(context: Context, victim: int) -> None:
    run(victim, "mkdir", "--mode=755", f"/tmp/zmsvc-{victim}", check=True)
    started = run(victim, *DAEMON, "--detach", str(context.file), env=environment(context))
    assert started.returncode == 1
    assert "with mode 0755, expected a directory" in started.stderr


def test_the_directory_in_tmp_is_made_for_its_user_alone(context: Context, victim: int) -> None:
    started = run(victim, *DAEMON, "--detach", str(context.file), env=environment(context))
    assert (started.returncode, started.stderr) == (0, "")
    about = Path(f"/tmp/zmsvc-{victim}").stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (victim, 0o700)
    asked = run(victim, sys.executable, "-P", "-m", "zmsvc.ctl", "status", env=environment(context))
    assert asked.returncode == 0, asked.stderr


def root_starts(context: Context, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as root would type it, with the streams in a file: a daemon that stays must not
    block the test.
    """
    told = context.home / "told"
    with told.open("w") as file:
        command = [*DAEMON, *options, context.name]
        status = subprocess.run(
            ["timeout", "45", *command],
            env=context.environment,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
        )
    return subprocess.CompletedProcess(command, status.returncode, told.read_text(), "")


@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("place", "links"),
    [("state/Live", ("zmsvcd.log", "state.db")), ("run/Live", ("zmsvcd.pid", "zmsvcd.lock"))],
    ids=["state", "runtime"],
)
def test_root_who_starts_a_context_of_another_user_follows_none_of_its_links(
    context: Context, place: str, links: tuple[str, str], options: tuple[str, ...]
) -> None:
    """The unit runs as zmsvc, and /var/lib/zmsvc/NAME and /run/zmsvc/NAME belong to that user, so one of its
    tasks can leave links there.
    """
    owner = others(1)[0]
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    (context.home / "Services").mkdir()
    context.write()
    context.home.chmod(0o755)
    directory = context.home / place
    directory.mkdir(parents=True)
    give(directory, owner)
    precious = context.home / "precious"
    precious.write_text("root's\n")
    for name in links:
        python(
            owner,
            LINK,
            str(directory / name),
            str(precious if name.endswith("pid") else context.home / f"made-by-{name}"),
            check=True,
        )
    done = root_starts(context, *options)
    assert precious.read_text() == "root's\n"
    assert [path.name for path in context.home.glob("made-by-*")] == []
    assert done.returncode == 1
    assert f"cannot start Live: {directory} belongs to uid {owner}, and this is user root" in done.stdout
    assert f"setpriv --reuid={owner} --regid={owner} --init-groups" in done.stdout


@pytest.mark.parametrize("name", ["zmsvcd.log", "zmsvcd.lock", "zmsvcd.pid", "state.db"])
def test_a_link_in_a_directory_of_ours_is_not_followed(context: Context, name: str) -> None:
    """The link was left there while the directory belonged to another user."""
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    (context.home / "Services").mkdir()
    place = context.home / ("run" if name in ("zmsvcd.lock", "zmsvcd.pid") else "state") / context.name
    place.mkdir(parents=True)
    elsewhere = context.home / "elsewhere"
    elsewhere.write_text("root's\n")
    (place / name).symlink_to(elsewhere)
    context.write()
    done = root_starts(context, "--detach")
    try:
        assert elsewhere.read_text() == "root's\n"
        # The PID file is written beside its place and renamed, so the link is gone and nothing is wrong.
        assert (done.returncode == 0) == (name == "zmsvcd.pid"), done.stdout
        if name != "zmsvcd.pid":
            assert f"{place / name}" in done.stdout
            assert "symbolic link" in done.stdout
    finally:
        context.ctl("exit", check=None)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_link_in_the_place_of_a_file_beside_the_state_file_is_not_followed(
    context: Context, suffix: str
) -> None:
    (context.home / "Services").mkdir()
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    context.write()
    place = context.home / "state" / context.name
    place.mkdir(parents=True)
    made = context.home / "made"
    (place / f"state.db{suffix}").symlink_to(made)
    done = root_starts(context, "--detach")
    context.ctl("exit", check=None)
    assert (done.returncode, made.exists()) == (1, False)
    assert f"state.db{suffix}: it is a symbolic link" in done.stdout


def test_a_runtime_directory_of_another_user_is_refused_by_zmsvcd_and_zmsvcctl(
    context: Context, victim: int
) -> None:
    """XDG_RUNTIME_DIR may be that of the session of another user."""
    directory = context.home / "xdg"
    directory.mkdir()
    give(directory, victim + 1)
    given = environment(context) | {"XDG_RUNTIME_DIR": str(directory)}
    started = run(victim, *DAEMON, "--detach", str(context.file), env=given)
    asked = run(victim, sys.executable, "-P", "-m", "zmsvc.ctl", "status", env=given)
    for done in (started, asked):
        assert done.returncode == 1
        assert f"cannot use XDG_RUNTIME_DIR={directory}: it is a directory of uid {victim + 1}" in done.stderr
    assert list(directory.iterdir()) == []


def test_an_ipc_endpoint_in_a_directory_that_another_user_may_change_is_refused(context: Context) -> None:
    attacker = others(1)[0]
    place = context.home / "bus"
    place.mkdir()
    give(place, attacker)
    context.subscribe_endpoint, context.publish_endpoint = f"ipc://{place}/sub", f"ipc://{place}/pub"
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    (context.home / "Services").mkdir()
    context.write()
    done = root_starts(context)
    assert (done.returncode, list(place.iterdir())) == (1, [])
    assert (
        f"cannot bind {context.publish_endpoint}: {place} is below {place}, which belongs to uid {attacker}"
        in done.stdout
    )


CREATE = (
    "create",
    "--task_service=Hello",
    "--task_file=hello",
    "--task_class=Say",
    "--task_desc=x",
    "--context_name=Hello",
    "--service_name=hello",
    "--task_id=ts_1",
    "--device_action=greet",
)


def test_create_follows_no_link_of_another_user(context: Context) -> None:
    attacker = others(1)[0]
    root, precious = context.home / "made", context.home / "precious"
    precious.mkdir()
    root.mkdir()
    root.chmod(0o1777)
    context.home.chmod(0o755)
    python(attacker, LINK, str(root / "Services"), str(precious), check=True)
    done = context.ctl(*CREATE, f"--service_path={root}", check=1)
    assert list(precious.iterdir()) == []
    assert f"leads through the link {root / 'Services'} of uid {attacker}" in done.stderr
    give(root, attacker)
    (root / "Services").unlink()
    assert (
        f"which belongs to uid {attacker}" in context.ctl(*CREATE, f"--service_path={root}", check=1).stderr
    )
    assert list(root.iterdir()) == []


@pytest.fixture
def logged(context: Context) -> Context:
    """A running context with a log file."""
    (context.home / "Services").mkdir()
    context.task("ts_100", "sleep", kind="Command", config="<command>sleep 1000</command>")
    context.start("--transaction", "TX")
    return context


def test_a_log_is_followed_over_a_rotation_and_through_its_directory_alone(logged: Context) -> None:
    log = logged.home / "state" / logged.name / "zmsvcd.log"
    secret = logged.home / "secret"
    secret.write_text("of root alone\n")
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", logged.name, "logs", "-f", "-n", "1"]
    with subprocess.Popen(command, env=logged.environment, stdout=subprocess.PIPE, bufsize=0) as follower:
        try:
            assert follower.stdout is not None
            wait_for_line(follower.stdout, "ts_100")
            with log.open("a") as file:
                file.write("before\nhalf a ")
                file.flush()
                wait_for_line(follower.stdout, "before")
                file.write("line\n")
            wait_for_line(follower.stdout, "half a line")
            log.rename(log.with_name("zmsvcd.log.1"))
            log.symlink_to(secret)
            with log.with_name("zmsvcd.log.1").open("a") as file:
                file.write("late\n")
            wait_for_line(follower.stdout, "late")
            log.unlink()
            log.write_text("after\n")
            assert "of root alone" not in wait_for_line(follower.stdout, "after")
            log.write_text("")
            log.write_text("cut\n")
            wait_for_line(follower.stdout, "cut")
            assert not Path(f"/proc/{follower.pid}/task/{follower.pid}/children").read_text(), (
                "no other program does it"
            )
        finally:
            follower.send_signal(signal.SIGINT)
            assert follower.wait(20) == 0


def test_the_log_of_a_directory_that_others_may_change_is_not_read(logged: Context) -> None:
    place = logged.home / "state" / logged.name
    place.chmod(0o777)
    assert f"{place} may be changed by everybody" in logged.ctl("logs", check=1).stderr
    assert logged.ctl("status").returncode == 0
