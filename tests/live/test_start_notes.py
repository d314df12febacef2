"""The start of a context reports warnings about the file, and the transactions of an earlier run that it
starts again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from context import Context


@pytest.fixture
def by_hand(context: Context) -> Iterator[Context]:
    """A context with one task, which zmsvcd --detach starts."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    yield context
    context.ctl("exit", check=None)


def test_a_start_announces_the_transactions_of_an_earlier_run_and_how_to_stop_them(by_hand: Context) -> None:
    assert by_hand.detach("--transaction", "FIRST") == ""
    by_hand.ctl("start", "--transaction", "SECOND")
    by_hand.ctl("exit")
    ways = "zmsvcctl -c Live stop --transaction ID ends one, zmsvcctl -c Live stop all"
    announced = f"zmsvcd: Live resumes 2 transactions of an earlier run: FIRST, SECOND ({ways})\n"
    assert by_hand.detach("--no-autostart") == announced
    by_hand.ctl("stop")
    by_hand.ctl("exit")
    assert by_hand.detach("--no-autostart") == ""


def test_a_start_announces_that_another_file_opened_the_transactions(
    by_hand: Context, tmp_path: Path
) -> None:
    by_hand.detach("--transaction", "FIRST")
    by_hand.ctl("exit")
    before, by_hand.file = by_hand.file, tmp_path / "elsewhere" / by_hand.file.name
    by_hand.file.parent.mkdir()
    shutil.copy(before, by_hand.file)
    assert by_hand.detach("--no-autostart") == (
        f"zmsvcd: Live resumes 1 transaction of an earlier run, of another file ({before}): FIRST "
        f"(zmsvcctl -c Live stop ends it)\n"
    )


def test_a_start_in_the_foreground_announces_them_too(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "FIRST")
    assert context.stop() == 0
    assert "resumes" not in context.log.read_text()
    context.start()
    assert "Live resumes 1 transaction of an earlier run: FIRST" in context.log.read_text()


def test_detach_prints_the_warnings_of_check_with_their_lines(by_hand: Context) -> None:
    by_hand.task("ts_2", "Echo", entry=False)
    said = by_hand.detach()
    assert said == f"{by_hand.file}:3: warning: ts_2: it waits for a rule, and no rule starts it\n"
    assert said in by_hand.ctl("check", str(by_hand.file)).stdout
