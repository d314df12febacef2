"""The task of EchoAction."""

import time

from zmsvc.task import LoopedTask


class EchoShouting(LoopedTask):
    """An echo action is for shouting the time after counting 10s."""

    interval = 10.0

    def setup(self) -> None:
        self.log.info("counting %g s before each shout", self.interval)

    def step(self) -> None:
        shout = time.ctime()
        self.log.info("IT IS %s!", shout.upper())
        self.update(shout=shout)
