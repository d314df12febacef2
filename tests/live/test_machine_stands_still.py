"""The keeper and one of its workers stand still together, as on a machine that was suspended, and go on together:
the worker is not taken for hung.
"""

from __future__ import annotations
