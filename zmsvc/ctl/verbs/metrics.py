"""The verb metrics: what Prometheus collects of contexts, on standard output, in a file or over HTTP."""

from __future__ import annotations

import argparse
import json
import os
import stat
from contextlib import closing, suppress
from pathlib import Path

from zmsvc.core.errors import PlaceError, UsageError, reason
from zmsvc.core.exposition import Family, Format, text
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.metrics_collection import Collection


def metrics(args: argparse.Namespace) -> int:
    """metrics: print the metrics, write them to a file, or serve them."""
    if args.listen is not None and (args.output is not None or args.json):
        raise UsageError(f"--listen and {'--json' if args.json else '--output'} exclude each other")
    if args.allow and args.listen is None:
        raise UsageError("--allow needs --listen")
    collection = Collection(args.context, args.transaction, args.timeout)
    if args.listen is not None:
        return _serve(args, collection)
    families = collection.families()
    if args.json:
        shown = json.dumps(as_json(families)) + "\n"
    else:
        shown = text(families, Format.OPENMETRICS if args.openmetrics else Format.PROMETHEUS)
    if args.output is not None:
        write(Path(args.output), shown.encode())
    else:
        terminal.out(shown)
    return 0


def as_json(families: list[Family]) -> dict[str, object]:
    """Return the document of --json."""
    return {
        "metrics": [
            {
                "name": each.name,
                "type": each.kind.value,
                "help": each.help,
                "samples": [
                    {"labels": dict(sample.labels), "value": sample.value} for sample in each.samples
                ],
            }
            for each in families
            if each.samples
        ]
    }


def write(path: Path, data: bytes) -> None:
    """Replace a file at once: a reader finds the old content or the new one. Raises CtlError.

    The directory may belong to another user, as that of node_exporter does. So no link in it is followed, nor
    one on the way that another user could have made.
    """
    # Imported here for start-up time: most calls print.
    from zmsvc.host.directories import enter

    draft = f".{path.name}.zmsvc-new"
    try:
        directory = enter(path.parent)
        try:
            _check_replaceable(path, directory)
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(draft, flags, 0o666, dir_fd=directory), "wb") as file:
                file.write(data)
            os.replace(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
    except PlaceError as error:
        raise CtlError(1, f"cannot write the metrics: {error}") from error
    except OSError as error:
        raise CtlError(1, f"cannot write {path}: {reason(error)}") from error


def _check_replaceable(path: Path, directory: int) -> None:
    """Raise CtlError for a device, a pipe or a directory: root would replace even /dev/null by a file."""
    with suppress(FileNotFoundError):
        # Follow links, since /dev/stdout is one. A dangling link is replaced.
        if not stat.S_ISREG(os.stat(path.name, dir_fd=directory).st_mode):
            raise CtlError(
                1, f"cannot write {path}: it is not a regular file (without --output: standard output)"
            )


def _serve(args: argparse.Namespace, collection: Collection) -> int:
    # Imported here for start-up time: most calls print.
    from zmsvc.ctl.metrics_server import MetricsServer, listen, users

    listening = listen(args.listen)
    with closing(MetricsServer(listening, collection.families, users(args.allow))) as server:
        for each in listening:
            address = each.getsockname()
            where = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else address
            terminal.out(f"serving /metrics on {where}\n", flush=True)
        with suppress(KeyboardInterrupt):  # Ctrl-C is the way to end it.
            server.serve()
    return 0
