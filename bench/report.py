"""Write the results as Markdown: ratios first, then the figure itself, with the number of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.everybody import everybody
from bench.figures.device import BARE, SIZES, SUBSCRIBERS
from bench.goals import OURS, Verdict, verdicts
from bench.results import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table, for each size of fleet with this figure. `share` is a percentile; without it the
    line has the median.
    """

    figure: str
    title: str
    unit: str
    share: float = 0.5


ROWS = (
    Row(figure="start", title="{n} tasks: from the order until all are ready and on the bus", unit="s"),
    Row(figure="stop", title="{n} tasks: stop all", unit="s"),
    Row(figure="restart", title="kill -9 to: the task runs again, p50", unit="s"),
    Row(figure="restart", title="the same, p99", unit="s", share=0.99),
    Row(figure="chain", title="failure to: another task runs, p50", unit="s"),
    Row(figure="chain", title="the same, p99", unit="s", share=0.99),
    Row(figure="order", title="failure to: the start of the other is ordered, p50", unit="s"),
    Row(figure="order", title="the same, p99", unit="s", share=0.99),
    Row(figure="cold", title="`systemctl start zmsvc@EchoAction`, until its task is ready", unit="s"),
    Row(figure="cold.cpu", title="the same: CPU time of all processes of the context", unit="s"),
    Row(figure="adoption", title="{n} tasks: supervisor killed, the next one knows all", unit="s"),
    Row(figure="status", title="{n} tasks: `status` of all, as a process", unit="s"),
    Row(figure="memory", title="{n} tasks: memory of a task (PSS)", unit="B"),
    Row(figure="faults", title="{n} tasks: page faults of a task's start", unit=""),
    Row(figure="memory.own", title="{n} tasks: memory of the manager's processes (PSS)", unit="B"),
    Row(figure="idle.cpu", title="{n} idle tasks: CPU of the manager, part of a core", unit="%"),
    Row(figure="idle.wakeups", title="{n} idle tasks: wake-ups of the manager a second", unit="/s"),
    Row(figure="idle.tasks", title="{n} idle tasks: wake-ups of all tasks a second", unit="/s"),
)

NOTES = """\
Each figure is a median over rounds in which the contenders took turns (for p50 and p99, all samples together). `4.2x` means: 4.2 times
what zmsvc needs; below it is the figure itself. A task of zmsvc is ready when it has connected to the bus and zmsvc knows it; the tasks of
the others are Python services that have imported pyzmq, run, and are connected to nothing, which is to their advantage. All of them
report their start to the same socket, by the same clock. `fork` is a warm Python that forks, keeps nothing and promises nothing;
`fork + bus` adds a ZMQ context and a connected socket to each fork. `zmsvc (unit)` runs as installed, under its unit on a booted systemd;
`zmsvc (300 mixed)` in a context with 290 other tasks and a state file on a disk; `(busy)` beside a process that computes on one core. The
memory of the manager is without the output process (8 MB), which exists only if the log is a file, as here. `zmsvc (no immortal, fill)` is ours without the two shortcuts by which
tasks share more memory (docs/performance.md). Supervisor runs with startsecs=0, Circus with check_delay=0.1, s6 with
readiness; systemd is booted in a namespace. MB are 1,000,000 bytes."""


def markdown(results: Results, machine: Mapping[str, str], seconds: float) -> str:
    """Return the whole document."""
    parts = [
        "# Results of the benchmark",
        "Made by `make bench`; the same as data in [results.json](results.json).",
        "Measured on: "
        + "; ".join(f"{name} {value}" for name, value in machine.items())
        + f". It took {seconds:.0f} s.",
        "![Start time and memory against the number of tasks](plot.svg)",
        "## Goals",
        _goals(verdicts(results)),
        "## Beside others",
        NOTES,
        _table(results),
        "## The processes of a context",
        _processes(results),
        "## The device beside a bare libzmq proxy",
        "Both in turn, while the supervisor answers questions without a pause. Latency is that of single "
        "messages that do not queue.",
        _device(results),
        "## The bus",
        _bus(results),
    ]
    if results.missing:
        parts += ["## Not measured", "\n".join(f"- {name}: {why}" for name, why in results.missing.items())]
    return "\n\n".join(parts) + "\n"


