"""Like, as a bare scope: the copied scope on the sets it is given."""

import pytest
import torch

from prunebench.scopes import share_out
from prunebench.units import UnitSet


def sets():
    generator = torch.Generator().manual_seed(0)
    sizes = [("a", 40), ("b", 500), ("c", 25)]
    return [UnitSet((name,), torch.rand(n, generator=generator), 1, lambda keep: {}) for name, n in sizes]


@pytest.mark.parametrize("scope", ["global", "layerwise", "lamp"])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_it_is_the_copied_scope(scope, sparsity):
    assert share_out(f"like:scope={scope}", sets(), sparsity) == share_out(scope, sets(), sparsity)
