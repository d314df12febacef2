"""`python -m zmsvc.task DIR`: run one service in the foreground, without a supervisor or a bus, to debug it.

The service's results and publications go to stdout, its log to stderr; Ctrl-C ends it. The process keeps its
working directory and standard streams.
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
from zmsvc.host import environment_file
from zmsvc.host.systemd import journal
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, process
from zmsvc.task.runtime import TaskRuntime
from zmsvc.task.stop import SignalStop


class Terminal:
    """A replacement for the supervisor and the bus that prints."""

    lossy = False

    def ready(self) -> None:
        logging.info("Ready")

    def status(self, text: str) -> None:
        """Do nothing: the text is in the log already."""

    def missed(self, count: int) -> None:
        """Do nothing: there are no messages."""

    def heard(self, topic: str) -> None:
        """Do nothing: no topic is expected."""

    def silent(self, topic: str) -> None:
        """Do nothing: no topic is expected."""

    def poison(self, json_text: str) -> bool:
        """Do nothing: there are no messages."""
        return True

    def declare(self, topics: Sequence[str], publishes: Sequence[str] | None) -> None:
        """Do nothing: no other task waits for this one."""

    def expect_subscribers(self) -> None:
        """Do nothing: there are none."""

    def watchdog(self) -> None:
        """Do nothing: there is no watchdog."""

    def reloading(self) -> None:
        """Do nothing: no signal is the reload signal of this task."""

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

    def subscribe(self, prefixes: Sequence[bytes]) -> None:
        """Do nothing: there are no messages to receive."""


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
    runtime = TaskRuntime(
        spec,
        Descriptors(),
        status_sink=terminal,
        bus=terminal,
        stop=SignalStop(),
        log=logging.getLogger(directory.name),
    )
    try:
        return runtime.run(lambda: loader.load(directory.name, [str(directory.parent)]))
    except KeyboardInterrupt:  # this came between two parts of the runtime
        return 0


def _spec(instance: str, file: str | None, task: str | None) -> LaunchSpec:
    """Return the launch that the supervisor would order, without a bus. A context file provides the task's
    configuration.
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
    known = (*context.tasks.values(), *context.written.values())
    found = [each for each in known if each.instance == instance and task in (None, each.id)]
    if not found:
        raise UsageError(
            f"cannot run {instance}: {file} has no {f'task {task} of it' if task else 'task of it'}"
        )
    service = found[0]
    try:
        variables = {**service.environment, **environment_file.read_all(service.environment_file)}
    except ValueError as error:
        raise UsageError(f"cannot run {instance}: cannot read the environment: {error}") from None
    os.environ.update(variables)
    process.apply_environment(variables)
    return replace(
        spec,
        context=context.name,
        task=service.id,
        frontend=context.endpoints.subscribe_endpoint,
        configuration=dict(service.configuration),
        log_level=service.log_level,
        file=os.path.abspath(file),
    )


if __name__ == "__main__":
    sys.exit(main())
