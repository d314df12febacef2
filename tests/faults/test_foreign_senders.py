"""Notifications from processes that are not main processes are counted, and delay no task."""

from __future__ import annotations

from pathlib import Path

from context import Context
from waiting import wait_for

MANY = 50

ORPHANS = """
def setup(self):
    import os, socket, time
    for _ in range({many}):
        if os.fork() == 0:
            if os.fork() == 0:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"STATUS=mine", os.environ["NOTIFY_SOCKET"])
                time.sleep(1000)
            os._exit(0)
        os.wait()
"""


def test_notifications_of_orphans_do_not_delay_the_supervisor(context: Context, home: Path) -> None:
    """Each of them is a child of the keeper, as a task is whose launch the supervisor does not know yet. If
    the supervisor waited for each, all together would take longer than its watchdog allows.
    """
    context.looped("Parent", ORPHANS.format(many=MANY))
    context.looped("Echo")
    context.task("ts_1", "Parent", entry=False)
    context.task("ts_2", "Echo", service="<watchdog>5s</watchdog>")
    context.start("--transaction", "T", WATCHDOG_USEC="10000000")
    pid = context.tasks()["ts_2"]["pid"]
    assert context.ask(verb="start", transaction="T", tasks=["ts_1"])["ok"]
    wait_for(lambda: context.status()["dropped"]["notifications"] == MANY)
    assert context.status()["restarts"] == 0
    assert context.tasks()["ts_2"]["pid"] == pid
    assert context.stop() == 0
