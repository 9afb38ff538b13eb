"""nn.MultiheadAttention: its bare projections are layers like any other, seen by hooks, scored, counted, excluded."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunebench as pb
from prunebench import backends, criteria, models, registry
from prunebench.attention import Projection, unpacked
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules

BATCH, QUERIES, KEYS = 3, 5, 4


def attention(first, **options):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=first, **options).eval()
    for p in layer.parameters():
        p.data.normal_()
    return layer


def tokens(layer, count, width, batched=True):
    generator = torch.Generator().manual_seed(count * width)
    x = torch.randn(BATCH, count, width, generator=generator)
    return (x if layer.batch_first else x.transpose(0, 1)) if batched else x[0]


def vit(**changes):
    torch.manual_seed(0)
    options = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    model = torchvision.models.VisionTransformer(**{**options, "num_classes": 10, **changes}).eval()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"bias": False}],
    ids=["packed", "separate", "bias_kv", "zero", "no_bias"],
)
@pytest.mark.parametrize("first", [True, False])
def test_unpacked_attention_is_torch_s_own(first, options):
    layer = attention(first, **options)

    def check(q, k, v, **given):
        for found, expected in zip(unpack(q, k, v, **given), layer(q, k, v, **given), strict=True):
            assert (found is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def unpack(*args, **given):
        with unpacked(layer):
            return layer(*args, **given)

    padding = torch.tensor([[False, False, True, True]] * BATCH)
    for batched, weights in itertools.product([True, False], [True, False]):
        q, k, v = (tokens(layer, n, w, batched) for n, w in ((QUERIES, 8), (KEYS, layer.kdim), (KEYS, layer.vdim)))
        check(q, k, v, need_weights=weights, attn_mask=torch.randn(QUERIES, KEYS))
        check(q, k, v, need_weights=weights, average_attn_weights=False, key_padding_mask=padding if batched else None)
        if layer.kdim == 8:
            check(q, q, q, need_weights=weights)
            check(q, k, k, need_weights=weights)
    assert "forward" not in layer.__dict__


def test_the_way_back_is_found_after_an_error_too():
    layer, fused = attention(True), torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), unpacked(layer):
        raise ZeroDivisionError
    assert "forward" not in layer.__dict__
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_projections_are_prunable_where_they_stand():
    layer = "encoder.layers.encoder_layer_{}.{}".format
    parts = ("self_attention.in_proj_weight", "self_attention.out_proj.weight", "mlp.0.weight", "mlp.3.weight")
    expected = ["conv_proj.weight", *(layer(i, part) for i in range(2) for part in parts), "heads.head.weight"]
    model = vit()
    modules = prunable_modules(model)
    assert list(modules) == expected
    assert all(modules[name].weight is model.get_parameter(name) for name in expected)
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=10)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(prunable_modules(separate)) == names


@pytest.mark.parametrize("pattern", ["*.self_attention", "*.in_proj_weight"])
def test_projections_are_excluded_by_the_attention_s_name_or_their_own(pattern):
    assert not [name for name in prunable_modules(vit(), [pattern]) if name.endswith("in_proj_weight")]


def test_a_reparametrised_projection_is_refused_with_the_remedy():
    model = nn.Sequential(nn.Linear(8, 8), attention(True))
    torch_prune.l1_unstructured(model[1], "in_proj_weight", 0.5)
    with pytest.raises(UsageError, match=r"in_proj_weight.*prune\.remove"):
        prunable_modules(model)


def test_a_face_shows_the_weight_and_the_bias_that_the_attention_has_now():
    layer = attention(True, kdim=6, vdim=10)
    key = Projection(layer, "k_proj_weight")
    assert (key.in_features, key.out_features) == (6, 8)
    assert torch.equal(key.bias, layer.in_proj_bias[8:16])
    layer.k_proj_weight = nn.Parameter(torch.zeros(8, 6))
    assert key.weight is layer.k_proj_weight
    assert not list(key.parameters())


def test_magnitude_is_torch_s_own_global_pruning():
    model, other = vit(), vit()
    pb.prune(model, 0.9)
    targets = [(m, "weight") for m in other.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    targets += [(m, "in_proj_weight") for m in other.modules() if isinstance(m, nn.MultiheadAttention)]
    amount = round(0.9 * sum(getattr(m, n).numel() for m, n in targets))
    torch_prune.global_unstructured(targets, torch_prune.L1Unstructured, amount=amount)
    for name in prunable_modules(model):
        assert torch.equal(model.get_parameter(name) != 0, other.get_buffer(f"{name}_mask").bool())


def seen(model, data, need):
    found = {}

    @pb.criterion("watching", needs=(need,))
    def watching(layer):
        found[layer.name] = layer.grad if need == "gradients" else layer.activations
        return layer.weight.abs()

    pb.prune(model, 0.5, "watching", data=data)
    return found


def test_gradients_of_projections_are_autograd_s(registry_sandbox):
    model, x, y = vit(), torch.randn(6, 3, 32, 32), torch.randint(0, 10, (6,))
    F.cross_entropy(model(x), y).backward()
    expected = {name: m.weight.grad for name, m in prunable_modules(model).items()}
    for name, gradient in seen(model, [(x[:4], y[:4]), (x[4:], y[4:])], "gradients").items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_projections_see_their_own_inputs_samples_first(first, registry_sandbox):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention(first)
            self.eye = nn.Linear(8, 8, bias=False)
            self.eye.weight.data = torch.eye(8)

        def forward(self, x):
            x = x if first else x.transpose(0, 1)
            mixed = self.attention(x, x, x, need_weights=False)[0]
            return (mixed if first else mixed.transpose(0, 1)).mean(1)

    model, x = Net(), torch.randn(BATCH, QUERIES, 8)
    layer = model.attention
    # The heads' mixture by hand, before the output projection.
    q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in
               F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1))  # fmt: skip
    mixed = (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v).transpose(1, 2).flatten(2)
    masks = prunable_modules(model)
    assert list(masks) == ["attention.in_proj_weight", "attention.out_proj.weight", "eye.weight"]
    del model.eye
    found = seen(model, [(x, torch.zeros(BATCH, dtype=torch.long))], "activations")
    torch.testing.assert_close(found["attention.in_proj_weight"], x)
    torch.testing.assert_close(found["attention.out_proj.weight"], mixed.detach(), rtol=1e-4, atol=1e-5)


def test_a_packed_projection_of_three_inputs_sees_all_their_tokens():
    layer = attention(True)
    modules, inputs = prunable_modules(layer), []
    handle = modules["in_proj_weight"].register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    q, k = torch.randn(BATCH, QUERIES, 8), torch.randn(BATCH, KEYS, 8)
    with unpacked(layer, modules):
        layer(q, k, k)
    handle.remove()
    assert torch.equal(inputs[0], torch.cat([q, k, k], 1))


class Encoder(nn.Module):
    """torch's own encoder, whose fused path reads its children's weights."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.inputs, self.encoder, self.head = nn.Linear(12, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(self.inputs(x)).mean(1))


