"""Physical removal: the smaller network computes what the masked one does, on real architectures and on traps."""

import collections
import copy
import dataclasses
import itertools
import os
import pickle
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from random_cnn import Builder, describe, distance, float64, input_of
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.compaction import CompactionWarning
from prunebench.compaction.outputs import tensors_of
from prunebench.errors import UsageError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::prunebench.masks.LayerCollapseWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
FUZZ = int(os.environ.get("PRUNEBENCH_FUZZ") or 40)


def lived_in(model, seed=0):
    """Batch norms as training leaves them: shifts and statistics that make dead filters put out constants."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            n = module.num_features
            module.running_mean.copy_(torch.randn(n, generator=g) * 0.1)
            module.running_var.copy_(torch.rand(n, generator=g) + 0.5)
            module.weight.data.copy_(torch.rand(n, generator=g) + 0.5)
            module.bias.data.copy_(torch.randn(n, generator=g) * 0.3)
    return model.eval()


def error(model, small, x):
    """The largest difference over the largest output: the small model in float32 against the given one in float64."""
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
        return ((small(x).double() - want).abs().max() / want.abs().max().clamp_min(1e-30)).item()


def exact(model, small, x):
    """The same in float64: only the rounding of what was moved between weights is left."""
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
        got = copy.deepcopy(small).double()(x.double())
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max().clamp_min(1e-30)).item()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


# How many times fewer parameters: nearly four where both a layer's filters and its channels are halved.
ARCHITECTURES = {
    ("resnet20", "filter"): 3.4,
    ("resnet20", "channel"): 3.7,
    ("lenet5", "filter"): 3.6,
    ("lenet300", "channel"): 1.9,
    ("resnet18", "filter"): 3.7,
    ("resnet50", "channel"): 3.6,
    ("mobilenet_v2", "filter"): 2.8,
    ("mobilenet_v3_small", "filter"): 2.7,
    ("mobilenet_v3_small", "channel"): 2.7,
    ("densenet121", "filter"): 3.4,
    ("squeezenet1_0", "filter"): 2.7,
    ("squeezenet1_0", "channel"): 2.7,
    ("shufflenet_v2_x0_5", "channel"): 1.9,
    ("googlenet", "filter"): 1.5,
    ("efficientnet_b0", "channel"): 3.0,
    ("regnet_x_400mf", "filter"): 2.3,
}


def network(name):
    torch.manual_seed(0)
    if name in ("lenet5", "lenet300"):
        return models.build(name, (1, 28, 28), 10), torch.randn(2, 1, 28, 28)
    if name == "resnet20":
        return models.build(name, (3, 32, 32), 10), torch.randn(2, 3, 32, 32)
    more = {"init_weights": False} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(**more), torch.randn(2, 3, 48, 48)


@pytest.mark.parametrize(("name", "granularity"), ARCHITECTURES)
def test_half_of_a_known_network(name, granularity, recwarn):
    model, x = network(name)
    lived_in(model)
    pb.prune(model, 0.5, scope="layerwise", granularity=granularity)
    before = state(model)
    small = pb.compact(model, x)
    assert type(small) is type(model)
    assert exact(model, small, x) < 1e-6
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    report = small.compaction_report
    assert report.note == ""
    assert report.after.parameters == sum(p.numel() for p in small.parameters())
    assert report.before.parameters / report.after.parameters > ARCHITECTURES[name, granularity]
    assert report.after.macs_dense < 0.75 * report.before.macs_dense
    assert report.after.macs_dense <= report.before.macs
    assert not [w for w in recwarn if issubclass(w.category, CompactionWarning)]


def test_every_dead_filter_of_resnet20_goes_but_one_for_each_reader_that_pads():
    model, x = network("resnet20")
    model.train()
    y = torch.arange(2)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    pruner = pb.Pruner(model, 0.6, "l2", "layerwise", "one_shot", granularity="filter")
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        pruner.step()
    small = pb.compact(model, x)
    assert small.training
    assert all(m.training for m in small.modules())
    dead = sum(int((~m.flatten(1).any(1)).sum()) for m in pruner.masks.values())
    report = small.compaction_report
    removed = sum(a - b for a, b in report.widths.values())
    assert removed + sum(report.left.values()) == dead
    assert removed > 0.9 * dead
    assert exact(model.eval(), small.eval(), x) < 1e-6


def chain(*layers):
    torch.manual_seed(1)
    return lived_in(nn.Sequential(*layers))


def kill(layer, *filters):
    layer.weight.data[list(filters)] = 0


def test_a_constant_joins_the_bias_of_a_layer_without_padding():
    model = chain(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2, bias=False), nn.Flatten(), nn.LazyLinear(2)
    )
    model(torch.randn(1, 2, 5, 5))
    kill(model[0], 1, 3)
    model[0].bias.data = torch.tensor([0.3, 2.0, -0.1, -5.0])
    small = pb.compact(model, torch.randn(1, 2, 5, 5))
    assert small[0].weight.shape == (2, 2, 3, 3)
    assert small[2].weight.shape == (3, 2, 2, 2)
    # Filter 1 puts out 2 everywhere; filter 3 is below zero, so nothing.
    torch.testing.assert_close(small[2].bias, 2.0 * model[2].weight[:, 1].sum((1, 2)))
    assert exact(model, small, torch.randn(3, 2, 5, 5)) < 1e-6


def test_where_zeros_are_padded_one_constant_speaks_for_all():
    model = chain(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 3, 3, padding=1), nn.ReLU())
    kill(model[0], 0, 2, 3, 5)
    x = torch.randn(2, 2, 9, 7)
    small = pb.compact(model, x)
    assert small[0].out_channels == small[1].num_features == small[3].in_channels == 3
    assert small.compaction_report.left == {"0": 1}
    for size in ((9, 7), (3, 3), (12, 4)):  # at borders of any image
        assert exact(model, small, torch.randn(2, 2, *size)) < 1e-6


def test_a_dead_filter_below_zero_needs_no_one():
    model = chain(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    kill(model[0], 0, 2, 3)
    model[1].bias.data[[0, 2, 3]] = -1.0
    model[1].running_mean.zero_()
    small = pb.compact(model, torch.randn(2, 2, 9, 7))
    assert small[0].out_channels == 3
    assert small.compaction_report.left == {}
    assert exact(model, small, torch.randn(2, 2, 9, 7)) < 1e-6


def test_what_no_one_reads_goes_though_it_is_not_zero():
    model = chain(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1), nn.Conv2d(3, 2, 1))
    model[3].weight.data[:, [1, 4]] = 0
    # Filter 0 of layer 3 is the only reader of channel 2, and no one reads it.
    model[3].weight.data[1:, 2] = 0
    model[4].weight.data[:, 0] = 0
    small = pb.compact(model, torch.randn(1, 2, 8, 8))
    assert [small[i].weight.shape[:2] for i in (0, 3, 4)] == [(3, 2), (2, 3), (2, 2)]
    assert exact(model, small, torch.randn(2, 2, 8, 8)) < 1e-12


def test_dead_filters_die_on_downstream():
    # Layer 2 reads only what is zero, so it puts out its bias, which layer 4 takes.
    model = chain(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))
    kill(model[0], 0, 1)
    model[0].bias.data[:2] = -1.0
    model[2].weight.data[1:, 2] = 0
    small = pb.compact(model, torch.randn(1, 1, 8, 8))
    assert [small[i].weight.shape[:2] for i in (0, 2, 4)] == [(1, 1), (1, 1), (2, 1)]
    assert exact(model, small, torch.randn(2, 1, 8, 8)) < 1e-6


class Wide(nn.Module):
    """A residual add, a concatenation with the image, a gate, and a linear layer after view."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.c, self.head = nn.Conv2d(11, 6, 3, stride=2), nn.Linear(6 * 9, 4)

    def forward(self, x):
        y = F.relu(self.a(x))
        y = y + self.b(y)
        n, c = y.shape[:2]
        y = y * torch.sigmoid(self.gate(y.mean((2, 3)).view(n, c, 1, 1)))
        y = torch.cat([x, y], 1)
        return self.head(F.relu(self.c(y)).view(n, -1))


