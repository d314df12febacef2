"""CURVE keys: files that other programs can read, their readers, the verbs of `zmsvcctl keys`, and the
clients that find them.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
import zmq.auth
from needs import need
from others import others, python

from zmsvc.core.errors import ConfigError
from zmsvc.ctl import client_keys
from zmsvc.ctl.__main__ import main
from zmsvc.ctl.verbs import keys
from zmsvc.host.bus import curve_keys
from zmsvc.host.config import exposed_binds, reader

Capture = pytest.CaptureFixture[str]

CONTEXT = """<Context>
  <FrontEndEndpoint>tcp://192.0.2.1:5556</FrontEndEndpoint>
  <BackendEndpoint>{publish_endpoint}</BackendEndpoint>
  <FrontBind>{bind}</FrontBind>
  <TaskService id="ts_000" instance="Monitor"><Task><message><header><service_name>monitor</service_name></header>
    <content><configuration><service>
      <endpoint>tcp://192.0.2.1:6558</endpoint>
    </service></configuration></content>
  </message><state type="on_start"/></Task></TaskService>
</Context>
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG", "RUNTIME", "STATE"):
        monkeypatch.setenv(f"ZMSVC_{name}_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    return tmp_path


def write(home: Path, publish_endpoint: str = "tcp://192.0.2.1:5557", bind: str = "") -> None:
    (home / "Context-Here.xml").write_text(CONTEXT.format(publish_endpoint=publish_endpoint, bind=bind))


def run(*words: str, code: int = 0) -> None:
    assert main(["-c", "Here", "keys", *words]) == code


def complaint(capsys: Capture) -> str:
    told = capsys.readouterr().err
    assert told.startswith("zmsvcctl: ")
    assert told.count("\n") == 1
    return told


# --- a machine that only connects


def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this another machine, which has no file of the context."""
    other = home / "elsewhere"
    other.mkdir()
    for name in ("CONFIG", "RUNTIME", "STATE"):
        monkeypatch.setenv(f"ZMSVC_{name}_DIR", str(other))
    return other


def test_a_machine_that_only_connects_has_a_pair_of_its_own_and_the_public_key_of_the_device(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run("make")
    server = curve_keys.load_public(home / "keys/Here/server.key")
    other = elsewhere(home, monkeypatch)
    capsys.readouterr()
    run("join", str(home / "keys/Here/server.key"))
    told = capsys.readouterr()
    directory = other / "keys/Here"
    own = curve_keys.load_client(directory)
    assert own.server_public == server
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {
        "server.key": 0o644, "client.key": 0o644, "client.key_secret": 0o600,
    }  # fmt: skip
    assert f"client: {own.public.decode()}" in told.out
    assert "zmsvcctl -c Here keys allow " in told.err
    assert client_keys.of_context("Here") == own
    assert client_keys.of_endpoint("tcp://192.0.2.1:5556", None, "Here") == own
    assert not curve_keys.in_use(directory), "a context that runs there does not take them for a server's"
    assert main(["-c", "Here", "--json", "keys"]) == 0
    assert json.loads(capsys.readouterr().out)["client"] == own.public.decode()


@pytest.mark.parametrize(
    "words", [("make",), ("make", "laptop"), ("allow", "x.key"), ("revoke", "x"), ("join", "server.key")]
)
def test_the_keys_of_a_client_are_not_taken_for_those_of_the_context(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: tuple[str, ...]
) -> None:
    run("make")
    other = elsewhere(home, monkeypatch)
    run("join", str(home / "keys/Here/server.key"))
    secret = (other / "keys/Here/client.key_secret").read_bytes()
    capsys.readouterr()
    run(*words, code=1)
    complaint(capsys)
    assert (other / "keys/Here/client.key_secret").read_bytes() == secret


def test_join_with_bad_input_is_refused_and_leaves_no_files(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run("make")
    other = elsewhere(home, monkeypatch)
    capsys.readouterr()
    for words, part in (
        (
            ("join", str(home / "keys/Here/server.key_secret")),
            "it is a secret key, expected the public one, server.key",
        ),
        (("join", str(home / "missing.key")), "cannot read CURVE keys"),
    ):
        run(*words, code=1)
        assert part in complaint(capsys)
        assert not (other / "keys").exists()
    run("join", code=2)
    complaint(capsys)
    assert main(["keys", "join", str(home / "keys/Here/server.key")]) == 2
    assert "name it (zmsvcctl -c NAME keys join" in complaint(capsys)


# --- files


def test_key_files_are_compatible_with_pyzmq(home: Path) -> None:
    run("make")
    public, secret = zmq.auth.load_certificate(home / "keys/Here/server.key_secret")
    assert secret
    assert zmq.auth.load_certificate(home / "keys/Here/server.key") == (public, None)
    ours = curve_keys.load_curve(home / "keys/Here/server.key_secret")
    assert (ours.public, ours.secret) == (public, secret)
    theirs = Path(zmq.auth.create_certificates(home, "theirs", metadata={"name": "another"})[1])
    theirs.chmod(0o600)
    read = curve_keys.load_curve(theirs)
    assert zmq.auth.load_certificate(theirs) == (read.public, read.secret)


def test_a_secret_key_that_others_may_read_is_refused(home: Path) -> None:
    run("make")
    file = home / "keys/Here/client.key_secret"
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read it \(mode 0640; chmod 600 "):
        curve_keys.load_client(home / "keys/Here")


def test_a_fifo_in_place_of_a_key_blocks_nothing(home: Path) -> None:
    run("make")
    file = home / "keys/Here/server.key_secret"
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(ConfigError, match="is not a regular file"):
        curve_keys.load_curve(file)


def test_keys_are_not_shown_by_accident() -> None:
    public, secret = zmq.curve_keypair()
    shown = f"{curve_keys.Curve(public=public, secret=secret)!r}"
    assert public.decode() in shown or repr(public) in shown
    assert secret.decode() not in shown


def test_secret_keys_belong_to_the_contexts_user_and_the_rest_to_their_maker(home: Path) -> None:
    need(os.geteuid() == 0, "only root can give files away")
    os.mkdir(home / "Here")
    os.chown(home / "Here", 1, 1)
    run("make")
    owners = {file.name: file.stat().st_uid for file in (home / "keys/Here").iterdir()}
    assert owners == {
        "server.key": 0,
        "server.key_secret": 1,
        "client.key": 0,
        "client.key_secret": 1,
        "clients": 0,
    }


# --- the verb


def test_make_creates_keys_once(home: Path, capsys: Capture) -> None:
    run("make")
    before = (home / "keys/Here/server.key_secret").read_bytes()
    capsys.readouterr()
    run("make", code=1)
    assert "has them already" in complaint(capsys)
    assert (home / "keys/Here/server.key_secret").read_bytes() == before


def test_show_prints_public_keys_only(home: Path, capsys: Capture) -> None:
    run("make", "laptop")
    told = capsys.readouterr().out
    run("list")
    assert capsys.readouterr().out == told
    files = {file: zmq.auth.load_certificate(file) for file in home.rglob("*.key*")}
    assert len(files) == 9
    assert all(key.decode() in told for file, (key, _) in files.items())
    assert not any(secret and secret.decode() in told for _, secret in files.values())


def test_no_keys_are_made_below_a_directory_that_another_user_made_first(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    need(os.geteuid() == 0, "only root can give directories away")
    theirs = home / "theirs"
    (theirs / "conf").mkdir(parents=True)
    write(theirs / "conf")
    os.chown(theirs, others(1)[0], -1)
    monkeypatch.setenv("ZMSVC_CONFIG_DIR", str(theirs / "conf"))
    run("make", code=1)
    assert f"is below {theirs}, which belongs to" in complaint(capsys)
    assert [each.name for each in (theirs / "conf").iterdir()] == ["Context-Here.xml"]


def test_a_key_goes_into_the_directory_that_was_made_whatever_comes_to_its_path(home: Path) -> None:
    target = home / "target"
    target.mkdir()
    with keys._directory(home / "made", make=True) as made:
        (home / "made").rename(home / "moved")
        (home / "made").symlink_to(target)
        public = keys._write_pair(made, curve_keys.CLIENT, None)
    assert list(target.iterdir()) == []
    assert sorted(each.name for each in (home / "moved").iterdir()) == ["client.key", "client.key_secret"]
    assert curve_keys.load_public(home / "moved/client.key") == public


def test_all_users_may_enter_the_directories_of_keys_whatever_the_umask_is(home: Path) -> None:
    before = os.umask(0o077)
    try:
        run("make")
    finally:
        os.umask(before)
    for place in ("keys", "keys/Here", "keys/Here/clients"):
        assert stat.S_IMODE((home / place).stat().st_mode) == 0o755


def test_a_client_elsewhere_gets_a_directory_with_all_that_it_needs(home: Path, capsys: Capture) -> None:
    run("make", "laptop")
    assert stat.S_IMODE((home / "laptop").stat().st_mode) == 0o700
    curve = curve_keys.load_client(home / "laptop")
    assert curve.server_public == curve_keys.load_public(home / "keys/Here/server.key")
    assert curve.public == curve_keys.load_public(home / "keys/Here/clients/laptop.key")
    capsys.readouterr()
    run("make", "laptop", code=1)
    assert "laptop: it exists" in complaint(capsys)


def test_allow_copies_only_the_public_part_of_a_file(home: Path, capsys: Capture) -> None:
    run("make")
    secret = Path(zmq.auth.create_certificates(home, "friend")[1])
    secret.chmod(0o600)
    run("allow", str(secret))
    assert "secret-key" not in (home / "keys/Here/clients/friend.key").read_text()
    capsys.readouterr()
    run("allow", str(secret), code=1)
    assert "revoke friend" in complaint(capsys)
    run("revoke", "friend")
    assert "friend" not in capsys.readouterr().out
    run("revoke", "friend", code=1)
    assert "no such client" in complaint(capsys)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("revoke", "context"), 1, "its tasks connect"),
        (("revoke", "../server"), 2, "as the name of a client"),
        (("revoke",), 2, "keys revoke needs"),
        (("make", "--now"), 2, "--now is for keys revoke"),
        (("list", "x"), 2, "keys list takes no"),
        (("allow", "none.key"), 1, "no such file"),
        (("make", "keys/Here"), 1, "it exists"),
    ],
)
def test_invalid_key_arguments_are_refused(
    words: tuple[str, ...], code: int, why: str, capsys: Capture
) -> None:
    run("make")
    capsys.readouterr()
    run(*words, code=code)
    assert why in complaint(capsys)


def test_show_without_keys_says_how_to_make_them(capsys: Capture) -> None:
    run(code=1)
    assert "zmsvcctl -c Here keys make" in complaint(capsys)


def test_keys_as_json(home: Path, capsys: Capture) -> None:
    assert main(["-c", "Here", "--json", "keys", "make"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "directory": str(home / "keys/Here"),
        "server": curve_keys.load_public(home / "keys/Here/server.key").decode(),
        "clients": {"context": curve_keys.load_public(home / "keys/Here/client.key").decode()},
    }


# --- who finds them


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("tcp://192.0.2.1:5556", True),
        ("tcp://192.0.2.1:5557", True),
        ("tcp://192.0.2.1:6558", True),
        ("tcp://127.0.0.1:5577", True),
        ("tcp://localhost:5577", True),
        ("tcp://203.0.113.9:5556", False),
        ("tcp://203.0.113.9:5577", False),
        ("tcp://192.0.2.1:5558", False),
        ("ipc:///run/x", False),
        ("nonsense", False),
    ],
)
def test_keys_are_found_by_the_endpoints_of_the_file(home: Path, place: str, found: bool) -> None:
    write(home, bind="tcp://*:5577")
    run("make")
    # A context whose file cannot be read does not disturb others.
    (home / "Context-Broken.xml").write_text("<Context>")
    shutil.copytree(home / "keys/Here", home / "keys/Broken")
    assert (client_keys.of_endpoint(place, None) is not None) == found


def test_the_given_key_directory_wins(home: Path) -> None:
    run("make", "laptop")
    curve = client_keys.of_endpoint("tcp://elsewhere.example:1", str(home / "laptop"))
    assert curve is not None
    assert curve.public == curve_keys.load_public(home / "laptop/client.key")


# --- other users


REPLACE = """
import os, sys
file, text = sys.argv[1:]
os.rename(file, file + ".old")
with open(file, "w") as fresh:
    fresh.write(text)
"""
OWN_PLACE = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that other users can reach, with keys of a client as those of the context and as
    `laptop`.
    """
    run("make")
    run("make", "laptop")
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        directory = Path(made)
        directory.chmod(0o755)
        for name in ("laptop", "keys/Here"):
            shutil.copytree(home / "laptop", directory / name).chmod(0o755)
        monkeypatch.setenv("ZMSVC_CONFIG_DIR", made)
        yield directory


def looks_for_keys(directory: Path) -> list[str]:
    """Return the complaints about the keys of a client, in a given directory and by the name of the context.
    A complaint is empty if the keys are accepted.
    """
    said = []
    for given in (str(directory), None):
        try:
            client_keys.of_endpoint("tcp://192.0.2.1:5557", given, "Here")
        except ConfigError as error:
            said += error.faults
    return said


@pytest.mark.parametrize("place", ["", "..", "../.."])
def test_a_client_takes_no_keys_that_another_user_could_replace(
    shared: Path, place: str, capsys: Capture
) -> None:
    attacker = others(1)[0]
    assert looks_for_keys(shared / "keys/Here") == []
    directory = shared / "keys/Here"
    for open_one in (directory / place, shared / "laptop"):
        open_one.chmod(0o777)
    if not place:
        python(
            attacker,
            REPLACE,
            str(directory / "server.key"),
            curve_keys.text(zmq.curve_keypair()[0]),
            check=True,
        )
    given, named = looks_for_keys(directory)
    assert given == named
    assert given.startswith(f"cannot use CURVE keys: {directory} ")
    assert "may be changed by everybody" in given
    assert main(["watch", "--endpoint", "tcp://192.0.2.1:5557", "--keys", str(directory)]) != 0
    assert "may be changed by everybody" in complaint(capsys)


def test_a_client_uses_keys_of_another_user_only_under_that_users_sudo(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = others(1)[0]
    place = shared / "public"
    place.mkdir()
    place.chmod(0o1777)
    (shared / "laptop/client.key_secret").chmod(0o644)
    python(other, OWN_PLACE, str(shared / "laptop"), str(place / "laptop"), check=True)
    (place / "laptop/client.key_secret").chmod(0o600)
    assert looks_for_keys(place / "laptop") == [
        f"cannot use CURVE keys: {place / 'laptop'} belongs to uid {other}"
    ]
    monkeypatch.setenv("SUDO_UID", str(other))
    assert looks_for_keys(place / "laptop") == []


@pytest.mark.parametrize("name", ["server.key", "clients/context.key"])
def test_a_public_key_that_others_may_write_is_not_trusted(home: Path, name: str, capsys: Capture) -> None:
    run("make")
    file = home / "keys/Here" / name
    file.chmod(0o666)
    refusal = f"cannot use CURVE key {file}: it may be changed by everybody (mode 0666; chmod go-w {file})"
    capsys.readouterr()
    main(["-c", "Here", "keys"])
    told = capsys.readouterr()
    assert refusal in told.err
    assert "context" not in told.out.partition("clients that may connect:")[2]


# --- binds


@pytest.mark.parametrize(
    ("publish_endpoint", "bind", "lines"),
    [
        ("tcp://192.0.2.1:5557", "", [2, 3]),
        ("tcp://192.0.2.1:5557", "tcp://*:5557", [2]),
        ("tcp://eth0:5557", "tcp://eth0:5557", [2, 4]),
        ("ipc:///run/x", "", [2]),
    ],
)
def test_a_bind_that_needs_keys_is_reported_with_its_line(
    home: Path, publish_endpoint: str, bind: str, lines: list[int]
) -> None:
    write(home, publish_endpoint, bind)
    file = home / "Context-Here.xml"
    context = reader.load(file)
    told = exposed_binds.refused(context)
    assert [line for line, _ in told] == lines
    assert all("(zmsvcctl -c Here keys make)" in words for _, words in told)
    assert [each.line for each in exposed_binds.refused_to_monitors(context)] == [7]


def test_check_warns_until_there_are_keys(home: Path, capsys: Capture) -> None:
    file = str(home / "Context-Here.xml")
    assert main(["check", file]) == 0
    told = capsys.readouterr().out
    assert [
        f"{file}:{line}: cannot bind" in told or f"{file}:{line}: warning: cannot bind" in told
        for line in (2, 3, 7)
    ] == [True] * 3, told
    run("make")
    capsys.readouterr()
    assert main(["check", file]) == 0
    assert "CURVE" not in capsys.readouterr().out
