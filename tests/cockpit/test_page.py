"""The page in a real browser, served by a real Cockpit on a booted machine, for a member of the group zmsvc and for
another user.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import MEMBER, Person, command
from installed import Installed
from machine import Machine
from waiting import wait_for

# One process runs them all, because they share a machine and a browser.
pytestmark = pytest.mark.xdist_group("cockpit")

ROOT = Path(__file__).parents[2]
RUNNING, WAITING = "active (running)", "inactive (waiting)"
UP = {"db": RUNNING, "api": RUNNING, "web": RUNNING, "spare": WAITING}
PICTURES = os.environ.get("ZMSVC_PICTURES")
"""A directory in which the tests leave pictures of the page, for people to look at."""

# The time at which the page first shows each class of a task or a rule, in the clock of the machine.
OBSERVE = """
    await frame.evaluate(() => {
        window.seen = [];
        new MutationObserver(changes => changes.forEach(({ target }) => window.seen.push(
            [Date.now(), target.dataset.task ?? target.dataset.rule, target.getAttribute("class")])))
            .observe(document.querySelector("#graph"), { subtree: true, attributeFilter: ["class"] });
    });
"""
SEEN = "return frame.evaluate(() => window.seen)"


@pytest.fixture(autouse=True)
def no_error_of_the_page(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error of the page is shown by Cockpit, and fails the test."""
    yield
    if {"member", "other"} & set(request.fixturenames):
        person = request.getfixturevalue("member" if "member" in request.fixturenames else "other")
        assert person.run("return errors.splice(0)") == []


def picture(person: Person, name: str) -> None:
    if PICTURES:
        person.run("await page.screenshot({ path: args.path })", path=f"{PICTURES}/{name}.png")


def press(person: Person, selector: str) -> None:
    person.run("await frame.click(args.selector)", selector=selector)


def text(person: Person, selector: str) -> str:
    return str(person.run("return frame.textContent(args.selector)", selector=selector))


def milliseconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() * 1000


Wanted = dict[tuple[str, str], tuple[str, str]]


def delays(person: Person, context: Installed, since: int, wanted: Wanted) -> list[float]:
    """Return the milliseconds from each event after `since` to the first time that the page has shown it.
    `wanted` has for (task, event) the node that shows it and a word of its class.
    """
    seen = person.run(SEEN)
    found = []
    for line in context.ctl("--json", "events", "-n", "100").splitlines():
        row = json.loads(line)
        if row["seq"] <= since or (row["task"], row["event"]) not in wanted:
            continue
        node, word = wanted[row["task"], row["event"]]
        at = milliseconds(row["at"])
        # The supervisor writes whole milliseconds.
        shown = [
            when - at
            for when, name, classes in seen
            if name == node and word in classes.split() and when >= at - 1
        ]
        assert shown, f"{node} was not shown as {word} after {row}: {seen}"
        found.append(min(shown))
    assert len(found) == len(wanted), found
    return found


def last_event(context: Installed) -> int:
    return int(json.loads(context.ctl("--json", "events", "-n", "1").splitlines()[-1])["seq"])


def test_a_member_sees_the_context_that_starts_and_starts_its_transaction(
    shop: Installed, member: Person
) -> None:
    member.open("Shop")
    wait_for(lambda: member.states() == UP)
    picture(member, "light")
    press(member, "[data-order=stop]")
    wait_for(lambda: set(member.states().values()) == {"inactive (stopped)", WAITING})
    member.run("await frame.waitForSelector('[data-order=start]')")
    press(member, "[data-order=start]")
    wait_for(lambda: member.states() == UP)
    # The page learns of the end of the context, and of its start, without a reload of the page.
    shop.stop()
    wait_for(lambda: "does not run" in text(member, "#notices"))
    shop.start()
    wait_for(lambda: "does not run" not in text(member, "#notices") and member.states() == UP)


def test_a_failure_travels_along_the_graph_within_a_second(shop: Installed, member: Person) -> None:
    member.open("Shop")
    wait_for(lambda: member.states() == UP)
    member.run(OBSERVE)
    # Several changes of a task between two frames are drawn as one, so only the first and the rules are awaited.
    wanted = {
        ("db", "failed"): ("db", "failed"),
        ("api", "rule"): ("db:on_fail:restart:api", "lit"),
        ("web", "rule"): ("api:on_start:restart:web", "lit"),
    }
    times = []
    # A busy machine may take its time once; the page alone does not.
    for _ in range(3):
        wait_for(lambda: member.run("return frame.$$eval('.lit', found => found.length)") == 0)
        since = last_event(shop)
        shop.machine.sh(f"kill -KILL {next(pid for (_, name), pid in shop.pids().items() if name == 'db')}")
        wait_for(lambda: member.states() == UP | {"db": "failed"})
        picture(member, "failure")
        times.append(max(delays(member, shop, since, wanted)))
        shop.ctl("start", "db")
        wait_for(lambda: member.states()["db"] == RUNNING)
        if times[-1] < 1000:
            break
    print(f"the last of {len(wanted)} changes was drawn after {times} ms")
    assert min(times) < 1000


