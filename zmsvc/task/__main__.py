"""`python -m zmsvc.task DIR`: one service in the foreground, without a supervisor or a bus. This is how a
developer debugs it.

Its results and what it publishes are printed on stdout, what it logs goes to stderr, Ctrl-C ends it. It stays
in its directory, with its own standard streams.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zmsvc.core.errors import ConfigError, UsageError
from zmsvc.host.systemd import journal
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, process
from zmsvc.task.runtime import TaskRuntime
from zmsvc.task.stop import SignalStop


class Terminal:
    """What a supervisor and a bus are for a task otherwise."""

    def ready(self) -> None:
        logging.info("Ready")

    def status(self, text: str) -> None:
        """It is in the log already."""

    def watchdog(self) -> None:
        """Nobody watches."""

    def stopping(self) -> None:
        logging.info("Ended")

    def fileno(self) -> int:
        return 1

    def update(self, json_text: str, sequence: int) -> bool:
        print(json_text, flush=True)
        return True

    def publish(self, frame: bytes) -> bool:
        print(frame.decode(errors="replace"), flush=True)
        return True

    def ear(self, prefixes: Sequence[bytes]) -> None:
        """There is nothing to hear."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zmsvc.task",
        description="Run one service in the foreground, without a supervisor; Ctrl-C ends it.",
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="the service's directory, such as Services/EchoAction"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="entries of its configuration, such as interval=0.5"
    )
    parser.add_argument("--context", metavar="FILE.xml", help="take its configuration from this context file")
    parser.add_argument(
        "--task", metavar="ID", help="which task of the context file, when several are of this service"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show debug messages too")
    args = parser.parse_intermixed_args(argv)
    if bad := [text for text in args.settings if "=" not in text]:
        parser.error(f"{bad[0]!r} is not KEY=VALUE")
    directory = args.directory.resolve()
    try:
        spec = _spec(directory.name, args.context, args.task)
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    settings = dict(text.split("=", 1) for text in args.settings)
    spec = replace(spec, configuration={**spec.configuration, **settings})
    level = logging.DEBUG if args.verbose else journal.level_of(spec.log_level)
    journal.configure(identifier=directory.name, fields={}, target="stderr", level=level)
    terminal = Terminal()
    life = TaskRuntime(
        spec,
        Descriptors(),
        voice=terminal,
        channel=terminal,
        stop=SignalStop(),
        log=logging.getLogger(directory.name),
    )
    try:
        return life.live(lambda: loader.load(directory.name, [str(directory.parent)]))
    except KeyboardInterrupt:  # in the moment between two parts of its life
        return 0


def _spec(instance: str, file: str | None, task: str | None) -> LaunchSpec:
    """Return a launch as the supervisor would order it, without a bus; with a context file, what that says
    of the task.
    """
    spec = LaunchSpec(
        launch=0,
        context="foreground",
        context_id="",
        transaction="foreground",
        task=task or instance,
        instance=instance,
        service_name="",
        service_type="Process",
        device_action="",
        description="",
        configuration={},
        search=(),
        command=(),
        frontend="",
        backend="",
        notify="",
        log="stderr",
        cause={"by": "operator", "uid": os.getuid(), "depth": 0, "sources": []},
    )
    if file is None:
        return spec
    # Imported here for start-up time: lxml is needed only for a context file.
    from zmsvc.host.config import reader

    context = reader.load(file)
    found = [each for each in context.tasks.values() if each.instance == instance and task in (None, each.id)]
    if not found:
        raise UsageError(
            f"cannot run {instance}: {file} has no {f'task {task} of it' if task else 'task of it'}"
        )
    service = found[0]
    os.environ.update(service.environment)
    process.take_effect(service.environment)
    return replace(
        spec,
        context=context.name,
        task=service.id,
        frontend=context.endpoints.frontend,
        configuration=dict(service.configuration),
        log_level=service.log_level,
    )


if __name__ == "__main__":
    sys.exit(main())
