"""Prune and regrow: moves against brute force, exact counts, fresh momentum, and when a move takes place."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunebench.recipe import Recipe
from prunebench.regrow import Regrower, fraction, moved, rescale

RECIPE = Recipe(regrow="gradient", regrow_fraction=0.5, regrow_every=3, regrow_until=0.75)


def brute(weight, mask, merit, count):
    """Algorithm 1 of RigL with lists: drop the smallest magnitudes, grow the highest merits of all not kept."""
    w, m, g = weight.flatten().tolist(), mask.flatten().tolist(), merit.flatten().tolist()
    inside = sorted((i for i in range(len(m)) if m[i]), key=lambda i: (abs(w[i]), i))
    kept = set(inside[count:])
    outside = sorted((i for i in range(len(m)) if i not in kept), key=lambda i: (-g[i], i))
    kept |= set(outside[: min(count, len(inside))])
    return torch.tensor([i in kept for i in range(len(m))]).view(mask.shape)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_a_move_is_that_of_brute_force(seed, count, ties):
    torch.manual_seed(seed)
    weight, merit = torch.randn(4, 6), torch.rand(4, 6)
    if ties:
        weight, merit = weight.round(), (3 * merit).round()
    mask = torch.rand(4, 6) < 0.4
    mask[0, 0] = True
    weight = weight * mask
    after = moved(weight, mask, merit, count)
    assert torch.equal(after, brute(weight, mask, merit, count))
    assert int(after.sum()) == int(mask.sum())


def test_a_move_by_hand():
    weight = torch.tensor([3.0, -0.1, 2.0, 0.0, 0.0, 0.5])
    mask = torch.tensor([True, True, True, False, False, True])
    merit = torch.tensor([9.0, 0.2, 9.0, 0.1, 0.7, 0.3])
    # Dropped: -0.1 and 0.5. The best outside are the fifth (0.7) and the sixth itself (0.3), which so stays.
    assert moved(weight, mask, merit, 2).tolist() == [True, False, True, False, True, True]
    assert torch.equal(moved(weight, mask, merit, 0), mask)


def test_a_kept_zero_is_dropped_first_and_counts():
    weight = torch.tensor([0.0, 1.0, 0.0, 0.0])  # the first is inside the mask all the same
    mask = torch.tensor([True, True, False, False])
    assert moved(weight, mask, torch.tensor([0.0, 0.0, 0.0, 5.0]), 1).tolist() == [False, True, False, True]


def test_the_share_that_moves_falls_along_a_cosine():
    assert [fraction(0.3, t) for t in (0, 0.5, 1)] == pytest.approx([0.3, 0.15, 0])
    assert fraction(0.3, 0.25) == pytest.approx(0.15 * (1 + math.cos(math.pi / 4)))


def world(recipe=RECIPE, optimizer="sgd", seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    weights = {"0.weight": net[0].weight, "2.weight": net[2].weight}
    held = {"masks": {name: torch.rand(w.shape) < 0.4 for name, w in weights.items()}}

    def replace(masks):
        held["masks"] = dict(masks)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(masks[name])

    replace(held["masks"])
    rule = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    if optimizer == "adam":
        rule = torch.optim.Adam(net.parameters(), 0.1)
    generator = torch.Generator().manual_seed(seed)
    return net, weights, held, rule, Regrower(recipe, weights, lambda: held["masks"], replace, generator)


def learn(net, rule, step=True):
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
    rule.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    if step:
        rule.step()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_grown_weights_start_at_zero_without_momentum(optimizer):
    net, weights, held, rule, regrower = world(optimizer=optimizer)
    learn(net, rule)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.mul_(held["masks"][name])
    learn(net, rule, step=False)
    before = {name: mask.clone() for name, mask in held["masks"].items()}
    values = {name: w.detach().clone() for name, w in weights.items()}
    moments = {n: {k: t.clone() for k, t in rule.state[w].items()} for n, w in weights.items()}
    wanted = {}
    for name, weight in weights.items():
        wanted[name] = brute(weight.detach(), before[name], weight.grad.abs(), math.floor(before[name].sum() / 2 + 0.5))
    regrower.move(0.5, rule)
    grown = 0
    for name, weight in weights.items():
        after = held["masks"][name]
        assert torch.equal(after, wanted[name])
        new, stayed = after & ~before[name], after & before[name]
        grown += int(new.sum())
        assert torch.equal(weight[new], torch.zeros(int(new.sum())))
        assert torch.equal(weight[stayed], values[name][stayed])
        assert not weight[~after].any()
        for kind, tensor in rule.state[weight].items():
            if tensor.shape == weight.shape:
                assert not tensor[new].any()
                assert torch.equal(tensor[~new], moments[name][kind][~new])
            else:
                assert torch.equal(tensor, moments[name][kind])
    assert grown > 0


def test_it_moves_at_every_nth_step_until_its_share():
    net, _, held, rule, regrower = world()
    counts = {name: int(m.sum()) for name, m in held["masks"].items()}
    did = []
    for step in range(20):
        learn(net, rule, step=False)
        did.append(regrower.step(step, 20, rule))
        assert {name: int(m.sum()) for name, m in held["masks"].items()} == counts
    assert [i for i, yes in enumerate(did) if yes] == [3, 6, 9, 12]  # multiples of 3 below 15, 0 left out


def test_random_growth_is_its_generator_s():
    recipe = Recipe(regrow="random", regrow_fraction=0.9)
    masks = []
    for draw in (0, 0, 1):
        net, _, held, rule, regrower = world(recipe)
        regrower.generator.manual_seed(draw)
        learn(net, rule, step=False)
        regrower.move(0.9, rule)
        masks.append(torch.cat([m.flatten() for m in held["masks"].values()]))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_growth_follows_the_gradient_of_the_loss():
    # y depends on input 2 alone, which the mask leaves out: the first move must find it.
    torch.manual_seed(0)
    layer = nn.Linear(4, 1, bias=False)
    mask = torch.tensor([[True, True, False, False]])
    held = {"weight": mask}
    regrower = Regrower(RECIPE, {"weight": layer.weight}, lambda: held, held.update, torch.Generator())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, 0.01, 0.0, 0.0]]))
    x = torch.randn(200, 4)
    (layer(x) - 5 * x[:, 2:3]).square().mean().backward()
    regrower.move(0.5, torch.optim.SGD(layer.parameters(), 0.1))
    assert held["weight"].tolist() == [[True, False, True, False]]


def test_rescaling_keeps_the_variance_of_a_dense_layer():
    torch.manual_seed(0)
    layer, x = nn.Linear(400, 300, bias=False), torch.randn(100, 400)
    dense = float(layer(x).detach().var())
    mask = torch.rand(300, 400) < 0.1
    layer.weight.data.mul_(mask)
    rescale({"weight": layer.weight}, {"weight": mask})
    assert float(layer(x).detach().var()) == pytest.approx(dense, rel=0.05)
