"""Ask the installed zmsvc, which is a newer one after an upgrade, if its supervisor can take over."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from zmsvc.core.errors import ZmsvcError

PATIENCE = 30.0
"""Seconds in which the installed supervisor has to answer: usually 0.3 s, longer on a busy machine."""
QUESTION = "--speaks"
"""The argument that makes zmsvc.supervisor print its protocols."""


async def check(keeper_protocol: int, keeper_version: str) -> str:
    """Return the version of the supervisor that would take over under this keeper. If it cannot, raise
    ZmsvcError with the reason and the remedy.
    """
    reply = await _ask()
    try:
        version, oldest, newest = str(reply["version"]), int(reply["oldest"]), int(reply["protocol"])
    except (KeyError, TypeError, ValueError):
        raise ZmsvcError(
            f"the installed supervisor does not say which protocols it speaks, but {json.dumps(reply)[:200]} "
            f"(install zmsvc again)"
        ) from None
    # A keeper speaks its own protocol and all earlier ones, so an older supervisor can take over.
    if oldest > keeper_protocol:
        raise ZmsvcError(
            f"the installed zmsvc {version} speaks protocols {oldest} to {newest}, the running keeper "
            f"({keeper_version or '1.0'}) "
            f"protocol {keeper_protocol}; only a restart of the context renews the keeper"
        )
    return version


async def _ask() -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "zmsvc.supervisor", QUESTION, "-"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ZmsvcError(
            f"the installed supervisor does not answer within {PATIENCE:g} s (try again)"
        ) from None
    if process.returncode == 2 and b"unrecognized arguments" in stderr:
        # zmsvc 1.0 does not know this argument, and expects the name of a context. Every keeper speaks
        # protocol 0.
        return {"version": "1.0", "oldest": 0, "protocol": 0}
    try:
        reply = json.loads(stdout)
    except ValueError:
        last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ZmsvcError(
            f"the installed supervisor does not run: {last or f'status {process.returncode}'} "
            f"(install zmsvc again)"
        ) from None
    return reply if isinstance(reply, dict) else {}
