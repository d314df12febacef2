#!/usr/bin/env python3
"""`make pictures`: run docs/pictures/Context-Sensors.xml, let a task fail, and draw what zmsvcctl then shows:
the graph of the context, and a terminal with `status` and `why`. The README and docs/tutorial.md have them.

tests/live/test_pictures.py runs the same context, and fails if it shows something else than the pictures,
apart from times, PIDs and sizes.
"""

from __future__ import annotations

import html
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).parents[1] / "docs/pictures"
CONTEXT = PLACE / "Context-Sensors.xml"
GRAPH, TERMINAL = PLACE / "graph.svg", PLACE / "terminal.svg"
PROGRAMS = Path(sys.executable).parent
PATIENCE = 60.0
"""Seconds for each command."""
TYPED = (
    ("signal", "SIGSEGV", "sensor"),
    ("status", "--no-pager", "-n", "0"),
    ("why", "--no-pager", "substitute"),
)
"""The commands in the terminal. `--no-pager` is not shown, because without a terminal there is no pager."""

COLUMNS = 120
"""The width of the terminal. The pager of zmsvcctl cuts longer lines, and puts a `>` there."""
COLUMN, LINE, SIZE, BORDER = 8.4, 19, 14, 14
"""The width of a character, the height of a line, the size of the font and the border, in pixels."""
COLORS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60", "38;5;245": "#8b949e"}
PLAIN, PAPER = "#e6edf3", "#161b22"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The output of zmsvcctl: the graph as SVG, if that was wanted, and in the language of graphviz, and the
    text of the terminal with its colors.
    """

    svg: str | None
    dot: str
    terminal: str


# --- the run


def run(*, draw: bool) -> Shown:
    """Run the context in a directory of its own until the failed sensor has had its consequences."""
    # Short, because an endpoint of ipc has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="zmsvc-pictures.", dir="/tmp") as home:
        places = {"CONFIG": "/etc/zmsvc", "RUNTIME": "/run/zmsvc", "STATE": "/var/lib/zmsvc"}
        own = {f"ZMSVC_{name}_DIR": f"{home}/{name.lower()}" for name in places}
        environment = os.environ | own | {"SYSTEMD_COLORS": "1"}
        Path(own["ZMSVC_CONFIG_DIR"]).mkdir()
        (Path(own["ZMSVC_CONFIG_DIR"]) / CONTEXT.name).write_bytes(CONTEXT.read_bytes())

        def ctl(*words: str) -> str:
            return _run(["zmsvcctl", "-c", "Sensors", *words], environment)

        _run(["zmsvcd", "--detach", "--transaction", "MONDAY", "Sensors"], environment)
        try:
            said = ctl(*TYPED[0])
            _wait_for(r"mail +stopped", environment)
            ctl("wait", "--for", "active", "substitute")
            terminal = "".join(
                f"$ {shlex.join(('zmsvcctl', *(word for word in words if word != '--no-pager')))}\n{output}\n"
                for words, output in zip(TYPED, (said, *(ctl(*words) for words in TYPED[1:])), strict=True)
            )
            # The directories are those of an installation.
            for name, installed in places.items():
                terminal = terminal.replace(own[f"ZMSVC_{name}_DIR"], installed)
            svg = ctl("graph", "Sensors", "--format", "svg") if draw else None
            return Shown(svg=svg, dot=ctl("graph", "Sensors"), terminal=terminal.rstrip("\n"))
        finally:
            ctl("exit")


def _run(words: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    # `status` ends with 3, because a task has failed.
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{shlex.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _wait_for(pattern: str, environment: dict[str, str]) -> None:
    """Wait until an event matches."""
    words = [str(PROGRAMS / "zmsvcctl"), "-c", "Sensors", "events", "--no-pager", "-n", "100", "-f"]
    deadline = time.monotonic() + PATIENCE
    seen = b""
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as events:
        assert events.stdout is not None
        try:
            while not re.search(pattern.encode(), seen):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([events.stdout], [], [], left)[0]:
                    raise TimeoutError(f"no event {pattern!r} after {PATIENCE:.0f} s")
                seen += os.read(events.stdout.fileno(), 65536)
        finally:
            events.kill()


# --- the terminal as a picture


def parts(line: str) -> Iterator[tuple[int, str, str]]:
    """Yield the parts of a line that have one look: column, text, and the codes of the color (SGR)."""
    column, codes = 0, ""
    for at, piece in enumerate(re.split(r"\x1b\[([\d;]*)m", line)):
        if at % 2:
            codes = piece
        elif piece and column < COLUMNS:
            fits = piece if column + len(piece) <= COLUMNS else piece[: COLUMNS - column - 1] + ">"
            yield column, fits, codes
            column += len(fits)


def drawn(text: str) -> str:
    """Return the text of a terminal as SVG."""
    lines = text.split("\n")
    width, height = round(COLUMNS * COLUMN + 2 * BORDER), len(lines) * LINE + 2 * BORDER
    body = "\n".join(
        _text(column, row, piece, codes)
        for row, line in enumerate(lines)
        for column, piece, codes in parts(line)
        if piece.strip()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-size="{SIZE}" '
        'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace">\n'
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )


def _text(column: int, row: int, piece: str, codes: str) -> str:
    """Return a text of exact width, so that columns fit with every font."""
    text = piece.strip(" ")
    column += len(piece) - len(piece.lstrip(" "))
    color = next((color for code, color in COLORS.items() if codes.endswith(code)), PLAIN)
    bold = ' font-weight="bold"' if ";1;" in f";{codes};" or piece.startswith("$ ") else ""
    return (
        f'<text x="{BORDER + column * COLUMN:.1f}" y="{BORDER + row * LINE + SIZE}" fill="{color}"{bold} '
        f'textLength="{len(text) * COLUMN:.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
        f"{html.escape(text, quote=False)}</text>"
    )


def main() -> int:
    shown = run(draw=True)
    assert shown.svg is not None
    # Graphviz writes its version, and the directories of its fonts.
    GRAPH.write_text(re.sub(r"<!-- Generated by .*?-->\n", "", shown.svg, flags=re.S))
    TERMINAL.write_text(drawn(shown.terminal))
    print(f"{GRAPH}\n{TERMINAL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
