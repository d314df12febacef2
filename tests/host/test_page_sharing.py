"""Memory that tasks share with the zygote: references to objects in it are not counted, its holes are filled,
and the own objects of a task behave as in any process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forks, Nest, reap, zygote_client

from zmsvc.host.python import allocators, code_copies, immortal
from zmsvc.keeper import execution
from zmsvc.protocol.launch import Descriptors

immortals = pytest.mark.skipif(immortal.mark() is None, reason="this Python has no immortal objects")


@pytest.fixture
def forks() -> Iterator[Forks]:
    made = zygote_client()
    yield made
    made.end()


def run_task(forks: Forks, nest: Nest) -> dict[str, Any]:
    """Start a task and stop it; returns the items of its update."""
    pid = forks.forked(nest.spec(), None, Descriptors())
    items: dict[str, Any] = json.loads(nest.until("X_ZMSVC_UPDATE")["X_ZMSVC_UPDATE"])
    os.kill(pid, signal.SIGTERM)
    assert reap(pid) == 0, nest.logged()
    return items


def python(code: str, **environment: str) -> str:
    """Run a program in another Python, where everything may be made immortal. Return its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- a task


OWN = """
    def setup(self):
        import gc, sys, weakref
        class Own:
            pass
        one = Own()
        counts = [sys.getrefcount(one)]
        more = [one] * 3
        counts.append(sys.getrefcount(one) - counts[0])
        freed = weakref.ref(one)
        del one, more
        ring = Own()
        ring.itself = ring
        collected = weakref.ref(ring)
        del ring
        before = collected() is not None
        for _ in range(5000):
            if collected() is None:
                break
            each = Own()
            each.itself = each
        of_the_zygote = weakref.ref(sys.modules["zmsvc.task"].LoopedTask)
        self.update(counted=counts[1], freed=freed() is None, ring=[before, collected() is None], enabled=gc.isenabled(),
                    collected=gc.collect() >= 0, zygote=of_the_zygote() is not None)
    def step(self):
        pass
"""


def test_a_task_counts_frees_and_collects_its_own_objects(forks: Forks, nest: Nest) -> None:
    nest.looped(OWN)
    for _ in range(2):
        items = run_task(forks, nest)
        assert items == {
            "counted": 3,
            "freed": True,
            "ring": [True, True],
            "enabled": True,
            "collected": True,
            "zygote": True,
        }


