"""Counts against sums done by hand: stride, padding, dilation, groups, reuse, transposition."""

import pytest
import torch
import torchvision
from torch import nn

from prunebench import models
from prunebench.costs import count, tensor_bytes


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(1, 1, 1), (1, 5, 5), 25),
        (nn.Conv2d(3, 8, 3), (3, 10, 10), 8 * 8 * 8 * 27),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10), 10 * 10 * 8 * 27),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 10, 10), 5 * 5 * 8 * 27),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 10, 10), 8 * 8 * 8 * 2 * 9),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 10, 10), 10 * 10 * 6 * 9),
        (nn.Conv2d(3, 8, 3, dilation=2), (3, 10, 10), 6 * 6 * 8 * 27),
        (nn.Conv2d(2, 4, (3, 5), stride=(1, 2), padding=(1, 0)), (2, 10, 11), 10 * 4 * 4 * 2 * 15),
        (nn.Conv1d(2, 3, 4), (2, 9), 6 * 3 * 2 * 4),
        (nn.ConvTranspose2d(2, 3, 4, stride=2), (2, 5, 5), 25 * 2 * 3 * 16),
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5), (3, 7), 3 * 35),
    ],
)
def test_multiply_adds(layer, shape, macs):
    for batch in (1, 3):
        costs = count(layer, torch.randn(batch, *shape))
        assert costs.macs_dense == macs
        assert costs.macs == macs


def test_zeros_are_taken_off_where_they_are():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    model[0].weight.data.fill_(1)
    model[2].weight.data.fill_(1)
    model[0].weight.data[0] = 0  # 9 of 18 weights, each used 16 times
    model[2].weight.data[0, :10] = 0  # 10 of 96 weights, each used once
    costs = count(model, torch.randn(1, 1, 6, 6))
    assert costs.macs_dense == 18 * 16 + 96
    assert costs.macs == 9 * 16 + 86
    assert (costs.parameters, costs.prunable, costs.nonzeros) == (18 + 2 + 96 + 3, 18 + 96, 9 + 86)


def test_a_layer_used_twice_costs_twice_but_weighs_once():
    layer = nn.Linear(4, 4)
    costs = count(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(1, 4))
    assert (costs.macs, costs.prunable) == (32, 16)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "prunable", "macs"),
    [
        ("lenet300", (1, 28, 28), 266610, 266200, 266200),
        # 20*25*24² + 50*20*25*8² + 800*500 + 500*10
        ("lenet5", (1, 28, 28), 431080, 430500, 288000 + 1600000 + 400000 + 5000),
        ("resnet20", (3, 32, 32), 272474, 270896, 40813184),
    ],
)
def test_published_sizes(name, shape, parameters, prunable, macs):
    costs = count(models.build(name, shape, 10), torch.zeros(2, *shape))
    assert (costs.parameters, costs.prunable, costs.macs_dense) == (parameters, prunable, macs)


PATCHES, WIDTH, TOKENS = 16 * 3 * 8 * 8 * 32, 32, 17


@pytest.mark.parametrize("sparse", [False, True])
def test_attention_counts_its_projections_by_their_zeros_and_its_products_always(sparse):
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, WIDTH, 64, num_classes=10)
    model.heads.head.weight.data.fill_(1)
    attentions = [layer.self_attention for layer in model.encoder.layers]
    if sparse:
        attentions[0].in_proj_weight.data[: 2 * WIDTH] = 0
        attentions[1].out_proj.weight.data[:, 0] = 0
    # Per layer: queries, keys, values and output, then the MLP; QKᵀ and its product with V have no weights.
    layer = TOKENS * (4 * WIDTH**2 + 2 * WIDTH * 64) + 2 * TOKENS**2 * WIDTH
    dense = PATCHES + 2 * layer + WIDTH * 10
    costs = count(model, torch.randn(2, 3, 32, 32))
    assert costs.macs_dense == dense
    assert costs.macs == dense - sparse * TOKENS * (2 * WIDTH**2 + WIDTH)
    assert costs.prunable == PATCHES // 16 + 2 * (4 * WIDTH**2 + 2 * WIDTH * 64) + 320


@pytest.mark.parametrize(
    "options", [{}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=lambda o: "_".join(o)
)
@pytest.mark.parametrize("weights", [False, True])
def test_attention_to_other_tokens(options, weights):
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

        def forward(self, x):
            keys = x.new_ones(len(x), 4, self.attention.kdim), x.new_ones(len(x), 4, self.attention.vdim)
            return self.attention(x, *keys, need_weights=weights)[0]

    keys = 4 + ("add" in str(options))
    projections = 5 * 8 * 8 + 4 * 8 * options.get("kdim", 8) + 4 * 8 * options.get("vdim", 8)
    model = Cross()
    costs = count(model, torch.randn(3, 5, 8))
    assert costs.macs_dense == costs.macs == projections + 5 * 8 * 8 + 2 * 5 * keys * 8
    if "kdim" not in options:
        model.attention.in_proj_weight.data[8:16] = 0  # the keys' third, which meets four tokens
        assert count(model, torch.randn(3, 5, 8)).macs == costs.macs - 4 * 8 * 8


class Products(nn.Module):
    """A product between activations, written in some way, beside a parameter that is multiplied by hand."""

    def __init__(self, how):
        super().__init__()
        self.how, self.layer, self.table = how, nn.Linear(6, 6), nn.Parameter(torch.ones(6, 6))

    def forward(self, x):
        return self.how(self.layer(x), self.table)


@pytest.mark.parametrize(
    "how",
    [
        lambda x, table: x @ x.transpose(1, 2),
        lambda x, table: x.matmul(x.mT),
        lambda x, table: torch.matmul(x, x.mT),
        lambda x, table: torch.bmm(x, x.mT),
        lambda x, table: torch.baddbmm(x.new_zeros(1), x, x.mT),
        lambda x, table: torch.einsum("bik,bjk->bij", x, x),
        lambda x, table: torch.einsum("bik,bjk", x, x),
        lambda x, table: torch.einsum("...ik,...jk->...ij", x, x),
        lambda x, table: (x @ table, x @ x.mT)[1],
    ],
)
def test_products_between_activations_in_every_spelling(how):
    assert count(Products(how), torch.randn(2, 5, 6)).macs_dense == 5 * 36 + 5 * 5 * 6


@pytest.mark.slow
def test_vit_b_16_costs_what_torchvision_says():
    weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1
    costs = count(torchvision.models.vit_b_16(), torch.zeros(1, 3, 224, 224))
    assert costs.parameters == weights.meta["num_params"]
    assert round(costs.macs_dense / 1e9, 3) == weights.meta["_ops"]


def test_counting_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count(model, torch.randn(2, 1, 6, 6))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_bytes_count_shared_memory_once():
    base = torch.zeros(10)
    assert tensor_bytes([base, base[:3], base.view(2, 5)]) == 40
    assert tensor_bytes([base, torch.zeros(3, dtype=torch.int64)]) == 64
    assert tensor_bytes([]) == 0