def test_adds_gates_and_concatenation_go_together():
    torch.manual_seed(0)
    model = Wide().eval()
    kill(model.a, 2, 5)
    x = torch.randn(2, 3, 8, 8)
    # b still puts out something there, so nothing goes.
    with pytest.warns(CompactionWarning, match=r"filters that are all zero in a are needed"):
        assert pb.compact(model, x).a.out_channels == 8
    kill(model.b, 2, 5)
    model.b.bias.data[[2, 5]] = 0
    model.a.bias.data[[2, 5]] = 0
    small = pb.compact(model, x)
    assert (small.a.out_channels, small.b.in_channels, small.b.out_channels, small.gate.in_channels) == (6, 6, 6, 6)
    assert (small.gate.out_channels, small.c.in_channels) == (6, 9)
    assert exact(model, small, x) < 1e-12
    kill(model.c, 0)
    small = pb.compact(model, x)
    assert (small.c.out_channels, small.head.in_features) == (5, 45)
    assert exact(model, small, x) < 1e-6


class Unet(nn.Module):
    def __init__(self, up):
        super().__init__()
        self.down, self.norm, self.deep = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, 2, 1)
        self.up = nn.ConvTranspose2d(12, 10, 2, 2) if up == "transposed" else nn.Conv2d(12, 10, 1)
        self.scale = 1 if up == "transposed" else 2
        self.last, self.out = nn.Conv2d(18, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        skip = F.leaky_relu(self.norm(self.down(x)), 0.1)
        y = self.up(F.relu(self.deep(skip)))
        y = F.interpolate(y, scale_factor=float(self.scale), mode="bilinear") if self.scale > 1 else y
        return self.out(F.relu(self.last(torch.cat([skip, y], dim=1))))


@pytest.mark.parametrize("granularity", ["filter", "channel"])
@pytest.mark.parametrize("up", ["transposed", "interpolated"])
def test_a_unet(up, granularity):
    torch.manual_seed(0)
    model = lived_in(Unet(up))
    pb.prune(model, 0.5, scope="layerwise", granularity=granularity)
    small = pb.compact(model, torch.randn(1, 2, 16, 16))
    for size in (16, 24):
        assert exact(model, small, torch.randn(2, 2, size, size)) < 1e-6
    assert small.compaction_report.after.parameters < 0.5 * small.compaction_report.before.parameters


class Hard(nn.Module):
    """Sizes written into the code: channels 4 can't go, channels of b can."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 1)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x):
        y = self.c(F.relu(self.b(F.relu(self.a(x)))))
        return self.head(y.view(-1, 4 * 16))


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 1), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        left, right = self.a(x).chunk(2, 1)
        y = torch.cat([left, self.c(F.relu(self.b(right)))], 1)
        n, c, h, w = y.shape
        return self.head(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Padded(nn.Module):
    """A shortcut that pads channels, as in He et al.'s option A."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.head(F.relu(self.c(F.relu(self.b(y))) + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))))


class Twice(nn.Module):
    """A layer called twice, and a weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(n, 4, 3, padding=1) for n in (2, 4, 4, 4))
        self.d.weight = self.c.weight
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.b(F.relu(self.a(x))))))
        return self.head(F.relu(self.d(F.relu(self.c(y)))))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.norm(self.a(x))))) * self.scale)


class Functional(nn.Module):
    """A weight used by hand, and control flow on values."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = F.relu(self.a(x))
        if y.mean() > 1e9:
            return self.c(y)
        return self.c(F.conv2d(y, self.b.weight.abs(), self.b.bias, padding=1)[:, :, 1:-1].relu_())


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 12, 1), nn.Conv2d(12, 6, 3, padding=1, groups=3), nn.Conv2d(6, 2, 1)
        self.wide, self.head = nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.wide(self.c(F.relu(self.b(F.relu(self.a(x)))))))


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(2, 6, 3, padding=1), nn.Conv1d(6, 4, 3, padding="same"), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        y = F.avg_pool1d(torch.tanh(self.norm(self.a(x))), 3, 1, 1)
        return self.b(y), self.c(y.transpose(1, 2))


