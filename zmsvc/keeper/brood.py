"""The task processes that the keeper holds: it launches, signals and reaps them, and keeps every end until the supervisor has it.

A launch number is forked once, however often it is ordered. What a task leaves behind is found by its cgroup where there is one; else
by its session and by the launch number in the environment, among the orphans that a subreaper is given. Tasks that share a process
begin and end one by one as well, but what they leave behind cannot be told apart: it ends with the last of them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zmsvc.host import linux, oom
from zmsvc.keeper.held import Held, How, how_of, killed, remove_cgroup, unlink
from zmsvc.keeper.shared import Hosts
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.protocol.supervision import Executed, Exited, Gone, Launched, LaunchFailed, LeftOver, Report


class Brood:
    """All tasks of a context. `tell` sends a message to the supervisor, if there is one."""

    def __init__(
        self,
        tell: Callable[[Report], None],
        zygote: ZygoteClient,
        mark: bytes,
        cgroup: Path | None,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], object],
    ) -> None:
        self._tell = tell
        self._zygote = zygote
        self._mark = mark
        """What all processes of this context, and no others, have in their environment."""
        self._cgroup = cgroup
        self._watch = watch
        self._unwatch = unwatch
        self._held: dict[int, Held] = {}
        self._by_pid: dict[int, list[Held]] = {}
        """Of a process that is there the launches that have not ended."""
        self._uses: Counter[Path] = Counter()
        """How many launches that nobody has acknowledged have a control group: an earlier one of a task shares it with the next."""
        self._oom_kills = oom.of_context(cgroup.parent if cgroup else None)
        self._hosts = Hosts(zygote, watch, unwatch, self._member_ended)
        self.others: set[int] = set()
        """Children that are no tasks: supervisor and device."""

    # --- orders

    def launch(self, spec: LaunchSpec, fds: Descriptors) -> None:
        """Fork a task, or have it started in the process that it shares."""
        if spec.launch in self._held:
            self._tell_again(self._held[spec.launch])
            return
        cgroup = self._cgroup / spec.cgroup if self._cgroup and spec.cgroup else None
        try:
            held = self._join(spec, cgroup, fds) if spec.service_type == "Thread" else self._fork(spec, cgroup, fds)
        except OSError as error:
            self._tell(LaunchFailed(launch=spec.launch, why=f"cannot fork: {error.strerror or error}"))
            return
        held.uid = spec.uid
        self._held[spec.launch] = held
        if held.cgroup is not None:
            self._uses[held.cgroup] += 1
        self._by_pid.setdefault(held.pid, []).append(held)
        self._tell(self._launched(held))

    def _fork(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> Held:
        watch = gate = None
        try:
            if spec.service_type == "Command":
                watch, gate = os.pipe2(os.O_CLOEXEC)
                linux.leave_room(gate)
                fds = replace(fds, exec_gate=gate)
            pid = self._zygote.fork(spec, cgroup, fds)
        except OSError:
            if watch is not None:
                os.close(watch)
            raise
        finally:
            if gate is not None:
                os.close(gate)
        if watch is not None:
            self._watch(watch, partial(self._executed, watch))
        started = linux.start_time(pid) or 0
        return Held(launch=spec.launch, pid=pid, start_time=started, cgroup=cgroup, pid_file=spec.pidfile, executing=watch)

    def _join(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> Held:
        """Have a task started in the process that its transaction shares."""
        host = self._hosts.start(spec, cgroup, fds)
        return Held(
            launch=spec.launch, pid=host.pid, start_time=host.start_time, cgroup=host.cgroup, pid_file=None, host=host, tag=spec.task
        )

    def _member_ended(self, launch: int, status: int, last: bool) -> None:
        held = self._held[launch]
        if last:
            held.status = status
        else:
            self._by_pid[held.pid].remove(held)
            self._end(held, How(code=status), left=False)

    @staticmethod
    def _launched(held: Held) -> Launched:
        return Launched(launch=held.launch, pid=held.pid, start_time=held.start_time, executed=held.executed, tag=held.tag, uid=held.uid)

    def _tell_again(self, held: Held) -> None:
        self._tell(self._launched(held))
        if held.end is not None:
            self._tell(held.end)

    def _executed(self, fd: int) -> None:
        """The pipe of a Command became readable: closed without a word means that its program runs."""
        self._unwatch(fd)
        held = next((h for h in self._held.values() if h.executing == fd), None)
        if held is None:
            return
        held.executing = None
        said = os.read(fd, 1)
        os.close(fd)
        if not said:
            held.executed = True
            self._tell(Executed(launch=held.launch))

    def signal(self, launch: int, name: str) -> None:
        """Signal the main process of a launch; one that has ended gets nothing. Of those that share one, SIGTERM is for one alone."""
        held = self._held.get(launch)
        if held is not None and held.host is not None and name == "SIGTERM":
            held.host.tell(sharing.StopMember(launch=launch))
        elif held is not None and held.end is None:
            linux.send_signal(held.pid, held.start_time, signal.Signals[name])

    def kill(self, launch: int) -> None:
        """SIGKILL everything of a launch. `gone` is told when none of it is left after its main process."""
        held = self._held.get(launch)
        if held is None or (held.host is not None and held.end is not None and held.pid in self._by_pid):
            # Whose process goes on for others has left nothing that could be told from theirs.
            self._tell(Gone(launch=launch))
            return
        held.killing = True
        for pid in self._rest_of(held):
            held.rest.setdefault(pid, linux.process_name(pid))
        if held.cgroup is not None:
            linux.kill_cgroup(held.cgroup)
        else:
            linux.kill_each([*held.rest, *([held.pid] if held.end is None else [])])
        self._look_for_end(held)

    def kill_everything(self) -> bool:
        """SIGKILL all tasks and every orphan that any of them left, known or not. False when there was nothing to kill."""
        for held in self._held.values():
            if held.end is None and held.cgroup is not None:
                linux.kill_cgroup(held.cgroup)
        doomed = [pid for pid in linux.children_of(os.getpid()) if pid not in self.others]
        linux.kill_each(doomed)
        return bool(doomed)

    def acknowledge(self, launch: int) -> None:
        """The supervisor has the end of this launch in its state file."""
        held = self._held.get(launch)
        if held is not None and held.end is not None:
            del self._held[launch]
            if held.cgroup is not None:
                self._leave(held.cgroup)

    def _leave(self, cgroup: Path) -> None:
        """Remove a control group that no launch has any more; one that is forked already may only be about to move there."""
        self._uses[cgroup] -= 1
        if not self._uses[cgroup]:
            del self._uses[cgroup]
            remove_cgroup(cgroup)

    # --- what is there

    def living(self) -> tuple[Launched, ...]:
        return tuple(self._launched(held) for held in self._held.values() if held.end is None)

    def ends(self) -> tuple[Exited, ...]:
        """Every end that no supervisor has acknowledged, in the order of the launches."""
        return tuple(held.end for held in self._held.values() if held.end is not None)

    # --- ends

    def reaped(self, info: Any) -> None:
        """A child of the keeper that is neither supervisor nor device has ended (`info` as of os.waitid)."""
        ended = self._by_pid.pop(info.si_pid, None)
        if ended is not None:
            oom = killed(info) and self._oom_kills.grown()
            for held in ended:
                self._main_ended(held, how_of(info), oom=oom)
            return
        for other in [h for h in self._held.values() if h.killing]:
            if info.si_pid in other.rest:
                how = how_of(info)
                name = other.rest.pop(info.si_pid)
                other.ended.append(LeftOver(pid=info.si_pid, name=name, code=how.code, signal=how.signal, core=how.core))
            self._look_for_end(other)

    def _main_ended(self, held: Held, how: How, *, oom: bool) -> None:
        if held.executing is not None:
            self._executed(held.executing)
        if held.pid_file is not None:
            unlink(held.pid_file)
        # Those that were killed with it are to be told as well, by `gone`, also when they are dead already.
        left = bool(held.rest or held.ended) or self._left(held)
        if held.status is None:
            self._end(held, how, left=left, oom=oom)
        else:
            self._end(held, How(code=held.status), left=left)
        if held.killing:
            self._look_for_end(held)

    def _end(self, held: Held, how: How, *, left: bool, oom: bool = False) -> None:
        held.end = Exited(
            launch=held.launch, pid=held.pid, tag=held.tag, left=left, code=how.code, signal=how.signal, core=how.core, oom=oom
        )
        self._tell(held.end)

    def _look_for_end(self, held: Held) -> None:
        """After a kill: is everything of it gone? Processes that were forked while the others died are killed as well."""
        if held.end is None:
            return
        # Others are looked for when the known ones are gone, since that is a search through all processes of the machine.
        while not any(linux.stat_fields(pid) is not None for pid in held.rest):
            new = [pid for pid in self._rest_of(held) if pid not in held.rest]
            if not new:
                self._gone(held, held.end)
                return
            held.rest.update((pid, linux.process_name(pid)) for pid in new)
            linux.kill_each(new)
        # Each of them comes to us, the subreaper, to be reaped: only then is it known how it ended.

    def _gone(self, held: Held, end: Exited) -> None:
        held.killing = False
        held.end = replace(end, left=False)
        self._tell(Gone(launch=held.launch, ended=tuple(held.ended)))

    def _rest_of(self, held: Held) -> list[int]:
        """The processes of a launch but its main one."""
        if held.cgroup is None:
            return self._members(held)
        if not linux.cgroup_populated(held.cgroup):
            return []
        return [pid for pid in linux.cgroup_processes(held.cgroup) if pid != held.pid]

    def _left(self, held: Held) -> bool:
        """Whether the main process left others behind. Without orphans nobody did, and /proc need not be searched."""
        return bool((held.cgroup is not None or self._orphaned()) and self._rest_of(held))

    def _orphaned(self) -> bool:
        """Whether there may be children that we did not fork. Counted, for a thousand tasks may end at once."""
        known = len(self._by_pid) + len(self.others) + (self._zygote.pid is not None)
        return linux.number_of_children() > known

    def _members(self, held: Held) -> list[int]:
        """By session and by the mark in the environment, since there is no cgroup."""
        launch = held.host.mark if held.host else held.launch
        # Other contexts count their launches from 1 as well.
        found = linux.belonging({held.pid}, self._mark, b"ZMSVC_LAUNCH=%d" % launch)
        return [pid for pid in found if pid != held.pid and pid not in self.others and pid not in self._by_pid]
