"""The delta encoding, code by code, and the width that it takes."""

import pytest
import torch

from prunebench.formats import delta

pytestmark = pytest.mark.usefixtures("decoder")


def row(length: int, *places: int) -> torch.Tensor:
    values = torch.zeros(1, length)
    values[0, list(places)] = torch.arange(1.0, len(places) + 1)
    return values


@pytest.mark.parametrize(
    ("matrix", "name", "codes"),
    [
        (row(40, 0, 1, 16), "steps4", [1 | 1 << 4, 15]),  # an odd number of codes: the last half byte stays empty
        (row(40, 2, 18), "steps4", [3 | 0 << 4, 1]),  # a distance of 16 is an escape of 15 and one more
        (row(2000, 99, 199, 299, 599), "steps8", [100, 100, 100, 0, 45]),  # 300 = 255 + 45
        (row(9000, 4000, 8000), "steps16", [4001, 4000]),
        (row(70000, 65535), "steps16", [0, 1]),
        (row(70000), "steps4", []),
    ],
)
def test_codes(matrix, name, codes):
    parts = delta.encode(matrix)
    assert set(parts) == {name, "values"}
    assert parts[name].tolist() == codes
    delta.check(parts, *matrix.shape)
    places = [int(p) for some in delta.positions(parts, *matrix.shape) for p in some]
    assert places == matrix.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02, 0.001])
def test_the_width_with_the_fewest_bytes_is_taken(density):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(200, 1000, generator=generator) * (torch.rand(200, 1000, generator=generator) < density)
    gaps = matrix.flatten().nonzero().flatten().diff(prepend=torch.tensor([-1]))
    sizes = {w: ((1 + (gaps - 1) // (2**w - 1)).sum().item() * w + 7) // 8 for w in (4, 8, 16)}
    parts = delta.encode(matrix)
    (steps,) = [part for name, part in parts.items() if name != "values"]
    assert steps.nbytes == min(sizes.values())


def test_chunks_join_to_the_whole(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(50, 333, generator=generator) * (torch.rand(50, 333, generator=generator) < 0.05)
    parts = delta.encode(matrix)
    monkeypatch.setattr(delta, "_CHUNK", 7)
    places = [int(p) for some in delta.positions(parts, *matrix.shape) for p in some]
    assert places == matrix.flatten().nonzero().flatten().tolist()
