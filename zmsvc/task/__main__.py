"""`python -m zmsvc.task DIR`: one service in the foreground, without a supervisor or a bus. This is how a developer tries it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from zmsvc.host import journal
from zmsvc.host.notify import Notifier
from zmsvc.task import loader
from zmsvc.task.life import Life
from zmsvc.task.runner import last_line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m zmsvc.task", description="Run one service in the foreground; Ctrl-C ends it.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the service's directory, such as Services/EchoAction")
    parser.add_argument("setting", nargs="*", metavar="KEY=VALUE", help="entries of the configuration, such as interval=0.5")
    args = parser.parse_args()
    if bad := [text for text in args.setting if "=" not in text]:
        parser.error(f"{bad[0]!r} is not KEY=VALUE")
    directory = args.directory.absolute()
    spec: dict[str, Any] = {
        "configuration": dict(text.split("=", 1) for text in args.setting),
        "context": "foreground",
        "transaction": "foreground",
        "task": directory.name,
        "cause": {"by": "operator", "depth": 0, "sources": []},
    }
    journal.configure(identifier=directory.name, fields={}, target="stderr")
    # A broad except: this is the developer's own code, and its traceback is what he is here for.
    try:
        life = Life(Notifier())
        life.show = lambda text: print(text, flush=True)
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
        life.live(loader.load(directory.name, [str(directory.parent)])(spec, life).task)
    except Exception as error:
        logging.getLogger("task").error("Failed: %s", last_line(error), exc_info=error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
