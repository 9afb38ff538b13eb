"""State dicts from files of plain tensors load into models that ask for a version, as torchvision's MNASNet does."""

import torch
from torch import nn

import prunebench as pb
from prunebench.sources import checkpoint
from prunebench.state_dicts import load_state


class Versioned(nn.Linear):
    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *arguments):
        if metadata.get("version") not in (1, 2):
            raise ValueError("version should be set to 1 or 2")
        if metadata["version"] == 1:
            state[f"{prefix}bias"] = state[f"{prefix}bias"] + 1
        super()._load_from_state_dict(state, prefix, metadata, *arguments)


def test_a_state_without_versions_is_of_the_model_s_own():
    model, other = nn.Sequential(Versioned(3, 2)), nn.Sequential(Versioned(3, 2))
    load_state(other, dict(model.state_dict()))
    assert torch.equal(other[0].bias, model[0].bias)


def test_a_state_s_own_versions_count():
    model, other = nn.Sequential(Versioned(3, 2)), nn.Sequential(Versioned(3, 2))
    state = model.state_dict()
    state._metadata["0"]["version"] = 1
    load_state(other, state)
    assert torch.equal(other[0].bias, model[0].bias + 1)


def test_checkpoints_load_into_a_model_that_asks_for_a_version(tmp_path):
    model, other = nn.Sequential(Versioned(3, 2)), nn.Sequential(Versioned(3, 2))
    pb.save(model, tmp_path / "m.safetensors")
    pb.load(tmp_path / "m.safetensors", other)
    assert torch.equal(other[0].weight, model[0].weight)
    checkpoint.fill(other, dict(model.state_dict()), "m.pt", "versioned")
