"""The order of tasks under systemd: systemctl start returns when the last one is ready, systemctl stop asks
the last one first.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task
from waiting import wait_for


def test_systemctl_starts_and_stops_tasks_in_their_order(context: Callable[..., Installed]) -> None:
    ordered = context(
        "Ordered",
        task("ts_3", "Talker", service="<requires>ts_2</requires>"),
        task("ts_2", "Talker", service="<after>ts_1</after>", entry=False),
        task("ts_1", "Talker"),
    )
    ordered.start()
    assert {each["sub"] for each in ordered.tasks().values()} == {"running"}
    ordered.stop()
    assert ordered.show("Result") == "success"

    def order() -> list[str]:
        entries = [*ordered.entries("ZMSVC_EVENT=launching"), *ordered.entries("ZMSVC_EVENT=stopped")]
        return [entry["ZMSVC_TASK"] for entry in entries]

    # ts_2 is started for the sake of ts_3, together with ts_1.
    wait_for(lambda: order() == ["ts_1", "ts_2", "ts_3", "ts_3", "ts_2", "ts_1"])
