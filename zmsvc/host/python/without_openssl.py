"""Import asyncio and hashlib without OpenSSL. The supervisor speaks no TLS and digests no secret. OpenSSL
takes 4.3 MB and 10 ms of CPU time for asyncio, and 1.4 to 2.5 MB and 4 ms for hashlib.

Both do without OpenSSL where Python was built without it. A later import of ssl finds it as usual.
"""

from __future__ import annotations

import importlib
import sys

OPENSSL = {"asyncio": "ssl", "hashlib": "_hashlib"}
"""The module through which each of these imports OpenSSL."""
_OWN_DIGESTS = ("_md5", "_sha1", "_sha2" if sys.version_info >= (3, 12) else "_sha256", "_sha3", "_blake2")
"""The digests that hashlib has without OpenSSL. Some distributions leave them out."""


def _import_without_openssl() -> None:
    wanted = dict(OPENSSL)
    try:
        for name in _OWN_DIGESTS:
            importlib.import_module(name)
    except ImportError:
        del wanted["hashlib"]
    hidden = [name for name in wanted.values() if name not in sys.modules]
    # The import of a module that is None fails.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        for module in wanted:
            importlib.import_module(module)
    finally:
        for name in hidden:
            del sys.modules[name]


_import_without_openssl()
