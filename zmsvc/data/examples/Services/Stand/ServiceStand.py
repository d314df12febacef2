"""The service around the task of Stand."""

from zmsvc.task import TaskService

from .Stand import Standing


class ServiceStand(TaskService):
    """Stands up."""

    service_name = "state_update"
    task_class = Standing
