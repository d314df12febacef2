"""The kernel's count of processes that it has killed because memory ran out."""

from __future__ import annotations

from pathlib import Path

from zmsvc.host.kernel.oom import OomKills


def test_each_increase_of_the_oom_count_is_reported_once(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    kills = OomKills(file)
    assert not kills.grown(), "what was before is not of our time"
    file.write_text("low 0\nhigh 0\nmax 11\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert [kills.grown(), kills.grown()] == [True, False]


def test_a_removed_cgroup_has_no_oom_kills(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom_kill 1\n")
    kills = OomKills(file)
    file.unlink()
    assert not kills.grown()
    assert not OomKills(None).grown()
