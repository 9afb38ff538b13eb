"""Channels: what one reader reads a channel with, tied over all its readers; the image's channels stay."""

import pytest
import torch
import torch.nn.functional as F
from branching import Branching
from torch import nn

import prunebench as pb
from prunebench import models
from prunebench.errors import UsageError
from prunebench.granularities.readers import Read, tied_channels
from prunebench.masks import prunable_modules

pytestmark = pytest.mark.filterwarnings("ignore::prunebench.masks.LayerCollapseWarning")


def groups(model, exclude=()):
    return {frozenset(r.name for r in reads) for _, reads in tied_channels(model, prunable_modules(model, exclude))}


def read_of(mask):
    """bool (input channels,): those that a mask keeps; each is kept or dropped whole."""
    flat = mask.transpose(0, 1).flatten(1)
    assert torch.equal(flat, flat[:, :1].expand_as(flat))
    return flat[:, 0]


def test_a_channel_s_score_is_its_columns_norm():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[1].weight.data = torch.tensor([[1.0, -4.0, 2.0], [3.0, 0.5, -3.0]])
    masks = pb.prune(model, 1 / 3, granularity="channel")  # sums 4, 4.5, 5
    assert masks["1.weight"].tolist() == [[False, True, True]] * 2
    assert masks["0.weight"].all(), "the model's inputs stay"
    model[1].weight.data = torch.tensor([[1.0, -4.0, 2.5], [3.0, 0.5, -3.0]])
    masks = pb.prune(model, 1 / 3, "linf", granularity="channel")  # maxima 3, 4, 3: the first of equals
    assert read_of(masks["1.weight"]).tolist() == [False, True, True]


def test_resnet20_s_readers():
    stage = "stages.{}.{}.conv{}.weight".format
    shortcut = "stages.{}.0.shortcut.0.weight".format
    expected = {frozenset([stage(s, b, 2)]) for s in range(3) for b in range(3)}
    expected.add(frozenset([*(stage(0, b, 1) for b in range(3)), stage(1, 0, 1), shortcut(1)]))
    expected.add(frozenset([stage(1, 1, 1), stage(1, 2, 1), stage(2, 0, 1), shortcut(2)]))
    expected.add(frozenset([stage(2, 1, 1), stage(2, 2, 1), "fc.weight"]))
    assert groups(models.build("resnet20", (3, 32, 32), 10)) == expected


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_readers_of_one_channel_drop_it_together(scope):
    model = models.build("resnet20", (3, 32, 32), 10)
    masks = pb.prune(model, 0.5, granularity="channel", scope=scope)
    for group in groups(model):
        first, *others = (read_of(masks[name]) for name in sorted(group))
        assert all(torch.equal(first, other) for other in others)
    assert masks["stem.weight"].all()
    assert scope == "global" or int(read_of(masks["fc.weight"]).sum()) == 32


def test_a_group_s_score_is_the_sum_over_its_readers():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.head = nn.Linear(1, 2), nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            y = F.relu(self.a(x))
            return self.head(torch.cat([self.b(y), self.c(y)], 1))

    model = Fork()
    model.b.weight.data, model.c.weight.data = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.5]])
    masks = pb.prune(model, 0.5, granularity="channel", exclude=["head"])
    assert masks["b.weight"].tolist() == masks["c.weight"].tolist() == [[True, False]]


def test_a_flattened_map_s_columns_go_with_its_channel():
    model = models.build("lenet5", (1, 28, 28), 10)
    columns = model.fc1.weight.detach().abs().view(500, 50, 16).sum((0, 2))
    masks = pb.prune(model, 0.5, granularity="channel", scope="layerwise")
    kept = masks["fc1.weight"].view(500, 50, 16)
    assert torch.equal(kept, kept[:1, :, :1].expand_as(kept))
    assert torch.equal(kept[0, :, 0], columns >= columns.sort().values[25])
    assert int(read_of(masks["fc2.weight"]).sum()) == 250, "the classifier's inputs may go"