def test_a_member_stops_a_task_by_its_button_and_is_told_why_an_order_is_refused(
    shop: Installed, member: Person
) -> None:
    member.open("Shop", "web")
    wait_for(lambda: member.states() == UP)
    member.run("await frame.waitForSelector('#details [data-verb=stop]:not([aria-disabled])')")
    press(member, "#details [data-verb=stop]")
    wait_for(lambda: member.states()["web"] == "inactive (stopped)")
    assert (
        f"UID={shop.machine.sh(f'id -u {MEMBER}').stdout.strip()}" in shop.ctl("events", "-n", "20").upper()
    )
    # The answer to why comes from the supervisor, the log from the journal.
    wait_for(lambda: "an operator ordered the stop" in text(member, "#details .chain"))
    wait_for(lambda: "reason=requested" in text(member, "#details .log"))
    assert "on_start: restart web" in text(member, "#details")
    press(member, "#details [data-verb=signal]")
    wait_for(lambda: "does not run" in text(member, "#alerts"))
    assert "cannot signal web" in text(member, "#alerts")
    press(member, "#details [data-verb=start]")
    wait_for(lambda: member.states() == UP and text(member, "#alerts") == "")
    picture(member, "task")


def test_another_user_sees_why_the_page_is_empty(shop: Installed, other: Person) -> None:
    other.run("await frame.waitForSelector('#contexts button')")
    other.run("await frame.evaluate(() => { location.hash = '#/Shop'; })")
    wait_for(
        lambda: "permission denied (root, the daemon's user and its group may)" in text(other, "#notices")
    )
    picture(other, "refused")
    assert other.states() == {}
    # Orders are refused as well, whatever the page offers.
    assert shop.machine.sh("zmsvcctl -c Shop stop db", user=other.name, check=False).returncode == 5


def test_a_change_among_200_tasks_is_drawn_within_200_milliseconds(machine: Machine, member: Person) -> None:
    context = Installed(machine=machine, name="Many")
    chain = "<on_fail><action>start</action><call>t{next}</call></on_fail>"
    rules = [chain.format(next=number + 1) if number % 10 < 9 else "" for number in range(200)]
    context.configure(*(command(f"t{n}", f"sleep {300000 + n}", rules=rules[n]) for n in range(200)))
    context.start()
    member.open("Many")
    wait_for(lambda: list(member.states().values()) == [RUNNING] * 200)
    member.run(OBSERVE)
    times = []
    for number in range(5):
        task, since = f"t{number * 40}", last_event(context)
        context.ctl("stop", task)
        wait_for(lambda task=task: member.states()[task] == "inactive (stopped)")
        times += delays(member, context, since, {(task, "stopped"): (task, "inactive")})
    picture(member, "many")
    print(f"a change among 200 tasks was drawn after {times} ms")
    assert min(times) < 200
    # One process that follows the events, whatever was looked at before.
    assert machine.sh(f"pgrep -c -u {MEMBER} -f 'events -f'").stdout.strip() == "1"


HOSTILE = "&lt;img src=x onerror=&quot;window.hit=1&quot;&gt;&lt;script&gt;window.hit=2&lt;/script&gt;"


def test_what_zmsvc_tells_is_text_and_never_html(machine: Machine, member: Person) -> None:
    context = Installed(machine=machine, name="Hostile")
    say = "sh -c &quot;echo '&lt;img src=x onerror=window.hit=3&gt;'; exec sleep 100005&quot;"
    context.configure(command("-rf", say, about=HOSTILE), command("__proto__", "sleep 100006", about=HOSTILE))
    context.start()
    member.open("Hostile", "-rf")
    wait_for(lambda: member.states() == {"-rf": RUNNING, "__proto__": RUNNING})
    wait_for(lambda: "<img src=x onerror=window.hit=3>" in text(member, "#details .log"))
    assert "<script>window.hit=2</script>" in text(member, "#details")
    counted = "return frame.evaluate(() => [window.hit, document.images.length, document.scripts.length])"
    assert member.run(counted) == [None, 0, 2]
    # zmsvcctl does not take a name that begins with a dash for an option.
    press(member, "#details [data-verb=stop]")
    wait_for(lambda: member.states()["-rf"] == "inactive (stopped)")
    # The browser itself would refuse HTML.
    attempt = "return frame.evaluate(() => { document.body.innerHTML = '<b>x</b>'; }).catch(String)"
    assert "TrustedHTML" in str(member.run(attempt))
    member.run("errors.length = 0")


def test_the_file_is_checked_with_the_numbers_of_its_lines(shop: Installed, member: Person) -> None:
    member.open("Shop")
    file = shop.machine.root / "etc/zmsvc/Context-Shop.xml"
    lines = file.read_text().replace("<call>web</call>", "<call>wbe</call>")
    number = next(n for n, line in enumerate(lines.splitlines(), 1) if "wbe" in line)
    file.write_text(lines)
    press(member, "#check")
    wait_for(lambda: f"Fault, line {number}: " in text(member, "#check-result"))
    assert "<call>wbe</call>" in text(member, "#check-result .source")
    # The tasks go on, and the page shows the rules as far as it has read them before.
    press(member, "#refresh")
    wait_for(lambda: "The rules are unknown" in text(member, "#notices"))
    assert member.states() == UP


