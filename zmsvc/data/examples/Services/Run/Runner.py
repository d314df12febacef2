"""The task of Run."""

import time

from zmsvc.task import SingleTask


class Running(SingleTask):
    """Start running."""

    def run(self) -> None:
        """The last of the four; its rule starts the first."""
        started = time.monotonic()
        self.wait(float(self.config.get("seconds", 1.0)))
        self.update(ran_for=round(time.monotonic() - started, 3))
