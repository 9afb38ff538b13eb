"""What claims need, measured: a network whose weights are all masked, and a layer through SciPy."""

import json

import numpy as np
import pytest
import torch

from prunebench import backends
from prunebench.answers import check_answer
from prunebench.masks import prunable_modules
from prunebench.measuring import claims as measure_claims
from prunebench.measuring.arms import random_network
from prunebench.measuring.claims import ClaimBench, masked_copy
from prunebench.questions import ClaimCase, LayerCase
from prunebench.reference import CheckFailed
from prunebench.shapes import linear

ALL = ClaimCase("lenet300", "masked", 1.0, 3)
LAYER = ClaimCase("linear_784_300", "scipy_csr", 0.9, 3, layer=LayerCase(linear(784, 300), ("lenet300",), 0.9, 3))


@pytest.mark.parametrize("measured", [ALL, LAYER], ids=lambda measured: measured.id)
def test_the_facts_are_complete(measured):
    facts = ClaimBench(0.0).measure(measured).facts
    check_answer(json.loads(json.dumps(facts, allow_nan=False)))
    assert (facts["question"], facts["status"], facts["baseline"]) == ("claims", "ok", "dense")
    assert facts["relative_error"] < 1e-5
    assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]
    assert facts["blocks"] >= 6


def test_every_weight_is_masked_and_takes_its_place_all_the_same():
    facts = ClaimBench(0.0).measure(ALL).facts
    assert (facts["nonzeros"], facts["macs"], facts["prunable"]) == (0, 0, 266_200)
    assert facts["dense_resident_bytes"] == 4 * 266_610
    assert facts["resident_bytes"] > 2 * facts["dense_resident_bytes"]


def test_a_layer_is_compared_with_itself_dense():
    facts = ClaimBench(0.0).measure(LAYER).facts
    assert facts["nonzeros"] == 23_520
    assert facts["dense_resident_bytes"] == 4 * (784 * 300 + 300)
    assert facts["resident_bytes"] == 23_520 * 8 + 301 * 4 + 300 * 4


def test_masking_everything_leaves_the_biases_and_the_original():
    whole = random_network("lenet5")
    twin = masked_copy(whole, 1.0)
    assert all(not m.weight.any() for m in prunable_modules(twin).values())
    assert all(m.weight.any() for m in prunable_modules(whole).values())
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(twin(x)[0], twin(x)[1])
    assert torch.equal(twin(x)[0], list(twin.modules())[-1].bias)


def test_the_network_is_timed_without_its_masks(monkeypatch):
    seen = {}

    def compare(arms, baseline, **options):
        seen.update({name: np.asarray(call()) for name, call in arms.items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(measure_claims, "compare", compare)
    with pytest.raises(KeyboardInterrupt):
        ClaimBench(0.0).measure(ALL)
    assert np.ptp(seen["dense"], axis=0).max() > 0.01  # images differ
    assert np.ptp(seen["it"], axis=0).max() == 0


def test_a_wrong_output_is_never_timed(monkeypatch):
    class Wrong:
        nbytes = 1

        def __call__(self, x):
            return torch.ones(len(x), 10)

    real = backends.compile
    monkeypatch.setattr(
        backends, "compile", lambda model, x, name, *a, **k: Wrong() if name == "masked" else real(model, x, name, *a)
    )
    monkeypatch.setattr(measure_claims, "compare", lambda *a, **k: pytest.fail("timed"))
    with pytest.raises(CheckFailed, match="lenet300-s1000-masked-b3-t1"):
        ClaimBench(0.0).measure(ALL)
    assert ClaimBench(0.0).failed(ALL, "no")["reason"] == "no"
