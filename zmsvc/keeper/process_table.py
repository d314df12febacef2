"""The task processes of a context. The table launches, signals and reaps them, and keeps every end until the
supervisor has saved it.

A launch ID is forked once, however often the supervisor orders it. Tasks that share a process start and
end one by one as well, but the processes that they leave behind cannot be told apart. Those are ended with
the last task of the shared process.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from zmsvc.core.errors import ZmsvcError
from zmsvc.host import directories
from zmsvc.host.complain import complain
from zmsvc.host.kernel import free_descriptors, oom, signals
from zmsvc.keeper.descendants import Descendants
from zmsvc.keeper.dispatcher import Dispatcher, attempt
from zmsvc.keeper.launch_record import (
    ExitStatus,
    LaunchRecord,
    OtherProcess,
    describe,
    exit_status_of,
    killed_by_sigkill,
    unlink,
)
from zmsvc.keeper.machine import ChildEnd, KeeperMachine
from zmsvc.keeper.shared_process import SharedProcess, SharedProcesses
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.protocol.supervision import (
    Executed,
    Exited,
    Gone,
    Launched,
    LaunchFailed,
    LineSeen,
    MainProcess,
    Report,
)

SEARCHES = 8
"""The number of searches in a row for the processes of a launch. A launch that forks faster than the keeper
kills must not keep the keeper busy.
"""
SEARCH_AGAIN = 0.1
"""Seconds until the next searches, and until a failed search is repeated."""
ITS_TASK_HAS_ENDED = "its task has ended"
"""The reason why an auxiliary process is not forked."""


class _KnownChildren(Collection[int]):
    """The children of the keeper that are not orphans. This is a view, not a copy, since a thousand tasks may
    end at once.
    """

    def __init__(
        self, tasks: Collection[int], others: Collection[int], zygote: ZygoteClient, named: Collection[int]
    ) -> None:
        self._tasks, self._others, self._zygote, self._named_mains = tasks, others, zygote, named

    def __contains__(self, pid: object) -> bool:
        if pid in self._tasks or pid in self._others or pid == self._zygote.pid:
            return True
        return pid in self._zygote.spare_pids

    def __iter__(self) -> Iterator[int]:
        yield from self._tasks
        yield from self._others
        yield from self._zygote.spare_pids
        if self._zygote.pid is not None:
            yield self._zygote.pid

    def __len__(self) -> int:
        """Return at least the number of children that are not orphans: a main process that a task has named
        may be the child of another process.
        """
        zygotes = len(self._zygote.spare_pids) + (self._zygote.pid is not None)
        known = len(self._tasks) + len(self._others) + zygotes
        return max(0, known - len(self._named_mains))


class ProcessTable:
    """All tasks of a context. `report` sends a message to the supervisor, if one runs."""

    def __init__(
        self,
        report: Callable[[Report], None],
        zygote: ZygoteClient,
        context_mark: bytes,
        cgroup: Path | None,
        groups: TaskGroups,
        machine: KeeperMachine,
        dispatcher: Dispatcher,
    ) -> None:
        self._report = report
        self._zygote = zygote
        self._context_mark = context_mark
        self._cgroup, self._groups = cgroup, groups
        self._machine, self._dispatcher = machine, dispatcher
        self._forking: dict[int, bool] = {}
        """Launches that wait for their fork. True if they are to be killed right after it."""
        self._records: dict[int, LaunchRecord] = {}
        self._by_pid: dict[int, list[LaunchRecord]] = {}
        """The launches that have not ended, by the PID of their process."""
        self._cgroup_uses: Counter[Path] = Counter()
        """The number of unacknowledged launches that use a control group. An earlier launch of a task shares
        it with the next one.
        """
        self._reserved: dict[int, Path] = {}
        """The control group of each launch that waits for its fork. Each such launch counts as one use of the
        group.
        """
        self._oom_kills = oom.of_context(cgroup.parent if cgroup else None)
        self._shared_processes = SharedProcesses(zygote, machine, dispatcher, self._member_ended)
        self._search_at: float | None = None
        self._unwatched: list[LaunchRecord] = []
        """Commands whose exec pipe the kernel could not watch."""
        self._awaits_spare = False
        """True if the end of a launch waits until the PID of the spare task is known."""
        zygote.on_spare_known = self._spare_known
        self._named_mains: set[int] = set()
        """Launches whose task has named another main process."""
        self.workers: set[int] = set()
        """Children that are not tasks: supervisor, device, output process, fdstore process, watcher
        process, and those that close sockets. The zygote is not among them.
        """
        self._descendants = Descendants(
            machine,
            context_mark,
            _KnownChildren(self._by_pid, self.workers, zygote, self._named_mains),
            self._is_stray,
            self._is_confined,
        )

    # --- launches

    def launch(self, spec: LaunchSpec, fds: Descriptors) -> None:
        """Fork a task, or start it in the process that it shares."""
        if spec.launch in self._records:
            self._repeat(self._records[spec.launch])
            return
        if spec.launch in self._forking:
            return
        if spec.auxiliary_of and self._living_main(spec.auxiliary_of) is None:
            self._report(LaunchFailed(launch=spec.launch, why=ITS_TASK_HAS_ENDED))
            return
        cgroup = self._cgroup / spec.cgroup if self._cgroup and spec.cgroup else None
        self._forking[spec.launch] = False
        if cgroup is not None:
            # Reserve the control group. The supervisor may meanwhile acknowledge the end of an earlier
            # launch, which would otherwise remove the group.
            self._reserved[spec.launch] = cgroup
            self._cgroup_uses[cgroup] += 1
        try:
            if spec.service_type == "Thread":
                self._share(spec, cgroup, fds)
            else:
                self._fork(spec, cgroup, fds)
        except OSError as error:
            self._not_forked(spec, error)

    def _share(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> None:
        barrier = self._zygote.barriers.create(spec)
        try:
            self._shared_processes.start(
                spec,
                cgroup,
                replace(fds, barrier=barrier),
                partial(self._joined, spec),
                partial(self._not_forked, spec),
            )
        finally:
            if barrier is not None:
                os.close(barrier)

    def _living_main(self, launch: int) -> LaunchRecord | None:
        """Return the record of a launch whose main process has not ended."""
        record = self._records.get(launch)
        return record if record is not None and record.end is None else None

    def _not_forked(self, spec: LaunchSpec, error: OSError | ZmsvcError) -> None:
        self._forking.pop(spec.launch, None)
        self._zygote.barriers.open([spec.launch])
        self._release_reservation(spec.launch)
        why = f"cannot fork: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        self._report(LaunchFailed(launch=spec.launch, why=why))

    def _fork(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> None:
        exec_pipe = exec_gate = None
        if spec.service_type == "Command":
            exec_pipe, exec_gate = self._machine.pipe()
            try:
                free_descriptors.leave_room(exec_gate)
                # A process that was stopped before it closed its end of the pipe must not block the keeper.
                os.set_blocking(exec_pipe, False)
            except OSError:
                os.close(exec_pipe)
                os.close(exec_gate)
                raise
            fds = replace(fds, exec_gate=exec_gate)

        def failed(error: OSError | ZmsvcError) -> None:
            for fd in (exec_pipe, exec_gate):
                if fd is not None:
                    os.close(fd)
            self._not_forked(spec, error)

        def done(pid: int, started: int) -> None:
            if exec_gate is not None:
                os.close(exec_gate)
            self._forked(spec, cgroup, pid, started, exec_pipe)

        try:
            given = self._zygote.give(spec, cgroup, fds)
        except (OSError, ZmsvcError) as error:
            failed(error)
            return
        if given is None:
            self._zygote.fork(spec, cgroup, fds, done, failed)
        elif not attempt(lambda: done(*given)):
            self._machine.signal_child(given[0], signal.SIGKILL)

    def _forked(
        self, spec: LaunchSpec, cgroup: Path | None, pid: int, started: int, exec_pipe: int | None
    ) -> None:
        record = LaunchRecord(
            launch=spec.launch,
            task=f"{spec.transaction}:{spec.task}",
            pid=pid,
            start_time=started,
            cgroup=cgroup,
            pid_file=spec.pidfile,
            program=spec.service_type == "Command",
            exec_pipe=exec_pipe,
            uid=spec.uid,
            auxiliary_of=spec.auxiliary_of,
        )
        self._add(record)
        if exec_pipe is not None and record.end is None:
            self._await_exec(record, exec_pipe)
        elif exec_pipe is not None:
            record.exec_pipe = None
            os.close(exec_pipe)

    def _await_exec(self, record: LaunchRecord, fd: int) -> None:
        try:
            self._dispatcher.watch(fd, partial(self._executed, record))
        except OSError:
            # The kernel cannot watch another descriptor now.
            self._unwatched.append(record)
            self._search_later()

    def _joined(self, spec: LaunchSpec, process: SharedProcess) -> None:
        assert process.pid is not None
        self._add(
            LaunchRecord(
                launch=spec.launch,
                task=f"{spec.transaction}:{spec.task}",
                pid=process.pid,
                start_time=process.start_time,
                cgroup=process.cgroup,
                pid_file=None,
                shared_process=process,
                member_id=spec.task,
                uid=spec.uid,
            )
        )

    def _add(self, record: LaunchRecord) -> None:
        self._records[record.launch] = record
        if record.cgroup is not None:
            self._cgroup_uses[record.cgroup] += 1
        self._release_reservation(record.launch)
        self._by_pid.setdefault(record.pid, []).append(record)
        self._report(self._launched(record))
        if (early := self._zygote.early_end(record.pid)) is not None:
            self.reaped(*early)
        if self._forking.pop(record.launch, False):
            self.kill(record.launch)
        elif record.auxiliary_of and record.end is None:
            self._add_auxiliary(record)

    def _add_auxiliary(self, record: LaunchRecord) -> None:
        main = self._living_main(record.auxiliary_of)
        if main is None:
            self._kill_auxiliary(record)
        else:
            main.auxiliaries.append(record)

    @staticmethod
    def _launched(record: LaunchRecord) -> Launched:
        return Launched(
            launch=record.launch,
            pid=record.pid,
            start_time=record.start_time,
            executed=record.executed,
            line_seen=record.line_seen,
            tag=record.member_id,
            uid=record.uid,
            auxiliary_of=record.auxiliary_of,
        )

    def _repeat(self, record: LaunchRecord) -> None:
        self._report(self._launched(record))
        if record.end is not None:
            self._report(record.end)

    def _executed(self, record: LaunchRecord, *, last: bool = False) -> None:
        """Handle a readable exec pipe. It contains the reason if the program was not executed; exec closes
        it.
        """
        fd = record.exec_pipe
        if fd is None:
            return
        try:
            message = os.read(fd, 4096)
        except BlockingIOError:
            if not last:
                return
            message = b""
        self._dispatcher.unwatch(fd)
        os.close(fd)
        record.exec_pipe = None
        if message:
            # A zygote of an earlier zmsvc sends only `x` for a failed exec.
            record.exec_error = "" if message == b"x" else message.decode(errors="replace")
        elif self._machine.executed(record.pid):
            record.executed = True
            self._report(Executed(launch=record.launch))

    def line_seen(self, launch: int) -> None:
        """Report that a task has written the line by which it is ready. Each new supervisor is told again."""
        record = self._records.get(launch)
        if record is not None and not record.line_seen:
            record.line_seen = True
            self._report(LineSeen(launch=launch))

    # --- the main process

    def set_main(self, launch: int, pid: int, started: int) -> None:
        """Make another process of a launch its main one. The keeper also watches the process by a pidfd,
        since the parent that reaps it may be another process.
        """
        record = self._records.get(launch)
        if record is None or record.end is not None or record.shared_process is not None or pid == record.pid:
            return
        if pid not in self._descendants.others(record) or self._machine.start_time(pid) != started:
            complain(
                f"zmsvcd: process {pid} does not become the main one of {record.task}, to which it does "
                f"not belong"
            )
            return
        fd = self._machine.watch_end(pid)
        try:
            self._dispatcher.watch(fd, partial(self._named_main_ended, record, pid, fd))
        except OSError:
            os.close(fd)
            raise
        record.previous_main = record.pid, record.start_time
        self._named_mains.add(launch)
        self._become_main(record, pid, started)

    def _become_main(self, record: LaunchRecord, pid: int, started: int) -> None:
        if record.pid in self._by_pid:
            self._by_pid[record.pid].remove(record)
            if not self._by_pid[record.pid]:
                del self._by_pid[record.pid]
        record.pid, record.start_time = pid, started
        record.others.pop(pid, None)
        self._by_pid.setdefault(pid, []).append(record)
        if record.pid_file is not None:
            attempt(partial(directories.write_new, Path(record.pid_file), f"{pid}\n", 0o644))
        self._report(MainProcess(launch=record.launch, pid=pid, start_time=started))

    def _named_main_ended(self, record: LaunchRecord, pid: int, fd: int) -> None:
        """Handle the end of a main process that the task has named. If it is a child of the keeper, `reaped`
        has its exit status.
        """
        # Nothing changes before these calls: if one fails, the dispatcher calls this method again later.
        over = record.end is not None or record.pid != pid or pid in self._machine.children()
        former = record.previous_main
        goes_on = not over and former is not None and self._machine.start_time(former[0]) == former[1]
        self._dispatcher.unwatch(fd)
        os.close(fd)
        if over:
            return
        record.previous_main = None
        if former is not None and goes_on:
            # An upgrade of the program failed: its old main process has reaped the new one and continues.
            self._become_main(record, *former)
            return
        self._by_pid.pop(pid, None)
        self._main_ended(record, ExitStatus(), oom_kill=False)

    # --- orders

    def signal(self, launch: int, name: str, others_signal: str = "") -> None:
        """Signal the main process of a launch, unless it has ended. In a shared process, SIGTERM stops one
        task only.

        `others_signal` is the stop signal for the launch's other processes.
        """
        record = self._records.get(launch)
        if record is None:
            return
        others = self._others_to_signal(record, others_signal) if others_signal else []
        if record.shared_process is not None and name == "SIGTERM":
            record.shared_process.send(sharing.StopMember(launch=launch))
        elif record.end is None and name:
            self._send(record, name)
        self._signal_others(record, others, others_signal)
        if others_signal and record.end is not None:
            record.gone_expected = True
            self._check_gone(record)

    def signal_all(self, launch: int, name: str) -> None:
        """Send a signal to every process of a launch. They need not end, so `Gone` is not reported."""
        record = self._records.get(launch)
        if record is None:
            return
        others = [(pid, self._machine.start_time(pid)) for pid in self._descendants.reachable(record)]
        if record.end is None:
            self._send(record, name)
        for pid, started in others:
            if started is not None:
                self._send_other(record, pid, started, name)

    def _send(self, record: LaunchRecord, name: str) -> None:
        try:
            if record.launch in self._named_mains:
                # The parent of a named process may have reaped it, and another process may have the PID now.
                self._machine.signal(record.pid, record.start_time, signals.number(name))
            else:
                self._machine.signal_child(record.pid, signals.number(name))
        except (OSError, ValueError) as error:
            # The program may have changed its user. Then a daemon that does not run as root may not signal
            # it.
            complain(
                f"zmsvcd: cannot send {name} to process {record.pid} of {record.task}: "
                f"{getattr(error, 'strerror', None) or error}{_hint(error)}"
            )

    def _others_to_signal(self, record: LaunchRecord, name: str) -> list[int]:
        record.stop_signal = name
        if record.shared_process is not None and record.pid in self._by_pid:
            return []
        return [pid for pid in self._descendants.reachable(record) if pid not in record.others]

    def _signal_others(self, record: LaunchRecord, pids: list[int], name: str) -> None:
        for pid in pids:
            started = self._machine.start_time(pid)
            if started is None:
                continue
            record.others[pid] = OtherProcess(
                name=self._machine.name(pid), start_time=started, stop_signal=name
            )
            self._send_other(record, pid, started, name)

    def _send_other(self, record: LaunchRecord, pid: int, started: int, name: str) -> None:
        try:
            self._machine.signal(pid, started, signals.number(name))
        except OSError as error:
            complain(
                f"zmsvcd: cannot send {name} to process {pid} of {record.task}: "
                f"{error.strerror}{_hint(error)}"
            )

    def kill(self, launch: int) -> None:
        """Send SIGKILL to every process of a launch. `Gone` is reported when the main process has ended and
        no other process is left.
        """
        record = self._records.get(launch)
        if record is None and launch in self._forking:
            self._forking[launch] = True
            return
        if record is None or (
            record.shared_process is not None and record.end is not None and record.pid in self._by_pid
        ):
            # The shared process keeps running for other tasks, so the processes that this one left cannot be
            # told apart.
            self._report(Gone(launch=launch))
            return
        record.killing = record.gone_expected = True
        self._kill(record)
        self._check_gone(record)

    def _kill(self, record: LaunchRecord) -> None:
        try:
            self._record_killed(record, self._descendants.others(record))
            if record.cgroup is not None:
                self._machine.kill_cgroup(record.cgroup)
        except OSError as error:
            complain(f"zmsvcd: cannot find every process of {record.task}: {error.strerror}; trying again")
            self._search_later()
        # Kill the main process by PID even with a control group: it may not have moved there yet.
        if record.end is None:
            self._send(record, "SIGKILL")
        self._machine.kill_each(record.others)

    def _record_killed(self, record: LaunchRecord, pids: list[int]) -> None:
        """Record the processes that are about to be killed."""
        for pid in pids:
            started = self._machine.start_time(pid)
            if started is not None and pid not in record.others:
                record.others[pid] = OtherProcess(name=self._machine.name(pid), start_time=started)
        for other in record.others.values():
            other.killed = True

    def kill_everything(self) -> bool:
        """Send SIGKILL to all tasks, all orphans and the zygote. Return False if there was no process to
        kill.
        """
        for record in self._records.values():
            if record.end is None and record.cgroup is not None:
                attempt(partial(self._machine.kill_cgroup, record.cgroup))
        targets = [pid for pid in self._machine.children() if pid not in self.workers]
        self._machine.kill_each(targets)
        return bool(targets)

    def acknowledge(self, launch: int) -> None:
        """Forget a launch whose end is in the supervisor's state file."""
        record = self._records.get(launch)
        if record is not None and record.end is not None:
            del self._records[launch]
            main = self._records.get(record.auxiliary_of)
            if main is not None and record in main.auxiliaries:
                main.auxiliaries.remove(record)
            if record.cgroup is not None:
                self._release_cgroup(record.cgroup)

    def _release_reservation(self, launch: int) -> None:
        """Release the control group that was reserved for a fork, which has succeeded or failed."""
        cgroup = self._reserved.pop(launch, None)
        if cgroup is not None:
            self._release_cgroup(cgroup)

    def _release_cgroup(self, cgroup: Path) -> None:
        """End one use of a control group, and remove the group after the last one. Uses are counted, because
        a group in use may be empty: a forked task may not have moved there yet.
        """
        self._cgroup_uses[cgroup] -= 1
        if not self._cgroup_uses[cgroup]:
            del self._cgroup_uses[cgroup]
            self._groups.remove(cgroup)
            if cgroup.parent != self._cgroup and cgroup.parent not in self._cgroup_uses:
                # This is the group of a task whose auxiliary process has ended after the task.
                self._groups.remove(cgroup.parent)

    # --- what is there

    def living(self) -> tuple[Launched, ...]:
        return tuple(self._launched(record) for record in self._records.values() if record.end is None)

    def ends(self) -> tuple[Exited, ...]:
        """Return every end that no supervisor has acknowledged, in the order of the launches."""
        return tuple(record.end for record in self._records.values() if record.end is not None)

    # --- ends

    def _member_ended(self, launch: int, status: int, last: bool) -> None:
        record = self._records.get(launch)
        if record is None or record.end is not None:
            return
        if last:
            record.member_status = status
            return
        members = self._by_pid.get(record.pid, [])
        if record in members:
            members.remove(record)
        self._end(record, ExitStatus(code=status), left=False)

    def read_exec_pipe(self, pid: int) -> None:
        """Read the exec pipes of a child that has ended, before it is reaped: after that the kernel no longer
        knows if the child executed a program.
        """
        for record in self._by_pid.get(pid, ()):
            self._executed(record, last=True)

    def count_orphans(self, gone: Collection[int]) -> None:
        """Search once for the orphans of all these children, which have ended and were reaped. `reaped` is
        then called for each of them.
        """
        self._descendants.count_orphans(gone)

    def forget_count(self) -> None:
        """Drop the result of `count_orphans`, after the calls of `reaped`."""
        self._descendants.forget_count()

    def reaped(self, info: ChildEnd, cpu: float = 0.0) -> None:
        """Handle the end of a child that is not a worker: a task or an orphan. `cpu` are the CPU seconds that
        it has used.
        """
        if info.si_pid in self._by_pid:
            self._shared_processes.drain(info.si_pid)
            ended = self._by_pid.pop(info.si_pid)
            if ended[0].auxiliary_of:
                self._auxiliary_ended(ended[0], exit_status_of(info))
                return
            oom_kill = killed_by_sigkill(info) and self._oom_kills.grown()
            for record in ended:
                # Tasks that share a process also share its CPU time.
                record.cpu += cpu if record.shared_process is None else 0.0
                self._main_ended(record, exit_status_of(info), oom_kill=oom_kill)
            return
        self._zygote.unknown_ended(info, cpu)
        for record in [self._records[launch] for launch in self._named_mains if launch in self._records]:
            if record.previous_main is not None and record.previous_main[0] == info.si_pid:
                record.cpu += cpu
        for other in [record for record in self._records.values() if record.others or record.gone_expected]:
            if info.si_pid in other.others:
                other.leftovers.append(other.others.pop(info.si_pid).ended(info.si_pid, exit_status_of(info)))
            self._check_gone(other)

    def _auxiliary_ended(self, record: LaunchRecord, status: ExitStatus) -> None:
        """Report the end of an auxiliary process, and kill the processes that it has left. The supervisor
        does not wait for those, since none of them belongs to the task.
        """
        self._note_exec_error(record, status)
        self._end(record, status, left=False)
        if self._may_have_leftovers(record):
            record.killing = record.gone_expected = True
            self._kill(record)
            self._check_gone(record)

    def _kill_auxiliary(self, record: LaunchRecord) -> None:
        """Kill an auxiliary process, and those of its processes that are found without a search of /proc.
        After its end the keeper searches for the others.
        """
        others = self._descendants.reachable(record)
        if record.cgroup is not None:
            self._machine.kill_cgroup(record.cgroup)
        self._machine.kill_each([record.pid, *others])

    @staticmethod
    def _note_exec_error(record: LaunchRecord, status: ExitStatus) -> None:
        if record.program and not record.executed and record.exec_error is None:
            record.exec_error = f"its program was not executed: the process ended before ({describe(status)})"

    def _main_ended(self, record: LaunchRecord, status: ExitStatus, *, oom_kill: bool) -> None:
        # Kill the auxiliary processes before the search for the processes that the task has left.
        for each in record.auxiliaries:
            if each.end is None:
                attempt(partial(self._kill_auxiliary, each))
        self._note_exec_error(record, status)
        if record.pid_file is not None:
            unlink(record.pid_file)
        # Processes that were signaled are reported by `gone`, even if they have ended already.
        left = bool(record.others or record.leftovers) or self._may_have_leftovers(record)
        if record.member_status is None:
            self._end(record, status, left=left, oom_kill=oom_kill)
        else:
            self._end(record, ExitStatus(code=record.member_status), left=left)
        self._check_gone(record)

    def _is_stray(self, pid: int) -> bool:
        """Return True if neither the marks nor the control group of an orphan are those of an existing
        launch. No process of the context may stay without a launch.
        """
        if self._forking or self._zygote.forks_spare:
            # The orphan may be a fork in progress, which has neither marks nor a control group yet.
            return False
        return self._has_no_launch(pid)

    def _is_undecided(self, record: LaunchRecord) -> bool:
        """Return True if an orphan is either a stray process or the spare task that the zygote is forking."""
        return (
            record.cgroup is not None
            and self._zygote.forks_spare
            and not self._forking
            and any(map(self._has_no_launch, self._descendants.orphans()))
        )

    def _spare_known(self) -> None:
        """Decide about the launches that have waited for this."""
        if self._awaits_spare:
            self._awaits_spare = False
            for record in [record for record in self._records.values() if record.gone_expected]:
                self._check_gone(record)

    def _has_no_launch(self, pid: int) -> bool:
        launch = self._machine.launch_of(pid, self._context_mark)
        if launch is not None and self._has_launch(launch):
            return False
        group = self._machine.cgroup_of(pid)
        return bool(group) and not self._cgroup_in_use(group)

    def _is_confined(self, pid: int) -> bool:
        """Return True if a process is in the control group of a launch and its user may not move it to
        another one.
        """
        group = self._machine.cgroup_of(pid)
        return (
            bool(group)
            and self._cgroup_in_use(group)
            and self._machine.user(pid) not in (0, os.geteuid(), None)
        )

    def _has_launch(self, launch: int) -> bool:
        record = self._records.get(launch)
        if record is not None and (record.end is None or record.gone_expected):
            return True
        # A shared process carries the marks of its first task.
        return any(
            each.shared_process is not None and each.shared_process.first_launch == launch
            for each in self._records.values()
        )

    def _cgroup_in_use(self, group: str) -> bool:
        """Return True if `group` is the control group of a launch, or is below one. `group` is a path as the
        kernel shows it.
        """
        parts = group.split("/")
        for depth in range(len(parts) - 1, 0, -1):
            if f"{self._cgroup}".endswith("/".join(parts[:depth])) and self._cgroup is not None:
                return self._cgroup / parts[depth] in self._cgroup_uses
        return False

    def _may_have_leftovers(self, record: LaunchRecord) -> bool:
        try:
            return self._descendants.has_any(record) or self._is_undecided(record)
        except OSError as error:
            complain(
                f"zmsvcd: cannot search for the processes of {record.task}, trying again: {error.strerror}"
            )
            return True

    def _end(self, record: LaunchRecord, status: ExitStatus, *, left: bool, oom_kill: bool = False) -> None:
        self._named_mains.discard(record.launch)
        self._zygote.barriers.open([record.launch])
        record.end = Exited(
            launch=record.launch,
            pid=record.pid,
            tag=record.member_id,
            left=left,
            code=status.code,
            signal=status.signal,
            core=status.core,
            oom=oom_kill,
            why=record.exec_error or "",
            cpu=record.cpu,
        )
        self._report(record.end)

    # --- what is left

    def due(self) -> float | None:
        """Return the time by which `on_time` has to be called."""
        return self._search_at

    def on_time(self, now: float) -> None:
        """Repeat searches and kills that did not succeed at once."""
        if self._search_at is None or now < self._search_at:
            return
        self._search_at = None
        unwatched, self._unwatched = self._unwatched, []
        for record in unwatched:
            self._executed(record)
            if record.exec_pipe is not None:
                self._await_exec(record, record.exec_pipe)
        for record in [record for record in self._records.values() if record.gone_expected]:
            if record.killing:
                self._kill(record)
            self._check_gone(record)

    def _search_later(self) -> None:
        if self._search_at is None:
            self._search_at = self._machine.now() + SEARCH_AGAIN

    def _check_gone(self, record: LaunchRecord) -> None:
        """Report `Gone` if no process of the launch is left. Signal or kill processes that were forked while
        others ended.
        """
        if record.end is None or not record.gone_expected:
            return
        try:
            for _ in range(SEARCHES):
                # Search for more only when the known processes are gone, since a search goes through all
                # processes of the machine.
                if any(
                    self._machine.start_time(pid) == other.start_time for pid, other in record.others.items()
                ):
                    # The keeper is the subreaper and will reap each of them. Only then are their exit
                    # statuses known.
                    return
                new = [pid for pid in self._descendants.others(record) if pid not in record.others]
                if not new and self._is_undecided(record):
                    self._awaits_spare = True
                    return
                if not new:
                    self._report_gone(record, record.end)
                    return
                if record.killing:
                    self._record_killed(record, new)
                    self._machine.kill_each(new)
                else:
                    self._signal_others(record, new, record.stop_signal or "SIGTERM")
        except OSError as error:
            complain(
                f"zmsvcd: cannot search for the processes of {record.task}, trying again: {error.strerror}"
            )
        self._search_later()

    def _report_gone(self, record: LaunchRecord, end: Exited) -> None:
        record.killing = record.gone_expected = False
        record.end = replace(end, left=False)
        # Another process than the keeper has reaped these.
        record.leftovers += [other.ended(pid) for pid, other in record.others.items()]
        record.others.clear()
        self._report(Gone(launch=record.launch, ended=tuple(record.leftovers)))


def _hint(error: Exception) -> str:
    """Return the way out when a signal is not permitted."""
    if not isinstance(error, PermissionError):
        return ""
    return " (it runs as another user: a daemon of root may signal it)"