def amount(value: float | None, unit: str) -> str:
    """Return a figure with as many digits as are significant."""
    if value is None:
        return "-"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "B":
        return f"{value / 1e6:.2f} MB"
    if unit == "%":
        return f"{value * 100:.2g} %"
    return f"{value:.3g}{unit}"


def _goals(found: Iterable[Verdict]) -> str:
    lines = ["| goal | at most | measured | |", "|---|---|---|---|"]
    for each in found:
        measured = amount(each.value, each.unit) + (f" ({each.remark})" if each.remark else "")
        lines.append(f"| {each.goal} | {amount(each.limit, each.unit)} | {measured} | {each.word} |")
    return "\n".join(lines)


def _table(results: Results) -> str:
    names = [each.name for each in everybody() if each.name in results.contenders()]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in ROWS:
        for size in results.sizes(row.figure):
            cells = [_cell(results, row, name, size) for name in names]
            lines.append(f"| {row.title.format(n=f'{size:,}')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(results: Results, row: Row, name: str, size: int) -> str:
    value = results.percentile(row.figure, name, size, row.share)
    ours = results.percentile(row.figure, OURS, size, row.share)
    if row.share == 0.5:
        value, ours = results.median(row.figure, name, size), results.median(row.figure, OURS, size)
    if value is None:
        return "-"
    told = f"{amount(value, row.unit)} <sub>n={results.count(row.figure, name, size)}</sub>"
    return f"{_times(value / ours)}<br>{told}" if ours and name != OURS else told


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


def _processes(results: Results) -> str:
    sizes = results.sizes("memory.keeper")
    lines = [
        "| PSS with tasks: | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for role in ("keeper", "zygote", "spare task", "supervisor", "device"):
        values = (amount(results.median(f"memory.{role}", OURS, size), "B") for size in sizes)
        lines.append(f"| {role} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _device(results: Results) -> str:
    head = [
        "message",
        "subscribers",
        "throughput, ratio",
        "messages/s",
        "bare",
        "CPU a message, ratio",
        "p50 / p99",
        "bare",
        "lost",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for size in SIZES:
        for subscribers in SUBSCRIBERS:
            ours, bare = (results.median(f"throughput.{size}", name, subscribers) for name in (OURS, BARE))
            cpu = [results.median(f"device.cpu.{size}", name, subscribers) for name in (OURS, BARE)]
            if ours is None or not bare:
                continue
            delays = [
                " / ".join(
                    amount(results.percentile(f"latency.{size}", name, subscribers, share), "s")
                    for share in (0.5, 0.99)
                )
                for name in (OURS, BARE)
            ]
            per_message = f"{cpu[0] / cpu[1]:.2f}" if cpu[0] and cpu[1] else "-"
            lost = sum(results.samples.get((f"lost.{size}", OURS, subscribers), ()))
            lines.append(
                f"| {size:,} B | {subscribers} | **{ours / bare:.2f}** | {ours:,.0f} | {bare:,.0f} | "
                f"{per_message} | "
                f"{delays[0]} | {delays[1]} | {lost:.0f} |"
            )
    return "\n".join(lines)


def _bus(results: Results) -> str:
    said = []
    for size in results.sizes("bus.bytes"):
        messages, total, largest = (
            results.median(f"bus.{what}", OURS, size) or 0 for what in ("messages", "bytes", "largest")
        )
        said.append(
            f"The start of {size:,} tasks says {messages:,.0f} messages with {total / 1e6:,.1f} MB to who "
            f"hears everything; "
            f"the largest has {largest / 1e6:.2f} MB."
        )
    return "\n".join(said) or "Not measured."
