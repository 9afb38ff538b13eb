"""What the driver decides: order, retries, giving up, ending; its executor plays a script and trains nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cells import CONTROL, RECIPE, cell

from prunebench import controls, pipeline
from prunebench.executors import driving, work
from prunebench.executors.base import Outcome, Task
from prunebench.executors.driving import SweepStopped, sweep, tasks_of
from prunebench.pipeline import Lab
from prunebench.store import Artifact

OK = {"status": "ok", "reason": None}


class Shelf(dict):
    """A store's keys and metadata, without files."""

    place = "the shelf"
    peek = dict.get


class Script:
    """Runs one task per call of `finished`; `acts` says how a key's tries end, one after another, then well."""

    slots = 1

    def __init__(self, store, acts=(), last_first=False):
        self.store, self.acts, self.last_first = store, {k: list(v) for k, v in dict(acts).items()}, last_first
        self.queue, self.started = [], []

    def submit(self, task):
        assert all(need in self.store for need in task.needs), "submitted before what it needs"
        assert task not in self.queue
        self.queue.append(task)

    def finished(self, seconds):
        task = self.queue.pop(-1 if self.last_first else 0)
        self.started.append(task.key)
        if self.acts.get(task.key):
            outcome = self.acts[task.key].pop(0)
            if outcome.status in ("failed", "died"):
                return [outcome]
        else:
            outcome = Outcome(task.key, "ok", made=((task.cell, Artifact(task.key, OK, None)),))
        self.store[task.key] = {"status": outcome.status, "reason": outcome.reason}
        return [outcome]

    def close(self):
        pass


@pytest.fixture
def lab(monkeypatch):
    made = Lab(Shelf(), Path("nowhere"))
    monkeypatch.setattr(Lab, "content", lambda self, one: "c0ffee")
    made.said_lines, made.failed_lines = [], []
    made.said = lambda one, artifact: made.said_lines.append(one)
    made.failed = lambda one, error: made.failed_lines.append((one, str(error)))
    return made


def key(one):
    return pipeline.key_of(one, "c0ffee")


def died(one):
    return Outcome(key(one), "died", "its worker died", again=True)


GRID = [CONTROL, *(cell(s) for s in (0.3, 0.5, 0.7)), cell(0.5, seed=1)]


@pytest.mark.parametrize("last_first", [False, True])
def test_parents_first_each_task_once(lab, last_first):
    script = Script(lab.store, last_first=last_first)
    tally = sweep(GRID[::-1], lab, script)
    assert max(Counter(script.started).values()) == 1
    assert set(script.started) == {key(c) for c in (*GRID, CONTROL, replace(CONTROL, seed=1))}
    assert (tally.trained, tally.stored, tally.failed) == (6, 0, {})


def test_the_stored_is_left_alone_and_its_status_counts(lab):
    lab.store |= {key(CONTROL): OK, key(GRID[1]): OK, key(GRID[2]): {"status": "diverged", "reason": "NaN in step 3"}}
    script = Script(lab.store)
    tally = sweep(GRID[:4], lab, script)
    assert script.started == [key(GRID[3])]
    assert (tally.trained, tally.stored, tally.failed) == (1, 3, {GRID[2]: "NaN in step 3"})


def test_a_twin_waits_for_the_cell_it_copies(lab):
    twin = controls.twins(GRID[1])[0]
    script = Script(lab.store)
    sweep([twin], lab, script)
    assert script.started == [key(CONTROL), key(GRID[1]), key(twin)]


def test_early_weights_are_one_task_for_all_that_rewind_to_them(lab):
    rewinding = replace(RECIPE, epochs=4, rewind="weights", rewind_epoch=2)
    cells = [cell(s, recipe=rewinding) for s in (0.3, 0.5)]
    tasks = tasks_of(cells, lab.content)
    [early] = [task for task in tasks.values() if task.early]
    assert all(early.key in tasks[key(c)].needs and key(c.control) in tasks[key(c)].needs for c in cells)
    from_start = cell(0.3, recipe=replace(rewinding, rewind_epoch=0))
    assert not [task for task in tasks_of([from_start], lab.content).values() if task.early]
    script = Script(lab.store)
    sweep(cells, lab, script)
    assert len(script.started) == 4