TRAPS = [Hard, Shuffled, Padded, Twice, Normed, Functional, Grouped, Heads]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("trap", TRAPS)
def test_what_can_not_go_stays_and_nothing_is_wrong(trap, seed):
    torch.manual_seed(seed)
    model = lived_in(trap(), seed)
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            module.weight.data[torch.rand(len(module.weight), generator=g) < 0.4] = 0
            if seed % 2:
                module.weight.data[:, torch.rand(module.weight.shape[1], generator=g) < 0.3] = 0
    x = torch.randn(3, 2, 9) if trap is Heads else torch.randn(3, 1 if trap in (Hard, Shuffled) else 2, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompactionWarning)
        small = pb.compact(model, x)
    assert "differs" not in small.compaction_report.note
    assert distance(float64(small, x), float64(model, x)) < 1e-6


def test_sizes_in_the_code_hold_only_what_they_concern():
    torch.manual_seed(0)
    model = Hard().eval()
    kill(model.a, 1)
    kill(model.b, 0, 3)
    kill(model.c, 2)
    small = pb.compact(model, torch.randn(2, 1, 6, 6))
    assert (small.a.out_channels, small.b.out_channels, small.c.out_channels) == (3, 3, 4)
    assert small.compaction_report.left == {"c": 1}


def test_groups_stay_of_one_size_or_go_altogether():
    torch.manual_seed(0)
    model = Grouped().eval()
    model.a.bias.data.zero_()
    kill(model.a, 0, 5, 6, 8, 9, 10, 11)  # one of group 0, three of group 1, all of group 2
    kill(model.b, 4, 5)
    model.b.bias.data[4:] = 0
    small = pb.compact(model, torch.randn(2, 2, 6, 6))
    assert (small.a.out_channels, small.b.groups, small.b.weight.shape) == (6, 2, (4, 3, 3, 3))
    assert exact(model, small, torch.randn(2, 2, 6, 6)) < 1e-12


