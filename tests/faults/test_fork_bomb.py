"""A task forks without end, up to its limit. It is stopped with all its processes, and the other tasks go
on.
"""

from __future__ import annotations

from context import Context
from groups import at_most

PROCESSES = 60
FORKS = 4000
"""A bomb that went on for ever would outlive a test that fails."""

BOMB = f"""
interval = 0.05
def step(self):
    import mmap, os, signal, struct
    if not os.path.exists("{{home}}/light"):
        return
    count = mmap.mmap(-1, 8)
    while True:
        (forks,) = struct.unpack("q", count[:8])
        if forks >= {FORKS}:
            signal.pause()
        count[:8] = struct.pack("q", forks + 1)
        try:
            if os.fork() == 0:
                signal.alarm(30)
                os.setsid()
        except OSError:
            pass
"""


def test_a_fork_bomb_is_stopped_with_all_of_it(context: Context) -> None:
    context.looped("Bomb", BOMB.format(home=context.home))
    context.looped("Echo")
    context.task("bomb", "Bomb", service="<stop_timeout>1s</stop_timeout>")
    context.task("steady", "Echo", service="<watchdog>5s</watchdog>")
    context.start("--transaction", "T")
    tasks, status = context.tasks(), context.status()
    with at_most(PROCESSES, tasks["bomb"]["pid"]) as group:
        (context.home / "light").touch()
        group.wait_until_full()
        answer = context.ask(verb="stop", tasks=["bomb"])
        assert answer["ok"], answer
        assert group.processes() == []
    assert len(answer["data"]["ended"]) >= PROCESSES - 1
    assert context.tasks()["steady"]["pid"] == tasks["steady"]["pid"]
    assert context.status()["restarts"] == status["restarts"]
