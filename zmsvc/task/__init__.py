"""What a service is written with: LoopedTask or SingleTask for the work, TaskService for the service around it."""

from zmsvc.task.sdk import LoopedTask, SingleTask, TaskService

__all__ = ["LoopedTask", "SingleTask", "TaskService"]