def test_a_transformer_s_hidden_units_go_and_its_stream_stays():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(16, 4, 2, 2, 24, 48, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    hidden = [block.mlp[0] for block in model.encoder.layers]
    kill(hidden[0], *range(30))
    model.encoder.layers[1].mlp[3].weight.data[:, 40:] = 0
    x = torch.randn(2, 3, 16, 16)
    small = pb.compact(model, x)
    assert [block.mlp[0].out_features for block in small.encoder.layers] == [18, 40]
    assert small.compaction_report.widths.keys() == {f"encoder.layers.encoder_layer_{i}.mlp.0" for i in (0, 1)}
    assert exact(model, small, x) < 1e-6
    masks = pb.prune(model, 0.25, granularity="channel")
    assert all(m.all() for name, m in masks.items() if "mlp.3" not in name)


@pytest.mark.parametrize("seed", range(FUZZ))
def test_random_networks(seed):
    builder = Builder(seed)
    model, x = builder.model.eval(), input_of(builder, 2)
    g = torch.Generator().manual_seed(seed)
    try:
        if seed % 4 > 1:
            raise UsageError("by hand")
        pb.prune(model, 0.5, "random", "layerwise", ("filter", "channel")[seed % 4])
    except UsageError:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                axis = 1 if getattr(module, "transposed", False) else 0
                for a in {axis, axis if seed % 4 == 2 else 1 - axis}:
                    wide = module.weight.data.movedim(a, 0)
                    wide[torch.rand(len(wide), generator=g) < 0.4] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompactionWarning)
        small = pb.compact(model, x)
    assert "differs" not in small.compaction_report.note, describe(builder)
    h, w = x.shape[2:]
    for batch in (x, input_of(builder, 2, (h + 1, w + 3))):
        try:
            want = float64(model, batch)
        except RuntimeError:  # a head that wants its size
            continue
        assert distance(float64(small, batch), want) < 1e-5, describe(builder)


