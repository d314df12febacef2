"""The messages between the processes of one context. Each channel has a module: a union of frozen dataclasses
for each direction, and one codec for all.

An upgrade replaces files under running processes, so a new supervisor meets an old keeper. The channel
between them has a protocol number. The keeper names the highest number that it speaks in its `Hello`, and the
supervisor uses the lower one of that and its own. A release speaks its own number and every earlier one. A
field that a later number adds has a default, and a receiver ignores a field that it does not know; so most
additions need no new number.

- 0: zmsvc 1.0, which sends no number.
- 1: zmsvc 1.1. The keeper names its version, and the supervisor its own in `Introduce`.
- 2: `SignalTask` can signal the other processes of a launch.
- 3: `SetMain` makes another process of a launch the main one, and `MainProcess` reports it.
- 4: `SignalTask` can signal every process of a launch that is not being stopped, and can name `SIGRTMIN+3`
  and the like. A launch carries the options of `<service>` that are declared with this number.
- 5: A launch carries the options of `<service>` that are declared with this number. It can be that of an
  auxiliary process of a task. The keeper holds sockets and descriptor stores for tasks (`HoldSockets`,
  `HoldStores`, `StoreContents`), and has topics of Commands watched (`WatchTopics`). It lets a task wait
  before its first step (`OpenBarrier`). It reports the line of its output by which a task is ready
  (`LineSeen`).

The channel to the zygote has a protocol number of its own (`forking`), which the zygote names. The channels
to the output process (`output`), the fdstore process (`fdstore`) and the watcher process (`watching`) have
none, because each side ignores unknown messages. The other channels connect a process with a fork of it, so
both sides are of one version.
"""

PROTOCOL = 5
"""The protocol number of this release between keeper and supervisor."""
OLDEST = 0
"""The lowest protocol number that this release still speaks."""
PROTOCOL_SIGNALS_OTHERS = 2
"""The first protocol in which a keeper can signal the other processes of a launch."""
PROTOCOL_SET_MAIN = 3
"""The first protocol in which a keeper can treat another process as the main one."""
PROTOCOL_SIGNALS_ALL = 4
"""The first protocol in which a keeper can signal all processes of a launch without a stop."""
PROTOCOL_NUMBERED_SIGNALS = 4
"""The first protocol in which a keeper knows `SIGRTMIN+3` and the like. An earlier keeper knows only the
names that Python has. One of protocol 0 ends at any other name, and all tasks end with it.
"""
PROTOCOL_REPLICAS = 5
"""The first protocol in which a task of the keeper's zygote finds the number of a replica in its ID."""
PROTOCOL_AUXILIARY = 5
"""The first protocol with auxiliary processes of tasks."""
PROTOCOL_SOCKETS = 5
"""The first protocol in which a keeper opens and holds sockets for tasks."""
PROTOCOL_STORES = 5
"""The first protocol in which a keeper runs the fdstore process."""
PROTOCOL_WATCHER = 5
"""The first protocol in which a keeper runs the watcher process."""
PROTOCOL_BARRIER = 5
"""The first protocol in which a keeper lets tasks wait before their first steps."""
