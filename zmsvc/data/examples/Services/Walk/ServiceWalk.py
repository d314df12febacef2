"""The service around the task of Walk."""

from zmsvc.task import TaskService

from .Walker import Walking


class ServiceWalk(TaskService):
    """Walks."""

    service_name = "state_update"
    task_class = Walking
