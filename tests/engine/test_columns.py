"""Linear layers at batch 1 by columns: inputs that are zero are skipped."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.engine import compile_engine
from prunebench.engine.weights import Weights


def net(sizes=(200, 120, 30), sparsity=0.8, relu=True):
    torch.manual_seed(0)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.ReLU(), nn.Linear(a, b)] if relu and layers else [nn.Linear(a, b)]
    model = nn.Sequential(*layers).eval()
    pb.prune(model, sparsity)
    return model


def mostly_zero(n=1, features=200, share=0.9, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=g)
    return x * (torch.rand(n, features, generator=g) > share)


def tiles(engine):
    return {r["layer"]: r["tile"] for r in engine.summary() if r["kernel"] == "csr"}


def error(engine, model, x):
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
    return float((engine(x) - want).abs().max() / want.abs().max())


def test_the_example_decides():
    model = net()
    assert tiles(compile_engine(model, mostly_zero(), threads=1))["0"] == "column"
    assert tiles(compile_engine(model, torch.randn(1, 200), threads=1))["0"] == "row"
    assert tiles(compile_engine(model, torch.zeros(1, 200), threads=1))["0"] == "row", "nothing but zeros says nothing"


@pytest.mark.parametrize("sizes", [(200, 120, 30), (1, 5), (513, 7), (1025, 64, 3), (200, 1)])
def test_it_agrees_with_float64_whatever_comes_later(sizes):
    model = net(sizes)
    engine = compile_engine(model, mostly_zero(features=sizes[0]), threads=1)
    for x in (mostly_zero(features=sizes[0], seed=3), torch.randn(1, sizes[0]), torch.ones(1, sizes[0])):
        assert error(engine, model, x) < 1e-5
    zeros = torch.zeros(1, sizes[0])
    torch.testing.assert_close(engine(zeros), model(zeros).detach(), rtol=1e-5, atol=1e-6)


def test_a_batch_goes_by_rows_again():
    model = net()
    engine = compile_engine(model, mostly_zero(), threads=1)
    alone = engine.nbytes
    for n in (64, 16, 5, 1):
        assert error(engine, model, mostly_zero(n)) < 1e-5
    assert alone < engine.nbytes < 3 * alone


def test_what_was_compiled_for_a_batch_keeps_one_pack():
    model = net((784, 300), sparsity=0.9)
    engine = compile_engine(model, mostly_zero(16, features=784), threads=1)
    for n in (1, 16, 1):
        assert error(engine, model, mostly_zero(n, features=784)) < 1e-5
    assert tiles(engine)["0"] != "column"
    assert engine.nbytes - 300 * 4 <= 8.5 * int((model[0].weight != 0).sum()), "6 and 2 for a second layout"


def test_nan_and_infinity_reach_what_a_weight_connects():
    model = net((8, 6), sparsity=0.5, relu=False)
    engine = compile_engine(model, mostly_zero(features=8, share=0.6), threads=1)
    assert tiles(engine)["0"] == "column"
    connected = model[0].weight.detach()[:, 3] != 0
    for bad in (float("nan"), float("inf")):
        x = torch.ones(1, 8)
        x[0, 3] = bad
        assert torch.equal(~torch.isfinite(engine(x)[0]), connected)


def test_bytes_a_nonzero_stay_what_they_are_by_rows():
    model = net((784, 300), sparsity=0.9)
    engine = compile_engine(model, mostly_zero(features=784), threads=1)
    nonzeros = int((model[0].weight != 0).sum())
    assert tiles(engine)["0"] == "column"
    assert engine.nbytes - 300 * 4 <= 6.5 * nonzeros


def test_the_weight_can_be_had_back_from_either_pack():
    g = np.random.default_rng(0)
    matrix = (g.standard_normal((37, 91)) * (g.random((37, 91)) > 0.7)).astype(np.float32)
    weights = Weights(matrix, None, 1)
    weights.settle(weights.columns())
    rows = weights.pack(16)
    assert np.array_equal(rows.unpacked(37, 91), matrix)
    assert np.array_equal(weights.columns().unpacked(91, 37), matrix.T)
    with pytest.raises(ValueError, match="size"):
        rows.unpacked(91, 37)


@pytest.mark.parametrize(("seen", "by_columns"), [(0.0, False), (0.2, False), (0.95, True), (1.0, False)])
def test_it_is_chosen_where_enough_inputs_are_zero(seen, by_columns):
    weights = Weights(np.eye(100, 400, dtype=np.float32).repeat(1, 0) + 1, None, 1)
    weights.idle = seen
    assert weights.by_columns is by_columns