def test_the_history_is_filtered(shop: Installed, member: Person) -> None:
    member.open("Shop")
    rows = "return frame.$$eval('#history tbody tr', rows => rows.map(row => row.innerText))"
    wait_for(lambda: len(member.run(rows)) > 5)
    member.run("await frame.fill('#history-filter', 'web started')")
    wait_for(lambda: 1 <= len(member.run(rows)) <= 2)
    assert all("started" in each and "web" in each for each in member.run(rows))
    member.run("await frame.fill('#history-filter', '')")


AXE = """
    await frame.evaluate(args.axe);
    return frame.evaluate(async () =>
        (await axe.run(document)).violations.map(each => [each.id, each.nodes.map(node => node.html)]));
"""


@pytest.mark.parametrize(("style", "width"), [("light", 400), ("dark", 1280), ("dark", 400)])
def test_the_page_is_accessible_in_each_style_and_width(
    shop: Installed, member: Person, style: str, width: int
) -> None:
    member.run("await page.setViewportSize({ width: args.width, height: 900 })", width=width)
    # This is what the menu of Cockpit does; the event goes to all pages of this browser.
    member.run(
        "await page.evaluate(style => localStorage.setItem('shell:style', style), args.style)", style=style
    )
    try:
        member.open("Shop", "api")
        wait_for(lambda: member.states()["api"] == RUNNING)
        wait_for(lambda: "became ready" in text(member, "#details .chain"))
        assert member.run("return frame.getAttribute('html', 'data-style')") == style
        picture(member, f"{style}-{width}")
        axe = (ROOT / "cockpit/node_modules/axe-core/axe.min.js").read_text()
        assert member.run(AXE, axe=axe) == []
        fits = "return frame.evaluate(() => document.documentElement.scrollWidth <= innerWidth)"
        assert member.run(fits)
    finally:
        member.run("await page.setViewportSize({ width: 1280, height: 900 })")
        member.run("await page.evaluate(() => localStorage.removeItem('shell:style'))")


def test_the_picture_of_the_readme_shows_a_failure_its_substitute_and_the_cause(
    machine: Machine, member: Person
) -> None:
    shutil.copy(ROOT / "docs/pictures/Context-Sensors.xml", machine.root / "etc/zmsvc")
    context = Installed(machine=machine, name="Sensors")
    context.start()
    member.open("Sensors", "substitute")
    wait_for(lambda: member.states()["sensor"] == RUNNING)
    machine.sh(f"kill -SEGV {next(pid for (_, name), pid in context.pids().items() if name == 'sensor')}")
    if PICTURES:
        member.run("await page.setViewportSize({ width: 1280, height: 760 })")
    shown = "document.querySelector('#details .chain')?.textContent.includes('by the signal SIGSEGV')"
    member.run(f"await frame.waitForFunction(() => {shown})")
    logged = "document.querySelector('#details .log')?.textContent.includes('started')"
    member.run(f"await frame.waitForFunction(() => {logged})")
    # The rules that have fired are lit for 5 s.
    picture(member, "cockpit")
    wait_for(lambda: member.states()["sensor"] == "failed" and member.states()["substitute"] == RUNNING)
    member.run("await page.setViewportSize({ width: 1280, height: 900 })")


def test_the_keyboard_is_enough(shop: Installed, member: Person) -> None:
    member.open("Shop")
    wait_for(lambda: member.states() == UP)
    focused = (
        "return frame.evaluate(() => { const here = document.activeElement; "
        "return here.dataset.task ?? here.getAttribute('aria-label') ?? here.textContent; })"
    )

    def keys(*names: str) -> Any:
        member.run("for (const each of args.names) await page.keyboard.press(each)", names=list(names))
        return member.run(focused)

    member.run("await frame.focus('#zoom-in')")
    assert keys("Tab") == "db"
    assert keys("ArrowRight") == "api"
    assert keys("ArrowRight") == "web"
    keys("Enter")
    wait_for(lambda: text(member, "#details-title") == "web")
    member.run("await frame.waitForSelector('#details [data-verb=stop]:not([aria-disabled])')")
    # The next stop is the panel of the task: close, start, stop.
    assert keys("Tab") == "Close the task"
    assert keys("Tab", "Tab") == "Stop"
    keys("Enter")
    wait_for(lambda: member.states()["web"] == "inactive (stopped)")
    keys("Escape")
    wait_for(lambda: member.run("return frame.isHidden('#details')"))


def test_a_page_that_is_left_leaves_no_process(shop: Installed, member: Person) -> None:
    member.open("Shop")
    running = f"pgrep -u {MEMBER} -f zmsvcctl"
    wait_for(lambda: shop.machine.sh(running, check=False).stdout)
    member.run("await page.goto('about:blank')")
    wait_for(lambda: not shop.machine.sh(running, check=False).stdout)
