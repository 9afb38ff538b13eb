"""The engine under load: threads, forked processes, thousands of runs, engines that come and go."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import ROOT, command
from stressing import Net, at_once, build, images, reference, right
from torch import Tensor, nn

import prunebench as pb
from prunebench.engine import available

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}"),
]

STATM = Path("/proc/self/statm")
needs_proc = pytest.mark.skipif(not STATM.exists(), reason="the resident set is read from /proc/self/statm")
MIB = 2**20


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_two_engines_in_two_threads(threads):
    models = [Net(0), Net(1, width=24, outputs=9)]
    engines = [build(m, threads=threads) for m in models]

    def loop(i: int) -> Callable[[], None]:
        inputs = [images(n, seed=i) for n in (1, 3, 16, 33)]
        wants = [reference(models[i], x) for x in inputs]

        def work() -> None:
            for k in range(200):
                assert right(engines[i](inputs[k % 4]), wants[k % 4])

        return work

    at_once(loop(0), loop(1))


@pytest.mark.parametrize("threads", [1, 2])
def test_one_engine_from_several_threads_and_sizes_it_never_saw(threads):
    """Each thread has its own images and its own order of batch sizes, so that plans are made while others run."""
    model = Net(2)
    engine = build(model, threads=threads)
    sizes = [1, 2, 5, 16, 17, 20]

    def loop(i: int) -> Callable[[], None]:
        inputs = {n: images(n, seed=i) for n in sizes}
        wants = {n: reference(model, x) for n, x in inputs.items()}

        def work() -> None:
            for k in range(150):
                n = sizes[(k + 2 * i) % len(sizes)]
                assert right(engine(inputs[n]), wants[n]), f"thread {i}, run {k}, batch {n}"

        return work

    at_once(loop(0), loop(1), loop(2))


def test_results_stay_right_while_others_run_and_after_the_engine_is_gone():
    model = Net(3)
    engines = [build(model, threads=2) for _ in range(2)]
    kept: list[tuple[Tensor, Tensor]] = []

    def work() -> None:
        engine = engines.pop()
        for k in range(40):
            x = images(1 + k % 18, seed=k)
            kept.append((engine(x), reference(model, x)))

    at_once(work, work)
    gc.collect()
    assert not engines
    assert len(kept) == 80
    assert all(right(got, want) for got, want in kept)


def test_refused_inputs_in_one_thread_do_not_disturb_another():
    model = Net(4)
    engine = build(model)
    x = images(16)
    want = reference(model, x)

    def good() -> None:
        for _ in range(150):
            assert right(engine(x), want)

    def bad() -> None:
        for _ in range(150):
            with pytest.raises(pb.errors.UsageError):
                engine(torch.randn(16, 4, 16, 16))

    at_once(good, bad)


def test_engines_beside_torchs_own_threads():
    """An engine of two threads while torch's two work on something else, from two Python threads and from one."""
    model = Net(5)
    engine = build(model, threads=2)
    inputs = [images(n) for n in (1, 16)]
    wants = [reference(model, x) for x in inputs]
    a = torch.randn(256, 256)
    product = a.double() @ a.double()
    conv = nn.Conv2d(8, 8, 3).requires_grad_(False)
    z = torch.randn(4, 8, 24, 24)
    convolved = copy.deepcopy(conv).double()(z.double())
    torch.set_num_threads(2)

    def ours() -> None:
        for k in range(100):
            assert right(engine(inputs[k % 2]), wants[k % 2])

    def torchs() -> None:
        for _ in range(100):
            assert right(a @ a, product)
            assert right(conv(z), convolved)

    at_once(ours, torchs)
    for k in range(50):
        assert right(a @ a, product)
        assert right(engine(inputs[k % 2]), wants[k % 2])


# ---- processes ---------------------------------------------------------------------------------------------------

SETUP = """
import os, sys, threading
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from stressing import Net, build, images, reference, right

def check(engine, model, sizes=(1, 16, 3)):
    for n in sizes:
        x = images(n, seed=7)
        assert right(engine(x), reference(model, x)), n

def in_child(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child

def wait(*children):
    for child in children:
        status = os.waitpid(child, 0)[1]
        assert status == 0, f"a forked child ended with status {{status}}"
"""

