"""A machine with zmsvc, its page and Cockpit, and a browser that two users are logged in with: a member of the
group zmsvc and another one.

`make test-cockpit` sets ZMSVC_COCKPIT, without which the tests of the page are left out: they need Chromium,
Cockpit and npm. Those of its modules need Node alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from installed import Installed
from machine import TOOLS, Machine
from needs import need

ROOT = Path(__file__).parents[2]
MEMBER, OTHER = "member", "other"
URL = "http://127.0.0.1:9090/zmsvc"

_MACHINE = pytest.StashKey[Machine]()

LOGIN = """
    await page.goto(args.url, { waitUntil: "domcontentloaded" });
    await page.waitForSelector("#login-user-input", { state: "visible" });
    await page.fill("#login-user-input", args.user);
    await page.fill("#login-password-input", args.password);
    await page.click("#login-button");
    await page.waitForFunction(
        () => [...document.querySelectorAll("iframe")].some(each => each.src.includes("/zmsvc/")));
"""


@pytest.fixture(scope="session")
def cockpit(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine on which Cockpit listens, with the users MEMBER and OTHER."""
    if not os.environ.get("ZMSVC_COCKPIT"):
        pytest.skip("the tests of the page are run by `make test-cockpit`")
    need(os.geteuid() == 0, "only root can boot a machine")
    missing = [tool for tool in (*TOOLS, "node") if not shutil.which(tool)]
    need(not missing, f"cannot test the page without {', '.join(missing)}")
    tree = Path(os.environ.get("ZMSVC_BOOT_TREE", "/"))
    need((tree / "usr/share/cockpit/shell").exists(), f"there is no Cockpit in {tree}: see docs/cockpit.md")
    need(chromium(), "cannot test the page without Chromium (Debian: chromium-headless-shell)")
    need((ROOT / "cockpit/dist/index.html").exists(), "cockpit/dist is missing (make cockpit)")
    with Machine("make", "-C", "/mnt", "install", checkout=ROOT) as machine:
        request.config.stash[_MACHINE] = machine
        # Without a target for logins, this file of the early boot stays and refuses them.
        machine.sh("rm -f /run/nologin; systemctl start cockpit.socket")
        yield machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user of the machine who is logged in to Cockpit, before the page of zmsvc."""

    machine: Machine
    browser: Browser
    name: str

    def run(self, code: str, **args: Any) -> Any:
        """Run JavaScript in the browser; see Browser.run."""
        return self.browser.run(code, self.name, **args)

    def open(self, context: str, task: str = "") -> None:
        """Go to a context, and wait until its tasks are drawn."""
        self.run(
            "await frame.evaluate(place => { location.hash = place; }, args.place);"
            "await frame.waitForFunction("
            "    name => document.querySelector('#overview-title').textContent === name, args.context);"
            "await frame.waitForSelector('#tasks tbody tr');",
            place=f"#/{context}/{task}".rstrip("/"),
            context=context,
        )

    def states(self) -> dict[str, str]:
        """Return the states that the table shows, by task."""
        return dict(self.run(
            "return frame.$$eval('#tasks tbody tr', rows => rows.map(row => ["
            "row.querySelector('button').textContent, row.querySelector('.of-state span:last-child').textContent]))"
        ))  # fmt: skip


@pytest.fixture(scope="session")
def browser(cockpit: Machine) -> Iterator[Browser]:
    with Browser(cockpit.pid) as browser:
        yield browser


def log_in(machine: Machine, browser: Browser, name: str, *groups: str) -> Person:
    """Make a user with these groups, and log in. The password is made here and is not kept."""
    password = secrets.token_hex(12)
    machine.sh(f"useradd --create-home --shell /bin/bash {name}")
    for group in groups:
        machine.sh(f"usermod -aG {group} {name}")
    machine.sh(f"echo {name}:{password} | chpasswd")
    browser.run(LOGIN, name, url=URL, user=name, password=password)
    return Person(machine=machine, browser=browser, name=name)


@pytest.fixture(scope="session")
def member(cockpit: Machine, browser: Browser) -> Person:
    return log_in(cockpit, browser, MEMBER, "zmsvc", "systemd-journal")


@pytest.fixture(scope="session")
def other(cockpit: Machine, browser: Browser) -> Person:
    return log_in(cockpit, browser, OTHER)


@pytest.fixture
def machine(cockpit: Machine) -> Iterator[Machine]:
    """The machine; afterwards no context runs."""
    yield cockpit
    cockpit.sh(
        "systemctl stop 'zmsvc@*.service'; systemctl reset-failed; rm -rf /var/lib/zmsvc/* "
        "/etc/zmsvc/Context-*.xml",
        check=False,
    )


def command(name: str, program: str, *, rules: str = "", entry: bool = True, about: str = "A program") -> str:
    """Return a TaskService element of a program. `rules` is the content of its `<state>`."""
    return f"""
    <TaskService id="{name}" topic="process" instance="{name.capitalize()}" serviceType="Command">
        <Task>
            <description>{about}</description>
            <message>
                <header><action>start</action><service_name>{name}</service_name></header>
                <content><configuration><device_action>test</device_action><command>{program}</command></configuration></content>
            </message>
            <state{' type="on_start"' if entry else ""}>{rules}</state>
        </Task>
    </TaskService>"""  # fmt: skip


def rule(trigger: str, action: str, task: str) -> str:
    return f"<{trigger}><action>{action}</action><call>{task}</call></{trigger}>"


@pytest.fixture
def shop(machine: Machine) -> Installed:
    """A running context: when `db` fails, `api` is restarted, and `web` when that is ready; `spare` waits."""
    context = Installed(machine=machine, name="Shop")
    context.configure(
        command("db", "sleep 100001", rules=rule("on_fail", "restart", "api")),
        command("api", "sleep 100002", rules=rule("on_start", "restart", "web")),
        command("web", "sleep 100003"),
        command("spare", "sleep 100004", entry=False),
    )
    context.start()
    return context


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the journal of the machine to the report of a failure."""
    report = (yield).get_result()  # type: ignore[attr-defined]
    machine = item.config.stash.get(_MACHINE, None)
    if report.when == "call" and report.failed and machine and "machine" in getattr(item, "fixturenames", ()):
        report.sections.append(("journal", machine.journal()[-10_000:]))
