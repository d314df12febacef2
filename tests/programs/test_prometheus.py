"""The metrics of zmsvc in Prometheus: its own checks of the text and of the alerts, and a scrape."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

from programs import Programs, free_port, program
from waiting import PATIENCE, wait_for

from zmsvc.core.metrics import DEFINITIONS

HERE = Path(__file__).parent
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: zmsvc, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


def test_the_alerts_fire_when_they_should_and_name_metrics_that_exist() -> None:
    promtool = program("promtool")
    done = subprocess.run(
        [promtool, "test", "rules", HERE / "zmsvc-alerts-test.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rules = (HERE / "../../docs/zmsvc-alerts.yml").read_text()
    names = {
        word
        for word in rules.replace("{", " ").replace("[", " ").replace("(", " ").split()
        if "zmsvc_" in word
    }
    assert names
    assert names <= {each.name for each in DEFINITIONS}


def test_prometheus_finds_no_fault_in_the_metrics_and_scrapes_them(programs: Programs) -> None:
    promtool, prometheus = program("promtool"), program("prometheus")
    context = programs.context
    programs.command("fails", "/bin/false", rules={"on_fail": ("start", "sleeps")})
    programs.command("sleeps", "/bin/sleep", "1000", entry=False)
    context.start(ready=False)
    context.task_is("sleeps", "running")
    text = context.ctl("metrics").stdout
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with context.serving_metrics() as port:
        file, own = programs.file("prometheus.yml", CONFIG.format(port=port)), free_port()
        words = [f"--config.file={file}", f"--storage.tsdb.path={programs.home}/tsdb"]
        with subprocess.Popen(
            [prometheus, *words, f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:

                def value(query: str) -> str | None:
                    url = f"http://127.0.0.1:{own}/api/v1/query?query={query}"
                    try:
                        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                            found = json.load(answer)["data"]["result"]
                    except OSError:
                        return None  # It has not started yet.
                    return found[0]["value"][1] if found else None

                # After a scrape that took longer than a second there are no values until the next one.
                for query in (
                    "zmsvc_up",
                    "zmsvc_task_failures_total%7Btask=%22fails%22,reason=%22exit-code%22%7D",
                    "zmsvc_rule_firings_total%7Bcall=%22sleeps%22%7D",
                    "up",
                ):
                    wait_for(lambda query=query: value(query) == "1")  # type: ignore[misc]
            finally:
                server.terminate()
