"""What the harness itself costs, beside what it measures. Prints seconds; nothing is saved.

    python benchmarks/throughput.py cases [--isolate]   # milliseconds a cached case takes besides its timing, by part
    python benchmarks/throughput.py collect             # pytest --collect-only of a grid of 96,000 cases
    python benchmarks/throughput.py tables [CASES]      # each step from saved facts to tables, claims and plots

CPU seconds of one thread, so that others on the machine count for little (`--isolate`: wall clock, as the work is in
other processes). The first `cases` trains what it needs into a temporary store.
"""

from __future__ import annotations

import contextlib
import io
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
GRID = {
    "datasets": "mnist",
    "models": "lenet300,lenet5",
    "criteria": "random,l1,l2,snip,grasp,taylor,obd,wanda,movement,lp:p=3",
    "scopes": "global,layerwise,erk,lamp",
    "schedules": "one_shot,linear,agp,cosine,geometric",
    "sparsities": "0.5,0.7,0.8,0.9,0.95,0.98",
    "batch-sizes": "1,64",
    "seeds": "0,1,2,3,4",
}


class Overhead:
    """A pytest plugin: what each case takes, by what it is for; what is nothing else is the harness's own."""

    OWN = "harness"

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.running: list[float] = [0.0]  # of each part that is under way, what others took within it
        self.case: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, list[dict[str, float]]] = defaultdict(list)

    def counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as a part's, less what parts within it take."""

        def counting(*arguments: Any, **options: Any) -> Any:
            with self._part(part):
                return function(*arguments, **options)

        return counting

    @contextlib.contextmanager
    def _part(self, part: str) -> Iterator[None]:
        start = self.clock()
        self.running.append(0.0)
        try:
            yield
        finally:
            took = self.clock() - start
            self.case[part] += took - self.running.pop()
            self.running[-1] += took

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.case.clear()
        with self._part(self.OWN):
            result = yield
        model, *_, backend, batch = item.name.partition("[")[2].rstrip("]").split("-")
        self.seconds[f"{model} {backend} {batch}"].append(dict(self.case))
        return result


def cases(*options: str) -> None:
    from pytest_benchmark.fixture import BenchmarkFixture

    from prunebench.measuring import grid

    overhead = Overhead(time.monotonic if options else time.thread_time)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for owner, name, part in (
            (grid, "compare", "timing"),
            (BenchmarkFixture, "pedantic", "timing"),
            (grid, "_accuracy", "accuracy"),
            (grid.backends, "compile", "compiling"),
            (grid.Reference, "__init__", "checking"),
            (grid.Reference, "check", "checking"),
        ):
            patch.setattr(owner, name, overhead.counted(part, getattr(owner, name)))
        patch.chdir(ROOT)
        words = ["benchmarks", "-q", "-p", "no:cacheprovider", "--profile", "smoke", "--epochs", "1",
                 "--fine-tune-epochs", "1", "--models", "lenet300,lenet5", "--batch-sizes", "1,64", "--store", folder,
                 f"--benchmark-storage=file://{folder}/runs", "--benchmark-save=throughput", *options]  # fmt: skip
        for _ in range(2):  # the first fills the store
            overhead.seconds.clear()
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                code = pytest.main(words, plugins=[overhead])
            if code:
                sys.exit(printed.getvalue())
    parts = (overhead.OWN, "compiling", "checking", "accuracy")
    print(f"{'milliseconds':24}" + "".join(f"{part:>11}" for part in parts))
    for name, found in overhead.seconds.items():
        row = [1000 * statistics.median(case.get(part, 0.0) for case in found) for part in parts]
        print(f"{name:24}" + "".join(f"{ms:11.1f}" for ms in row))


def collect() -> None:
    from_start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        axes = [word for name, values in GRID.items() for word in (f"--{name}", values)]
        pytest.main(["benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider", *axes])
    print(printed.getvalue().strip().splitlines()[-1])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{time.process_time() - from_start:.1f} s CPU, {memory:.2f} GB (kilobytes are Linux's)")


def tables(count: str = "100000") -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from many_cases import save

    from prunebench.claims.files import write_claims
    from prunebench.plots.files import plots_of
    from prunebench.runs import load_runs
    from prunebench.tables import files, grid

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save(folder, int(count))
        runs = _lap("load", lambda: load_runs(folder / "runs"))
        _lap("frame", lambda: grid.frame(runs))
        _lap("detail", lambda: grid.details_of(runs))
        _lap("other tables, written", lambda: files.write_tables(runs, folder / "tables"))
        _lap("claims", lambda: write_claims(runs, folder))
        _lap("numbers of plots", lambda: plots_of(runs))


def _lap(name: str, make: Callable[[], Any]) -> Any:
    start = time.process_time()
    made = make()
    print(f"{name:24} {time.process_time() - start:8.2f} s")
    return made


if __name__ == "__main__":
    {"cases": cases, "collect": collect, "tables": tables}[sys.argv[1]](*sys.argv[2:])
