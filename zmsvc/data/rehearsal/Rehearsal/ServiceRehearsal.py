"""A task that does a little of everything, and ends."""

import sys

from zmsvc.task import LoopedTask, TaskService


class Rehearsing(LoopedTask):
    """Publishes, reports and waits."""

    interval = 0.001

    def setup(self) -> None:
        """The first message connects to the bus. The second one is of the other form that a task may use."""
        self.steps = 0
        self.publish("rehearsal", {"steps": self.steps})
        self.publish("rehearsal", {"header": {"service_id": self.service_id}})

    def step(self) -> None:
        """One result, and another one at the end."""
        self.steps += 1
        self.update(step=self.steps)
        if self.steps == 2:
            sys.exit()


class ServiceRehearsal(TaskService):
    """The service around it."""

    service_name = "rehearsal"
    task_class = Rehearsing
