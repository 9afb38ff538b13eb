"""Criteria about filters: network slimming's scale and FPGM's distances, as a filter's and as a weight's score."""

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import criteria
from prunebench.errors import UsageError
from prunebench.masks import prunable_modules


def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    model[1].weight.data = torch.tensor([0.5, -0.1, 0.9, 0.0, -0.7, 0.3])
    model[4].weight.data = torch.tensor([0.2, 0.4, -0.6, 0.8])
    return model


def scores(name, model):
    return criteria.score(name, model, prunable_modules(model))


class TestBnScale:
    def test_every_weight_has_the_scale_of_its_output(self):
        found = scores("bn_scale", net())
        first = torch.tensor([0.5, 0.1, 0.9, 0.0, 0.7, 0.3]).view(6, 1, 1, 1).expand(6, 2, 3, 3)
        assert torch.equal(found["0.weight"], first)
        # (in, out/groups, …): the first group's inputs make outputs 0 and 1, the second's 2 and 3.
        second = torch.tensor([[0.2, 0.4]] * 3 + [[0.6, 0.8]] * 3).view(6, 2, 1, 1).expand(6, 2, 2, 2)
        assert torch.equal(found["3.weight"], second)
        assert torch.equal(found["6.weight"], torch.ones(3, 64))

    def test_the_filter_s_score_is_the_scale_itself(self):
        found = scores("bn_scale", net())["0.weight"]
        assert criteria.reducer("bn_scale")(found.flatten(1)).tolist() == pytest.approx([0.5, 0.1, 0.9, 0.0, 0.7, 0.3])

    def test_the_smallest_scales_go(self):
        model = nn.Sequential(*list(net())[:3], nn.Flatten(), nn.Linear(96, 3))
        masks = pb.prune(model, 0.5, "bn_scale", granularity="filter")
        assert masks["0.weight"].flatten(1).any(1).tolist() == [True, False, True, False, True, False]

    def test_no_batch_norm_is_a_clear_line(self):
        with pytest.raises(UsageError, match=r"'bn_scale' needs batch norms") as error:
            pb.prune(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), 0.5, "bn_scale")
        assert "\n" not in str(error.value)


class TestFpgm:
    def test_a_filter_s_score_is_its_distance_to_all_others(self):
        model = net()
        found = scores("fpgm", model)
        for layer in ("0.weight", "6.weight"):
            rows = model.get_parameter(layer).detach().flatten(1).double()
            expected = [sum(float((a - b).square().sum().sqrt()) for b in rows) for a in rows]
            assert criteria.reducer("fpgm")(found[layer].flatten(1)).tolist() == pytest.approx(expected, rel=1e-6)

    def test_all_weights_of_a_filter_share_alike(self):
        for layer, module in prunable_modules(net()).items():
            found = scores("fpgm", net())[layer]
            if layer == "3.weight":
                per_output = found.view(2, 3, 2, 2, 2).transpose(1, 2).reshape(4, -1)
            else:
                per_output = found.flatten(1)
            assert torch.equal(per_output, per_output[:, :1].expand(per_output.shape)), module

    def test_the_one_in_the_middle_goes_and_not_the_smallest(self):
        model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 2))
        model[0].weight.data = torch.tensor([0.1, 5.0, 5.2, 9.0]).view(4, 1, 1, 1)
        masks = pb.prune(model, 0.25, "fpgm", granularity="filter")
        # Sums: 18.9 for 0.1, 9.1 for 5.0 and 5.2 each, 16.7 for 9.0: of equals the first
        assert masks["0.weight"].flatten().tolist() == [True, False, True, True]

    def test_twins_are_equally_dispensable(self):
        model = nn.Sequential(nn.Conv2d(3, 5, 3))
        model[0].weight.data[4] = model[0].weight.data[1]
        found = criteria.reducer("fpgm")(scores("fpgm", model)["0.weight"].flatten(1))
        assert found[4].item() == pytest.approx(found[1].item(), rel=1e-12)
