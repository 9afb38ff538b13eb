"""A criterion that misbehaves is refused by name, with the layer's name, and the model stays as it was."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench.errors import PluginError


def wrong_shape(layer):
    return layer.weight.abs().sum(1)


def not_a_number(layer):
    return layer.weight / 0


def infinite(layer):
    return layer.weight.abs() + float("inf")


def complex_scores(layer):
    return torch.complex(layer.weight, layer.weight)


def no_tensor(layer):
    return layer.weight.tolist()


def nothing(layer):
    return None


def in_place(layer):
    return layer.weight.abs_()


def in_place_then_raises(layer):
    layer.weight.zero_()
    raise RuntimeError("after the fact")


def in_place_then_wrong_shape(layer):
    layer.weight.zero_()
    return torch.zeros(1)


def through_the_module(layer):
    scores = layer.weight.abs()
    layer.module.weight.data = layer.weight * 2
    return scores


def raises(layer):
    raise KeyError("lost")


CHEATS = [
    (wrong_shape, "shape"),
    (not_a_number, "NaN or infinite"),
    (infinite, "NaN or infinite"),
    (complex_scores, "NaN or infinite"),
    (no_tensor, "list"),
    (nothing, "NoneType"),
    (in_place, "changed the weight"),
    (in_place_then_raises, "after the fact"),
    (in_place_then_wrong_shape, "shape"),
    (through_the_module, "changed the weight"),
    (raises, "KeyError"),
]


@pytest.mark.parametrize(("cheat", "words"), CHEATS, ids=[c.__name__ for c, _ in CHEATS])
def test_a_cheat_is_refused(cheat, words, registry_sandbox):
    pb.criterion("cheat")(cheat)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(PluginError, match=words) as error:
        pb.prune(model, 0.5, "cheat")
    assert "'cheat'" in str(error.value)
    assert "0.weight" in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_cause_is_chained(registry_sandbox):
    pb.criterion("cheat")(raises)
    with pytest.raises(PluginError) as error:
        pb.prune(nn.Linear(2, 2), 0.5, "cheat")
    assert isinstance(error.value.__cause__, KeyError)


def test_an_error_of_several_lines_is_told_in_one(registry_sandbox):
    @pb.criterion("wordy")
    def wordy(layer):
        raise ValueError("one\ntwo")

    with pytest.raises(PluginError, match=r"one.*two") as error:
        pb.prune(nn.Linear(2, 2), 0.5, "wordy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"needs": ("telepathy",)}, "telepathy"),
        ({"needs": ("hessian_product:warmth=3",)}, "warmth.*temperature"),
        ({"needs": ("hessian_product:temperature=0",)}, "temperature=0"),
        ({"needs": ("gradients:",)}, "gradients:"),
        ({"reduce": "product"}, "product"),
        ({"compare": "universe"}, "universe"),
    ],
)
def test_a_declaration_that_can_not_be_met_is_named(declared, words, registry_sandbox):
    pb.criterion("demanding", **declared)(lambda layer: layer.weight.abs())
    with pytest.raises(PluginError, match=words) as error:
        pb.prune(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), 0.5, "demanding", granularity="filter", data=[])
    assert "'demanding'" in str(error.value)
