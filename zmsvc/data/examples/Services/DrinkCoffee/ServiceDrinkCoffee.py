"""The service around the task of DrinkCoffee."""

from zmsvc.task import TaskService

from .CoffeeDrinker import Drinking


class ServiceDrinkCoffee(TaskService):
    """Stops and takes a coffee."""

    service_name = "state_update"
    task_class = Drinking
