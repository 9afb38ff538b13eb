"""How many threads a plan takes: all, or one where its operations are too short to share."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.engine import compile_engine, tuner
from prunebench.engine.choice import Choice
from prunebench.engine.native_loader import native

pytestmark = pytest.mark.skipif(native().cores() < 2, reason="one core: there is nobody to share with")


def net(width, depth=3):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    pb.prune(model, 0.8)
    return model


def plans(engine):
    return [plan for segment in engine._segments for plan in segment.plans.values()]


def compiled(model, x, **options):
    engine = compile_engine(model, x, threads=2, **options)
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
    return engine


def test_short_operations_stay_on_one_thread():
    (plan,) = plans(compiled(net(4), torch.randn(1, 3, 8, 8)))
    assert plan.sharing < 1
    assert plan.threads == 1


def test_long_operations_are_shared():
    (plan,) = plans(compiled(net(64), torch.randn(1, 3, 64, 64)))
    assert plan.sharing > 1
    assert plan.threads == 2


def test_enough_groups_are_always_shared():
    (plan, *_) = plans(compiled(net(4), torch.randn(16, 3, 32, 32)))
    assert plan.threads == 2


def test_a_large_linear_layer_at_batch_1_is_shared():
    model = nn.Sequential(nn.Linear(2000, 1500)).eval().requires_grad_(False)
    pb.prune(model, 0.5)
    assert plans(compiled(model, torch.randn(1, 2000)))[0].threads == 2


def test_a_choice_overrules_the_model_and_is_repeated():
    model, x = net(64), torch.randn(1, 3, 64, 64)
    choices = [{**c, "threads": 1} for c in compiled(model, x, tune=True).choices]
    assert plans(compiled(model, x, tune=choices))[0].threads == 1
    assert Choice.from_dict({**Choice(threads=2).as_dict()}).threads == 2


def test_what_is_clear_is_not_measured(monkeypatch):
    measured = []
    monkeypatch.setattr(tuner._Bench, "seconds", lambda self, plan: measured.append(plan.threads) or 1.0)
    monkeypatch.setattr(tuner, "_known", {})
    engine = compiled(net(96), torch.randn(1, 3, 64, 64), tune=True)
    assert 1 not in measured
    assert plans(engine)[0].threads == 2
