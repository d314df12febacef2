"""What a service is written with: LoopedTask or SingleTask for the work, TaskService for the service around
it.

A task and its service have, from before their own `__init__` runs:

    self.config         its <configuration>: texts, lists and dicts of them self.log            a
    logging.Logger whose records carry the journal's fields; extra={"order_id": 17} adds the field ORDER_ID
    self.cause          what started it: by, uid, depth, task, trigger, rule, exit, sources;
    self.cause["update"] self.context        the name of the context self.transaction    the ID of the
    transaction self.service_id     the id of the task in the context file

and the methods `update`, `publish` and `wait`. A service has its task as `self.task`, and names its class by
`task_class`. A class of tests calls its task by hand, see zmsvc.testing.
"""

from zmsvc.task.sdk import LoopedTask, SingleTask, TaskService

__all__ = ["LoopedTask", "SingleTask", "TaskService"]
