"""The modules of the page that need no browser, by Node's own tests; and what holds for all of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need_tool

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "cockpit"
MODULES = sorted(PAGE.glob("*.js"))


def test_the_modules_pass_their_own_tests() -> None:
    need_tool(shutil.which("node"), "there is no node (Debian: apt-get install nodejs)")
    files = sorted(map(str, (Path(__file__).parent / "modules").glob("*.test.mjs")))
    assert len(files) == 6
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"^# pass (\d+)", done.stdout, re.M)[0]) > 30, done.stdout


@pytest.mark.parametrize("file", MODULES, ids=lambda each: each.name)
def test_no_module_makes_html_or_code_of_a_text(file: Path) -> None:
    """The policy in manifest.json has the browser refuse it, too."""
    words = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|createContextualFragment"
        r"|srcdoc|DOMParser"
    )
    assert not re.findall(words, file.read_text())
    manifest = json.loads((PAGE / "manifest.json").read_text())
    assert "require-trusted-types-for 'script'" in manifest["content-security-policy"]


@pytest.mark.parametrize("file", MODULES, ids=lambda each: each.name)
def test_the_page_has_no_rights_of_its_own(file: Path) -> None:
    """It runs zmsvcctl alone, by an array of arguments, as the user who is logged in."""
    text = file.read_text()
    assert not re.findall(
        r"superuser|cockpit\.script|\bsh\b.*-c|cockpit\.http|fetch\(|XMLHttpRequest|WebSocket", text
    )
    assert re.findall(r"cockpit\.spawn\((.*?)[,\]]", text) in ([], ['["zmsvcctl"', '["zmsvcctl"'])


def test_lines_are_not_longer_than_a_screen_is_wide() -> None:
    files = [*MODULES, PAGE / "zmsvc.css", *Path(__file__).parent.rglob("*.mjs")]
    assert [
        f"{file.name}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 120
    ] == []


def test_the_modules_have_the_format_of_prettier() -> None:
    program = PAGE / "node_modules/.bin/prettier"
    if not program.exists():
        pytest.skip("npm has not installed prettier (make test-cockpit)")
    files = [*MODULES, *PAGE.glob("*.css"), *PAGE.glob("*.html"), *Path(__file__).parent.rglob("*.mjs")]
    done = subprocess.run(
        [program, "--check", "--config", PAGE / ".prettierrc.json", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_module_is_reached_from_the_page() -> None:
    imports = {file.name: set(re.findall(r'from "\./([\w.]+)"', file.read_text())) for file in MODULES}
    assert '<script type="module" src="app.js">' in (PAGE / "index.html").read_text()
    reached, new = set[str](), {"app.js"}
    while new:
        reached |= new
        new = set().union(*(imports.get(each, set()) for each in new)) - reached
    assert reached == {each.name for each in MODULES} | {"dagre.js"}


def test_npm_installs_what_the_lock_file_says_from_whatever_registry_is_configured() -> None:
    lock = json.loads((PAGE / "package-lock.json").read_text())
    package = json.loads((PAGE / "package.json").read_text())
    libraries = {name: each for name, each in lock["packages"].items() if name}
    assert all(
        each["integrity"].startswith("sha512-") and "resolved" not in each for each in libraries.values()
    )
    wanted = package["dependencies"] | package["devDependencies"]
    assert {name: libraries[f"node_modules/{name}"]["version"] for name in wanted} == wanted


COMPARE = """
    import { readFileSync } from "node:fs";
    import { reduce } from "./states.js";
    const { timeline, tasks } = JSON.parse(readFileSync(0, "utf8"));
    const begin = id => [id, { id, state: "inactive", sub: "waiting", since: null }];
    const world = new Map([["TX", { id: "TX", tasks: new Map(tasks.map(each => begin(each.id))) }]]);
    const events = timeline.map(({ at, ...each }) => ({ ...each, at: new Date(at * 1000).toISOString(), transaction: "TX" }));
    const states = [...reduce(world, events).get("TX").tasks.values()].map(({ id, state, sub }) => [id, state, sub]);
    process.stdout.write(JSON.stringify(states));
"""

CONTEXT = """<Context><ContextID>c</ContextID><TaskLogName>Compared</TaskLogName>
<on_any_fail><action>start</action><call>mail</call></on_any_fail>{tasks}</Context>"""


def _command(name: str, service: str, rules: str, *, entry: bool = True) -> str:
    return (
        f'<TaskService id="{name}" instance="{name.capitalize()}" serviceType="Command"><Task><message><header>'
        f"<service_name>{name}</service_name></header><content><configuration><command>sleep 1000</command>"
        f"</configuration></content></message><service>{service}</service>"
        f'<state type="{"on_start" if entry else ""}">{rules}</state></Task></TaskService>'
    )


@pytest.mark.parametrize(
    "what_happens",
    [
        (), ("--fail", "db"), ("--exit", "db"), ("--fail", "api"), ("--fail", "api", "--fail", "web"), ("--fail", "ring"),
        ("--at", "1s", "--fail", "web", "--at", "1050ms", "--fail", "db"),
    ],
    ids=str,
)  # fmt: skip
def test_events_lead_to_the_states_that_the_engine_decides(
    what_happens: tuple[str, ...], tmp_path: Path
) -> None:
    """`simulate` has the events and the states at the end, by the same decisions as the supervisor."""
    need_tool(shutil.which("node"), "there is no node (Debian: apt-get install nodejs)")
    file = tmp_path / "Context-Compared.xml"
    tasks = (
        _command("db", "", "<on_fail><action>restart</action><call>api</call></on_fail>"),
        _command(
            "api", "<requires>db</requires>", "<on_start><action>restart</action><call>web</call></on_start>"
        ),
        _command("web", "<after>api</after><restart>on-failure</restart>", ""),
        _command("ring", "<restart>always</restart><start_limit_burst>2</start_limit_burst>", ""),
        _command("mail", "", "", entry=False),
    )
    file.write_text(CONTEXT.format(tasks="".join(tasks)))
    told = subprocess.run(
        [sys.executable, "-m", "zmsvc.ctl", "--json", "simulate", str(file), *what_happens],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(told.stdout)
    assert answer["timeline"], told
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", COMPARE],
        input=told.stdout, cwd=PAGE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[each["id"], each["state"], each["sub"]] for each in answer["tasks"]]
