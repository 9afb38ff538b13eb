"""A plugin that reaches for the model beside its task is refused by name, and the model is put back as it was."""

import itertools
import sys

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.errors import PluginError
from prunebench.masks import LayerCollapseWarning, prunable_modules
from prunebench.units import UnitSet

pytestmark = pytest.mark.filterwarnings(f"ignore::{LayerCollapseWarning.__module__}.LayerCollapseWarning")


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model[3].eval()
    return model


def everything(model):
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "tensors": [id(t) for t in tensors],
        "values": [t.detach().flatten().tolist() for t in tensors],
        "flags": [t.requires_grad for t in tensors],
        "gradients": [(id(t.grad), t.grad.flatten().tolist()) for t in tensors if t.grad is not None],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "layers": [id(m) for m in model.modules()],
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def another_weight(model, layer):
    with torch.no_grad():
        model[5].weight.mul_(2)


def another_weight_unseen(model, layer):
    model[5].weight.data.mul_(2)


def running_statistics(model, layer):
    model[1].running_mean.add_(1)


def gradients(model, layer):
    model.zero_grad()


def gradients_in_place(model, layer):
    model[5].weight.grad.zero_()


def the_mode(model, layer):
    model.eval()


def frozen(model, layer):
    layer.module.weight.requires_grad_(False)


def a_hook(model, layer):
    layer.module.register_forward_hook(lambda *_: None)


def another_parameter(model, layer):
    layer.module.weight = nn.Parameter(layer.weight.clone())


def no_parameter(model, layer):
    del layer.module.weight


def another_size(model, layer):
    layer.module.weight.data = torch.zeros(2, 2)


def a_buffer(model, layer):
    layer.module.register_buffer("cache", layer.weight.clone())


def a_layer(model, layer):
    layer.module.add_module("extra", nn.Linear(2, 2))


def half(model, layer):
    model.half()


def no_gradients_any_more(model, layer):
    torch.set_grad_enabled(False)


def other_numbers(model, layer):
    torch.set_default_dtype(torch.float64)


CHEATS = [
    another_weight, another_weight_unseen, running_statistics, gradients, gradients_in_place, the_mode, frozen, a_hook,
    another_parameter, no_parameter, another_size, a_buffer, a_layer, half, no_gradients_any_more, other_numbers,
]  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS, ids=[c.__name__ for c in CHEATS])
def test_a_criterion_that_changes_the_model(cheat, registry_sandbox):
    model = network()

    @pb.criterion("cheat")
    def criterion(layer):
        scores = layer.weight.abs()
        cheat(model, layer)
        return scores

    before = everything(model)
    with pytest.raises(PluginError, match=r"'cheat' changed .*\b[0-5]|'cheat' changed (the mode|torch's own)") as error:
        pb.prune(model, 0.5, "cheat")
    assert "\n" not in str(error.value)
    assert everything(model) == before


@pytest.mark.parametrize("cheat", [another_weight_unseen, running_statistics, the_mode, a_hook, another_parameter])
def test_an_update_that_changes_the_model(cheat, registry_sandbox):
    model = network()

    def update(layer, keep):
        cheat(model, layer)
        return layer.weight * keep

    pb.criterion("cheat", update=update)(lambda layer: layer.weight.abs())
    before = everything(model)
    with pytest.raises(PluginError, match="'cheat': its update changed"):
        pb.prune(model, 0.5, "cheat")
    assert everything(model) == before


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda layer: sys.exit(3), "raised on 0.weight: SystemExit"),
        (lambda layer: layer.weight.to("meta"), "meta"),
        (lambda layer: layer.weight.to_sparse(), "sparse"),
        (lambda layer: torch.quantize_per_tensor(layer.weight, 0.1, 0, torch.qint8), "plain"),
        (lambda layer: layer.weight.abs().numpy(), "ndarray"),
        # In float32 these would be infinite: the lowest would count as pruned before.
        (lambda layer: -layer.weight.abs().double() * 1e300, "beyond"),
    ],
)
def test_scores_that_can_not_be_ranked(scores, words, registry_sandbox):
    pb.criterion("cheat")(scores)
    model = network()
    before = everything(model)
    with pytest.raises(PluginError, match=f"'cheat'.*{words}"):
        pb.prune(model, 0.5, "cheat")
    assert everything(model) == before


def test_a_scope_that_writes_into_scores_never_reaches_the_weights(registry_sandbox):
    pb.criterion("itself")(lambda layer: layer.weight)
    model = network()

    @pb.scope("cheat")
    def cheat(sets, sparsity):
        sets[0].scores.neg_()
        return [s.units // 2 for s in sets]

    before = everything(model)
    with pytest.raises(PluginError, match=r"'cheat' changed the scores of 0\.weight"):
        pb.prune(model, 0.5, "itself", "cheat")
    assert everything(model) == before


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (lambda sets, s: [0 for _ in sets], "removes 0 weights where 270"),
        (lambda sets, s: [x.units - 1 for x in sets], "removes 538 weights where 270"),
        (lambda sets, s: [x.units * s + 0.5 for x in sets], r"54\.5 for 0\.weight; give a whole number"),
        (lambda sets, s: [float("nan") for _ in sets], "raised"),
        (lambda sets, s: sys.exit(1), "SystemExit"),
    ],
)
def test_a_scope_that_misses_the_total(counts, words, registry_sandbox):
    pb.scope("cheat")(counts)
    model = network()
    before = everything(model)
    with pytest.raises(PluginError, match=f"'cheat'.*{words}"):
        pb.prune(model, 0.5, scope="cheat")
    assert everything(model) == before


