"""What every executor keeps to: all cells made, none twice, in any order; failures counted, dead workers survived."""

from __future__ import annotations

from collections import Counter

import pytest
from cells import CONTROL, cell

from prunebench import controls
from prunebench.executors.base import Place
from prunebench.executors.driving import sweep
from prunebench.executors.local import InProcess, Pool
from prunebench.pipeline import Lab, key_of
from prunebench.store import Store

EXECUTORS = ["in process", "pool", pytest.param("ray", marks=pytest.mark.slow)]


class Bench:
    """An executor with a store of its own, kept for all tests: starting workers is what takes time."""

    def __init__(self, name, folder, request):
        self.name, self.folder = name, folder
        place = Place(str(folder / "store"), str(folder / "data"), "cpu")
        if name == "ray":
            from prunebench.executors.ray import RayExecutor

            self.executor = RayExecutor(place, request.getfixturevalue("cluster").address)
        else:
            self.executor = Pool(place, 2) if name == "pool" else InProcess(Lab(Store(folder / "store"), folder))

    def sweep(self, cells, **options):
        """What came of it, and what was said to be made and to have failed, in order."""
        said, failed = [], []
        lab = Lab(Store(self.folder / "store"), self.folder / "data")
        lab.said, lab.failed = (lambda c, made: said.append(c)), (lambda c, error: failed.append((c, str(error))))
        return sweep(cells, lab, self.executor, **options), said, failed

    def digest(self, one):
        """What the one stored checkpoint of a cell is, bit for bit."""
        lab = Lab(Store(self.folder / "store"), self.folder / "data")
        return lab.store.get(key_of(one, lab.content(one))).meta["digest"]


@pytest.fixture(scope="module", params=EXECUTORS)
def bench(request, tmp_path_factory, sabotaged):
    made = Bench(request.param, tmp_path_factory.mktemp("bench"), request)
    yield made
    made.executor.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory, sabotaged):
    """The same cells one after another in this process."""
    made = Bench("in process", tmp_path_factory.mktemp("reference"), None)
    yield made
    made.executor.close()


def test_every_cell_is_made_once_and_found_the_next_time(bench):
    cells = [CONTROL, *(cell(s, c) for s in (0.5, 0.9) for c in ("l1", "random"))]
    tally, said, failed = bench.sweep(cells)
    assert (tally.trained, tally.stored, tally.failed, failed) == (5, 0, {}, [])
    assert Counter(said) == Counter(cells)
    again, said, _ = bench.sweep(cells)
    assert (again.trained, again.stored, said) == (0, 5, [])


def test_the_order_changes_nothing_and_parents_come_by_themselves(bench, reference):
    first = cell(0.7, "l1", seed=1)
    twin = controls.twins(first)[0]
    cells = [twin, cell(0.8, "l2", seed=1), first]
    tally, said, _ = bench.sweep(cells)
    assert tally.trained == 4
    assert said.index(cells[0].control) == 0
    assert said.index(first) < said.index(twin)
    reference.sweep(cells[::-1])
    for one in (cells[0].control, *cells):
        assert bench.digest(one) == reference.digest(one)


def test_a_failing_plugin_is_counted_and_not_tried_again(bench, sabotaged):
    from sabotage import calls

    tag = bench.name.replace(" ", "")
    bad = cell(0.5, f"sabotage:how=raises:tag={tag}", seed=2)
    tally, said, failed = bench.sweep([bad, cell(0.5, seed=2)])
    assert list(tally.failed) == [bad]
    assert "sabotage" in tally.failed[bad]
    assert "as asked for" in tally.failed[bad]
    assert [c for c, _ in failed] == [bad]
    assert set(said) == {bad.control, cell(0.5, seed=2)}
    assert len(calls(sabotaged, "raises", tag)) == 1


def test_a_cell_that_no_machine_can_train_ends_the_sweep_with_its_reason(bench):
    from prunebench.executors.driving import SweepStopped
    from prunebench.recipe import Recipe

    half = Recipe(name="half", epochs=1, fine_tune_epochs=1, precision="fp16")
    with pytest.raises(SweepStopped, match="precision 'fp16' needs a GPU"):
        bench.sweep([cell(0.5, recipe=half)])


def test_a_dead_worker_costs_one_try(bench, sabotaged):
    if bench.name == "in process":
        pytest.skip("its worker is this process; a killed driver is tried elsewhere")
    from sabotage import calls

    once = cell(0.5, f"sabotage:how=dies_once:tag={bench.name}", seed=3)
    others = [cell(s, seed=3) for s in (0.3, 0.4, 0.6)]
    tally, said, failed = bench.sweep([once, *others])
    assert (tally.failed, failed) == ({}, [])
    assert Counter(said) == Counter([once.control, once, *others])
    layers = len(calls(sabotaged, "dies_once", bench.name)) - 1
    assert layers == 3, "one call that died, then one per layer"


def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_are_made(bench, sabotaged):
    if bench.name == "in process":
        pytest.skip("it would kill this process")
    from sabotage import calls

    poison = cell(0.5, f"sabotage:how=dies:tag={bench.name}", seed=4)
    others = [cell(s, seed=4) for s in (0.3, 0.4, 0.6)]
    tally, said, failed = bench.sweep([poison, *others], retries=1)
    assert list(tally.failed) == [poison]
    assert "tried 2 times" in tally.failed[poison]
    assert [c for c, _ in failed] == [poison]
    assert Counter(said) == Counter([poison.control, *others])
    assert len(calls(sabotaged, "dies", bench.name)) == 2
