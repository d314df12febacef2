"""The verbs on context files: check and graph. They need no running context."""

from __future__ import annotations

import argparse
import sys

from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Context
from zmsvc.ctl.client import Client, CtlError, choose, running
from zmsvc.host import paths


def check(args: argparse.Namespace) -> int:
    """check: every fault of every file; warnings when there is none."""
    # Imported here for start-up time: only this verb needs them.
    from zmsvc.core import checks
    from zmsvc.host import config  # lxml is for files only

    code = 0
    for file in args.files:
        try:
            context = config.load(file)
        except ConfigError as error:
            print("\n".join(error.faults), file=sys.stderr)
            code = 2
            continue
        warnings = [*checks.warnings(context), *(config.check_ports(context) if context.name not in running() else ())]
        for warning in warnings:
            print(f"{file}: warning: {warning}")
        print(f"{file}: ok ({len(context.tasks)} task{'s' if len(context.tasks) != 1 else ''})")
    return code


def graph(args: argparse.Namespace) -> int:
    """graph: tasks and rules as dot, mermaid or svg; with live states for a running context."""
    # Imported here for start-up time: lxml is for files only.
    from zmsvc.core import graph as drawing

    context, states = _drawn(args)
    if args.format == "mermaid":
        print(drawing.mermaid(context, states), end="")
        return 0
    dot = drawing.dot(context, states)
    if args.format == "dot":
        print(dot, end="")
        return 0
    # Imported here for start-up time: only a picture needs graphviz.
    import subprocess

    try:
        picture = subprocess.run(["dot", "-Tsvg"], input=dot.encode(), capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CtlError(1, f"cannot draw svg: {error} (install graphviz, or use --format dot or mermaid)") from None
    sys.stdout.buffer.write(picture.stdout)
    return 0


def _drawn(args: argparse.Namespace) -> tuple[Context, dict[str, str]]:
    # Imported here for start-up time: lxml is for files only.
    from zmsvc.host import config

    if args.what.endswith(".xml") or "/" in args.what:
        return config.load(args.what), {}
    name = choose(args.what, None)
    if name not in running():
        return config.load(paths.places(name).config_file), {}
    data = Client(name, args.timeout).ask("status", transaction=args.transaction)
    if not data["ok"]:
        raise CtlError(data["code"], data["error"])
    transactions = data["data"]["transactions"]
    states = {task["id"]: task["state"] for each in transactions for task in each["tasks"] if each["state"] != "inactive"}
    return config.load(data["data"]["file"]), states
