"""Run the output process of a context. The keeper executes it, and passes a socket; users do not start it."""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from zmsvc.host import arguments
from zmsvc.host.complain import DETACHED, complain
from zmsvc.host.kernel import linux, signals
from zmsvc.host.log_file import LogFile
from zmsvc.host.systemd.journal_socket import SOCKET, JournalSocket
from zmsvc.output.journal_log import JournalLog
from zmsvc.output.output import Output
from zmsvc.output.standard_error import StandardError

NAME = "zmsvc-output"
"""The name of this process in `ps`."""


def main() -> NoReturn:
    parser = arguments.parser("zmsvc.output", "The process that reads the output of tasks, run by zmsvcd.")
    parser.add_argument("--line", type=int, required=True, help="descriptor of the socket to the keeper")
    parser.add_argument("--log", required=True, help="target: journal, stderr, /path or /path+stderr")
    parser.add_argument("--name", required=True, help="name of the context")
    args = parser.parse_args()
    linux.set_process_name(NAME)
    # This process ends when it notices that the keeper has closed the channel. If it was stopped (SIGSTOP),
    # it needs SIGCONT for that.
    linux.signal_at_parents_death(signal.SIGCONT)
    # This process ends last, since otherwise lines would be lost.
    signals.leave_to_keeper()
    channel = socket.socket(fileno=args.line)
    channel.set_inheritable(False)
    path = args.log.removesuffix("+stderr")
    file = LogFile(path, later=True) if path.startswith("/") else None
    shown = file is None or path != args.log or not _writable(file)
    journal = _journal(args.log, args.name)
    # In a detached daemon standard error leads to this process itself.
    stderr = StandardError(2) if journal is None and shown and DETACHED not in os.environ else None
    os.chdir("/")
    linux.drop_capabilities()
    linux.forbid_new_privileges()
    Output(channel, file, stderr, args.name, journal).run()
    # A thread may wait for a terminal that does not read.
    os._exit(0)


def _journal(target: str, name: str) -> JournalLog | None:
    """Return the journal if it is the target of the log. Without journald the target is standard error."""
    there = target == "journal" and os.path.exists(SOCKET)
    return JournalLog(JournalSocket(), name) if there else None


def _writable(file: LogFile) -> bool:
    try:
        file.reopen()
    except OSError as error:
        complain(
            f"zmsvcd: cannot write {file.path}, the output of tasks goes to standard error: {error.strerror}"
        )
        return False
    return True


if __name__ == "__main__":
    main()
