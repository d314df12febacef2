"""docs/from-zmicroservices.md: each name on the page exists and works."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from context import Context, Subscriber
from tutorial import ROOT
from waiting import wait_for

from zmsvc.ctl.compat import conf_command, display
from zmsvc.ctl.create import command
from zmsvc.ctl.verb_table import VERBS

PAGE = (ROOT / "docs/from-zmicroservices.md").read_text()


def test_every_flag_that_the_page_names_exists() -> None:
    create = argparse.ArgumentParser()
    command.add_arguments(create)
    old = " ".join(each.format_help() for each in (create, conf_command.parser(), display.parser()))
    new = {flag for verb in VERBS for option in verb.options for flag in option.flags}
    left_out = {"--ftp_port", "--sniffer_filter"}
    named = set(re.findall(r"--[a-z_]+", PAGE))
    assert {flag for flag in named if flag not in new and not re.search(rf"{flag}\b", old)} == left_out


def test_every_verb_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`zmsvcctl ([a-z]+)", PAGE))
    assert len(named) > 8
    assert named <= {verb.name for verb in VERBS}


def test_a_ported_service_has_all_that_the_page_says(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    """One service uses everything in the right column of the table. The other one sends updates to it."""
    context.service(
        "Ported",
        """
        import os
        from zmsvc.task import LoopedTask, TaskService

        class Work(LoopedTask):
            interval = 3600.0
            def setup(self):
                self.color = self.config["color"]
            def step(self):
                self.log.info("looking")
                self.publish("mine", {"header": {}, "content": {"color": self.color}})
                stop = self.wait(0.01)
                self.update(me=[self.transaction, self.service_id, os.getpid()], stop=stop)
            def close(self):
                self.log.info("closed")

        class ServicePorted(TaskService):
            service_name = "ported"
            task_class = Work
            def on_control(self, message):
                head = message["header"]
                if (head["service_name"], head["action"]) == ("other", "updated"):
                    self.task.update(heard=message["content"]["status"]["n"])
        """,
    )
    context.looped("Other", "interval = 0.1\ndef step(self):\n    self.update(n=5)")
    context.task("ts_1", "Ported", config="<color>red</color>")
    context.task("ts_2", "Other", entry=False)
    context.start("--no-autostart")
    # The task publishes the one message and the supervisor the other ones, so they come in any order.
    listener, of_task = subscriber(b"control @@@ "), subscriber(b"mine @@@ ")
    context.ask(verb="start", transaction="T")
    assert of_task.next()[1]["content"] == {"color": "red"}
    status = listener.control("updated", "ts_1")["content"]["status"]
    assert (status["me"], status["stop"]) == (["T", "ts_1", status["pid"]], False)
    context.ask(verb="start", transaction="T", tasks=["ts_2"])
    assert listener.control("updated", "ts_1")["content"]["status"]["heard"] == 5
    context.ctl("stop", "--transaction", "T")
    # The output process writes the log, perhaps after the end of the task.
    wait_for(lambda: "looking" in context.log.read_text() and "closed" in context.log.read_text())
