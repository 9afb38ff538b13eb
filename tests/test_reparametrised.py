"""Models masked by torch.nn.utils.prune or parametrised: masks are kept, copies are plain, originals untouched."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

import prunebench as pb
from prunebench import backends
from prunebench.costs import count
from prunebench.errors import PluginError, UsageError
from prunebench.reference import Reference
from prunebench.reparametrised import plain_copy


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


def masked(amount: float = 0.5) -> nn.Sequential:
    model = net()
    layers = [(m, "weight") for m in model if hasattr(m, "weight")]
    torch_prune.global_unstructured(layers, torch_prune.RandomUnstructured, amount=amount)
    return model


def masks_in(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{path}.weight": m.weight_mask.bool() for path, m in model.named_modules() if hasattr(m, "weight_mask")}


def plain_zeros(model: nn.Module) -> int:
    return sum(int((m.weight == 0).sum()) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("scope", ["global", "layerwise", "erk"])
def test_masked_weights_count_as_pruned_and_stay_zero(criterion, scope):
    model = masked()
    before = masks_in(model)
    masks = pb.prune(model, 0.8, criterion, scope)
    assert masks.keys() == before.keys()
    for name, mask in masks.items():
        assert not (mask & ~before[name]).any()
        assert (model.get_parameter(name)[~mask] == 0).all()
    total = sum(m.numel() for m in masks.values())
    if scope == "global":
        assert plain_zeros(model) == math.floor(total * 0.8 + 0.5)
    assert not torch_prune.is_pruned(model)


def test_a_target_below_what_is_masked_prunes_nothing_more():
    model = masked(0.5)
    before = masks_in(model)
    masks = pb.prune(model, 0.2, "random")
    assert all(torch.equal(masks[name], before[name]) for name in before)


def test_a_training_loop_revives_nothing_and_keeps_the_optimizers_parameters():
    model = masked(0.5).train()
    before = masks_in(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    pruner = pb.Pruner(model, 0.9, schedule="agp", steps=5)
    assert {id(p) for p in model.parameters()} == held
    sparsities = []
    for _ in range(5):
        loss = F.cross_entropy(model(X), torch.tensor([1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
        sparsities.append(pruner.current_sparsity)
        assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in before.items())
    assert sparsities[0] >= 0.499
    assert sparsities[-1] == pytest.approx(0.9, abs=1e-3)


def test_whole_filters_go_and_single_masked_weights_stay_zero():
    model = masked(0.5)
    before = masks_in(model)
    masks = pb.prune(model, 0.5, "l2", granularity="filter")
    assert int(masks["2.weight"].flatten(1).any(1).sum()) < 16
    assert not any((masks[name] & ~before[name]).any() for name in before)


def test_an_excluded_layer_keeps_its_mask():
    model = masked()
    masks = pb.prune(model, 0.8, exclude=["6"])
    assert set(masks) == {"0.weight", "2.weight"}
    assert hasattr(model[6], "weight_mask")


def test_where_pruning_fails_the_masks_are_as_they_were(registry_sandbox):
    @pb.criterion("broken")
    def broken(layer):
        raise RuntimeError("no")

    model = masked()
    before, out = {n: t.clone() for n, t in model.state_dict().items()}, model(X)
    for wrong in ({"criterion": "broken"}, {"sparsity": 2.0}, {"exclude": ["nothing"]}):
        with pytest.raises((PluginError, UsageError)):
            pb.prune(model, **{"sparsity": 0.8, **wrong})
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(model(X), out)
    torch_prune.remove(model[0], "weight")


@pytest.mark.parametrize("change", ["mask", "weight_norm", "spectral_norm", "old_weight_norm", "old_spectral_norm"])
@pytest.mark.parametrize("backend", ["csr", "dense", "masked", "scipy_csr", "compact", "torch_jit"])
def test_every_backend_runs_it_and_leaves_it_alone(change, backend):
    if (reason := backends.unavailable(backend)) is not None:
        pytest.skip(reason)
    model = masked() if change == "mask" else net()
    if change == "old_spectral_norm":
        nn.utils.spectral_norm(model[2])
    elif change == "old_weight_norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(model[2])
    elif change != "mask":
        getattr(parametrizations, change)(model[2])
    model.eval()
    names, want = list(model.state_dict()), model(X)
    engine = pb.compile(model, X, backend=backend, threads=1)
    assert torch.allclose(engine(X), want, atol=1e-5)
    assert list(model.state_dict()) == names
    assert torch.equal(model(X), want)
    assert Reference(model, X).error(model) < 1e-5


def test_a_copy_is_plain_and_the_original_keeps_its_parametrization():
    model = net()
    parametrizations.weight_norm(model[2])
    twin = plain_copy(model.eval())
    assert type(twin[2]) is nn.Conv2d
    assert parametrize.is_parametrized(model[2])
    assert torch.equal(twin(X), model(X))
    assert count(twin, X).prunable == 3 * 8 * 9 + 8 * 16 * 9 + 160


def test_what_cannot_be_pruned_says_which_call_makes_it_plain():
    model = net()
    parametrizations.weight_norm(model[2])
    with pytest.raises(UsageError, match=r"layer '2'.*parametrize\.remove_parametrizations\(layer, 'weight'\)"):
        pb.prune(model, 0.5)
    pb.prune(model, 0.5, exclude=["2"])
    model = net()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[0])
    with pytest.raises(UsageError, match=r"layer '0'.*remove_weight_norm\(layer, 'weight'\)"):
        pb.prune(model, 0.5)
    with pytest.raises(UsageError, match=r"layer '0'.*prune\.remove\(layer, 'weight'\)"):
        count(masked(), X)
