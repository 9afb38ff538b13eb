"""Layers measured: complete facts that add up, a baseline chosen once a shape, nothing timed that is wrong."""

import json

import pytest
import torch

import prunebench as pb
from prunebench import engine, roofs
from prunebench.answers import LAYER_FIELDS, check_answer
from prunebench.measuring import layers as measure_layers
from prunebench.measuring.layers import LayerBench
from prunebench.questions import LayerCase
from prunebench.reference import CheckFailed
from prunebench.shapes import conv, linear

CONV = LayerCase(conv(8, 16, 3, 6, 2), ("resnet20",), 0.75, 2)
LINEAR = LayerCase(linear(40, 20), ("lenet5", "lenet300"), 0.75, 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    if engine.available() is not None:
        pytest.skip(engine.available())
    monkeypatch.setattr(roofs, "measure", lambda threads: {"l1": None, "l2": None, "dense": 50.0})


@pytest.fixture
def bench():
    return LayerBench(0.0)


def test_the_facts_of_a_convolution_add_up(bench):
    measured = bench.measure(CONV)
    facts = measured.facts
    check_answer(json.loads(json.dumps(facts, allow_nan=False)))
    assert (facts["status"], facts["backend"], facts["batch_size"], facts["threads"]) == ("ok", "csr", 2, 1)
    assert facts["prunable"] == 8 * 16 * 9
    assert facts["nonzeros"] == 8 * 16 * 9 // 4
    assert (facts["macs"], facts["macs_dense"]) == (9 * facts["nonzeros"], 9 * facts["prunable"])  # 3 x 3 outputs
    assert facts["useful_gflops"] == pytest.approx(2 * facts["macs"] * 2 / facts["latency_seconds"] / 1e9)
    assert facts["dense_equivalent_gflops"] == pytest.approx(4 * facts["useful_gflops"])
    assert (facts["roof"], facts["roof_percent"]) == ("dense", pytest.approx(2 * facts["useful_gflops"]))
    assert facts["baseline"] in ("dense", "dense_channels_last")
    assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]
    assert facts["relative_error"] < 1e-5
    assert facts["layer"]["id"] == CONV.layer.id
    assert facts["kernel"]
    assert [name for name in LAYER_FIELDS if facts[name] is None and name != "tile"] == []
    assert measured.call().shape == (2, 16, 3, 3)


def test_a_linear_layer_has_one_dense_way(bench):
    facts = bench.measure(LINEAR).facts
    assert facts["baseline"] == "dense"
    assert facts["networks"] == ["lenet5", "lenet300"]
    assert facts["cell"]["model"] == "lenet5"


def test_the_l1_roof_is_taken_where_there_is_one(bench, monkeypatch):
    monkeypatch.setattr(roofs, "measure", lambda threads: {"l1": 10.0, "l2": 5.0, "dense": 50.0})
    facts = bench.measure(LINEAR).facts
    assert (facts["roof"], facts["roof_percent"]) == ("l1", pytest.approx(10 * facts["useful_gflops"]))
    assert facts["roofs"] == {"l1": 10.0, "l2": 5.0, "dense": 50.0}


def test_roof_and_baseline_are_measured_once(bench, monkeypatch):
    compared = []
    compare = measure_layers.compare
    monkeypatch.setattr(measure_layers, "compare", lambda a, b, **k: compared.append(set(a)) or compare(a, b, **k))
    first = bench.measure(CONV).facts
    monkeypatch.setattr(roofs, "measure", lambda threads: pytest.fail("measured again"))
    again = bench.measure(LayerCase(CONV.layer, CONV.networks, 0.5, 2)).facts
    assert first["baseline"] == again["baseline"]
    assert compared == [{"dense", "dense_channels_last"}, *[{first["baseline"], "engine"}] * 2]


def test_a_wrong_layer_is_refused_before_any_timing(bench, registry_sandbox, monkeypatch):
    @pb.backend("sloppy")
    class Sloppy:
        def __init__(self, model, example_input, threads=1):
            self.model = model

        def __call__(self, x):
            with torch.inference_mode():
                return self.model(x) * 1.01

    monkeypatch.setattr(measure_layers, "compare", lambda *a, **k: pytest.fail("timed a wrong layer"))
    case = LayerCase(LINEAR.layer, LINEAR.networks, 0.5, 3, backend="sloppy")
    with pytest.raises(CheckFailed, match="linear_40_20-s500-sloppy-b3-t1"):
        bench.measure(case)
    failed = bench.failed(case, "why")
    check_answer(failed)
    assert (failed["status"], failed["reason"], failed["layer"]["id"]) == ("failed", "why", "linear_40_20")