def test_a_fused_encoder_layer_hides_no_layer_from_a_criterion(registry_sandbox):
    model = Encoder().eval()
    found = seen(model, [(torch.randn(4, 7, 12), torch.zeros(4, dtype=torch.long))], "activations")
    assert list(found) == list(prunable_modules(model))
    assert all(x.shape[:2] == (4, 7) for name, x in found.items() if name != "head.weight")


@pytest.mark.parametrize(
    ("make", "shape"), [(vit, (3, 32, 32)), (lambda: Encoder().eval(), (7, 12))], ids=["torchvision", "encoder"]
)
@pytest.mark.parametrize(
    "name", ["dense", "masked", "scipy_csr", "torch_csr", "csr", "torch_jit", "onnxruntime", "openvino"]
)
@pytest.mark.filterwarnings("ignore")
def test_every_backend_runs_attention_pruned_to_90_percent(name, make, shape):
    reason = backends.unavailable(name)
    if reason:
        pytest.skip(reason)
    torch.manual_seed(1)
    model, x = make(), torch.randn(4, *shape)
    pb.prune(model, 0.9)
    with torch.inference_mode():
        expected = copy.deepcopy(model).double()(x.double())
    engine = pb.compile(model, x, name, threads=1)
    for _ in range(2):
        assert ((engine(x).double() - expected).abs().max() / expected.abs().max()).item() < 1e-5
    rows = engine.summary()
    assert rows
    if name in ("dense", "masked"):
        assert len(rows) == len(prunable_modules(model))


