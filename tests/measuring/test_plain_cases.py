"""Cases cross to another process as JSON, and are the same there."""

import json
import math
from dataclasses import replace

import pytest

from prunebench import questions
from prunebench.cell import Case, Cell
from prunebench.measuring.plain_cases import case_of, plain
from prunebench.recipe import Recipe

CELL = Cell("digits:size=8", "lenet300", "lp:p=3", "n_m:n=2:m=4", "like:criterion=snip:scope=global", "agp",
            math.nextafter(0.9, 1), 2**62, Recipe(name="own λ", learning_rate=0.1 + 0.2, nesterov=True,
                                                   optimizer="sgd", momentum=0.7, warmup_epochs=1.5))  # fmt: skip
GRID = [Case(CELL, "csr", 64), Case(CELL.control, "dense:layout=channels_last", 1), Case(replace(CELL, seed=0), "x", 7)]


def cases():
    yield from (("grid", case) for case in GRID)
    for question in ("layers", "networks", "claims"):
        found = getattr(questions, question)("paper").cases
        assert len(found) > 10
        yield from ((question, case) for case in found[:: len(found) // 8])


@pytest.mark.parametrize(("question", "one"), list(cases()), ids=lambda x: getattr(x, "id", x))
def test_a_case_comes_back_as_it_was(question, one):
    back = case_of(question, json.loads(json.dumps(plain(one))))
    assert back == one
    assert repr(back) == repr(one)
    assert hash(back) == hash(one)


def test_claims_have_both_kinds():
    found = [case for question, case in cases() if question == "claims"]
    assert {case.layer is None for case in found} == {True, False}
