"""The supervisor keeps nothing of the libraries that only read the context file."""

from __future__ import annotations

from pathlib import Path

from context import Context


def test_no_xml_library_is_left_in_the_supervisor(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    # A warning, whose line is looked up in the file.
    context.element("<Unknown/>")
    context.start("--transaction", "TX")
    context.looped("Other")
    context.task("ts_2", "Other")
    context.write()
    assert "added: ts_2" in context.ctl("reload").stdout
    first = context.status()["pid"]
    assert "etree" not in Path(f"/proc/{first}/maps").read_text()
    context.kill_supervisor()
    assert "etree" not in Path(f"/proc/{context.status()['pid']}/maps").read_text()
