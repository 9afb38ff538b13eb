"""The cost model against a discrete-event simulation that it doesn't share a line with, and against stored bytes."""

from __future__ import annotations

import heapq
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench import scale
from prunebench.cli import main
from prunebench.scale import Fleet, Work, estimate

# What the model promises where workers are interrupted: the mean of many simulations lies within the bound that it
# gives for undisturbed ones, plus this share.
INTERRUPTED = 0.03


def simulate(works, fleet, seed=0, jitter=0.0):
    """Seconds until every work is done, event by event: workers take what is ready, die, restart, go on from what was
    kept; jitter: standard deviation of a work's duration as a share of it."""
    chance = random.Random(seed)
    rate = fleet.interruptions_per_hour / 3600
    lacks = [set(work.after) for work in works]
    waiting = [[] for _ in works]
    for i, work in enumerate(works):
        for parent in work.after:
            waiting[parent].append(i)
    ready = [i for i, lack in enumerate(lacks) if not lack]
    heapq.heapify(ready)
    idle, now, events, kept = fleet.workers, 0.0, [], {}
    length = [max(0.0, w.seconds * (1 + jitter * chance.gauss(0, 1))) for w in works]

    def run(i, start):
        """One attempt: when it ends, and whether it was the last."""
        done = kept.get(i, 0.0)
        dies = chance.expovariate(rate) if rate else float("inf")
        overhead = fleet.task_seconds if done == 0.0 else 0.0
        if dies >= overhead + length[i] - done:
            return start + overhead + length[i] - done, True
        states = int((done + max(0.0, dies - overhead)) / fleet.keep_seconds)
        kept[i] = max(done, states * fleet.keep_seconds)
        return start + dies + fleet.restart_seconds, False

    while ready or events:
        while ready and idle:
            i = heapq.heappop(ready)
            end, last = run(i, now)
            heapq.heappush(events, (end, i, last))
            idle -= 1
        now, i, last = heapq.heappop(events)
        idle += 1
        if not last:
            heapq.heappush(ready, i)
            continue
        for child in waiting[i]:
            lacks[child].discard(i)
            if not lacks[child]:
                heapq.heappush(ready, child)
    return now


works_strategy = st.lists(st.tuples(st.floats(0.1, 1000), st.booleans()).map(lambda p: p), min_size=1, max_size=30).map(
    lambda drawn: [Work(s, 0.0, (0,) if child and i else ()) for i, (s, child) in enumerate(drawn)]
)


@given(works_strategy, st.integers(1, 12), st.floats(0, 50))
@settings(max_examples=60, deadline=None)
def test_undisturbed_the_bounds_hold_for_every_grid(works, workers, start):
    fleet = Fleet(workers, task_seconds=start)
    found = estimate(works, fleet)
    took = simulate(works, fleet)
    assert found.low * (1 - 1e-9) <= took <= found.high * (1 + 1e-9)
    assert abs(took / found.seconds - 1) <= found.bound + 1e-9


def grid(parents, children, dense=3600.0, pruned=1200.0):
    works = []
    for _ in range(parents):
        first = len(works)
        works.append(Work(dense))
        works += [Work(pruned, 0.0, (first,)) for _ in range(children)]
    return works


GRIDS = {
    "one parent, few workers": (grid(1, 100), Fleet(8)),
    "many parents": (grid(30, 60), Fleet(64, task_seconds=20.0)),
    "spot nodes": (grid(10, 50), Fleet(32, 20.0, interruptions_per_hour=0.5, restart_seconds=180.0, keep_seconds=60.0)),
    "nodes that die twice an hour": (grid(10, 50), Fleet(16, 20.0, 2.0, restart_seconds=120.0, keep_seconds=300.0)),
    "an epoch of half an hour": (grid(6, 40, 7200.0), Fleet(16, 20.0, 0.2, 120.0, keep_seconds=1800.0)),
}


@pytest.mark.parametrize(("works", "fleet"), GRIDS.values(), ids=GRIDS.keys())
def test_the_mean_of_simulations_lies_within_the_bound(works, fleet):
    found = estimate(works, fleet)
    took = [simulate(works, fleet, seed, jitter=0.1) for seed in range(30)]
    mean = sum(took) / len(took)
    assert abs(mean / found.seconds - 1) <= found.bound + INTERRUPTED


