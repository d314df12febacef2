"""The task processes that the keeper holds: it launches, signals and reaps them, and keeps every end until
the supervisor has it.

A launch number is forked once, however often it is ordered. Tasks that share a process begin and end one by
one as well, but what they leave behind cannot be told apart: it ends with the last of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from zmsvc.host import directories
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux, oom, signals
from zmsvc.keeper.descendants import Descendants
from zmsvc.keeper.dispatcher import Dispatcher, attempt
from zmsvc.keeper.launch_record import ExitStatus, LaunchRecord, OtherProcess, how_of, killed, unlink, words
from zmsvc.keeper.machine import ChildEnd, KeeperMachine
from zmsvc.keeper.shared_process import SharedProcess, SharedProcesses
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.protocol.supervision import Executed, Exited, Gone, Launched, LaunchFailed, MainProcess, Report

LOOKS = 8
"""Searches for processes of a launch in a row: one that forks faster than they are killed shall not hold
the keeper.
"""
LOOK_AGAIN = 0.1
"""Seconds until the next ones, and until one is repeated that has failed."""


class _Own(Collection[int]):
    """The keeper's children that are no orphans. Not copied, since a thousand tasks may end at once."""

    def __init__(
        self, tasks: Collection[int], others: Collection[int], zygote: ZygoteClient, named: Collection[int]
    ) -> None:
        self._tasks, self._others, self._zygote, self._named = tasks, others, zygote, named

    def __contains__(self, pid: object) -> bool:
        return pid in self._tasks or pid in self._others or pid == self._zygote.pid

    def __iter__(self) -> Iterator[int]:
        yield from self._tasks
        yield from self._others
        if self._zygote.pid is not None:
            yield self._zygote.pid

    def __len__(self) -> int:
        """At least so many are children: a main process that a task has named may be the child of another."""
        return len(self._tasks) + len(self._others) + (self._zygote.pid is not None) - len(self._named)


