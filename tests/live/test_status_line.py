"""The status of the unit that systemd shows: it is right in the end, and is not sent for each of many tasks
that change together.
"""

import time

from context import Context

from zmsvc.supervisor.unit_status import INTERVAL

TASKS = 40


def test_the_status_of_the_unit_is_told_in_portions_and_true_in_the_end(context: Context) -> None:
    context.looped("Echo")
    for number in range(TASKS):
        context.task(f"ts_{number}", "Echo")
    context.start("--no-autostart")
    begun = time.monotonic()
    context.ctl("start", "--transaction", "TX")
    told = 1
    while f"STATUS={TASKS} of {TASKS} tasks running in 1 transaction" not in context.wait_for_notification(
        "STATUS="
    ):
        told += 1
    assert told <= 2 + (time.monotonic() - begun) / INTERVAL
    context.ctl("stop", "--transaction", "TX", "ts_7")
    while (
        f"STATUS={TASKS - 1} of {TASKS} tasks running in 1 transaction"
        not in context.wait_for_notification("STATUS=")
    ):
        continue
