"""A Ray cluster that loses a node in the middle, and one whose nodes can't do what is asked of them."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from cells import CONTROL, cell
from processes import alive, until

pytestmark = pytest.mark.slow


def lab_at(folder):
    from prunebench.pipeline import Lab
    from prunebench.store import Store

    said = []
    lab = Lab(Store(folder / "store"), folder / "data")
    lab.said = lambda one, made: said.append(one)
    return lab, said


def place_at(folder, **changes):
    from prunebench.executors.base import Place

    return Place(**{"store": str(folder / "store"), "data": str(folder / "data"), "device": "cpu", **changes})


def test_a_node_that_dies_in_the_middle_costs_only_its_tasks(cluster, tmp_path, sabotaged):
    from sabotage import calls

    from prunebench.executors.driving import sweep
    from prunebench.executors.ray import RayExecutor

    (sabotaged / "go").unlink(missing_ok=True)
    slow = [cell(s, "sabotage:how=waits:tag=node", seed=7) for s in (0.3, 0.5, 0.7)]
    cells = [*slow, cell(0.5, "l1", seed=7), cell(0.6, "l2", seed=7)]
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def waiting() -> set[int]:
        return {int(name.split("-")[1]) for name in calls(sabotaged, "waits", "node")}

    def kill() -> None:
        until(lambda: len(waiting()) == 3)
        cluster.remove_node(node, allow_graceful=False)
        until(lambda: not all(alive(pid) for pid in waiting()))
        (sabotaged / "go").touch()

    lab, said = lab_at(tmp_path)
    executor = RayExecutor(place_at(tmp_path), cluster.address)
    finished, outcomes = executor.finished, []
    executor.finished = lambda seconds: outcomes.extend(ended := finished(seconds)) or ended
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        tally = sweep(cells, lab, executor)
    finally:
        executor.close()
        killer.join()
    assert tally.failed == {}
    assert Counter(said) == Counter([cells[0].control, *cells])
    died = [outcome.key for outcome in outcomes if outcome.status == "died"]
    assert len(died) == len(set(died)) == 1, "three nodes had a waiting cell each, and one died"


def test_a_node_without_the_gpu_that_it_claims_ends_the_sweep_with_its_words(cluster, tmp_path):
    import torch

    from prunebench.executors.driving import SweepStopped, sweep
    from prunebench.executors.ray import RayExecutor

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    lab, _ = lab_at(tmp_path)
    executor = RayExecutor(place_at(tmp_path, device="auto"), cluster.address, gpus=0.5)
    try:
        assert executor.asks == {"num_cpus": 1.0, "num_gpus": 0.5}
        assert executor.slots == 1, "its one CPU is less than its two halves of a GPU"
        with pytest.raises(SweepStopped, match="torch finds no GPU here"):
            sweep([CONTROL], lab, executor)
    finally:
        executor.close()
        cluster.remove_node(node)
    assert not (tmp_path / "store").exists()
