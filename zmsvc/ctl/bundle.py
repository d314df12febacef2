"""The file that `report` writes and `replay` reads: a tar archive, compressed by gzip, of plain files.

A bundle may come from anybody. It is never unpacked on the disk: its files are read in memory, by their
names, up to a bound on all their bytes together. Nothing in it is executed.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zmsvc.core.errors import PlaceError, ProtocolError, reason
from zmsvc.core.json_depth import check_depth
from zmsvc.ctl.client import CtlError
from zmsvc.host import directories

FORMAT = 1
"""The number of the format of a bundle. A reader refuses any other one."""
MAX_BYTES = 128 << 20
"""The largest bundle that is read: bytes after decompression."""
MANIFEST = "manifest.json"
"""The file with the number of the format, which comes first."""

_SEGMENT = re.compile(r"record/[0-9]{10}\.jsonl")


class Bundle:
    """A bundle that was read."""

    def __init__(self, manifest: Mapping[str, Any], segments: list[bytes]) -> None:
        self.context = str(manifest.get("context"))
        versions = manifest.get("versions")
        self.version = str(versions.get("zmsvc")) if isinstance(versions, dict) else ""
        self.segments = segments


def segment_name(number: int) -> str:
    return f"record/{number:010}.jsonl"


def write(path: Path, files: Mapping[str, bytes], made: float) -> None:
    """Write a new file that only this user can read. Raises CtlError."""
    try:
        directories.check_target(path.absolute())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise CtlError(1, f"cannot write {path}: it exists already") from None
    except (OSError, PlaceError) as error:
        raise CtlError(1, f"cannot write the report: {_why(error)}") from None
    try:
        with (
            open(fd, "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(made)
                tar.addfile(entry, io.BytesIO(data))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CtlError(1, f"cannot write {path}: {_why(error)}") from None


def _why(error: OSError | PlaceError) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)


def read(path: Path, most: int = MAX_BYTES) -> Bundle:
    """Read a bundle of at most this many bytes after decompression. Raises CtlError for any other file."""
    try:
        with open(path, "rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
            return _read(_Bounded(unpacked, most))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ProtocolError, ValueError) as error:
        raise CtlError(2, f"cannot read {path}: it is not a report of zmsvcctl ({error})") from None
    except OSError as error:
        raise CtlError(2, f"cannot read {reason(error)}") from None


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after `most` bytes: a few bytes of gzip can become any number."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream = stream
        self._most = self._left = most

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size if size >= 0 else self._left + 1, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"unpacked it has more than {self._most >> 20} MiB")
        return data


def _read(stream: _Bounded) -> Bundle:
    manifest: Mapping[str, Any] | None = None
    segments: dict[str, bytes] = {}
    # A stream is read once, from its beginning to its end; tarfile does not seek in it.
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for entry in tar:
            if not entry.isreg() or entry.issparse():
                continue
            if manifest is None:
                if entry.name != MANIFEST:
                    raise ProtocolError(f"its first file is not {MANIFEST}")
                manifest = _manifest(_contents(tar, entry))
            elif _SEGMENT.fullmatch(entry.name):
                segments[entry.name] = _contents(tar, entry)
    if manifest is None:
        raise ProtocolError(f"it has no {MANIFEST}")
    return Bundle(manifest, [segments[name] for name in sorted(segments)])


def _contents(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    return file.read(MAX_BYTES) if file is not None else b""


def _manifest(data: bytes) -> Mapping[str, Any]:
    text = data.decode()
    check_depth(text)
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("kind") != "zmsvc report":
        raise ProtocolError(f"{MANIFEST} is not that of a report")
    if found.get("format") != FORMAT:
        raise ProtocolError(f"it has format {found.get('format')!r}, and this zmsvc reads format {FORMAT}")
    return found
