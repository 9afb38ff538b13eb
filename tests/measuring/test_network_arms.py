"""A network's arms with several threads: one process each, and a lost one is one line of the case, not its end."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from prunebench import engine
from prunebench.answers import arm, check_answer
from prunebench.errors import PrunebenchError
from prunebench.measuring import arms as network_arms
from prunebench.measuring import networks as measure_networks
from prunebench.measuring.arms import built, network_input, random_network, ways
from prunebench.measuring.networks import UNPRUNED, NetworkBench
from prunebench.measuring.workers import WorkerFailed
from prunebench.questions import NetworkCase
from prunebench.reference import Reference

PEERS = """
import os, torch
import prunebench as pb

class Eager:
    nbytes = 1
    def __init__(self, model, example_input, threads=1):
        self.model, self.calls = model, 0
        if torch.get_num_threads() != threads:
            raise RuntimeError(f"{torch.get_num_threads()} threads")
    def __call__(self, x):
        with torch.inference_mode():
            return self.model(x)

pb.backend("right")(Eager)

@pb.backend("wrong")
class Wrong(Eager):
    def __call__(self, x):
        return super().__call__(x) * 1.01

@pb.backend("dies")
class Dies(Eager):
    def __init__(self, *args, **options):
        os._exit(7)

@pb.backend("dies_timed")
class DiesTimed(Eager):
    def __call__(self, x):
        self.calls += 1
        if self.calls > 3:
            os._exit(9)
        return super().__call__(x)
"""


@pytest.fixture
def peers(tmp_path, monkeypatch, registry_sandbox):
    """Backends of this test, registered by a module as a conftest.py would."""
    (tmp_path / "peers_of_a_test.py").write_text(PEERS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("peers_of_a_test")
    yield ("dense", "right", "wrong", "dies", "dies_timed")
    del sys.modules["peers_of_a_test"]


@pytest.mark.slow
def test_every_arm_in_its_own_process(peers, monkeypatch):
    if engine.available() is not None:
        pytest.skip(engine.available())
    started = []
    real = measure_networks.worker
    monkeypatch.setattr(measure_networks, "worker", lambda *a: started.append(real(*a)) or started[-1])
    case = NetworkCase("lenet300", 0.9, 2, threads=2, peers=peers)
    measured = NetworkBench(0.0).measure(case)
    facts = measured.facts
    check_answer(json.loads(json.dumps(facts, allow_nan=False)))
    arms = facts["arms"]
    assert list(arms) == [*peers, UNPRUNED, "csr"]
    assert {name for name, one in arms.items() if one["status"] == "ok"} == {"dense", "right", UNPRUNED, "csr"}
    for name in ("dense", "right", UNPRUNED, "csr"):
        assert arms[name]["process"] == "own"
        assert arms[name]["relative_error"] < 1e-5
        assert 0 < arms[name]["seconds"] < 1
    assert arms["csr"]["relative_error"] > 0  # each is held against its own reference: pruned, unpruned
    assert "float64" in arms["wrong"]["reason"]
    assert arms["dies"]["reason"] == "its process ended with exit code 7"
    assert arms["dies_timed"]["reason"] == "its process ended with exit code 9"
    assert all(arms[name]["seconds"] is None for name in ("wrong", "dies", "dies_timed"))
    assert facts["baseline"] in ("dense", "right")
    assert facts["latency_seconds"] == arms["csr"]["seconds"]
    assert facts["resident_bytes"] > 0
    # One process each, all ended; what the history times is an engine here.
    assert [one.name for one in started] == list(arms)
    assert len({one.pid for one in started}) == len(started)
    assert all(one._process.poll() is not None for one in started)
    assert measured.call().shape == (2, 10)


class Fake:
    """An arm that takes as long as it is told, or is lost."""

    def __init__(self, name, seconds, lost_at=None):
        self.name, self.seconds, self.calls, self.lost_at = name, seconds, 0, lost_at

    def seconds_per_call(self, loops):
        self.calls += 1
        if self.calls == self.lost_at:
            raise WorkerFailed(self.name, "gone")
        return self.seconds


def timed(**fakes):
    calls = {name: Fake(name, *values) for name, values in fakes.items()}
    arms = {name: arm() for name in calls}
    result, baseline = NetworkBench(0.0)._timed(NetworkCase("lenet5", 0.9, 1), arms, calls)
    return result, baseline, arms


def test_an_arm_lost_among_the_blocks_is_left_out_of_all_of_them():
    result, baseline, arms = timed(dense=(2.0,), onnxruntime=(0.5, 5), csr_unpruned=(1.0,), csr=(0.1,))
    assert (result.speedup, baseline) == (pytest.approx(20.0), "dense")
    assert (arms["onnxruntime"]["status"], arms["onnxruntime"]["reason"]) == ("failed", "gone")
    assert arms["onnxruntime"]["blocks"] is None
    assert len({arms[name]["blocks"] for name in ("dense", "csr_unpruned", "csr")}) == 1


def test_even_the_control_may_be_lost():
    result, baseline, arms = timed(dense=(2.0, 2), openvino=(1.0,), csr_unpruned=(1.0,), csr=(0.1,))
    assert (result.speedup, baseline) == (pytest.approx(10.0), "openvino")
    assert arms["dense"]["status"] == "failed"


def test_without_the_engine_or_any_dense_arm_the_case_fails():
    with pytest.raises(PrunebenchError, match=r"^lenet5-s900-csr-b1-t1: gone$"):
        timed(dense=(2.0,), csr_unpruned=(1.0,), csr=(0.1, 3))
    with pytest.raises(PrunebenchError, match="no dense way to run lenet5 is left"):
        timed(dense=(2.0, 1), csr_unpruned=(1.0,), csr=(0.1,))


def test_the_ways_of_a_network_come_in_order():
    case = NetworkCase("lenet5", 0.9, 1, peers=("dense", "torch_jit"))
    assert [(w.name, w.backend, w.pruned) for w in ways(case, images=True)] == [
        ("dense", "dense", False),
        ("dense_channels_last", "dense", False),
        ("torch_jit", "torch_jit", False),
        (UNPRUNED, "csr", False),
        ("csr", "csr", True),
    ]
    assert [w.name for w in ways(case, images=False)] == ["dense", "torch_jit", UNPRUNED, "csr"]


def test_a_worker_builds_the_same_network_from_words_alone(monkeypatch):
    import base64

    words = {"batch_size": 11, "threads": 1, "backend": "dense", "options": {}}
    right = Reference(random_network("lenet300"), network_input("lenet300", 11))
    found = []
    for sparsity in (None, None, 0.9):
        with built("lenet300", sparsity, **words) as (call, facts):
            output = torch.from_numpy(np.frombuffer(base64.b64decode(facts["output"]), np.float32).copy())
            assert facts["shape"] == (8, 10)  # four rows of each end
            assert facts["nbytes"] == 266_610 * 4
            assert torch.equal(call()[right.rows], output.reshape(8, 10))
            found.append(output)
    assert torch.equal(found[0], found[1])
    assert right.distance(found[0].reshape(8, 10)) < 1e-5
    assert right.distance(found[2].reshape(8, 10)) > 1e-2


def test_only_a_plugin_of_this_process_is_imported_by_name(peers):
    assert network_arms._modules("dies", "lenet300") == ["peers_of_a_test"]
    assert network_arms._modules("csr", "resnet18") == []
