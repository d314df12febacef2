"""Follow docs/cluster.md on the bench, as a person would."""

from __future__ import annotations

from bench import Bench


def follow(bench: Bench) -> None:
    for number in bench.numbers:
        bench.sh(number, "mkdir -p /etc/zmsvc/cluster; touch /etc/zmsvc/cluster/Orders")
    bench.sh(
        1,
        "pcs resource create orders ocf:zmsvc:context context=Orders op monitor interval=10s meta migration-threshold=3 failure-timeout=10min",
    )
