"""The screen of `zmsvcctl top` as a function of what is known, of the size of the terminal and of the cursor; and
what each key does.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from counting import lines_in

from zmsvc.ctl.status_reply import ContextStatus
from zmsvc.ctl.top import text
from zmsvc.ctl.top.canvas import Paint, Picture, Size, Status
from zmsvc.ctl.top.cursor import Cursor, Mode, Pane, Quit, Request, UserOrder, entries, press
from zmsvc.ctl.top.help_screen import HELP
from zmsvc.ctl.top.meter import Meter
from zmsvc.ctl.top.rows import SORTS, OpenTransaction, Snapshot, TaskRow, Tree
from zmsvc.ctl.top.screen import screen

WIDE = Size(lines=24, columns=120)
USUAL = Size(lines=24, columns=80)


def row(task: str, transaction: str = "RUN", *, state: str = "active", **more: Any) -> TaskRow:
    return TaskRow(transaction=transaction, task=task, state=state, **more)


def status(*rows: TaskRow, **more: Any) -> Status:
    runs = dict.fromkeys(each.transaction for each in rows)
    snapshot = Snapshot(
        name="Live", rows=rows, runs=tuple(OpenTransaction(id=name, state="active") for name in runs)
    )
    return Status(snapshot=snapshot, total_memory=8 << 30, **more)


def many(count: int) -> Status:
    return status(*(row(f"ts_{number:04}", pid=number + 2, cpu=0.0) for number in range(count)))


def lines(picture: Picture) -> list[str]:
    return ["".join(span.text for span in line) for line in picture.lines]


def shown(state: Status, size: Size = USUAL, cursor: Cursor | None = None) -> str:
    return "\n".join(lines(screen(state, size, cursor or Cursor(sort="id"))))


def pressed(
    state: Status, *keys: str, cursor: Cursor | None = None, height: int = 10
) -> tuple[Cursor, Request | None]:
    """Return the cursor after these keys, and what the last one asks for."""
    at, request = cursor or Cursor(sort="id"), None
    for key in keys:
        at, request = press(at, key, entries(state.snapshot, at), height)
    return at, request


# --- what is shown


def test_each_task_has_its_figures_on_one_line() -> None:
    it = status(
        row("ts_1", instance="Echo", pid=42, cpu=12.34, rss=64 << 20, threads=3, missed=7, restarts=2)
    )
    head, line = lines(screen(it, WIDE, Cursor()))[2:4]
    assert head.split() == [
        "TASK",
        "INSTANCE",
        "STATE",
        "PID",
        "CPU%",
        "RSS",
        "MEM%",
        "THREADS",
        "MISSED",
        "RESTARTS",
    ]
    assert line.split() == ["●", "ts_1", "Echo", "active", "42", "12.3", "64.0M", "0.8", "3", "7", "2"]


def test_the_heading_counts_tasks_failures_and_missed_messages() -> None:
    it = status(
        row("a", pid=2, cpu=1.0, missed=2), row("b", state="failed"), row("c", state="inactive", missed=1)
    )
    assert (
        shown(it).splitlines()[0]
        == "Live: 1 of 3 tasks active, 1 failed, CPU 1.0%, RSS 0B, 3 messages missed"
    )


def test_a_failed_task_stands_out_by_its_style_and_without_color_by_its_mark() -> None:
    picture = screen(status(row("good"), row("bad", state="failed")), USUAL, Cursor(sort="state"))
    failed, active = picture.lines[3], picture.lines[4]
    assert [span.paint for span in failed] == [Paint.FAILED, Paint.FAILED]
    assert Paint.FAILED not in [span.paint for span in active]
    assert (failed[0].text, active[0].text) == ("\N{MULTIPLICATION SIGN} ", "● ")
    assert shown(status(row("bad", state="failed"), utf8=False)).splitlines()[3].startswith("x bad ")


def test_it_says_how_many_lines_it_does_not_show() -> None:
    it = many(60)
    assert "lines 1-19 of 60, not shown: 41 below" in shown(it)
    middle = pressed(it, "page-down", "page-down", height=19)[0]
    assert "not shown: 18 above, 23 below" in shown(it, cursor=middle)
    assert "not shown" not in shown(many(19))
    filtered = replace(Cursor(sort="id"), filter="0007")
    assert "59 hidden by the filter 0007" in shown(it, cursor=filtered)
    late = replace(it, trouble="the supervisor has not answered for 4 s", age=7.0)
    assert shown(late).startswith("Live 7 s ago: 60 of 60 tasks")
    assert "not shown: 41 below; the supervisor has not answered for 4 s" in shown(late)


NAMES = (
    "\x1b]0;evil\x07\x1b[2J", "\x9b31m", "\u202egnp.exe", "a\nb\tc\rd", "日本語" * 9, "e" + "\u0301" * 50, "ts_1",
    "\u200d\ufeff\x00", "\ud800", "🙂" * 5, "각", "x" * 300,
)  # fmt: skip


@pytest.mark.parametrize("utf8", [True, False])
@pytest.mark.parametrize("tree", Tree)
def test_no_size_and_no_name_breaks_the_screen(tree: Tree, utf8: bool) -> None:
    """Each picture has as many lines as the terminal, none is wider, and no character controls the terminal."""
    tasks = [
        row(name, other, instance=name, cause=name, source=NAMES[0], state="failed")
        for other in NAMES[:3]
        for name in NAMES
    ]
    it = status(*tasks, utf8=utf8, message=NAMES[0], trouble=NAMES[1], pane=NAMES)
    order = UserOrder(verb="stop", transaction=NAMES[0], task=NAMES[4])
    for mode in Mode:
        cursor = Cursor(
            tree=tree, mode=mode, order=order, pane=Pane.LOG, filter="" if mode is Mode.TABLE else "日"
        )
        for size in [Size(lines=a, columns=b) for a in range(1, 11) for b in (1, 2, 9, 40, 80)]:
            picture = screen(it, size, cursor)
            assert len(picture.lines) == size.lines
            for line in lines(picture):
                assert text.width(line) <= size.columns
                assert all(char.isprintable() for char in line), ascii(line)
                assert utf8 or line.isascii()
            if picture.caret:
                assert picture.caret[0] < size.lines
                assert picture.caret[1] < size.columns


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert (text.width("日本"), text.width("e\u0301"), text.width("🙂")) == (4, 1, 2)
    assert text.left("日本", 3, utf8=True) == "日…"
    assert text.left("日本", 4, utf8=False) == "日本"
    assert text.right("ab", 4, utf8=True) == "  ab"
    assert [*text.wrapped("日本語", 4)] == ["日本", "語"]
    assert [*text.wrapped("日本", 1)] == ["日", "本"], "also in one column"
    marked = text.safe("e" + "\u0301" * 50, utf8=True)
    assert sum(unicodedata.combining(char) > 0 for char in marked) == text.MAX_MARKS
    aligned = lines(screen(status(row("日本語"), row("abcdef")), USUAL, Cursor(sort="id")))[3:5]
    assert len({text.width(line.partition("active")[0]) for line in aligned}) == 1


def test_a_narrow_terminal_keeps_the_names_and_the_states() -> None:
    it = status(
        row("ts_1", "FIRSTRUN" * 2, pid=42, cpu=1.0, rss=1 << 20), row("ts_1", "SECONDRUN" * 2, pid=43)
    )
    assert shown(it).splitlines()[2].split() == [
        "TASK",
        "TRANSACTION",
        "STATE",
        "PID",
        "CPU%",
        "RSS",
        "MISSED",
        "RESTARTS",
    ]
    narrow = shown(it, Size(lines=10, columns=30)).splitlines()
    assert narrow[2].split()[:2] == ["TASK", "STATE"]
    assert narrow[3].startswith("● ts_1 ")
    assert shown(it, Size(lines=1, columns=12)) == "● ts_1      "


def test_a_tiny_terminal_shows_the_question_and_what_it_hides() -> None:
    it = many(9)
    asked = pressed(it, "x")[0]
    assert shown(it, Size(lines=1, columns=30), asked).startswith("(y/n) stop RUN/ts_0000?")
    assert shown(it, Size(lines=4, columns=60)).splitlines()[-1] == "lines 1-1 of 9, not shown: 8 below"
    assert shown(it, Size(lines=2, columns=12)).splitlines()[0].startswith("● ts_0000")


def test_tasks_that_share_a_process_are_counted_once() -> None:
    threads = status(*(row(name, pid=7, cpu=10.0, rss=1 << 20) for name in "abc"), row("d", pid=8, cpu=1.0))
    assert shown(threads).startswith("Live: 4 of 4 tasks active, CPU 11.0%, RSS 1.0M")


def test_a_screen_of_a_thousand_tasks_costs_little() -> None:
    """Measured: 72 lines of Python for each task at most, 3 ms in all. A key must not take so long that the next
    one waits.
    """
    few, all_of_them = many(250), many(1000)
    for tree in Tree:
        cursor = Cursor(tree=tree)
        cost = lines_in(lambda at=cursor: screen(all_of_them, WIDE, at))  # type: ignore[misc]
        assert cost < 150 * 1000
        assert cost < 4.5 * lines_in(lambda at=cursor: screen(few, WIDE, at))  # type: ignore[misc]


# --- keys


def test_the_selection_stays_with_its_task_and_on_the_screen() -> None:
    it = many(60)
    cursor = pressed(it, "down", "down", "end", "up")[0]
    assert cursor.selected == ("RUN", "ts_0058")
    picture = screen(it, USUAL, cursor)
    assert [line for line in picture.lines if any(span.selected for span in line)] == [picture.lines[3 + 17]]
    hot = Snapshot(
        name="Live",
        runs=it.snapshot.runs,
        rows=tuple(
            replace(each, cpu=9.0 if each.task == "ts_0058" else 0.0, pid=1) for each in it.snapshot.rows
        ),
    )
    by_cpu = screen(replace(it, snapshot=hot), USUAL, replace(cursor, sort="cpu"))
    assert by_cpu.cursor.selected == ("RUN", "ts_0058"), "it is now the first"
    assert by_cpu.cursor.index == 0
    gone = Snapshot(name="Live", rows=it.snapshot.rows[:5], runs=it.snapshot.runs)
    assert screen(replace(it, snapshot=gone), USUAL, cursor).cursor.selected == ("RUN", "ts_0004")


@pytest.mark.parametrize(
    ("keys", "sort", "reverse"),
    [("P", "cpu", False), ("M", "rss", False), ("N", "pid", False), ("A", "id", False), ("S", "state", False),
     ("L", "missed", False), ("R", "restarts", False), ("PI", "cpu", True), ("P>", "rss", False),
     ("P<", SORTS[-1], False), ("PII", "cpu", False)],
)  # fmt: skip
def test_keys_sort(keys: str, sort: str, reverse: bool) -> None:
    cursor = pressed(many(3), *keys)[0]
    assert (cursor.sort, cursor.reverse) == (sort, reverse)


def test_each_column_sorts() -> None:
    it = status(
        row("a", cpu=1.0, rss=3, pid=9, missed=2, restarts=0),
        row("b", state="failed", missed=0, restarts=1),
        row("c", cpu=2.0, rss=1, pid=5, missed=1, restarts=2),
    )

    def order(sort: str, *, reverse: bool = False) -> str:
        cursor = Cursor(sort=sort, reverse=reverse)
        return "".join(each.key[1] for each in entries(it.snapshot, cursor))

    assert [order(sort) for sort in SORTS] == ["cab", "acb", "cab", "abc", "bac", "acb", "cab"]
    assert (order("cpu", reverse=True), order("id", reverse=True)) == ("acb", "cba")


def test_the_filter_is_typed_and_kept_or_taken_back() -> None:
    it = status(row("ts_1", instance="Echo"), row("ts_2", state="failed"))
    typing = pressed(it, "/", *"FAIL")[0]
    assert (typing.mode, typing.filter) == (Mode.FILTER, "FAIL")
    assert [each.key[1] for each in entries(it.snapshot, typing)] == ["ts_2"], "while it is typed"
    assert shown(it, cursor=typing).splitlines()[-2].startswith("filter: FAIL ")
    kept = pressed(it, "backspace", "enter", cursor=typing)[0]
    assert (kept.mode, kept.filter) == (Mode.TABLE, "FAI")
    assert pressed(it, "/", "x", "escape", cursor=kept)[0].filter == "FAI"
    assert pressed(it, "escape", cursor=kept)[0].filter == ""
    assert [each.key[1] for each in entries(it.snapshot, Cursor(filter="echo active"))] == ["ts_1"]
    numbered = status(row("ts_1", pid=100710), row("ts_2", pid=71))
    assert [each.key[1] for each in entries(numbered.snapshot, Cursor(filter="71"))] == ["ts_2"], "whole PIDs"
    assert pressed(it, "/", *"q", cursor=Cursor())[1] is None, "it is a letter here"


def test_a_stop_and_a_restart_are_asked_for_and_a_start_is_not() -> None:
    it = status(row("ts_1"), row("ts_2"))
    for key, verb in (("x", "stop"), ("r", "restart")):
        asked, request = pressed(it, "down", key)
        assert (asked.mode, request) == (Mode.CONFIRM, None)
        assert f"(y/n) {verb} RUN/ts_2?" in shown(it, cursor=asked)
        assert pressed(it, "y", cursor=asked)[1] == UserOrder(verb=verb, transaction="RUN", task="ts_2")
        for other in ("n", "enter", "escape", "x", "down", " "):
            left, request = pressed(it, other, cursor=asked)
            assert (left.mode, request) == (Mode.TABLE, None)
    assert pressed(it, "s")[1] == UserOrder(verb="start", transaction="RUN", task="ts_1")
    assert pressed(status(), "x")[1] is None


def test_the_answer_is_about_the_task_of_the_question() -> None:
    """The rows move while the user reads the question."""
    it = status(row("ts_1"), row("ts_2"))
    asked = pressed(it, "x")[0]
    later = screen(status(row("ts_0"), row("ts_2")), USUAL, asked)
    assert pressed(it, "y", cursor=later.cursor)[1] == UserOrder(verb="stop", transaction="RUN", task="ts_1")


def test_a_signal_is_chosen_or_typed() -> None:
    it = status(row("ts_1"))
    order = UserOrder(verb="signal", transaction="RUN", task="ts_1", signal="TERM")
    choosing = pressed(it, "k")[0]
    assert "signal to RUN/ts_1: TERM" in shown(it, cursor=choosing)
    assert pressed(it, "enter", cursor=choosing) == (replace(choosing, mode=Mode.TABLE, order=None), order)
    assert pressed(it, "down", "enter", cursor=choosing)[1] == replace(order, signal="HUP")
    assert pressed(it, *"usr;1", "enter", cursor=choosing)[1] == replace(order, signal="USR1")
    assert pressed(it, "escape", cursor=choosing)[1] is None


def test_the_heading_of_a_transaction_stands_for_all_its_tasks() -> None:
    it = status(row("a", "FIRST"), row("b", "SECOND", state="failed"), row("a", "SECOND"))
    tree, _ = pressed(it, "t")
    assert tree.tree is Tree.TRANSACTION
    table = shown(it, cursor=tree).splitlines()[3:8]
    assert [line.split()[1] for line in table] == ["FIRST", "└─a", "SECOND", "├─a", "└─b"]
    assert table[2] == "● SECOND active, 1 of 2 tasks active"
    asked = pressed(it, "home", "x", cursor=tree)[0]
    assert "(y/n) stop the whole transaction FIRST?" in shown(it, cursor=asked)
    assert pressed(it, "y", cursor=asked)[1] == UserOrder(verb="stop", transaction="FIRST")
    refused, request = pressed(it, "home", "k", cursor=tree)
    assert (request, refused.notice) == (None, "select a task to send a signal to")


def test_the_tree_by_cause_has_each_task_once_below_the_one_that_started_it() -> None:
    it = status(
        row("root", cause="context"),
        row("child", source="root", cause="on_start of root"),
        row("grandchild", source="child", cause="on_exit of child"),
        row("alone", "OTHER", source="root"),
        row("ring1", source="ring2"),
        row("ring2", source="ring1"),
        row("itself", source="itself"),
    )
    table = shown(it, WIDE, Cursor(tree=Tree.CAUSE, sort="id")).splitlines()[3:]
    drawn = [line[2:].split("  ")[0].rstrip() for line in table[:7]]
    assert drawn == ["alone", "itself", "root", "└─child", "", "ring1", "└─ring2"]
    assert "└─grandchild" in table[4]
    assert "on_exit of child" in table[4]


def test_a_chain_of_a_thousand_causes_is_drawn() -> None:
    chain = [row(f"ts_{at:04}", source=f"ts_{at - 1:04}" if at else "") for at in range(1000)]
    found = entries(status(*chain).snapshot, Cursor(tree=Tree.CAUSE, sort="id"))
    assert [each.key[1] for each in found] == [each.task for each in chain]
    assert max(len(each.ancestors) for each in found) == 8


def test_the_pane_is_about_the_selected_task_and_scrolls() -> None:
    it = replace(many(30), pane=tuple(f"line {number}" for number in range(40)))
    opened = pressed(it, "down", "l")[0]
    picture = lines(screen(it, USUAL, opened))
    title = next(number for number, line in enumerate(picture) if line.startswith("log of RUN/ts_0001; "))
    assert picture[title + 1 : 22] == [f"line {number}" for number in range(40 - (21 - title), 40)]
    above = screen(it, USUAL, pressed(it, "tab", "home", cursor=opened)[0])
    assert lines(above)[title + 1] == "line 0"
    below = pressed(it, "down", cursor=above.cursor)[0]
    assert lines(screen(it, USUAL, below))[title + 1] == "line 1", "it is not scrolled beyond its end"
    explained = screen(it, USUAL, pressed(it, "w", cursor=opened)[0])
    assert lines(explained)[title + 1] == "line 0"
    assert "reading ..." in shown(replace(it, pane=None), cursor=opened)
    assert pressed(it, "escape", cursor=opened)[0].pane is None
    assert pressed(it, "l", cursor=opened)[0].pane is None


def test_the_help_names_each_key_and_ends_with_any() -> None:
    it = many(3)
    opened = pressed(it, "?")[0]
    text_of_help = shown(it, Size(lines=40, columns=80), opened)
    assert all(key in text_of_help for key, _ in HELP)
    assert "more lines (" in shown(it, Size(lines=10, columns=40), opened)
    assert "any key closes the help" in shown(it, USUAL, opened).splitlines()[-1]
    down = pressed(it, "down", cursor=opened)[0]
    assert (down.mode, down.back) == (Mode.HELP, 1)
    closed, request = pressed(it, "q", cursor=down)
    assert (closed.mode, closed.back, request) == (Mode.TABLE, 0, None)


@pytest.mark.parametrize("key", ["q", "Q", "f10"])
def test_keys_that_quit(key: str) -> None:
    assert pressed(many(3), key)[1] == Quit()


def test_the_keys_of_the_last_line_fit_into_eighty_columns() -> None:
    assert shown(many(1)).splitlines()[-1].rstrip().endswith("w why")


# --- the figures


def answer(seconds: float | None, *, pid: int = 42, launch: int = 1) -> ContextStatus:
    usage = None if seconds is None else {"cpu_seconds": seconds, "memory_bytes": 1 << 20, "threads": 2}
    cause = {"by": "rule", "uid": None, "sources": [{"task": "a", "trigger": "on_exit"}]}
    task = {
        "id": "b",
        "state": "active",
        "pid": pid,
        "launch": launch,
        "usage": usage,
        "cause": cause,
        "missed": 3,
    }
    return ContextStatus(
        {
            "name": "Live",
            "transactions": [
                {"id": "RUN", "state": "active", "tasks": [task]},
                {"id": "OLD", "state": "inactive", "tasks": [task]},
            ],
        }
    )


def test_the_cpu_usage_is_that_between_two_answers_about_the_same_process() -> None:
    meter = Meter()
    (first,) = meter.snapshot(answer(1.0), 10.0).rows
    assert (first.cpu, first.rss, first.threads, first.missed) == (None, 1 << 20, 2, 3)
    assert (first.cause, first.source) == ("on_exit of a", "a")
    assert [each.cpu for each in meter.snapshot(answer(1.5), 12.0).rows] == [25.0]
    assert [each.cpu for each in meter.snapshot(answer(9.0, launch=2), 14.0).rows] == [None]
    assert [each.id for each in meter.snapshot(answer(9.0), 16.0).runs] == ["RUN"]
    assert [each.id for each in Meter("OLD").snapshot(answer(9.0), 16.0).runs] == ["RUN", "OLD"]


def test_a_process_that_is_gone_has_no_figures() -> None:
    (gone,) = Meter().snapshot(answer(None, pid=2**22 + 1), 1.0).rows
    assert (gone.cpu, gone.rss, gone.threads) == (None, None, None)


HUGE = 10**4000


@pytest.mark.parametrize("figure", [HUGE, -HUGE, 1e308, float("inf"), float("nan"), -1, True, "x", None, [1]])
def test_no_figure_of_a_lying_supervisor_breaks_the_screen(figure: object) -> None:
    usage = {"cpu_seconds": figure, "memory_bytes": figure, "threads": figure}
    task = {"id": "b", "state": "active", "usage": usage} | dict.fromkeys(
        ("pid", "launch", "missed", "restarts"), figure
    )
    answered = ContextStatus(
        {"name": "Live", "transactions": [{"id": "RUN", "state": "active", "tasks": [task] * 3}]}
    )
    meter = Meter()
    for now in (1.0, 2.0):
        snapshot = meter.snapshot(answered, now)
        for sort in SORTS:
            shown(Status(snapshot=snapshot, total_memory=1), WIDE, Cursor(sort=sort, reverse=True))


def test_a_damaged_answer_is_shown_as_far_as_it_can_be_read() -> None:
    meter = Meter()
    assert meter.snapshot(ContextStatus({}), 1.0) == Snapshot(name="")
    damaged = {"transactions": [{"state": "active", "tasks": [{"usage": {"cpu_seconds": "x"}, "cause": 3}]}]}
    (only,) = meter.snapshot(ContextStatus(damaged), 2.0).rows
    assert (only.task, only.cause, only.source) == ("", "", "")