class Joined(nn.Module):
    """Two branches and the image, concatenated; one branch is read elsewhere too."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(12, 6, 1)
        self.d, self.head = nn.Conv2d(5, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.head(self.c(torch.cat([a, x, b], 1)) + self.d(b))


def test_concatenated_channels_are_parts_of_their_reader():
    model = Joined()
    modules = prunable_modules(model)
    assert tied_channels(model, modules) == [
        (4, (Read("c.weight", 0, 1),)),
        (5, (Read("c.weight", 7, 1), Read("d.weight", 0, 1))),
        (6, (Read("head.weight", 0, 1),)),
    ]
    masks = pb.prune(model, 0.5, granularity="channel", scope="layerwise")
    c, d = read_of(masks["c.weight"]), read_of(masks["d.weight"])
    assert (int(c[:4].sum()), int(c[4:7].sum()), int(c[7:].sum())) == (2, 3, 2)
    assert torch.equal(c[7:], d)
    small = pb.compact(model, torch.randn(1, 3, 4, 4))
    assert (small.a.out_channels, small.b.out_channels, small.c.in_channels) == (2, 2, 7)


def test_a_depthwise_filter_goes_with_its_channel():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))
    assert groups(model) == {frozenset(["1.weight", "2.weight"])}
    masks = pb.prune(model, 0.5, granularity="channel")
    assert torch.equal(masks["1.weight"].flatten(1).any(1), read_of(masks["2.weight"]))
    assert int(masks["2.weight"].sum()) == 4


def test_a_channel_of_a_convolution_in_groups_lies_in_its_group():
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    model[1].weight.data = torch.tensor([[3.0, 1, 5], [3, 1, 5], [2, 6, 7], [1, 6, 7]]).view(4, 3, 1, 1)
    masks = pb.prune(model, 1 / 3, granularity="channel", scope="layerwise", exclude=["2"])
    assert masks["1.weight"].flatten(1).tolist() == [[True, False, True]] * 2 + [[False, True, True]] * 2


def test_a_transposed_convolution_reads_along_its_first_axis():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ConvTranspose2d(3, 2, 2), nn.Conv2d(2, 2, 1))
    model[1].weight.data = torch.tensor([2.0, 1.0, 3.0]).view(3, 1, 1, 1).expand(3, 2, 2, 2).clone()
    masks = pb.prune(model, 1 / 3, granularity="channel", exclude=["2"])
    assert masks["1.weight"].flatten(1).any(1).tolist() == [True, False, True]
    assert pb.compact(model, torch.randn(1, 1, 3, 3))[0].out_channels == 2


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        return self.d(self.c(self.b(self.b(self.a(x)))))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.c(F.gelu(self.b(self.norm(self.a(x)))))


class Seen(nn.Module):
    """The output shows a's channels; b's are shuffled by an operation that isn't known."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        y = self.a(x)
        return y, self.d(self.c(torch.roll(self.b(y), 1, 1)))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Twice, {frozenset(["d.weight"])}),
        (Mixed, {frozenset(["c.weight"])}),
        (Seen, {frozenset(["d.weight"])}),
    ],
)
def test_what_others_read_too_can_not_be_dropped(make, found):
    assert groups(make()) == found


def test_an_excluded_reader_holds_the_channels_that_it_reads():
    model = models.build("resnet20", (3, 32, 32), 10)
    found = groups(model, ["fc"])
    assert not any("stages.2.1.conv1.weight" in g for g in found)
    assert frozenset(["stages.2.1.conv2.weight"]) in found


@pytest.mark.parametrize("model", [nn.Linear(4, 2), nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), Branching()])
def test_nothing_to_remove_is_one_line(model):
    with pytest.raises(UsageError, match="no channel that could be removed") as error:
        pb.prune(model, 0.5, granularity="channel")
    assert "\n" not in str(error.value)


def test_the_total_is_the_nearest_that_whole_channels_allow():
    model = models.build("lenet5", (1, 28, 28), 10)
    masks = pb.prune(model, 0.5, granularity="channel")
    able = sum(masks[n].numel() for n in ("conv2.weight", "fc1.weight", "fc2.weight"))
    # The dearest unit is a channel of fc1: 500 x 16 weights.
    assert abs(sum(int((~m).sum()) for m in masks.values()) - able / 2) <= 500 * 16 / 2


def test_masks_shrink_and_hold_through_training():
    model = models.build("lenet300", (1, 8, 8), 10)
    pruner = pb.Pruner(model, 0.6, schedule="linear", steps=4, granularity="channel", scope="layerwise")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    counts = []
    for _ in range(6):
        F.cross_entropy(model(torch.randn(8, 1, 8, 8)), torch.arange(8)).backward()
        optimizer.step()
        pruner.step()
        counts.append([int(read_of(pruner.masks[n]).sum()) for n in ("fc2.weight", "fc3.weight")])
        assert all(torch.equal(model.get_parameter(n) != 0, m) for n, m in pruner.masks.items() if n != "fc1.weight")
    assert counts == [[255, 85], [210, 70], [165, 55], [120, 40], [120, 40], [120, 40]]