def test_interruptions_cost_what_a_thousand_trainings_say():
    fleet = Fleet(1, 10.0, interruptions_per_hour=3.0, restart_seconds=60.0, keep_seconds=120.0)
    took = [simulate([Work(1000.0)], fleet, seed) for seed in range(1000)]
    assert sum(took) / len(took) == pytest.approx(fleet.occupied(1000.0), rel=0.02)


def test_more_workers_never_take_longer_and_kept_states_pay():
    works = grid(4, 20)
    seconds = [estimate(works, Fleet(n)).seconds for n in (1, 2, 4, 8, 1000)]
    assert seconds == sorted(seconds, reverse=True)
    assert estimate(works, Fleet(1000)).low == 4800.0
    rare, often = (Fleet(4, interruptions_per_hour=1.0, keep_seconds=s) for s in (1800.0, 30.0))
    assert rare.occupied(3600.0) > often.occupied(3600.0) > 3600.0
    assert estimate([], Fleet(3)).seconds == 0.0


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.95])
def test_bytes_are_those_that_the_store_writes(sparsity):
    import torch

    import prunebench as pb
    from prunebench import formats, models

    model = models.build("lenet5", (1, 28, 28), 10)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    prunable = list(pb.prune(models.build("lenet5", (1, 28, 28), 10), 0.5))
    torch.manual_seed(0)
    if sparsity:
        pb.prune(model, sparsity, criterion="random", scope="layerwise")
    stored = len(formats.to_bytes(model.state_dict()))
    assert scale.checkpoint_bytes(shapes, prunable, sparsity) == pytest.approx(stored, rel=0.01)


IMAGENET = ("--datasets", "imagefolder:/data/imagenet64", "--models", "lenet5", "--images", "1281167x3x64x64:1000")


def test_the_command_needs_no_data_and_says_what_it_would_take(capsys, tmp_path):
    grid = ("--criteria", "l1,l2", "--schedules", "agp,linear", "--sparsities", "0.5,0.9", "--seeds", "0,1")
    fleet = ("--step-seconds", "0.1", "--workers", "4", "--price", "2")
    store = ("--store", str(tmp_path / "store"))
    assert main(["estimate", *IMAGENET, *grid, *fleet, *store, "--epochs", "8", "--fine-tune-epochs", "4"]) == 0
    said = dict(re.split(r" {2,}|(?<=stored) +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["to train"] == "18 checkpoints: 2 dense, 16 made from them"
    hours = (2 * 8 + 16 * 4) * 9009 * 0.1 / 3600 + 18 * 10 / 3600
    assert said["work"] == f"{hours:,.1f} worker-hours"
    assert said["memory"] == "15.7 GB of images per worker"
    assert said["price"] == f"{2 * hours:,.2f}"
    middle, bound = (float(word) for word in re.findall(r"[\d.]+(?= h| %)", said["time"]))
    assert middle * (1 - bound / 100) == pytest.approx(hours / 4, rel=0.02)
    assert not (tmp_path / "store").exists()


def test_here_it_times_a_step_and_leaves_out_what_is_stored(capsys, tmp_path):
    short = ("--profile", "smoke", "--datasets", "digits:size=8", "--epochs", "1", "--fine-tune-epochs", "1")
    store = ("--store", str(tmp_path / "store"))
    assert main(["sweep", *short, *store]) == 0
    assert main(["estimate", *short, *store, "--sparsities", "0.5,0.9"]) == 0
    said = capsys.readouterr().out
    assert "1 checkpoints: 0 dense, 1 made" in said
    assert "2 of them already" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "100x1x28x28:10"], "give --step-seconds S"),
        (["--images", "many", "--step-seconds", "1"], "--images 'many' can't be read"),
        (["--images", "0x1x28x28:10", "--step-seconds", "1"], "can't be read"),
        (["--step-seconds", "-1"], "--step-seconds -1 can't be used"),
        (["--interruptions", "often"], "--interruptions 'often' is not a number"),
        (["--workers", "0"], "--workers 0 is too small"),
        (["--price", "inf"], "--price inf can't be used"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    assert main(["estimate", "--profile", "smoke", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
