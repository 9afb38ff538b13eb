"""A weight as rows, one per output: the row of an output is all that the output is computed from."""

import pytest
import torch
from torch import nn

from prunebench.rows import from_rows, of_outputs, to_rows

LAYERS = [
    (nn.Linear(5, 3), (2, 5)),
    (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    (nn.Conv1d(3, 2, 2), (2, 3, 5)),
    (nn.ConvTranspose2d(3, 4, 2), (2, 3, 4, 4)),
    (nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 5)),
]


@pytest.mark.parametrize(("module", "shape"), LAYERS, ids=[str(m) for m, _ in LAYERS])
class TestRows:
    def test_a_row_is_what_one_output_depends_on(self, module, shape):
        x = torch.rand(shape) + 0.1
        out = module(x).transpose(1, -1) if not isinstance(module, nn.Linear) else module(x)
        outputs = out.shape[1] if isinstance(module, nn.Linear) else out.shape[-1]
        for o in range(outputs):
            (gradient,) = torch.autograd.grad(out[..., o].sum(), module.weight, retain_graph=True)
            expected = torch.zeros(outputs, 1).index_fill(0, torch.tensor(o), 1).bool()
            rows = to_rows(module, gradient) != 0
            assert torch.equal(rows, expected.expand(rows.shape))

    def test_they_go_back(self, module, shape):
        values = torch.randn(module.weight.shape)
        assert torch.equal(from_rows(module, to_rows(module, values)), values)

    def test_a_value_per_output(self, module, shape):
        outputs = module.bias.numel()
        spread = of_outputs(module, torch.arange(float(outputs)))
        assert spread.shape == module.weight.shape
        rows = to_rows(module, spread)
        assert torch.equal(rows, torch.arange(float(outputs))[:, None].expand(rows.shape))
