"""Suggestions for an unknown verb: a similar verb, or the equivalent of a verb of another service manager."""

from __future__ import annotations

from collections.abc import Collection

from zmsvc.core.similar import closest

_AT_BOOT = (
    "systemctl enable zmsvc@NAME runs a context at each boot; zmsvcctl enable TASK_ID takes back a disable, "
    "and zmsvcctl status shows it"
)
_NOT_AT_BOOT = (
    "systemctl disable zmsvc@NAME ends the start of a context at boot; zmsvcctl disable TASK_ID that of a "
    "task with its transaction"
)
_HELD = "zmsvcctl stop TASK_ID holds a task until an operator starts it; systemctl mask zmsvc@NAME a context"
_LOG = "zmsvcctl logs -f follows the log, of all or of TASK_ID"
_SIGNAL = "zmsvcctl signal SIGNAL TASK_ID reaches a task, and zmsvcctl stop TASK_ID ends it"
_STATUS = "zmsvcctl status TASK_ID shows it, zmsvcctl show TASK_ID has each field"
_EXIT_STATUS = "zmsvcctl is-active TASK_ID ends with 0 when it is active, with 3 when it is not"
_RELOAD = "zmsvcctl reload reads the context file again and changes what differs"
_RESTART = "zmsvcctl restart"
_LIST = "zmsvcctl list shows the contexts, zmsvcctl status the tasks of one"
_EXIT = "zmsvcctl exit stops all and ends the daemon"
_UP = (
    "zmsvcd --detach NAME or systemctl start zmsvc@NAME starts a context, zmsvcctl start another "
    "transaction of it"
)
_COPIES = "zmsvcctl start opens another transaction, a second run of all tasks"
_GONE = (
    "zmsvcctl stop --transaction ID, then zmsvcctl forget --transaction ID; a task goes with its element "
    "and zmsvcctl reload"
)
_FILE = (
    "the context file of NAME is /etc/zmsvc/Context-NAME.xml or ~/.config/zmsvc/Context-NAME.xml; zmsvcctl "
    "check finds its faults"
)
_TOP = "zmsvcctl top"
_SAVED = "the state is always saved, and the next start resumes what ran"
_HELP = "zmsvcctl --help lists the verbs, zmsvcctl VERB --help lists the arguments"

_INSTEAD = {
    _AT_BOOT: "reenable preset startup autostart",
    _NOT_AT_BOOT: "unstartup",
    _HELD: "mask unmask hold unhold",
    _LOG: "tail maintail log journal follow attach fg",
    _SIGNAL: "kill sendsignal sendSignal send-signal hup",
    _STATUS: "info describe inspect pid prettylist jlist get options globaloptions numprocesses",
    _EXIT_STATUS: "is-system-running is-running",
    _RELOAD: "reread reloadconfig daemon-reload add",
    _RESTART: "try-restart condrestart reload-or-restart try-reload-or-restart force-reload respawn",
    _LIST: "ls ps avail list-units listpids units-list contexts",
    _EXIT: "quit shutdown down poweroff halt",
    _UP: "up run spawn launch",
    _COPIES: "scale incr decr replicas",
    _GONE: "remove delete del rm",
    _FILE: "cat edit config configtest validate test",
    _TOP: "monit monitor stats dstats usage cgtop",
    _SAVED: "save dump resurrect flush clear",
    "zmsvcctl watch prints every message on the bus": "subscribe listen sub",
    "zmsvcctl send TOPIC publishes a message": "pub emit",
    "zmsvcctl reset-failed": "reset unfail",
    "zmsvcctl --version": "version",
    _HELP: "help ?",
}
"""Verbs of systemctl, supervisorctl, circusctl, pm2 and docker compose, by their equivalent in zmsvc."""


def hint(word: str, verbs: Collection[str]) -> str:
    """Return a suggestion instead of an unknown verb; empty if there is none."""
    for instead, words in _INSTEAD.items():
        if word in words.split():
            return instead
    found = closest(word, verbs)
    return f"did you mean {found}?" if found else ""


def option_hint(word: str, options: Collection[str]) -> str:
    """Return a similar option as a question; empty if there is none."""
    found = closest(word.partition("=")[0], options)
    return f": did you mean {found}?" if found else ""
