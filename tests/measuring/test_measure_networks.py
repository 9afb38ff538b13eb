"""Networks measured: every arm checked, the fastest dense one is the baseline, what can't run says why."""

import json

import numpy as np
import pytest
import torch

import prunebench as pb
from prunebench import engine
from prunebench.answers import check_answer
from prunebench.errors import BackendUnavailable
from prunebench.masks import prunable_modules, pruned_count
from prunebench.measuring import networks as measure_networks
from prunebench.measuring.networks import UNPRUNED, NetworkBench, pruned_copy, random_network
from prunebench.questions import NetworkCase
from prunebench.reference import CheckFailed


@pytest.fixture(autouse=True)
def native():
    if engine.available() is not None:
        pytest.skip(engine.available())


class Eager:
    """A backend that runs the model as it is; tests change what it answers."""

    def __init__(self, model, example_input, threads=1):
        self.model, self.nbytes = model, 1

    def __call__(self, x):
        with torch.inference_mode():
            return self.model(x)


def timed(monkeypatch, **seconds):
    """Every arm takes the seconds given for it, without being run."""
    seen = []

    def sample(arms, control, *, least=6, **options):
        seen.append((set(arms), control))
        return {name: [seconds[name]] * least for name in arms} | {"a/a": [seconds[control]] * least}

    monkeypatch.setattr(measure_networks, "sample", sample)
    return seen


def test_the_facts_of_a_network(monkeypatch):
    facts = NetworkBench(0.0).measure(NetworkCase("lenet300", 0.9, 3)).facts
    check_answer(json.loads(json.dumps(facts, allow_nan=False)))
    assert set(facts["arms"]) == {"dense", UNPRUNED, "csr"}  # no convolution: channels_last is no other way
    assert all(arm["status"] == "ok" and arm["relative_error"] < 1e-5 for arm in facts["arms"].values())
    assert (facts["baseline"], facts["arms"]["dense"]["speedup"]) == ("dense", 1.0)
    assert facts["nonzeros"] == 266_200 - sum(pruned_count(n, 0.9) for n in (784 * 300, 300 * 100, 1000))
    assert facts["speedup"] == facts["arms"]["csr"]["speedup"]
    assert facts["latency_seconds"] == facts["arms"]["csr"]["seconds"]
    assert facts["disk_bytes"] < facts["dense_disk_bytes"]
    assert facts["input_shape"] == [1, 28, 28]


def test_the_fastest_dense_arm_is_the_baseline(monkeypatch):
    times = {"dense": 4.0, "dense_channels_last": 2.0, UNPRUNED: 1.0, "csr": 0.5}
    seen = timed(monkeypatch, **times)
    facts = NetworkBench().measure(NetworkCase("lenet5", 0.9, 2)).facts
    assert (facts["baseline"], facts["baseline_seconds"]) == ("dense_channels_last", 2.0)
    assert facts["speedup"] == pytest.approx(4.0)
    assert facts["arms"][UNPRUNED]["speedup"] == pytest.approx(2.0)  # the engine is never its own baseline
    # The slow one was timed in the trial only, and says so.
    assert seen == [(set(times), "dense"), (set(times) - {"dense"}, "dense_channels_last")]
    assert facts["arms"]["dense"]["blocks"] == 2
    assert facts["arms"]["dense"]["speedup"] == pytest.approx(0.5)
    assert facts["arms"]["dense"]["verdict"] is None


def test_the_blocks_that_count_decide_which_dense_arm_was_the_fastest(monkeypatch):
    rounds = iter([{"dense": 2.0, "dense_channels_last": 2.2}, {"dense": 2.2, "dense_channels_last": 2.0}])

    def sample(arms, control, *, least=6, **options):
        times = {UNPRUNED: 1.0, "csr": 0.5} | next(rounds)
        return {name: [times[name]] * least for name in arms} | {"a/a": [times[control]] * least}

    monkeypatch.setattr(measure_networks, "sample", sample)
    facts = NetworkBench().measure(NetworkCase("lenet5", 0.9, 2)).facts
    assert facts["baseline"] == "dense_channels_last"
    assert facts["speedup"] == pytest.approx(4.0)


def test_one_unlucky_block_drops_no_arm(monkeypatch):
    trial = {"dense": [1.0, 1.0], "dense_channels_last": [9.0, 0.9], UNPRUNED: [1.0, 1.0], "csr": [0.5, 0.5]}
    rounds = iter(
        [trial, {"dense": [1.0] * 6, "dense_channels_last": [0.8] * 6, UNPRUNED: [1.0] * 6, "csr": [0.4] * 6}]
    )
    monkeypatch.setattr(
        measure_networks, "sample", lambda arms, control, **options: (one := next(rounds)) | {"a/a": one[control]}
    )
    facts = NetworkBench().measure(NetworkCase("lenet5", 0.9, 2)).facts
    assert facts["baseline"] == "dense_channels_last"
    assert facts["speedup"] == pytest.approx(2.0)


def test_a_peer_that_is_missing_or_wrong_says_so_and_is_not_timed(monkeypatch, registry_sandbox):
    @pb.backend("missing")
    class Missing(Eager):
        @staticmethod
        def unavailable():
            return "not installed"

    @pb.backend("refuses")
    class Refuses(Eager):
        def __init__(self, *args, **options):
            raise BackendUnavailable("took more than 60 s")

    @pb.backend("wrong")
    class Wrong(Eager):
        def __call__(self, x):
            return super().__call__(x) * 1.01

    pb.backend("right")(Eager)
    seen = timed(monkeypatch, dense=2.0, right=1.0, csr_unpruned=1.0, csr=0.5)
    case = NetworkCase("lenet300", 0.9, 2, peers=("dense", "missing", "refuses", "wrong", "right"))
    facts = NetworkBench().measure(case).facts
    check_answer(facts)
    arms = facts["arms"]
    assert (arms["missing"]["status"], arms["missing"]["reason"]) == ("off", "not installed")
    assert (arms["refuses"]["status"], arms["refuses"]["reason"]) == ("off", "took more than 60 s")
    assert arms["wrong"]["status"] == "failed"
    assert "float64" in arms["wrong"]["reason"]
    assert facts["baseline"] == "right"
    assert seen[0][0] == {"dense", "right", UNPRUNED, "csr"}


def test_a_wrong_engine_is_refused_before_any_timing(monkeypatch, registry_sandbox):
    @pb.backend("sloppy")
    class Sloppy(Eager):
        def __call__(self, x):
            return super().__call__(x) + 1

    monkeypatch.setattr(measure_networks, "sample", lambda *a, **k: pytest.fail("timed a wrong engine"))
    case = NetworkCase("lenet300", 0.9, 2, backend="sloppy")
    with pytest.raises(CheckFailed, match="lenet300-s900-sloppy-b2-t1"):
        NetworkBench().measure(case)
    failed = NetworkBench().failed(case, "why")
    check_answer(failed)
    assert (failed["status"], failed["arms"]) == ("failed", None)


def test_the_stem_stays_dense_and_every_other_layer_has_the_sparsity():
    dense = random_network("resnet20")
    pruned = pruned_copy(dense, 0.9)
    for name, module in prunable_modules(pruned).items():
        zeros = int((module.weight == 0).sum())
        assert zeros == (0 if name == "stem.weight" else pruned_count(module.weight.numel(), 0.9)), name
    assert all(bool((m.weight != 0).all()) for m in prunable_modules(dense).values())


def test_random_networks_are_the_same_every_time_and_have_statistics():
    one, two = (random_network("resnet20").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not np.isclose(float(one["bn.running_var"].mean()), 1.0, atol=1e-6)
