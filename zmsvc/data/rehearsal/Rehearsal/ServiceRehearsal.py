"""A task that does a little of everything, and ends."""

import sys

from zmsvc.core import messages
from zmsvc.task import LoopedTask, TaskService
from zmsvc.task.inbox import Inbox


class Rehearsing(LoopedTask):
    """Publishes, reports and waits."""

    interval = 0.001

    def setup(self) -> None:
        """Begin to count."""
        self.steps = 0
        self.hear()

    def hear(self) -> None:
        """Receive messages of another task, as far as that needs no device."""
        inbox = Inbox(
            ("rehearsal",),
            transaction=self.transaction,
            service_id=self.service_id,
            every_transaction=False,
            log=self.log,
        )
        header = messages.header(
            transaction=self.transaction, service_id="other", action="x", service_name="x", launch=1
        )
        head = messages.published_head("rehearsal", messages.encoded(header))
        for number in range(1, 4):
            inbox.message(messages.published(head, number, b"{}"))

    def step(self) -> None:
        """Publish in the first step, which connects to the bus, and report in each. The device of the
        rehearsal does not answer a publisher that has connected before the barrier.
        """
        if self.steps == 0:
            self.publish("rehearsal", {"steps": self.steps})
            # The other form that a task may use.
            self.publish("rehearsal", {"header": {"service_id": self.service_id}})
        self.steps += 1
        self.update(step=self.steps)
        if self.steps == 2:
            sys.exit()


class ServiceRehearsal(TaskService):
    """The service around it."""

    service_name = "rehearsal"
    task_class = Rehearsing
