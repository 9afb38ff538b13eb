"""The fuzz targets on their corpus and on mutations of it, without a fuzzer; and that each of them can fail."""

import json
import random

import mutating
import pytest
import targets
import torch

import prunebench as pb
from prunebench import formats
from prunebench.errors import UsageError
from prunebench.runs import read_run

FILES = [(name, path) for name in targets.TARGETS for path in sorted((targets.CORPUS / name).iterdir())]


@pytest.mark.parametrize(("name", "path"), FILES, ids=[f"{name}-{path.name}" for name, path in FILES])
def test_every_input_of_the_corpus(name, path):
    check, _ = targets.TARGETS[name]
    check(path.read_bytes())


@pytest.mark.parametrize(("name", "count"), [("checkpoint", 1500), ("saved_run", 40)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a speed-up of zero
def test_mutations_of_the_corpus(name, count):
    check, mutate = targets.TARGETS[name]
    chance = random.Random(0)
    pool = targets.seeds(name)
    for number in range(count):
        content = mutate(chance.choice(pool), chance)
        try:
            check(content)
        except BaseException:
            print(f"mutation {number}: {content[:3000]!r}")
            raise


@pytest.mark.parametrize("name", targets.TARGETS)
@pytest.mark.parametrize("depth", [500, 900, 970, 995, 2000, 200_000])
def test_nesting_deeper_than_recursion_is_mutated_and_read(name, depth):
    """json reads nesting through which Python's own recursion can't walk."""
    check, mutate = targets.TARGETS[name]
    chance = random.Random(depth)
    nested = "[" * depth + "]" * depth
    header = ('{"w": ' + nested + "}").encode()
    for content in (nested.encode(), header, len(header).to_bytes(8, "little") + header):
        for _ in range(20):
            check(mutate(content, chance))


@pytest.mark.parametrize("text", ['{"a": [], "b": {}}', '{"a": 1' + "0" * 4299 + "}"])
def test_mutations_leave_no_trace_and_always_give_bytes(text):
    """One that put a list into a constant, and so at last into itself, could not be written any more."""
    before = repr(mutating.KINDS)
    for seed in range(400):
        content = mutating.saved_run(text.encode(), random.Random(seed))
        assert isinstance(mutating.saved_run(content, random.Random(seed)), bytes)
    assert repr(mutating.KINDS) == before


def test_mutations_are_mostly_read_or_refused_for_what_they_say():
    """Not only for being no JSON: a target that never gets past the container tests nothing behind it."""
    chance, read, refused = random.Random(1), 0, set()
    for _ in range(300):
        content = targets.checkpoint(chance.choice(targets.seeds("checkpoint")), chance)
        try:
            formats.from_bytes(content)
            read += 1
        except UsageError as error:
            refused.add(str(error)[:60])
    assert read > 20
    assert len(refused) > 8


BROKEN = {
    "an exception": lambda content: (_ for _ in ()).throw(OverflowError("too large")),
    "a line of control characters": lambda content: (_ for _ in ()).throw(UsageError("\x1b[31m")),
    "a bomb": lambda content: {"w": torch.empty(1).expand(1 << 31)},
    "no tensor": lambda content: {"w": [1.0]},
}


@pytest.mark.parametrize("reader", BROKEN.values(), ids=BROKEN)
def test_a_broken_reader_is_found(monkeypatch, reader):
    monkeypatch.setattr(pb, "load", lambda path, model=None: reader(b""), raising=False)
    with pytest.raises((AssertionError, OverflowError)):
        targets.check_checkpoint(b"")


def test_a_reader_that_spoils_the_model_is_found(monkeypatch):
    def load(path, model=None):
        if model is not None:
            model.fc.weight.data.zero_()
        raise UsageError("refused")

    monkeypatch.setattr(pb, "load", load, raising=False)
    with pytest.raises(AssertionError, match="changed the model"):
        targets.check_checkpoint(b"")


def test_a_cell_that_breaks_its_row_is_found(monkeypatch):
    content = (targets.CORPUS / "saved_run" / "grid.json").read_bytes()
    monkeypatch.setattr("prunebench.tables.rendering._MARKDOWN", ())
    facts = json.loads(content)
    facts["benchmarks"][0]["extra_info"]["cell"]["recipe"]["name"] = "a | b"
    with pytest.raises(AssertionError, match="broke its column"):
        targets.check_saved_run(json.dumps(facts).encode())


def test_the_corpus_is_of_runs_that_are_read():
    for path in (targets.CORPUS / "saved_run").glob("*.json"):
        if not path.name.startswith("found-"):
            assert read_run(path).cases