def test_widths_agree_with_torch_pruning_s_dependency_graph():
    """Filters that put out exactly nothing: what goes with them is what torch-pruning removes."""
    tp = pytest.importorskip("torch_pruning")
    model, x = network("resnet18")
    lived_in(model)
    oracle = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(oracle, x)
    norms = {"conv1": "bn1", "layer2.0.conv1": "layer2.0.bn1", "layer4.1.conv1": "layer4.1.bn1"}
    for name, filters in (("layer2.0.conv1", [3, 50]), ("layer4.1.conv1", list(range(100))), ("conv1", [7])):
        group = graph.get_pruning_group(oracle.get_submodule(name), tp.prune_conv_out_channels, filters)
        group.prune()
        tied = [name] if name != "conv1" else ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
        for layer in tied:
            kill(model.get_submodule(layer), *filters)
            norm = model.get_submodule(norms.get(layer, layer.replace("conv", "bn")))
            for parameter in (norm.bias.data, norm.running_mean):
                parameter[filters] = 0
    small = pb.compact(model, x)
    assert {n: p.shape for n, p in small.named_parameters()} == {n: p.shape for n, p in oracle.named_parameters()}
    assert all(torch.equal(p, oracle.get_parameter(n)) for n, p in small.named_parameters())
    assert exact(model, small, x) < 1e-12


def test_channels_mixed_by_an_operation_stay_and_the_rest_goes():
    # After a pixel shuffle a map holds four filters' outputs; what comes before and after it is none of its business.
    model = chain(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2),
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    kill(model[0], 1, 2, 3)
    model[0].bias.data[:4] = -1.0
    kill(model[2], 0, 1, 2, 3)
    model[7].weight.data[:, :5] = 0
    x = torch.randn(2, 3, 6, 6)
    small = pb.compact(model, x)
    assert [small[i].weight.shape[:2] for i in (0, 2, 4, 7)] == [(5, 3), (16, 5), (3, 4), (3, 3)]
    assert exact(model, small, x) < 1e-12


@dataclasses.dataclass
class Found:
    classes: torch.Tensor
    more: object


class Slotted:
    __slots__ = ("classes", "more")

    def __init__(self, classes, more):
        self.classes, self.more = classes, more


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap, self.a, self.b, self.c = wrap, nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(5, 3)

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.wrap(self.b(y), self.c(y))


WRAPS = {
    "dataclass": Found,
    "dataclass of a dict": lambda a, b: Found(a, {"b": [b]}),
    "object": lambda a, b: types.SimpleNamespace(classes=a, more=b),
    "slots": Slotted,
    "mapping": lambda a, b: collections.UserDict(a=a, b=b),
    "tuple": lambda a, b: (a, Found(b, None)),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_outputs_stay_whatever_they_are_wrapped_in(wrap):
    torch.manual_seed(0)
    model = Wrapping(WRAPS[wrap]).eval()
    kill(model.a, 0, 1)
    kill(model.b, 0, 2)
    kill(model.c, 1)
    small = pb.compact(model, torch.randn(2, 6))
    assert [small.get_submodule(n).out_features for n in "abc"] == [3, 4, 3]
    assert small.compaction_report.left == {"b": 2, "c": 1}
    x = torch.randn(3, 6)
    pairs = zip(tensors_of(model(x)), tensors_of(small(x)), strict=True)
    assert [torch.allclose(a, b, atol=1e-6) for a, b in pairs] == [True, True]


def test_nothing_to_remove_is_a_copy_in_silence(recwarn):
    model, x = network("lenet5")
    small = pb.compact(model, x)
    assert small is not model
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), model.parameters(), strict=True))
    assert small.compaction_report.widths == {}
    assert not list(recwarn)


