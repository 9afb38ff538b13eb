"""OBC: on a linear layer its error is the regression's; on every kind of layer less than magnitude's."""

import copy

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.criteria import reconstruction
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules, pruned_count
from prunebench.registry import check

LAYERS = {
    "linear": (lambda: nn.Linear(20, 12), (20,)),
    "tokens": (lambda: nn.Linear(20, 12), (5, 20)),
    "conv": (lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, stride=2, groups=2), (4, 7, 7)),
    "conv1d": (lambda: nn.Conv1d(3, 8, 5), (3, 12)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5)),
}


def case(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    # Neighbours are alike, as in images: what is removed can be made up for.
    x = torch.randn(40, *shape).cumsum(-1) / 3
    return layer, x, [(x[:16], torch.zeros(16)), (x[16:], torch.zeros(24))]


def zero_loss(out, y):
    return out.sum() * 0


def error(layer, pruned, x):
    return (layer(x) - pruned(x)).square().sum().item()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("way", ["exact", "bounded"])
def test_the_output_s_error_is_less_than_magnitude_s(name, sparsity, way, monkeypatch):
    if way == "bounded":
        monkeypatch.setattr(reconstruction, "GREEDY_WORK", 3000.0)  # blocks of 4 to 6 inputs
        monkeypatch.setattr(reconstruction, "reconstructed", reconstruction.descended)
    layer, x, data = case(name)
    found = {}
    for text in ("l1", "obc:update=false", "obc"):
        pruned = copy.deepcopy(layer)
        masks = pb.prune(pruned, sparsity, text, data=data, loss=zero_loss)
        assert int((~masks["weight"]).sum()) == pruned_count(layer.weight.numel(), sparsity)
        assert torch.equal(pruned.weight != 0, masks["weight"])
        assert torch.equal(pruned.bias, layer.bias)
        found[text] = error(layer, pruned, x)
    assert found["obc"] < found["l1"]
    assert found["obc"] < found["obc:update=false"]


@pytest.mark.parametrize("name", ["linear", "conv", "transposed"])
def test_no_other_kept_weights_do_better(name):
    """Least squares of the dense outputs on the kept inputs, by lstsq through the layer itself."""
    layer, x, data = case(name)
    pruned = copy.deepcopy(layer)
    mask = pb.prune(pruned, 0.6, "obc:damping=1e-9", data=data, loss=zero_loss)["weight"]
    layer, pruned, x = layer.double(), pruned.double(), x.double()
    target = (layer(x) - nn.Module.__call__(_without_weight(layer), x)).flatten()
    columns = []
    for i in mask.flatten().nonzero().flatten():
        one = _without_weight(layer, biased=False)
        one.weight.data.view(-1)[i] = 1.0
        columns.append(one(x).flatten())
    best = torch.linalg.lstsq(torch.stack(columns, 1).detach(), target.detach()[:, None], driver="gelsd").solution
    fitted = torch.zeros_like(layer.weight)
    fitted[mask] = best.flatten()
    other = copy.deepcopy(layer)
    other.weight.data = fitted
    assert error(layer, pruned, x) == pytest.approx(error(layer, other, x), rel=1e-3)


def _without_weight(layer, biased=True):
    bare = copy.deepcopy(layer)
    bare.weight.data.zero_()
    if not biased:
        bare.bias.data.zero_()
    return bare


def test_one_removed_weight_is_the_best_of_all():
    layer, x, data = case("linear")
    errors = []
    gram = (x.T @ x).double()
    gram += 1e-9 * gram.diagonal().mean() * torch.eye(20).double()
    inverse = torch.linalg.inv(gram)
    for q in range(240):
        row, column = divmod(q, 20)
        errors.append((layer.weight[row, column].double() ** 2 / inverse[column, column]).item())
    mask = pb.prune(layer, 1 / 240, "obc:damping=1e-9", data=data, loss=zero_loss)["weight"]
    assert int((~mask).flatten().nonzero()) == min(range(240), key=errors.__getitem__)


def test_scores_are_shares_so_that_scale_does_not_count():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    x = torch.randn(30, 8)
    data = [(x, torch.zeros(30, dtype=torch.int64))]
    one = criteria.score("obc", model, prunable_modules(model), data=data)
    model[0].weight.data *= 4  # the same function after the second layer is divided by it
    model[0].bias.data *= 4
    other = criteria.score("obc", model, prunable_modules(model), data=data)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-9)


def test_a_schedule_keeps_to_its_masks_and_ends_exactly():
    layer, x, data = case("conv")
    dense = copy.deepcopy(layer)
    pruner = pb.Pruner(layer, 0.8, "obc", schedule="linear", steps=4, data=data, loss=zero_loss)
    before = torch.ones_like(layer.weight, dtype=torch.bool)
    for _ in range(4):
        pruner.step()
        mask = pruner.masks["weight"]
        assert not (mask & ~before).any()
        assert torch.equal(layer.weight != 0, mask)
        before = mask
    assert int((~before).sum()) == pruned_count(before.numel(), 0.8)
    plain = copy.deepcopy(dense)
    pb.prune(plain, 0.8, "l1")
    assert error(dense, layer, x) < error(dense, plain, x)


def test_inputs_that_are_always_zero_are_no_problem():
    layer, x, _ = case("linear")
    x[:, :5] = 0
    masks = pb.prune(layer, 0.25, "obc", data=[(x, torch.zeros(40))], loss=zero_loss)
    assert int((~masks["weight"][:, :5]).sum()) == 60, "what meets only zeros goes first"
    layer, _, _ = case("linear")
    pb.prune(layer, 0.5, "obc", data=[(torch.zeros(4, 20), torch.zeros(4))], loss=zero_loss)
    assert torch.isfinite(layer.weight).all()
    assert int((layer.weight == 0).sum()) == 120


@pytest.mark.parametrize("given", ["damping=0", "damping=-0.1", "damping=much", "update=0"])
def test_parameters_that_can_not_be_are_refused_when_the_string_is_read(given):
    with pytest.raises(UsageError, match=given.partition("=")[0]):
        check("criteria", f"obc:{given}")


def test_n_of_m_is_made_up_for_like_any_mask():
    layer, x, data = case("linear")
    plain, pruned = copy.deepcopy(layer), copy.deepcopy(layer)
    masks = pb.prune(pruned, 0.5, "obc", granularity="n_m:n=2:m=4", data=data, loss=zero_loss)
    pb.prune(plain, 0.5, "obc:update=false", granularity="n_m:n=2:m=4", data=data, loss=zero_loss)
    assert (masks["weight"].view(12, 5, 4).sum(2) == 2).all()
    assert torch.equal(pruned.weight != 0, plain.weight != 0)
    assert error(layer, pruned, x) < error(layer, plain, x)
