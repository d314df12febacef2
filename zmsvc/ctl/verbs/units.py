"""The verb units: prints or installs the systemd units with the paths of this installation, for installations
by pip or pipx.

The templates are those of units/ in the source tree, which a link makes part of the package. `make install`
and distribution packages have units of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

from zmsvc.core.frozen import frozen
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError

TEMPLATES = Path(__file__).parents[2] / "data" / "units"
SYSTEM = Path("/usr/local/lib")
"""The directory where `make install` puts them, too. systemd prefers a unit here to one of a package in
/usr/lib.
"""
SYSCONFDIR = "/etc"
_HIDDEN = ("/home", "/root", "/run/user")
"""The directories that ProtectHome= of the system's unit hides."""


@frozen
class UnitFile:
    """A file to be installed: its text, or the target of a link."""

    path: Path
    text: str
    link: bool = False


def run(args: argparse.Namespace) -> int:
    """units: print the files, or install them and print the commands to run next."""
    bindir = _bindir()
    if not args.user:
        check_reachable(bindir)
    files = _user_files(bindir) if args.user else system_files(bindir)
    if args.install:
        for file in files:
            install(file)
    then = _next_commands(user=args.user)
    if args.json:
        shown = [{"path": str(file.path), "link" if file.link else "text": file.text} for file in files]
        terminal.out(json.dumps({"installed": args.install, "files": shown, "next": then}) + "\n")
    elif args.install:
        terminal.out("".join(f"installed {file.path}\n" for file in files) + f"next: {' && '.join(then)}\n")
    else:
        terminal.out(
            "\n".join(
                f"# {file.path}{' -> ' if file.link else chr(10)}{file.text.rstrip()}\n" for file in files
            )
        )
    return 0


def _bindir() -> Path:
    """Return the directory of the running zmsvcctl, by the name under which it was called. If that is a link,
    return the directory of the link, because it survives upgrades.
    """
    candidates = [Path(sys.argv[0]).absolute().parent, Path(sys.executable).parent]
    for directory in candidates:
        if all(os.access(directory / name, os.X_OK) for name in ("zmsvcd", "zmsvcctl")):
            return directory
    raise CtlError(
        1,
        f"cannot make units: there is no zmsvcd in {' or '.join(map(str, dict.fromkeys(candidates)))} "
        f"(call the installed zmsvcctl by its full path)",
    )


def check_reachable(bindir: Path) -> None:
    """Raise CtlError if the user zmsvc could not run the programs that the system's unit names."""
    for path in (bindir, (bindir / "zmsvcd").resolve(), Path(sys.prefix), Path(sys.base_prefix)):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            raise CtlError(
                1,
                f"cannot make system units: the user zmsvc cannot reach {path} (use --user, or install for "
                f"all users: "
                "PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install zmsvc)",
            )


def _filled_in(template: str, bindir: Path) -> str:
    values = {"bindir": _escaped(str(bindir)), "sysconfdir": SYSCONFDIR}
    return re.sub(
        r"@(bindir|sysconfdir)@", lambda found: values[found[1]], (TEMPLATES / template).read_text()
    )


def _escaped(path: str) -> str:
    """Escape a path as one word of ExecStart=: `%` would begin a specifier, and a blank would
    end the word.
    """

    def escape(found: re.Match[str]) -> str:
        return "%%" if found[0] == "%" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0]))

    return re.sub(r"[^A-Za-z0-9_/.+@:=,~-]", escape, path)


def _user_files(bindir: Path) -> list[UnitFile]:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return [
        UnitFile(
            path=config / "systemd/user/zmsvc@.service", text=_filled_in("user/zmsvc@.service.in", bindir)
        )
    ]


def system_files(bindir: Path, lib: Path = SYSTEM) -> list[UnitFile]:
    units = lib / "systemd/system"
    plain = ("zmsvc.target", "zmsvc.slice", "zmsvc-metrics.timer", "zmsvc-exporter.socket")
    services = ("zmsvc@.service", "zmsvc-host@.service", "zmsvc-metrics.service", "zmsvc-exporter.service")
    copies = {
        **{units / name: name for name in plain},
        lib / "sysusers.d/zmsvc.conf": "sysusers.d/zmsvc.conf",
        lib / "tmpfiles.d/zmsvc.conf": "tmpfiles.d/zmsvc.conf",
    }
    return [
        *(UnitFile(path=units / name, text=_filled_in(f"{name}.in", bindir)) for name in services),
        *(UnitFile(path=path, text=(TEMPLATES / name).read_text()) for path, name in copies.items()),
        UnitFile(path=units / "multi-user.target.wants/zmsvc.target", text="../zmsvc.target", link=True),
    ]


def install(file: UnitFile) -> None:
    """Write a file under another name first, so that systemd never reads an incomplete one."""
    draft = file.path.with_name(f".{file.path.name}.zmsvc-new")
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        if file.link:
            draft.symlink_to(file.text)
        else:
            draft.write_text(file.text)
            draft.chmod(0o644)
        draft.replace(file.path)
    except OSError as error:
        hint = " (are you root? --user installs for you alone)" if isinstance(error, PermissionError) else ""
        raise CtlError(
            1, f"cannot install {file.path}: {(error.strerror or str(error)).lower()}{hint}"
        ) from error


def _next_commands(*, user: bool) -> list[str]:
    if user:
        return ["systemctl --user daemon-reload", "systemctl --user start zmsvc@NAME"]
    return [
        "systemd-sysusers zmsvc.conf",
        "systemd-tmpfiles --create zmsvc.conf",
        "systemctl daemon-reload",
        "systemctl start zmsvc@NAME",
    ]
