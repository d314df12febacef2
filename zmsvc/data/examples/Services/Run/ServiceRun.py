"""The service around the task of Run."""

from zmsvc.task import TaskService

from .Runner import Running


class ServiceRun(TaskService):
    """Runs."""

    service_name = "state_update"
    task_class = Running
