"""Collect the metrics of all contexts: one question to each supervisor."""

from __future__ import annotations

import time

from zmsvc import __version__
from zmsvc.core import metrics
from zmsvc.core.exposition import Family
from zmsvc.ctl import render, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.select_context import choose, running
from zmsvc.host import paths

PATIENCE = 8.0
"""Seconds to wait for the answers of all supervisors. Prometheus waits 10 s."""


class Collection:
    """The contexts whose metrics are collected: the named one, or all that run or have a file."""

    def __init__(self, context: str | None, transaction: str | None, timeout: float | None) -> None:
        self._named = None if context is None and transaction is None else choose(context, transaction)
        self._transaction = transaction
        self._patience = timeout or PATIENCE

    def families(self) -> list[Family]:
        """Ask each supervisor, and return the metrics."""
        until = time.monotonic() + self._patience
        names = self._names()
        found = [self._asked(name, until, last=name == names[-1]) for name in names]
        return metrics.families(found, version=__version__, now=time.time(), epoch=render.epoch)

    def _names(self) -> list[str]:
        if self._named is not None:
            return [self._named.name]
        # No context can have the name of a file such as `Context-Shop (copy).xml`.
        known = filter(paths.CONTEXT_NAME.fullmatch, paths.known_contexts())
        return sorted({*known, *(places.name for places in running())})

    def _asked(self, name: str, until: float, *, last: bool) -> metrics.Asked:
        left = until - time.monotonic()
        try:
            if left <= 0:
                raise CtlError(5, f"cannot ask {name}: the other contexts took {self._patience:g} s")
            # A supervisor that hangs leaves half of the time to the contexts after it.
            client = Client(paths.places(name), patience=left if last else left / 2)
            status = client.ask("status", usage=True, transaction=self._transaction)
        except NotRunningError:
            status = None
        except CtlError as error:
            if self._transaction is not None:
                raise
            # One context that does not answer must not hide the others.
            terminal.complain(str(error))
            status = None
        return metrics.Asked(name=name, status=status, transaction=self._transaction)
