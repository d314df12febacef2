"""A real terminal for a test: tmux, in which a command runs. Keys go in, and the text on the screen comes out."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from needs import need_tool
from waiting import wait_for


class TerminalWindow:
    """A terminal with a shell in it."""

    def __init__(
        self, home: Path, *, shell: Sequence[str], columns: int, lines: int, environment: Mapping[str, str]
    ) -> None:
        need_tool(shutil.which("tmux"), "tmux is not installed")
        self._socket = home / "tmux.sock"
        # The server is in this process group, and its sessions have the variables of the test.
        self._environment = {**os.environ, "LC_ALL": "C.UTF-8", "PS1": "$ ", **environment}
        self._environment.pop("TMUX", None)
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "--", *shell)

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-u", "-S", str(self._socket), "-f", "/dev/null", *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *command: str) -> None:
        """Type a command."""
        self.type(f"clear; {shlex.join(command)}")
        self.press("Enter")

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys, by the names of tmux."""
        self._tmux("send-keys", *keys)

    def screen(self, *, escapes: bool = False) -> str:
        """Return the text on the screen, with `escapes` also its colors."""
        return self._tmux("capture-pane", "-p", *(["-e"] if escapes else []))

    def shows(self, *texts: str) -> str:
        """Wait until all these texts are on the screen, and return it."""

        def fact() -> str:
            seen = self.screen()
            missing = [text for text in texts if text not in seen]
            assert not missing, f"{missing} not in:\n{seen}"
            return seen

        return wait_for(fact)

    def mode(self) -> str:
        """Return which of the two screens the terminal shows, and its cursor."""
        second, cursor = self._tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split()
        return f"{('first', 'second')[int(second)]} screen {('without', 'with')[int(cursor)]} a cursor"

    def shows_first_screen(self) -> None:
        """Wait until no program draws on the second screen."""
        wait_for(lambda: self.mode() == "first screen with a cursor")

    def resize(self, *, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shell(self) -> int:
        """Return the PID of the shell."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def close(self) -> None:
        self._tmux("kill-server")


@contextmanager
def terminal_window(
    home: Path,
    environment: Mapping[str, str],
    *,
    shell: Sequence[str] = ("bash", "--norc", "--noprofile"),
    columns: int = 80,
    lines: int = 24,
) -> Iterator[TerminalWindow]:
    """Yield a terminal of this size."""
    window = TerminalWindow(home, shell=shell, columns=columns, lines=lines, environment=environment)
    try:
        yield window
    finally:
        window.close()
