"""The task of DrinkCoffee."""

from zmsvc.task import SingleTask


class Drinking(SingleTask):
    """Stop and take a coffee."""

    def run(self) -> None:
        """`self.wait` returns True when the service is told to stop: then the cup is not empty."""
        told_to_stop = self.wait(float(self.config.get("seconds", 1.0)))
        self.update(cup="half full" if told_to_stop else "empty")