def test_the_zygote_does_not_grow_with_each_fork(forks: Forks, nest: Nest) -> None:
    nest.looped("""
        def setup(self):
            self.update(ready=True)
        def step(self):
            pass
    """)

    def size() -> int:
        assert forks.pid is not None
        return int(Path(f"/proc/{forks.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(5):
        run_task(forks, nest)
    before = size()
    for _ in range(40):
        run_task(forks, nest)
    assert size() - before < 40 * 1024


def test_the_zygote_keeps_the_same_descriptors(
    forks: Forks, nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are two sockets to the keeper, the gate, and three streams. Immortal objects must have been
    closed explicitly.
    """
    nest.looped("""
        def setup(self):
            import os
            self.update(open=sorted(os.listdir("/proc/self/fd")))
        def step(self):
            pass
    """)
    told = []
    for names in ("", "immortal,fill"):
        monkeypatch.setenv("ZMSVC_DISABLE", names)
        items = run_task(forks, nest)
        told.append((items["open"], sorted(os.listdir(f"/proc/{forks.pid}/fd"))))
        forks.end()
    assert told[0] == told[1]


def test_a_task_starts_from_a_zygote_whose_objects_do_not_become_immortal(
    forks: Forks,
    nest: Nest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The count of a mortal object.
    (tmp_path / "marking_zygote.py").write_text(
        "from zmsvc.host.python import immortal\nfrom zmsvc.zygote.__main__ import main\nimmortal.mark = "
        "lambda: immortal.ImmortalMark(10**6)\nmain()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(
        forks.machine,
        "spawn",
        lambda _module, *rest: execution.execute("marking_zygote", *rest),
        raising=False,
    )
    nest.looped(OWN)
    assert run_task(forks, nest)["freed"]
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("zmsvcd: cannot make objects immortal: ")


# --- immortal objects


USED = """
    import ctypes, gc, sys
    from zmsvc.host.python import immortal

    class Thing:
        pass

    def constant(into):
        into[0] = (1.5, 2.5)
        into[1] = "a constant" if into else b"another constant"
        return (3.5, "a third one")

    kept, into = [Thing(), {"key": "value"}, ("a", ("b", 7.5))], {}
    for _ in range(50):
        constant(into)
    gc.disable()
    made = immortal.make_all()
    watched = [*kept, Thing, constant, constant.__code__, *constant.__code__.co_consts, sys, print]
    words = [ctypes.c_uint64.from_address(id(each)) for each in watched]
    before = [word.value for word in words]
    for _ in range(10000):
        constant(into)
        held = [kept[0], (kept[1], kept[2][1]), {kept[2]: kept}, Thing()]
        first, *rest = held
    del held, first, rest
    into.clear()
    gc.collect()
    print(made > 1000, [word.value for word in words] == before, len({word >> 31 & 1 for word in before}))
"""


@immortals
def test_no_operation_changes_the_count_of_an_immortal_object() -> None:
    assert python(USED) == "True True 1"


@immortals
def test_code_that_has_run_before_does_not_count_its_constants_up() -> None:
    """After 2**30 times the constant would be freed while it is in use."""
    told = python("""
        import ctypes, gc
        from zmsvc.host.python import immortal_constants, immortal
        def store(into):
            into[0] = (1.5, 2.5)
        into = {}
        for _ in range(50):
            store(into)
        gc.disable()
        immortal.make_all()
        store(into)
        word = ctypes.c_uint64.from_address(id(into[0]))
        before = word.value
        for _ in range(1000):
            store(into)
        print(word.value - before, [*immortal_constants.counting(store.__code__)])
    """)
    assert told == "0 []"


EVERYDAY = """
    import array, asyncio, collections, contextlib, copy, ctypes, dataclasses, datetime, decimal, enum, gc, io, json, logging, os, pathlib
    import pickle, random, re, shlex, textwrap, threading, traceback, urllib.parse
    import zmq
    from zmsvc.host.python import immortal

    @dataclasses.dataclass
    class Point:
        x: int
        name: str = "name"
        place: tuple = (1.5, ("a", 2.5))

    class Color(enum.Enum):
        RED = "red"

    class Slots:
        __slots__ = ("one",)

    def pairs(count):
        for number in range(count):
            yield number, "constant", (3.5, number)

    log = logging.getLogger("everyday")
    log.addHandler(logging.StreamHandler(io.StringIO()))

    def work(times):
        for number in range(times):
            json.loads(json.dumps({"list": [1, 2.5, None, True, "x" * number], "inner": {"number": number}}))
            log.warning("hello %s %d", "world", number)
            point = dataclasses.replace(Point(number), name="other")
            copy.deepcopy(point), pickle.loads(pickle.dumps(point)), Color("red").name
            re.sub("(a+)(b)", "\\\\2", f"aab{number}"), str(pathlib.Path("/tmp") / str(number)), datetime.datetime.now().isoformat()
            decimal.Decimal("1.5") * number, collections.Counter("hello"), random.random()
            shlex.split("a 'b c'"), textwrap.fill("a b " * 9, 5)
            slots = Slots()
            slots.one = (4.5, "stored")
            slots.one = [None, "ab"] * 20 + [*pairs(3)]
            try:
                raise ValueError("expected")
            except ValueError as error:
                traceback.format_exception(error)
            with contextlib.suppress(KeyError):
                {**{"a": (1.5, 2)}}["b"]
            thread = threading.Thread(target=lambda: sorted([3, 1, 2], key=lambda value: -value))
            thread.start(), thread.join()
            asyncio.run(asyncio.sleep(0))
            urllib.parse.urlparse("http://host/path?query=1")
            exec("def inner(a, b=(1.5, 2)): return a, b\\ninner(1)", {})
            type("Made", (Slots,), {"method": lambda self: 1})().method()
            os.environ["EVERYDAY"] = "1"
            context = zmq.Context()
            context.socket(zmq.PUB).close(0), context.term()

    work(30)
    gc.disable()
    addresses = array.array("Q", map(id, immortal.reachable()))
    immortal.make_all()
    counts = array.array("Q", (ctypes.c_uint64.from_address(address).value for address in addresses))
    gc.enable()
    work(100)
    gc.collect()
    drifted = [ctypes.c_uint64.from_address(address).value - count for address, count in zip(addresses, counts) if count >> 31 & 1]
    print(len(drifted) > 10000, sum(abs(each) > 3 for each in drifted))
"""


@immortals
def test_everyday_work_counts_no_immortal_object_up_or_down() -> None:
    """A count that changes with each use would some day leave the range of immortal ones. Code that is
    running may change a count once.
    """
    assert python(EVERYDAY) == "True 0"


@immortals
@pytest.mark.parametrize("count", [1_000_000, 0x7FFFFFFF])
def test_a_failed_immortalization_is_detected(count: int) -> None:
    with pytest.raises(immortal.Unproven, match="count"):
        immortal.prove(immortal.ImmortalMark(count))


@immortals
def test_running_code_is_left_mortal() -> None:
    told = python("""
        import gc, weakref
        from zmsvc.host.python import immortal
        ended = []
        def generator():
            try:
                yield 1
            finally:
                ended.append(True)
        running = generator()
        next(running)
        gc.disable()
        immortal.make_all()
        del running
        print(ended)
    """)
    assert told == "[True]"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python may have immortal objects")
def test_a_python_without_immortal_objects_is_left_alone() -> None:
    assert immortal.make_all() == 0


# --- code


GATHERED = """
    import gc
    from zmsvc.host.python import code_copies

    # Equal functions in ten files, of which one in ten runs.
    text = "".join(f"def function_{number}(a, b={number}):\\n" + " a = a + b\\n" * 30 + " return a\\n" for number in range(100))
    scopes = []
    for number in range(10):
        scope = {}
        exec(compile(text, f"file-{number}.py", "exec"), scope)
        scopes.append([scope[f"function_{number}"] for number in range(100)])
    used = [each for scope in scopes for each in scope[::10]]
    idle = scopes[0][1]
    kept = idle.__code__

    def pages():
        return len({id(each.__code__) >> 12 for each in used})

    def results():
        return [(each(1), each(2, b=3), each.__code__.co_filename) for each in used]

    watch, scattered = code_copies.RunDetector(), pages()
    before = [results() for _ in range(20)][-1]
    copies = watch.gather()
    print(results() == before, copies >= len(used), idle.__code__ is kept, scattered > 60, pages() < 25)
"""


def test_code_that_has_run_is_copied_to_one_place_and_does_the_same() -> None:
    assert python(GATHERED) == "True True True True True"


IN_FORK = """
    import os, time
    from zmsvc.host.python import code_copies

    def at_fork():
        pass

    def in_fork():
        pass

    def elsewhere():
        pass

    os.register_at_fork(after_in_child=at_fork)
    ran = code_copies.run_in_fork(in_fork, 60)
    late = code_copies.run_in_fork(lambda: time.sleep(60), 1)
    elsewhere()
    print([id(each.__code__) in ran for each in (at_fork, in_fork, elsewhere)], len(late))
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="only 3.11 counts calls in the code")
def test_code_that_runs_only_in_forks_is_found_and_a_fork_that_hangs_is_not_waited_for() -> None:
    assert python(IN_FORK) == "[True, True, False] 0"


def test_a_python_that_does_not_show_its_caches_keeps_its_code() -> None:
    watch = code_copies.RunDetector(text="_no_such_attribute")
    assert watch.gather() == 0


# --- the allocators


HOLES = """
blocks = {size: [bytes(size) for _ in range(400)] for size in (15, 47, 200, 400, 700, 900)}
holes = {id(block) >> 12 for every in blocks.values() for block in every[::2]}
for every in blocks.values():
    del every[::2]
"""
"""The beginning of a program, which leaves every second block of many pages free."""


def test_allocations_after_a_fill_lie_in_fresh_pages() -> None:
    told = python(f"""
import gc
from zmsvc.host.python import allocators
{HOLES}
objects, heap = allocators.fill()
new = [bytes(size) for size in blocks for _ in range(20)]
print(sum(id(each) >> 12 in holes for each in new), objects > 0, heap > 0)
""")
    in_holes, *filled = told.split()
    # A few blocks are freed after the fill, by the program itself.
    assert int(in_holes) < 120 / 20
    assert filled == ["True", "True"]


def test_allocations_without_a_fill_lie_in_partly_used_pages() -> None:
    told = python(f"""
{HOLES}
new = [bytes(size) for size in blocks for _ in range(20)]
print(sum(id(each) >> 12 in holes for each in new))
""")
    assert int(told) > 120 / 2


def test_a_fill_is_bounded() -> None:
    """100 MB of holes in the middle of the heap are not filled."""
    told = json.loads(
        python("""
            import json, os
            from zmsvc.host.python import allocators
            def size():
                return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            blocks = [bytes(size) for size in range(16, 500, 16) for _ in range(4000)]
            del blocks[::2]
            large = [bytes(100_000) for _ in range(1000)]
            del large[::2]
            before = size()
            objects, heap = allocators.fill()
            print(json.dumps([objects, heap, size() - before]))
        """)
    )
    objects, _, grown = told
    assert objects <= 32 * allocators.MOST_POOLS * 16384
    assert grown < 8 << 20


def test_without_pymalloc_its_pools_are_left_out() -> None:
    assert (
        python("from zmsvc.host.python import allocators; print(allocators.fill()[0])", PYTHONMALLOC="malloc")
        == "0"
    )


def test_without_mallinfo2_the_heap_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl and glibc before 2.33 have none."""
    monkeypatch.setattr("ctypes.PyDLL", lambda _name: object())
    assert allocators.fill()[1] == 0


@pytest.mark.parametrize("names", ["", "immortal,fill"])
def test_two_hundred_tasks_start_and_stop(
    forks: Forks, nest: Nest, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMSVC_DISABLE", names)
    nest.looped("""
        def step(self):
            pass
    """)
    pids = [forks.forked(nest.spec(), None, Descriptors()) for _ in range(200)]
    for _ in pids:
        nest.until("READY")
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for _ in pids:
        nest.until("STOPPING")
    assert [reap(pid) for pid in pids] == [0] * 200, nest.logged()