def test_a_dead_worker_is_tried_again_as_often_as_asked(lab):
    script = Script(lab.store, {key(GRID[1]): [died(GRID[1])] * 2})
    tally = sweep(GRID[:3], lab, script, retries=2)
    assert (tally.trained, tally.failed, lab.failed_lines) == (3, {}, [])
    lab.store.clear()
    tally = sweep(GRID[:3], lab, Script(lab.store, {key(GRID[1]): [died(GRID[1])] * 9}), retries=2)
    assert tally.failed == {GRID[1]: "its worker died; tried 3 times"}
    assert lab.failed_lines == [(GRID[1], "its worker died; tried 3 times")]


def test_what_would_fail_again_is_tried_once(lab):
    script = Script(lab.store, {key(GRID[1]): [Outcome(key(GRID[1]), "failed", "criterion 'x' raised")]})
    tally = sweep(GRID[:3], lab, script)
    assert tally.failed == {GRID[1]: "criterion 'x' raised"}
    assert Counter(script.started)[key(GRID[1])] == 1


def test_without_its_parent_a_cell_is_left_out_and_others_go_on(lab):
    script = Script(lab.store, {key(CONTROL): [died(CONTROL)] * 3})
    tally = sweep(GRID, lab, script, retries=2)
    assert set(tally.failed) == set(GRID[:4])
    assert tally.failed[GRID[2]] == f"it starts from {CONTROL.id}, which failed"
    assert tally.trained == 2, "the other seed's"
    assert lab.failed_lines[1] == (CONTROL, "3 cells that start from it are left out")


def test_a_full_store_is_tried_again_and_then_ends_the_sweep(lab):
    full = Outcome(key(GRID[1]), "failed", "No space left on device", again=True, stop=True)
    assert sweep(GRID[:2], lab, Script(lab.store, {key(GRID[1]): [full]})).failed == {}
    lab.store.clear()
    with pytest.raises(SweepStopped, match="No space left"):
        sweep(GRID[:2], lab, Script(lab.store, {key(GRID[1]): [full] * 3}), retries=2)


def test_a_mistake_ends_the_sweep_at_once(lab):
    script = Script(lab.store, {key(GRID[1]): [Outcome(key(GRID[1]), "failed", "needs a GPU", stop=True)]})
    with pytest.raises(SweepStopped, match="needs a GPU"):
        sweep(GRID, lab, script)
    assert Counter(script.started)[key(GRID[1])] == 1


def test_a_worker_that_stores_elsewhere_is_not_believed(lab, monkeypatch):
    monkeypatch.setattr(work, "APPEAR_SECONDS", 0.1)
    elsewhere = Script(Shelf())
    with pytest.raises(SweepStopped, match="made, but not in the store at the shelf; name a folder that all nodes"):
        sweep(GRID, lab, elsewhere)


def test_a_worker_says_where_it_misses_what_the_task_needs(lab, monkeypatch):
    monkeypatch.setattr(work, "APPEAR_SECONDS", 0.1)
    outcome = work.work(Task(key(GRID[1]), GRID[1], (key(CONTROL),)), lab)
    assert (outcome.status, outcome.stop) == ("failed", True)
    assert "doesn't see" in outcome.reason


def test_a_worker_with_other_code_says_so_before_it_trains(lab):
    outcome = work.work(Task("0" * 32, GRID[1]), lab)
    assert outcome.stop
    assert "install the same on every node" in outcome.reason
    assert lab.said is not None


def test_something_unforeseen_is_tried_again(lab, monkeypatch):
    def broken(one, lab):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(pipeline, "artifact", broken)
    outcome = work.work(Task(key(CONTROL), CONTROL), lab)
    assert (outcome.status, outcome.again, outcome.stop) == ("failed", True, False)
    assert "RuntimeError: CUDA error" in outcome.reason


def test_the_number_under_way_is_told_while_nothing_ends(lab):
    class Slow(Script):
        idle = 2

        def finished(self, seconds):
            assert seconds == driving.WAIT_SECONDS
            self.idle -= 1
            return [] if self.idle >= 0 else super().finished(seconds)

    told = []
    sweep(GRID[:3], lab, Slow(lab.store), waits=told.append)
    assert told == [1, 1]


def test_keys_of_a_large_grid_take_seconds(lab):
    import time

    start = time.process_time()
    tasks = tasks_of([cell(s / 2000, c, n) for s in range(1, 500) for c in ("l1", "l2") for n in range(5)], lab.content)
    assert len(tasks) == 4995
    assert time.process_time() - start < 10


def test_said_is_put_back(lab, monkeypatch):
    before = lab.said
    monkeypatch.setattr(pipeline, "artifact", lambda one, lab: SimpleNamespace(meta=OK))
    assert work.work(Task(key(CONTROL), CONTROL), lab).status == "ok"
    assert lab.said is before