@pytest.mark.parametrize("granularity", ["weight", "filter", "block"])
def test_a_scope_of_one_s_own_may_round_layer_by_layer(granularity, registry_sandbox):
    pb.scope("mine")(lambda sets, sparsity: [int(s.units * sparsity) for s in sets])
    for sparsity in (0.0, 0.1, 0.5, 0.99):
        model = network()
        pb.prune(model, sparsity, scope="mine", granularity=granularity)
        weights = [module.weight for module in prunable_modules(model).values()]
        removed = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
        assert removed <= sparsity
        assert sparsity < 0.5 or removed > 0


def test_a_schedule_that_falls_or_changes_its_mind(registry_sandbox):
    pb.schedule("falling")(lambda t: 1.0 if t == 1 else 0.8 - 0.5 * t)
    calls = itertools.count()
    pb.schedule("moody")(lambda t: 1.0 if t == 1 else 0.9 * (1 - 0.5 ** next(calls)))
    for name, words in (("falling", "falls from"), ("moody", "let t alone decide")):
        with pytest.raises(PluginError, match=f"'{name}'.*{words}"):
            pb.Pruner(network(), 0.5, schedule=name, steps=4)


def whole(scored, expand, cost=1, scores=None):
    """One set with all weights of each layer."""
    return [
        UnitSet((n,), s.flatten() if scores is None else scores(s.flatten()), cost, lambda keep, n=n: expand(n, keep))
        for n, s in scored.scores.items()
    ]


def plain(name, keep):
    return {name: keep.view(SHAPES[name])}


SHAPES = {"0.weight": (4, 3, 3, 3), "5.weight": (3, 144)}
ODD = torch.arange(1000) % 2 > 0
GRANULARITIES = {
    "prunes more": (lambda s: whole(s, lambda n, k: {n: (k & ODD[: len(k)]).view(SHAPES[n])}), "removes 54 weights"),
    "prunes less": (lambda s: whole(s, lambda n, k: {n: torch.ones(SHAPES[n], dtype=torch.bool)}), "removes 0 weights"),
    "costs lie": (lambda s: whole(s, plain, cost=2), "where its units hold 216"),
    "another shape": (lambda s: whole(s, lambda n, k: {n: k}), "no bool tensor of shape"),
    "no bools": (lambda s: whole(s, lambda n, k: {n: k.view(SHAPES[n]).float()}), "no bool tensor"),
    "another layer": (lambda s: [UnitSet(("9.weight",), torch.ones(3), 1, lambda k: {})], "known: 0.weight"),
    "no set": (lambda s: [], "one at least"),
    "no list": (lambda s: None, "NoneType"),
    "not a number": (lambda s: whole(s, plain, scores=lambda x: x * float("nan")), "NaN"),
    "a matrix": (lambda s: whole(s, plain, scores=lambda x: x[None]), "no vector"),
    "raises later": (lambda s: whole(s, lambda n, k: 1 / 0), "raised while it made masks"),
    "exits": (lambda s: sys.exit(2), "SystemExit"),
    "writes": (lambda s: s.model[5].weight.data.zero_() is s or whole(s, plain), "changed the values of 5.weight"),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRANULARITIES)
def test_a_granularity_that_prunes_something_else(kind, registry_sandbox):
    function, words = GRANULARITIES[kind]
    pb.granularity("cheat")(function)
    model = network()
    before = everything(model)
    with pytest.raises(PluginError, match=f"'cheat'.*{words}"):
        pb.prune(model, 0.5, granularity="cheat")
    assert everything(model) == before


def test_a_granularity_of_one_s_own_is_let_be(registry_sandbox):
    pb.granularity("mine")(lambda scored: whole(scored, plain))
    mine, ours = pb.prune(network(), 0.7, granularity="mine"), pb.prune(network(), 0.7)
    assert all(torch.equal(mine[n], ours[n]) for n in ours)


@pytest.mark.parametrize(
    ("reduce", "words"),
    [
        (lambda s: s.sum(), r"returned \(\)"),
        (lambda s: s.sum(-1) * float("nan"), "returned NaN"),
        (lambda s: s.zero_().tolist(), "returned list"),
        (lambda s: 1 / 0, "raised"),
    ],
)
def test_a_reduction_that_cheats(reduce, words, registry_sandbox):
    pb.criterion("cheat", reduce=reduce)(lambda layer: layer.weight.abs())
    model = network()
    before = everything(model)
    with pytest.raises(PluginError, match=f"'cheat': its reduce {words}"):
        pb.prune(model, 0.5, "cheat", granularity="filter")
    assert everything(model) == before


def test_doubles_are_ranked_as_doubles():
    # Alike in float32, where the first would go by position.
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0 + 3e-12, 1.0 + 2e-12, 1.0 + 1e-12, 1.0]], dtype=torch.float64)
    assert pb.prune(model, 0.5)["weight"].tolist() == [[True, True, False, False]]


def test_filters_of_doubles_are_ranked_as_doubles():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2)).double()
    model[0].weight.data = 1 + 1e-12 * torch.tensor([[3.0, 3], [1, 1], [2, 2]], dtype=torch.float64)
    for criterion in ("l1", "l2"):
        masks = pb.prune(model, 1 / 3, criterion, granularity="filter")
        assert masks["0.weight"].tolist() == [[True, True], [False, False], [True, True]]
