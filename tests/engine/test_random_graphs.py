"""Random networks through the engine against float64 torch: every seed is another network.

PRUNEBENCH_FUZZ=2000 pytest tests/engine/test_random_graphs.py   a long campaign: that many seeds
PRUNEBENCH_FUZZ_FROM=150                                         the first seed, for a campaign that goes on
python tests/random_cnn.py SEED                                  shows the network of one seed
"""

from __future__ import annotations

import os

import pytest
import torch
from random_cnn import BATCHES, SPARSITIES, Builder, Residual, Tap, describe, distance, float64, input_of

import prunebench as pb
from prunebench.engine import available
from prunebench.errors import UsageError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

SEEDS = 150
COUNT = int(os.environ.get("PRUNEBENCH_FUZZ") or SEEDS)
FIRST = int(os.environ.get("PRUNEBENCH_FUZZ_FROM") or 0)
TOLERANCE = 1e-4
# Engine.form: the compiler gives up a form that is wrong on the example, which would hide a bug
FASTEST = ("traced", "native", "channels_last", "frozen")  # the last three where measuring finds them faster


def batches(builder: Builder) -> tuple[int, int, int]:
    """The batch to compile for, and two more."""
    chosen = builder.r.sample(BATCHES, 3)
    if builder.seed % 5 == 0:
        chosen[0] = 1
    return chosen[0], chosen[1], chosen[2]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_network(seed):
    builder = Builder(seed)
    first, *others = batches(builder)
    x = input_of(builder, first)
    kept = x.clone()
    # a blank example tells a compiler that checks itself little: what it does must be right without
    example = torch.zeros_like(x) if seed % 3 == 0 else x
    engine = pb.compile(builder.model, example, backend="csr", threads=1 + seed % 2, tune=seed % 4 == 0)
    assert engine.engine.form in FASTEST or "tap alias" in builder.used, f"given up: {describe(builder)}"
    for n in (first, *others):
        y = x if n == first else input_of(builder, n)
        want = float64(builder.model, y)
        worst = distance(engine(y), want)
        assert worst < TOLERANCE, f"batch {n} after {first}: {worst:.1e} from float64: {describe(builder)}"
    assert torch.equal(x, kept), "the engine wrote into its input"
    check_another_size(builder, engine)


def check_another_size(builder: Builder, engine) -> None:
    """Images of another size: right, or refused; never wrong."""
    h, w = builder.example.shape[2:]
    x = input_of(builder, 2, (h + 1, w + 3))
    try:
        want = float64(builder.model, x)
    except RuntimeError:  # a head that wants its size
        with pytest.raises(UsageError):
            engine(x)
        return
    try:
        got = engine(x)
    except UsageError:
        return
    assert distance(got, want) < TOLERANCE, f"size {h + 1} x {w + 3} after {h} x {w}: {describe(builder)}"


def test_the_seeds_cover_what_networks_are_made_of():
    used = set().union(*(Builder(seed).used for seed in range(SEEDS)))
    expected = {
        "concat", "dense block", "depthwise", "depthwise separable", "groups", "residual", "shuffle", "shared layer",
        "gating", "norm first", "functional", "ConvTranspose2d", "several outputs", "empty filter", "unread channel",
        "empty layer", "odd size", "even size", "oblong", "dilation 2", "dilation 3", "pad value 0.5",
        "max pool", "max pool padding", "max pool ceil", "max pool dilation", "avg pool padding", "avg pool ceil",
        "avg pool count", "split by chunk", "split by split", "split by slice", "upsample nearest", "upsample bilinear",
    }  # fmt: skip
    expected |= {f"kernel {k}" for k in (1, 2, 3, 4, 5, 7, (1, 3), (3, 1), (5, 3))}
    expected |= {f"stride {s}" for s in (1, 2, 3)} | {f"sparsity {s}" for s in SPARSITIES}
    expected |= {f"padding {p}" for p in ("half", "valid", "same", "asymmetric", "module", "wide", "uneven")}
    expected |= {f"padding mode {m}" for m in ("reflect", "replicate", "circular")}
    expected |= {f"squeeze by {m}" for m in ("mean", "pool", "function", "linear")}
    expected |= {f"head {h}" for h in ("mean", "pool", "flatten", "map", "softmax", "log_softmax", "hidden")}
    expected |= {f"sum {form}" for form in Residual.FORMS}
    expected |= {f"tap {form}" for form in Tap.FORMS}
    expected |= {f"shared {form}" for form in ("chain", "sum", "sum without norm")}
    expected |= {f"activation {a}" for a in ("ReLU", "ReLU6", "Hardswish", "SiLU", "Sigmoid", "LeakyReLU", "PReLU")}
    assert not expected - used


def test_the_comparison_sees_one_wrong_weight():
    """The largest weight of the first layer, made a tenth larger, shows in the output of most networks."""
    seen = []
    for seed in range(40):
        builder = Builder(seed)
        x = input_of(builder, 3)
        want = float64(builder.model, x)
        layer = next(m for m in builder.model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)))
        layer.weight.view(-1)[int(layer.weight.abs().argmax())] *= 1.1
        seen.append(distance(builder.model(x), want) > TOLERANCE)
    assert sum(seen) >= 34, seen