FORKS = {
    "compiled in the child, after the parent used torch": """
        model = Net(0)
        model(images(4))
        wait(in_child(lambda: check(build(model, threads=2), model)))
    """,
    "compiled in two workers, after the parent used an engine": """
        model = Net(0)
        check(build(model, threads=2), model)
        work = lambda: check(build(model, n=16, threads=2), model)
        wait(in_child(work), in_child(work))
        check(build(model, threads=2), model)
    """,
    "compiled in the parent, run in the child, the parent and a grandchild": """
        model = Net(1)
        engine = build(model, threads=2)
        check(engine, model)
        def work():
            check(engine, model, (1, 16, 3, 2, 20))  # two of them were never run in the parent
            wait(in_child(lambda: check(engine, model)))
            check(engine, model)
        children = [in_child(work), in_child(work)]
        check(engine, model)
        wait(*children)
    """,
    "compiled in the parent, first run in the child": """
        model = Net(2)
        engine = build(model, threads=2)
        wait(in_child(lambda: check(engine, model)))
        check(engine, model)
    """,
    "while another thread of the parent runs an engine": """
        model, other = Net(3), Net(4)
        engine, busy = build(model, threads=2), build(other, n=16, threads=2)
        stop = threading.Event()
        def loop():
            x = images(16)
            while not stop.is_set():
                busy(x)
        thread = threading.Thread(target=loop)
        thread.start()
        try:
            for _ in range(20):
                wait(in_child(lambda: check(engine, model)))
        finally:
            stop.set()
            thread.join()
        check(engine, model)
    """,
    "no fork: the process ends while its engines have sleeping threads": """
        model = Net(5)
        engine = build(model, threads=2)
        check(engine, model)
    """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("story", FORKS)
def test_processes(story):
    code = SETUP.format(tests=str(ROOT / "tests")) + textwrap.dedent(FORKS[story]) + "\nprint('the end')\n"
    done = command(sys.executable, "-c", code, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the end\n"


# ---- growth ------------------------------------------------------------------------------------------------------


class HeapInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def sizes() -> tuple[int, int]:
    """Bytes of this process in memory, and bytes in use on its heap: free room of the heap hides a small leak."""
    gc.collect()
    heap = 0
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = HeapInfo
        info = libc.mallinfo2()
        heap = info.uordblks + info.hblkhd
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE"), heap


def growth(work: Callable[[int], object], warm_up: int, runs: int) -> int:
    """How many bytes the process, or its heap, grew over the runs that follow the warm-up."""
    for k in range(warm_up):
        work(k)
    before = sizes()
    for k in range(warm_up, warm_up + runs):
        work(k)
    return max(now - then for now, then in zip(sizes(), before, strict=True))


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@needs_proc
@pytest.mark.parametrize("n", [1, 16])
def test_ten_thousand_runs_do_not_grow(n):
    """The result of one run is 20 bytes an image: to keep 10,000 of anything shows."""
    model = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval().requires_grad_(False)
    )
    for m in (model[0], model[3]):
        m.weight[torch.rand(m.weight.shape) < 0.8] = 0
    x = images(n, size=8)
    engine = pb.compile(model, x, backend="csr", threads=1)
    assert growth(lambda k: engine(x), 1000, 10_000) < 2 * MIB


@needs_proc
@pytest.mark.parametrize("threads", [1, 2])
def test_changing_batch_sizes_do_not_grow(threads):
    engine = build(Net(0), threads=threads)
    inputs = [images(n) for n in (1, 2, 3, 5, 8, 16, 17, 33, 64)]
    assert growth(lambda k: engine(inputs[k % len(inputs)]), 200, 4000) < 2 * MIB


@needs_proc
def test_more_batch_sizes_than_any_cache_holds_do_not_grow():
    """Every run is of a size not seen before, the large ones first."""
    engine = build(Net(0))
    x = images(500)
    assert growth(lambda k: engine(x[k:]), 100, 399) < MIB


@needs_proc
def test_refused_inputs_do_not_grow():
    engine = build(Net(0))
    x = torch.randn(64, 4, 16, 16)

    def refuse(k: int) -> None:
        with pytest.raises(pb.errors.UsageError):
            engine(x)

    assert growth(refuse, 100, 1000) < 2 * MIB


@needs_proc
def test_engines_that_come_and_go_do_not_grow():
    """Each engine holds 120,000 nonzeros, 0.7 MB: a hundred of them are 70 MB."""
    model = nn.Sequential(Net(0), nn.Linear(5, 40_000), nn.ReLU(), nn.Linear(40_000, 5)).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    for m in (model[1], model[3]):
        m.weight[torch.rand(m.weight.shape, generator=g) < 0.7] = 0
    x = images(4)

    def one(k: int) -> None:
        pb.compile(model, x, backend="csr", threads=2, tune=False)(x)
        if k % 10 == 0:
            gc.collect()  # a traced model is in reference cycles

    one(0)
    before = native_threads()
    assert growth(one, 30, 100) < 8 * MIB
    assert native_threads() <= before + 1, "engines leave threads behind"


@needs_proc
def test_products_and_refused_products_do_not_grow():
    import numpy as np

    indptr, indices = np.arange(0, 2001, 10), np.arange(2000) % 300
    data, dense = np.ones(2000, np.float32), np.ones((300, 40), np.float32)
    wrong = indices.copy()
    wrong[-1] = 300

    def product(k: int) -> None:
        assert pb.kernels.csr_matmul(indptr, indices, data, (200, 300), dense, threads=2)[0, 0] == 10
        with pytest.raises(ValueError):
            pb.kernels.csr_matmul(indptr, wrong, data, (200, 300), dense)

    assert growth(product, 200, 2000) < 2 * MIB
