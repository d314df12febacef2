"""The library of service authors: LoopedTask, SingleTask, MessageTask or AsyncTask for the work, TaskService
for the service around it, Message for what a task hears.

A task and its service have these attributes before their own `__init__` runs:

    self.config         the task's <configuration>: a dict of str, list and dict
    self.settings       the same as an instance of the dataclass that `settings_class` names, with its types
    self.log            a logging.Logger whose records carry the task's journal fields;
                        extra={"order_id": 17} adds the field ORDER_ID
    self.cause          the reason why the task was started: by, uid, depth, task, trigger,
                        rule, exit, sources; self.cause["update"]
    self.context        the name of the context
    self.transaction    the ID of the transaction
    self.service_id     the ID of the task in the context file
    self.replica        the number of a replica, from 1; else None
    self.endpoints      the endpoints of the bus, for sockets of one's own: subscribe, publish

and the methods `update`, `publish` and `wait`; an AsyncTask has `update_async`, `publish_async` and
`wait_async` in their place. A task that names `topics` hears them in `on_message`, or by iterating over
`self.messages()`. `publishes` names what it publishes, and so which tasks its first step waits for. A service
has its task as `self.task`, and names the task's class in `task_class`. `listen_sockets` returns the sockets
of `<listen>`. `store_descriptor` stores a descriptor for the next process of the task, which gets it by
`stored_descriptors`; `remove_stored_descriptors` removes it.
zmsvc-task(7) is an introduction. zmsvc.testing creates tasks for unit tests. The reference is in
zmsvc.task.sdk.
"""

from zmsvc.task.inbox import Message
from zmsvc.task.inherited_descriptors import (
    listen_sockets,
    remove_stored_descriptors,
    store_descriptor,
    stored_descriptors,
)
from zmsvc.task.sdk import AsyncTask, LoopedTask, MessageTask, SingleTask, TaskService

__all__ = [
    "AsyncTask",
    "LoopedTask",
    "Message",
    "MessageTask",
    "SingleTask",
    "TaskService",
    "listen_sockets",
    "remove_stored_descriptors",
    "store_descriptor",
    "stored_descriptors",
]
