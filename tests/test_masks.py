"""Masks: exact selection with ties by position, what is prunable, exclusion, exact zeros."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from prunebench import masks
from prunebench.errors import UsageError
from prunebench.masks import (
    LayerCollapseWarning,
    apply,
    check_weights,
    lowest,
    masks_of,
    prunable_modules,
    pruned_count,
    sparsity_of,
    warn_of_collapse,
)
from prunebench.pruner import prune


@pytest.mark.parametrize(
    ("total", "sparsity", "count"),
    [
        (10, 0.0, 0),
        (10, 0.9, 9),
        (10, 0.05, 1),
        (10, 0.25, 3),
        (10, 0.04, 0),
        (7, 0.5, 4),
        (5, 0.5, 3),
        (430500, 0.9, 387450),
    ],
)
def test_pruned_count_rounds_halves_up(total, sparsity, count):
    assert pruned_count(total, sparsity) == count


def test_ties_go_by_position():
    scores = torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0, 3.0])
    assert lowest(scores, 3).tolist() == [False, True, True, True, False, False]
    assert lowest(torch.zeros(5), 2).tolist() == [True, True, False, False, False]


SCORES = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, -0.0, 0.5, 0.5, 2.0, math.inf]), min_size=1, max_size=40)


@given(SCORES, st.integers(-2, 45))
def test_lowest_is_the_head_of_a_stable_sort(values, count):
    order = sorted(range(len(values)), key=lambda i: values[i])  # Python's sort is stable
    expected = set(order[: max(0, count)])
    assert set(lowest(torch.tensor(values), count).nonzero().flatten().tolist()) == expected


def like_a_sorted(scores, count):
    order = scores.sort(stable=True).indices
    expected = torch.zeros_like(scores, dtype=torch.bool)
    expected[order[:count]] = True
    return torch.equal(lowest(scores, count), expected)


N = 3 * masks._SAMPLE + 7
MANY = {
    "random": lambda g: torch.rand(N, generator=g),
    "few_values": lambda g: torch.randint(0, 3, (N,), generator=g).float(),
    "most_are_gone": lambda g: torch.rand(N, generator=g).masked_fill_(torch.rand(N, generator=g) < 0.9, -math.inf),
    "sorted": lambda g: torch.arange(N, dtype=torch.float32),
    "all_equal": lambda g: torch.zeros(N),
    # Every third score is what the sample sees, and it sees none of the others.
    "in_step_with_the_sample": lambda g: torch.where(torch.arange(N) % 3 == 0, 0.0, torch.rand(N, generator=g)),
    "doubles": lambda g: torch.rand(N, generator=g, dtype=torch.float64),
    "whole_numbers": lambda g: torch.randint(0, N, (N,), generator=g),
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("count", [1, 40, N // 3, N // 2, int(0.9 * N), N - 40, N - 1])
def test_among_many_scores_too(kind, count):
    assert like_a_sorted(MANY[kind](torch.Generator().manual_seed(count)), count)


def test_finite_values_whose_sum_is_not_are_finite():
    assert masks.all_finite(torch.full((3,), 3e38))
    assert masks.all_finite(torch.ones(3, dtype=torch.bool))
    for strange in (math.inf, math.nan):
        assert not masks.all_finite(torch.tensor([1.0, strange, -strange]))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 2, 2)
        self.signal = nn.Conv1d(2, 2, 1)
        self.body = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        self.embedding = nn.Embedding(5, 8)


def test_convs_and_linears_are_prunable_biases_and_norms_never():
    names = ["conv.weight", "up.weight", "signal.weight", "body.0.weight", "body.2.weight"]
    assert list(prunable_modules(Net())) == names


def test_a_single_layer_is_a_model_too():
    assert list(prunable_modules(nn.Linear(2, 2))) == ["weight"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["body.2"], ["conv", "up", "signal", "body.0"]),
        (["*.0", "conv"], ["up", "signal", "body.2"]),
        ("body.*", ["conv", "up", "signal"]),
        (["body.0.weight"], ["conv", "up", "signal", "body.2"]),
    ],
)
def test_exclude(exclude, left):
    assert list(prunable_modules(Net(), exclude)) == [f"{name}.weight" for name in left]


def test_a_pattern_that_fits_nothing_is_an_error():
    with pytest.raises(UsageError, match=r"'\*\.fc'.*conv\.weight") as error:
        prunable_modules(Net(), ["*.fc"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "exclude"), [(nn.ReLU(), ()), (nn.Sequential(nn.BatchNorm1d(3)), ()), (Net(), ["*"])]
)
def test_nothing_to_prune(model, exclude):
    with pytest.raises(UsageError, match="nothing to prune") as error:
        prunable_modules(model, exclude)
    assert "\n" not in str(error.value)


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def test_shared_weights_count_once():
    assert list(prunable_modules(tied())) == ["0.weight", "3.weight"]


@pytest.mark.parametrize("name", ["0", "2"])
def test_a_shared_weight_excluded_under_either_name_is_excluded(name):
    assert list(prunable_modules(tied(), [name])) == ["3.weight"]


def test_a_reparametrised_layer_is_refused_with_the_remedy():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    torch_prune.l1_unstructured(model[1], "weight", 0.5)
    with pytest.raises(UsageError, match=r"prune\.remove"):
        prunable_modules(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(bad):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight.data[1, 2] = bad
    with pytest.raises(UsageError, match=r"1\.weight holds NaN"):
        check_weights(prunable_modules(model))


def test_a_weight_without_memory_is_refused():
    with pytest.raises(UsageError, match="not a floating-point tensor in memory"):
        check_weights(prunable_modules(nn.Linear(2, 2, device="meta")))


@pytest.mark.parametrize("kind", ["lazy", "inference", "tiny", "scripted"])
def test_a_weight_that_torch_can_not_change_is_refused_with_the_remedy(kind):
    if kind == "lazy":
        model, words = nn.LazyLinear(2), "call the model on a batch first"
    elif kind == "inference":
        with torch.inference_mode():
            model, words = nn.Linear(4, 2), "make the model outside of it"
    elif kind == "tiny":
        model, words = nn.Linear(4, 2).requires_grad_(False).to(torch.float8_e4m3fn), r"call model\.float\(\) first"
    else:
        model, words = torch.jit.script(nn.Linear(4, 2)), "the model that it was captured from"
    with pytest.raises(UsageError, match=words):
        prune(model, 0.5)


def test_apply_writes_positive_zeros_even_over_nan():
    model = nn.Linear(4, 1)
    model.weight.data = torch.tensor([[-1.0, float("nan"), 3.0, -4.0]])
    apply(model, {"weight": torch.tensor([[False, False, True, True]])})
    assert model.weight.tolist() == [[0.0, 0.0, 3.0, -4.0]]
    assert not torch.signbit(model.weight[0, :2]).any()


def test_masks_follow_zeros():
    model = nn.Linear(4, 1)
    model.weight.data = torch.tensor([[-1.0, 0.0, -0.0, 4.0]])
    masks = masks_of(model)
    assert masks["weight"].tolist() == [[True, False, False, True]]
    assert sparsity_of(masks) == 0.5
    assert sparsity_of({}) == 0.0


def test_sparsity_is_weighed_by_size():
    assert sparsity_of({"a": torch.zeros(3, dtype=torch.bool), "b": torch.ones(1, dtype=torch.bool)}) == 0.75


def test_collapse_names_the_layers(recwarn):
    with pytest.warns(LayerCollapseWarning, match=r"conv\.weight, fc\.weight"):
        warn_of_collapse(["conv.weight", "fc.weight"])
    recwarn.clear()
    warn_of_collapse([])
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_an_empty_weight_is_named(shape):
    model = nn.Sequential(nn.Linear(*shape), nn.Linear(4, 4))
    with pytest.raises(UsageError, match=r"0\.weight is empty.*exclude=\['0\.weight'\]"):
        check_weights(prunable_modules(model))
    check_weights(prunable_modules(model, ["0.weight"]))
