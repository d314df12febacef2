"""The task of Stand."""

from zmsvc.task import SingleTask


class Standing(SingleTask):
    """Stand up without doing anything."""

    def run(self) -> None:
        """When this method returns, the service ends, and its on_exit rule starts the next one."""
        self.wait(float(self.config.get("seconds", 1.0)))