def test_a_layer_that_is_gone_keeps_one_filter():
    model = chain(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    kill(model[2], *range(4))
    small = pb.compact(model, torch.randn(2, 6))
    assert [small[i].weight.shape for i in (0, 2, 4)] == [(1, 6), (1, 1), (2, 1)]
    assert exact(model, small, torch.randn(2, 6)) < 1e-6


def test_compacting_again_changes_nothing():
    model, x = network("resnet20")
    lived_in(model)
    pb.prune(model, 0.5, scope="layerwise", granularity="filter")
    small = pb.compact(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompactionWarning)
        again = pb.compact(small, x)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in small.named_parameters()}


def test_it_trains_saves_loads_and_compiles(tmp_path):
    model, x = network("resnet20")
    lived_in(model)
    pb.prune(model, 0.5, scope="layerwise", granularity="filter")
    small = pb.compact(model, x)
    assert all(p.requires_grad and p.is_leaf for p in small.parameters())
    for backend, weights in itertools.product(("dense", "csr"), ("dense", "sparse")):
        if weights == "sparse":
            pb.prune(small, 0.3)
        if backend == "csr":
            from prunebench import backends

            if backends.unavailable("csr"):
                continue
        assert torch.allclose(pb.compile(small, x, backend, threads=1)(x), small(x), atol=1e-4)
    other = copy.deepcopy(small)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    pb.save(small, tmp_path / "small.safetensors", format="bitmask")
    pb.load(tmp_path / "small.safetensors", other)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), small.parameters(), strict=True))
    assert torch.equal(pickle.loads(pickle.dumps(small))(x), small(x))
    small.train()
    F.cross_entropy(small(x), torch.arange(2)).backward()
    torch.optim.SGD(small.parameters(), 0.1).step()
    assert error(small.eval(), small, x) < 1e-5


def test_other_floating_types():
    for dtype in (torch.float64, torch.bfloat16):
        model = chain(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).to(dtype)
        kill(model[0], 1)
        small = pb.compact(model, torch.randn(2, 6, dtype=dtype))
        assert small[0].out_features == 4
        assert small[0].weight.dtype == dtype


def test_a_wrong_copy_is_never_handed_out(monkeypatch):
    from prunebench import compaction

    model, x = network("lenet5")
    pb.prune(model, 0.5, granularity="filter", scope="layerwise")
    cut = compaction.cut

    def spoilt(small, *arguments):
        cut(small, *arguments)
        small.fc1.bias.data += 0.01

    monkeypatch.setattr(compaction, "cut", spoilt)
    with pytest.warns(CompactionWarning, match="differs"):
        small = pb.compact(model, x)
    assert exact(model, small, x) == 0.0


def pruned_by_torch():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    torch.nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.parametrize(
    ("make", "x", "words"),
    [
        (lambda: "resnet20", torch.randn(1, 4), ["torch.nn.Module", "str"]),
        (lambda: nn.Linear(4, 2), None, ["example_input", "tensor"]),
        (lambda: nn.Linear(4, 2), torch.randn(0, 4), ["at least one sample"]),
        (lambda: nn.Linear(4, 2), torch.randn(1, 3), ["can't be run", "(1, 3)"]),
        (pruned_by_torch, torch.randn(1, 4), ["'0'", "prune.remove"]),
        (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), torch.randn(1, 4), ["parametrised"]),
        (lambda: Wrapping(lambda a, b: "nothing"), torch.randn(1, 6), ["Wrapping", "returns nothing"]),
        (lambda: torch.compile(nn.Linear(4, 2), backend="eager"), torch.randn(1, 4), ["compiled"]),
    ],
)
def test_what_can_not_be_is_one_line(make, x, words):
    with pytest.raises(UsageError) as caught:
        pb.compact(make(), x)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