class ProcessTable:
    """All tasks of a context. `tell` sends a message to the supervisor, if there is one."""

    def __init__(
        self,
        tell: Callable[[Report], None],
        zygote: ZygoteClient,
        mark: bytes,
        cgroup: Path | None,
        outside: KeeperMachine,
        dispatcher: Dispatcher,
    ) -> None:
        self._tell = tell
        self._zygote = zygote
        self._mark = mark
        self._cgroup = cgroup
        self._outside, self._dispatcher = outside, dispatcher
        self._forking: dict[int, bool] = {}
        """Launches that wait for their fork; True when they are to be killed as soon as they have it."""
        self._held: dict[int, LaunchRecord] = {}
        self._by_pid: dict[int, list[LaunchRecord]] = {}
        """Of a process that is there the launches that have not ended."""
        self._uses: Counter[Path] = Counter()
        """ExitStatus many launches that nobody has acknowledged have a control group: an earlier one of a
        task shares it with the next.
        """
        self._reserved: dict[int, Path] = {}
        """The control group of each launch that waits for its fork, which is one of its uses."""
        self._oom_kills = oom.of_context(cgroup.parent if cgroup else None)
        self._hosts = SharedProcesses(zygote, outside, dispatcher, self._member_ended)
        self._look_at: float | None = None
        self._unwatched: list[LaunchRecord] = []
        """Commands whose pipe the selector has no room for."""
        self._named: set[int] = set()
        """Launches whose task has named another main process."""
        self.others: set[int] = set()
        """Children that are no tasks: supervisor and device."""
        self._family = Descendants(
            outside, mark, _Own(self._by_pid, self.others, zygote, self._named), self._astray, self._settled
        )

    # --- launches

    def launch(self, spec: LaunchSpec, fds: Descriptors) -> None:
        """Fork a task, or have it started in the process that it shares."""
        if spec.launch in self._held:
            self._tell_again(self._held[spec.launch])
            return
        if spec.launch in self._forking:
            return
        cgroup = self._cgroup / spec.cgroup if self._cgroup and spec.cgroup else None
        self._forking[spec.launch] = False
        if cgroup is not None:
            # Else the end of an earlier launch, which is acknowledged meanwhile, would take it away.
            self._reserved[spec.launch] = cgroup
            self._uses[cgroup] += 1
        try:
            if spec.service_type == "Thread":
                self._hosts.start(
                    spec, cgroup, fds, partial(self._joined, spec), partial(self._not_forked, spec)
                )
            else:
                self._fork(spec, cgroup, fds)
        except OSError as error:
            self._not_forked(spec, error)

    def _not_forked(self, spec: LaunchSpec, error: OSError) -> None:
        self._forking.pop(spec.launch, None)
        self._release(spec.launch)
        self._tell(LaunchFailed(launch=spec.launch, why=f"cannot fork: {error.strerror or error}"))

    def _fork(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> None:
        watch = gate = None
        if spec.service_type == "Command":
            watch, gate = self._outside.pipe()
            try:
                linux.leave_room(gate)
                # A process that was stopped before it closed its end must not hold the keeper.
                os.set_blocking(watch, False)
            except OSError:
                os.close(watch)
                os.close(gate)
                raise
            fds = replace(fds, exec_gate=gate)

        def failed(error: OSError) -> None:
            for fd in (watch, gate):
                if fd is not None:
                    os.close(fd)
            self._not_forked(spec, error)

        def done(pid: int, started: int) -> None:
            if gate is not None:
                os.close(gate)
            self._forked(spec, cgroup, pid, started, watch)

        self._zygote.fork(spec, cgroup, fds, done, failed)

    def _forked(
        self, spec: LaunchSpec, cgroup: Path | None, pid: int, started: int, watch: int | None
    ) -> None:
        held = LaunchRecord(
            launch=spec.launch,
            pid=pid,
            start_time=started,
            cgroup=cgroup,
            pid_file=spec.pidfile,
            program=spec.service_type == "Command",
            executing=watch,
            uid=spec.uid,
        )
        self._hold(held)
        if watch is not None:
            self._await_exec(held, watch)

    def _await_exec(self, held: LaunchRecord, fd: int) -> None:
        try:
            self._dispatcher.watch(fd, partial(self._executed, held))
        except OSError:
            # The kernel has no room for it.
            self._unwatched.append(held)
            self._look_later()

    def _joined(self, spec: LaunchSpec, host: SharedProcess) -> None:
        assert host.pid is not None
        self._hold(
            LaunchRecord(
                launch=spec.launch,
                pid=host.pid,
                start_time=host.start_time,
                cgroup=host.cgroup,
                pid_file=None,
                host=host,
                tag=spec.task,
                uid=spec.uid,
            )
        )

    def _hold(self, held: LaunchRecord) -> None:
        self._held[held.launch] = held
        if held.cgroup is not None:
            self._uses[held.cgroup] += 1
        self._release(held.launch)
        self._by_pid.setdefault(held.pid, []).append(held)
        self._tell(self._launched(held))
        if self._forking.pop(held.launch, False):
            self.kill(held.launch)

    @staticmethod
    def _launched(held: LaunchRecord) -> Launched:
        return Launched(
            launch=held.launch,
            pid=held.pid,
            start_time=held.start_time,
            executed=held.executed,
            tag=held.tag,
            uid=held.uid,
        )

    def _tell_again(self, held: LaunchRecord) -> None:
        self._tell(self._launched(held))
        if held.end is not None:
            self._tell(held.end)

    def _executed(self, held: LaunchRecord, *, last: bool = False) -> None:
        """The pipe of a Command became readable: a word says why its program was not executed, and it is
        closed when it was.
        """
        fd = held.executing
        if fd is None:
            return
        try:
            said = os.read(fd, 4096)
        except BlockingIOError:
            if not last:
                return
            said = b""
        self._dispatcher.unwatch(fd)
        os.close(fd)
        held.executing = None
        if said:
            # A zygote of an earlier zmsvc says only that it was not.
            held.why = "" if said == b"x" else said.decode(errors="replace")
        elif self._outside.executed(held.pid):
            held.executed = True
            self._tell(Executed(launch=held.launch))

    # --- the main process

    def set_main(self, launch: int, pid: int, started: int) -> None:
        """TakePipe another process of a launch for its main one. Its parent may have to reap it, so its
        end is watched as well.
        """
        held = self._held.get(launch)
        if held is None or held.end is not None or held.host is not None or pid == held.pid:
            return
        if pid not in self._family.all(held) or self._outside.start_time(pid) != started:
            complain(
                f"zmsvcd: process {pid} is not one of launch {launch}: it does not become its main process"
            )
            return
        fd = self._outside.watch_end(pid)
        try:
            self._dispatcher.watch(fd, partial(self._main_gone, held, pid, fd))
        except OSError:
            os.close(fd)
            raise
        held.former = held.pid, held.start_time
        self._named.add(launch)
        self._become_main(held, pid, started)

    def _become_main(self, held: LaunchRecord, pid: int, started: int) -> None:
        if held.pid in self._by_pid:
            self._by_pid[held.pid].remove(held)
            if not self._by_pid[held.pid]:
                del self._by_pid[held.pid]
        held.pid, held.start_time = pid, started
        held.rest.pop(pid, None)
        self._by_pid.setdefault(pid, []).append(held)
        if held.pid_file is not None:
            attempt(partial(directories.write_new, Path(held.pid_file), f"{pid}\n", 0o644))
        self._tell(MainProcess(launch=held.launch, pid=pid, start_time=started))

    def _main_gone(self, held: LaunchRecord, pid: int, fd: int) -> None:
        """A main process that the task had named has ended. One that is a child of the keeper is reaped,
        which tells how.
        """
        self._dispatcher.unwatch(fd)
        os.close(fd)
        if held.end is not None or held.pid != pid or pid in self._outside.children():
            return
        former, held.former = held.former, None
        if former is not None and self._outside.start_time(former[0]) == former[1]:
            # An upgrade that failed: the process that has reaped it goes on.
            self._become_main(held, *former)
            return
        self._by_pid.pop(pid, None)
        self._main_ended(held, ExitStatus(), oom_kill=False)

    # --- orders

    def signal(self, launch: int, name: str, rest: str = "") -> None:
        """Signal the main process of a launch; one that has ended gets nothing. Of those that share one,
        SIGTERM is for one alone.

        `rest` is a signal that asks its other processes to end.
        """
        held = self._held.get(launch)
        if held is None:
            return
        others = self._others_to_ask(held, rest) if rest else []
        if held.host is not None and name == "SIGTERM":
            held.host.tell(sharing.StopMember(launch=launch))
        elif held.end is None and name:
            self._send(held.pid, name)
        self._ask(held, others, rest)
        if rest and held.end is not None:
            held.awaited = True
            self._look_for_end(held)

    def _send(self, pid: int, name: str) -> None:
        try:
            self._outside.signal_child(pid, signals.number(name))
        except (OSError, ValueError) as error:
            # A program that has become another user's may not be signalled by a daemon that is not root's.
            complain(
                f"zmsvcd: cannot send {name} to process {pid}: {getattr(error, 'strerror', None) or error}"
            )

    def _others_to_ask(self, held: LaunchRecord, rest: str) -> list[int]:
        held.asking = rest
        if held.host is not None and held.pid in self._by_pid:
            return []
        return [pid for pid in self._family.near(held) if pid not in held.rest]

    def _ask(self, held: LaunchRecord, pids: list[int], name: str) -> None:
        for pid in pids:
            started = self._outside.start_time(pid)
            if started is None:
                continue
            held.rest[pid] = OtherProcess(name=self._outside.name(pid), start_time=started, asked=name)
            try:
                self._outside.signal(pid, started, signals.number(name))
            except OSError as error:
                complain(f"zmsvcd: cannot send {name} to process {pid}: {error.strerror}")

    def kill(self, launch: int) -> None:
        """SIGKILL everything of a launch. `gone` is told when none of it is left after its main process."""
        held = self._held.get(launch)
        if held is None and launch in self._forking:
            self._forking[launch] = True
            return
        if held is None or (held.host is not None and held.end is not None and held.pid in self._by_pid):
            # Whose process goes on for others has left nothing that could be told from theirs.
            self._tell(Gone(launch=launch))
            return
        held.killing = held.awaited = True
        self._kill(held)
        self._look_for_end(held)

    def _kill(self, held: LaunchRecord) -> None:
        try:
            self._note(held, self._family.all(held))
            if held.cgroup is not None:
                self._outside.kill_group(held.cgroup)
        except OSError as error:
            complain(
                f"zmsvcd: cannot find every process of launch {held.launch}: {error.strerror}; trying again"
            )
            self._look_later()
        # As well where there is a control group: the main process may be about to move there.
        if held.end is None:
            self._send(held.pid, "SIGKILL")
        self._outside.kill_each(held.rest)

    def _note(self, held: LaunchRecord, pids: list[int]) -> None:
        """These are about to be killed."""
        for pid in pids:
            started = self._outside.start_time(pid)
            if started is not None and pid not in held.rest:
                held.rest[pid] = OtherProcess(name=self._outside.name(pid), start_time=started)
        for other in held.rest.values():
            other.killed = True

    def kill_everything(self) -> bool:
        """SIGKILL all tasks and every orphan that any of them left, known or not. False when there was
        nothing to kill.
        """
        for held in self._held.values():
            if held.end is None and held.cgroup is not None:
                attempt(partial(self._outside.kill_group, held.cgroup))
        doomed = [pid for pid in self._outside.children() if pid not in self.others]
        self._outside.kill_each(doomed)
        return bool(doomed)

    def acknowledge(self, launch: int) -> None:
        """The supervisor has the end of this launch in its state file."""
        held = self._held.get(launch)
        if held is not None and held.end is not None:
            del self._held[launch]
            if held.cgroup is not None:
                self._leave(held.cgroup)

    def _release(self, launch: int) -> None:
        """The fork that a control group was kept for has been done, or could not be."""
        cgroup = self._reserved.pop(launch, None)
        if cgroup is not None:
            self._leave(cgroup)

    def _leave(self, cgroup: Path) -> None:
        """Remove a control group that no launch has any more; one that is forked already may only be about
        to move there.
        """
        self._uses[cgroup] -= 1
        if not self._uses[cgroup]:
            del self._uses[cgroup]
            self._outside.remove_group(cgroup)

    # --- what is there

    def living(self) -> tuple[Launched, ...]:
        return tuple(self._launched(held) for held in self._held.values() if held.end is None)

    def ends(self) -> tuple[Exited, ...]:
        """Every end that no supervisor has acknowledged, in the order of the launches."""
        return tuple(held.end for held in self._held.values() if held.end is not None)

    # --- ends

    def _member_ended(self, launch: int, status: int, last: bool) -> None:
        held = self._held.get(launch)
        if held is None or held.end is not None:
            return
        if last:
            held.status = status
            return
        sharing_it = self._by_pid.get(held.pid, [])
        if held in sharing_it:
            sharing_it.remove(held)
        self._end(held, ExitStatus(code=status), left=False)

    def look_once_more(self, pid: int) -> None:
        """A child has ended, and is about to be reaped: only until then the kernel tells whether it has
        executed a program.
        """
        for held in self._by_pid.get(pid, ()):
            self._executed(held, last=True)

    def count_orphans(self, gone: Collection[int]) -> None:
        """These children have ended and were reaped, and `reaped` is called for each: what they have left
        is looked for at once.
        """
        self._family.count(gone)

    def forget_count(self) -> None:
        """`reaped` was called for each of them."""
        self._family.forget()

    def reaped(self, info: ChildEnd) -> None:
        """A child of the keeper that is neither supervisor nor device has ended."""
        if info.si_pid in self._by_pid:
            self._hosts.hear_last_words(info.si_pid)
            ended = self._by_pid.pop(info.si_pid)
            oom_kill = killed(info) and self._oom_kills.grown()
            for held in ended:
                self._main_ended(held, how_of(info), oom_kill=oom_kill)
            return
        for other in [held for held in self._held.values() if held.rest or held.awaited]:
            if info.si_pid in other.rest:
                other.ended.append(other.rest.pop(info.si_pid).ended(info.si_pid, how_of(info)))
            self._look_for_end(other)

    def _main_ended(self, held: LaunchRecord, how: ExitStatus, *, oom_kill: bool) -> None:
        if held.program and not held.executed and held.why is None:
            held.why = f"its program was not executed: the process ended before ({words(how)})"
        if held.pid_file is not None:
            unlink(held.pid_file)
        # Those that were asked or killed with it are to be told as well, by `gone`, also when they are dead
        # already.
        left = bool(held.rest or held.ended) or self._may_have_left(held)
        if held.status is None:
            self._end(held, how, left=left, oom_kill=oom_kill)
        else:
            self._end(held, ExitStatus(code=held.status), left=left)
        self._look_for_end(held)

    def _astray(self, pid: int) -> bool:
        """Tell whether an orphan is of no launch that is there, by its marks or its control group: nothing
        of the context may be there.
        """
        if self._forking:
            # It may be a fork on its way, which has neither of its own yet.
            return False
        launch = self._outside.launch_of(pid, self._mark)
        if launch is not None and self._holds(launch):
            return False
        group = self._outside.group(pid)
        return bool(group) and not self._in_use(group)

    def _settled(self, pid: int) -> bool:
        """Tell whether a process is in the control group of a launch, and its user may not move it to
        another.
        """
        group = self._outside.group(pid)
        return bool(group) and self._in_use(group) and self._outside.user(pid) not in (0, os.geteuid(), None)

    def _holds(self, mark: int) -> bool:
        held = self._held.get(mark)
        if held is not None and (held.end is None or held.awaited):
            return True
        # The mark of a shared process is that of its first task.
        return any(each.host is not None and each.host.mark == mark for each in self._held.values())

    def _in_use(self, group: str) -> bool:
        """Tell whether a control group, as the kernel names it, is that of a launch, or was made below it."""
        parts = group.split("/")
        for depth in range(len(parts) - 1, 0, -1):
            if f"{self._cgroup}".endswith("/".join(parts[:depth])) and self._cgroup is not None:
                return self._cgroup / parts[depth] in self._uses
        return False

    def _may_have_left(self, held: LaunchRecord) -> bool:
        try:
            return self._family.left(held)
        except OSError as error:
            complain(f"zmsvcd: cannot look for what launch {held.launch} has left behind: {error.strerror}")
            return True

    def _end(self, held: LaunchRecord, how: ExitStatus, *, left: bool, oom_kill: bool = False) -> None:
        self._named.discard(held.launch)
        held.end = Exited(
            launch=held.launch,
            pid=held.pid,
            tag=held.tag,
            left=left,
            code=how.code,
            signal=how.signal,
            core=how.core,
            oom=oom_kill,
            why=held.why or "",
        )
        self._tell(held.end)

    # --- what is left

    def due(self) -> float | None:
        """Return when `on_time` has to be called."""
        return self._look_at

    def on_time(self, now: float) -> None:
        """Look again for what could not be found, or killed, at once."""
        if self._look_at is None or now < self._look_at:
            return
        self._look_at = None
        unwatched, self._unwatched = self._unwatched, []
        for held in unwatched:
            self._executed(held)
            if held.executing is not None:
                self._await_exec(held, held.executing)
        for held in [held for held in self._held.values() if held.awaited]:
            if held.killing:
                self._kill(held)
            self._look_for_end(held)

    def _look_later(self) -> None:
        if self._look_at is None:
            self._look_at = self._outside.now() + LOOK_AGAIN

    def _look_for_end(self, held: LaunchRecord) -> None:
        """Is everything of it gone? Processes that were forked while the others ended are asked to end, or
        killed, as well.
        """
        if held.end is None or not held.awaited:
            return
        try:
            for _ in range(LOOKS):
                # Others are looked for when the known ones are gone, since that is a search through all
                # processes of the machine.
                if any(self._outside.start_time(pid) == other.start_time for pid, other in held.rest.items()):
                    # Each of them comes to us, the subreaper, to be reaped: only then is it known how it
                    # ended.
                    return
                new = [pid for pid in self._family.all(held) if pid not in held.rest]
                if not new:
                    self._gone(held, held.end)
                    return
                if held.killing:
                    self._note(held, new)
                    self._outside.kill_each(new)
                else:
                    self._ask(held, new, held.asking or "SIGTERM")
        except OSError as error:
            complain(
                f"zmsvcd: cannot look for what launch {held.launch} has left behind: {error.strerror}; "
                f"trying again"
            )
        self._look_later()

    def _gone(self, held: LaunchRecord, end: Exited) -> None:
        held.killing = held.awaited = False
        held.end = replace(end, left=False)
        # Another process has reaped the others.
        held.ended += [other.ended(pid) for pid, other in held.rest.items()]
        held.rest.clear()
        self._tell(Gone(launch=held.launch, ended=tuple(held.ended)))