def test_checkpoints_hold_projections_in_both_formats(tmp_path):
    model = vit()
    pb.prune(model, 0.9)
    for form in ("dense", "bitmask"):
        pb.save(model, tmp_path / form, form)
        other = vit()
        pb.load(tmp_path / form, other)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert (tmp_path / "bitmask").stat().st_size < 0.5 * (tmp_path / "dense").stat().st_size


def test_pruned_projections_stay_zero_through_momentum():
    model = vit().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    pruner = pb.Pruner(model, 0.8, schedule="linear", steps=3)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])).backward()
        optimizer.step()
        pruner.step()
    for name, mask in pruner.masks.items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any()
        assert weight[mask].any()


def small():
    return models.build("vit_tiny_cifar:depth=1:dim=24:mlp=2:patch=8", (3, 32, 32), 10).eval()


@pytest.mark.parametrize("make", [vit, small])
@pytest.mark.parametrize("criterion", registry.names("criteria"))
def test_every_criterion_prunes_a_vision_transformer(criterion, make):
    if criterion == "bn_scale":
        with pytest.raises(UsageError, match="batch norm"):
            pb.prune(make(), 0.5, criterion, data=samples())
        return
    model = make()
    masks = pb.prune(model, 0.5, criterion, "layerwise", data=samples())
    assert list(masks) == list(prunable_modules(model))
    removed = sum(int((~mask).sum()) for mask in masks.values())
    expected = sum(mask.numel() for mask in masks.values()) / 2
    assert abs(removed - expected) <= len(masks)
    assert all(0 < int(mask.sum()) < mask.numel() for name, mask in masks.items() if "in_proj" in name or "qkv" in name)
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())


def samples():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(6, 3, 32, 32, generator=generator), torch.randint(0, 10, (6,), generator=generator)
    return [(x[:4], y[:4]), (x[4:], y[4:])]


@pytest.mark.parametrize("criterion", ["snip", "obd", "wanda", "taylor", "grasp"])
def test_attention_of_one_s_own_and_torch_s_score_alike(criterion):
    """The same network twice: once with plain linear projections, once with nn.MultiheadAttention."""
    own, other = small(), small()
    block, layer = other.blocks[0], nn.MultiheadAttention(24, 3, batch_first=True)
    layer.in_proj_weight.data, layer.in_proj_bias.data = block.attention.qkv.weight.data, block.attention.qkv.bias.data
    layer.out_proj.load_state_dict(block.attention.proj.state_dict())
    block.attention = Self(layer)
    names = {"qkv.weight": "layer.in_proj_weight", "proj.weight": "layer.out_proj.weight"}
    expected = criteria.score(criterion, own, prunable_modules(own), data=samples())
    found = criteria.score(criterion, other.eval(), prunable_modules(other), data=samples())
    for name, scores in expected.items():
        for mine, torch_s in names.items():
            name = name.replace(f"attention.{mine}", f"attention.{torch_s}")
        torch.testing.assert_close(found[name], scores, rtol=1e-3, atol=1e-6 * float(scores.abs().max()))


class Self(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x, x)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vit_b_16_is_pruned_and_compiled():
    model = torchvision.models.vit_b_16().eval()
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # born zero, it would hide everything
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = pb.prune(model, 0.9)
    assert len(masks) == 1 + 12 * 4 + 1
    with torch.inference_mode():
        expected = model(x)
    engine = pb.compile(model, x, threads=1, tune=False)
    assert ((engine(x) - expected).abs().max() / expected.abs().max()).item() < 1e-4
    native = {row["layer"] for row in engine.summary() if row["kernel"] == "csr"}
    assert {f"encoder.layers.encoder_layer_{i}.mlp.{j}" for i in range(12) for j in (0, 3)} <= native
