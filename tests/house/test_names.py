"""A class name has one meaning in the whole package."""

from __future__ import annotations

import ast
from collections import defaultdict

from test_layers import modules, tree

TWICE = {
    "HoldSockets": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "HoldStores": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "KeepWatches": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "LaunchFailed": {"zmsvc.core.facts", "zmsvc.protocol.supervision"},
    "Leave": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "Leftover": {"zmsvc.core.facts", "zmsvc.protocol.supervision"},
    "LineSeen": {"zmsvc.protocol.output", "zmsvc.protocol.supervision"},
    "OpenBarrier": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "SetMain": {"zmsvc.core.effects", "zmsvc.protocol.supervision"},
    "TopicHeard": {"zmsvc.core.facts", "zmsvc.protocol.watching"},
    "TopicSilent": {"zmsvc.core.facts", "zmsvc.protocol.watching"},
    "WatchTopics": {"zmsvc.core.effects", "zmsvc.protocol.watching"},
    "Task": {"zmsvc.core.world", "zmsvc.task.sdk"},
}
"""The names that two modules define, and why: a message on a channel has the name of the fact or effect that it
carries, and `Task` is a name of the SDK.
"""


def test_no_class_name_has_two_meanings() -> None:
    found = defaultdict(set)
    for module in modules():
        if ".data." in module:
            continue  # Each example and template is a program of its own.
        for node in tree(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].add(module)
    assert {name: where for name, where in found.items() if len(where) > 1} == TWICE
