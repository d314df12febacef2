"""The descriptor store under the unit: it survives all that leaves the keeper running, and `systemctl restart`
begins with an empty one.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task
from waiting import wait_for

KEEPER = """
    import os

    import zmsvc.task
    from zmsvc.task import SingleTask, TaskService


    class Counting(SingleTask):
        \"\"\"Counts its processes in a memory file, which nothing but the store keeps.\"\"\"

        def run(self):
            stored = [fd for _, fd in zmsvc.task.stored_descriptors("count")]
            fd = stored[0] if stored else os.memfd_create("count")
            if not stored:
                zmsvc.task.store_descriptor(fd, "count", poll=False)
            os.write(fd, b".")
            with open("/run/zmsvc/Kept/count", "w") as file:
                file.write(f"{os.getpid()} {os.fstat(fd).st_size}")
            self.wait()


    class ServiceCounting(TaskService):
        service_name = "counting"
        task_class = Counting
"""


def test_the_store_of_a_task_survives_reload_and_crashes_and_not_a_restart_of_the_unit(
    context: Callable[..., Installed],
) -> None:
    again = "<restart>on-failure</restart><restart_delay>100ms</restart_delay>"
    service = f"{again}<file_descriptor_store_max>1</file_descriptor_store_max>"
    kept = context("Kept", task("ts_1", "Counting", service=service))
    kept.machine.put("/etc/zmsvc/services/Counting/__init__.py", "")
    kept.machine.put("/etc/zmsvc/services/Counting/ServiceCounting.py", KEEPER)
    kept.start()

    def counted(number: int) -> bool:
        shown = kept.ctl("show", "-p", "NFileDescriptorStore", "--value", "ts_1", check=False).strip()
        told = kept.machine.sh("cat /run/zmsvc/Kept/count", check=False).stdout
        return shown == "1" and told in [f"{pid} {number}" for pid in kept.pids().values()]

    def kill_task() -> None:
        (pid,) = kept.pids().values()
        kept.machine.sh(f"kill -KILL {pid}")

    wait_for(lambda: counted(1))
    kill_task()
    wait_for(lambda: counted(2))
    supervisor = kept.status()["pid"]
    kept.machine.sh(f"kill -KILL {supervisor}")
    kill_task()
    wait_for(lambda: counted(3))
    kept.machine.sh(f"systemctl reload {kept.unit}")
    kept.ctl("restart", "ts_1")
    wait_for(lambda: counted(4))
    kept.machine.sh(f"systemctl restart {kept.unit}")
    wait_for(lambda: counted(1))
