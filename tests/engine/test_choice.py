"""What tuning chose, as JSON and back."""

from __future__ import annotations

import json

import pytest

from prunebench.engine.choice import Choice
from prunebench.engine.layout import SIZES
from prunebench.engine.tiles import Tiling

WIDEST = (0, 16, 10, 7, 6)
FOUND = (Tiling(2, 8, 16, 1.0), Tiling(4, 4, 16, 2.0), Tiling(1, 16, 8, 3.0))


def test_a_choice_survives_json():
    choice = Choice((1, 16), {"layer1.0.conv1": (4, 6, 32), "fc": (1, 1, 512)})
    assert Choice.from_dict(json.loads(json.dumps(choice.as_dict()))) == choice
    assert Choice.from_dict(Choice().as_dict()) == Choice()
    assert Choice().images == SIZES


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"images": [1]}, {"tiles": {}}, {"images": [], "tiles": {}}, {"images": [3], "tiles": {}},
        {"images": 4, "tiles": {}},
        {"images": [1], "tiles": []}, {"images": [1], "tiles": {"a": [1, 2]}},
        {"images": [1], "tiles": {"a": [1, 0, 2]}},
        {"images": [1], "tiles": {"a": [1, -1, 2]}}, {"images": [1], "tiles": {"a": 3}}, {"images": ["x"], "tiles": {}},
        {"images": [None], "tiles": {}}, {"images": [1], "tiles": {"a": ["x", 1, 1]}}, None, [], 3,
    ],
)  # fmt: skip
def test_what_is_no_choice(wrong):
    with pytest.raises(ValueError) as caught:
        Choice.from_dict(wrong)
    assert "\n" not in str(caught.value)


def test_the_model_s_tile():
    assert Choice().of("a", FOUND, 8, 8, 64, WIDEST) is FOUND[0]
    assert Choice(variant=1).of("a", FOUND, 8, 8, 64, WIDEST) is FOUND[1]
    assert Choice(variant=9).of("a", FOUND, 8, 8, 64, WIDEST) is FOUND[2]


def test_a_named_tile_where_it_fits():
    choice = Choice(tiles={"a": (4, 6, 32)})
    named = choice.of("a", FOUND, 4, 6, 32, WIDEST)
    assert (named.rows, named.cols, named.block) == (4, 6, 32)
    assert choice.of("b", FOUND, 4, 6, 32, WIDEST) is FOUND[0]
    for rh, rw, most in [(3, 6, 32), (4, 5, 32), (4, 6, 31)]:
        assert choice.of("a", FOUND, rh, rw, most, WIDEST) is FOUND[0]
    for widest in [(0, 16, 10, 7, 5), (0, 6, 3), (0, 2, 1, 0, 0)]:  # chosen on another machine
        assert choice.of("a", FOUND, 4, 6, 32, widest) is FOUND[0]
