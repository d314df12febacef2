"""The messages between the processes of one context: a module a line, a union of frozen dataclasses a
direction, one codec for all.

An upgrade replaces files under running processes, so a new supervisor meets an old keeper. The line between
them has a number: the keeper names the highest that it speaks in its `Hello`, and the supervisor uses the
lower one of that and its own. A release speaks its own number and every earlier one. A field that a later
number adds has a default, and a receiver ignores a field that it does not know; so most additions need no new
number.

- 0: zmsvc 1.0, which sends no number.
- 1: zmsvc 1.1. The keeper names its version, and the supervisor its own in `Introduce`.
- 2: `SignalTask` may ask all processes of a launch to end.
- 3: `SetMain` makes another process of a launch the main one, and `MainProcess` says so.

The line to the zygote has a number of its own (`forking`), and the zygote says which one it speaks. The line
to the output process (`output`) has none: what one side does not know it passes over. The other lines join a
process and its own fork, which are always of one version.
"""

PROTOCOL = 3
"""The number that this release speaks between keeper and supervisor."""
OLDEST = 0
"""The lowest number that it speaks, too."""
