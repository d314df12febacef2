"""The task of Walk."""

from zmsvc.task import SingleTask


class Walking(SingleTask):
    """Walk along the street."""

    def setup(self) -> None:
        """`self.cause` says what started the task. Its `sources` are empty after a start by hand; after a
        start by rule they name the task whose rule it was.
        """
        before = [source["task"] for source in self.cause["sources"]]
        self.log.info("walking after %s", " and ".join(before) or "nothing")

    def run(self) -> None:
        """Each update can be heard by the other services, and would fire an on_update rule."""
        steps = int(self.config.get("steps", 4))
        for step in range(1, steps + 1):
            if self.wait(float(self.config.get("seconds", 1.0)) / steps):
                return
            self.update(step=step)
