"""The service around the task of EchoAction."""

from zmsvc.task import TaskService

from .task_file_name import EchoShouting


class ServiceEchoAction(TaskService):
    """Shouts the time."""

    service_name = "echo_action"
    task_class = EchoShouting
