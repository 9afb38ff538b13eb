"""Trainings that are killed: real SIGKILLs in mid-training, then the same bits as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from running import environment

from prunebench import machine
from prunebench.cell import Cell, Recipe
from prunebench.errors import UsageError
from prunebench.pipeline import Lab, artifact, key_of
from prunebench.pipeline.unfinished import Unfinished
from prunebench.store import Store
from prunebench.training.state import UnfitState

ADAM = Recipe(name="adam", batch_size=128, epochs=3, fine_tune_epochs=3, prune_rounds=4, prune_until=0.9)
SGD = replace(ADAM, optimizer="sgd", learning_rate=0.05, weight_decay=1e-4, augment="crop_flip")
CELL = Cell("digits:size=8", "lenet300", "random", "weight", "global", "agp", 0.8, recipe=ADAM)
MODES = {
    # Random criteria draw from the training's own generator, crops from the order's; lenet5 is channels_last.
    "dense": Cell("digits:size=16", "lenet5", recipe=SGD),
    "pruned": CELL,
    "twin": replace(CELL, criterion="l1", scope="like:criterion=random:scope=global"),
    "movement": replace(CELL, criterion="movement"),
    "rewound": replace(CELL, recipe=replace(SGD, rewind="weights", rewind_epoch=1, prune_rounds=2)),
    "grown": replace(
        CELL, schedule="one_shot", recipe=replace(ADAM, regrow="random", regrow_every=4, distill_weight=0.2)
    ),
}
CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[4], os.path.dirname(sys.argv[4])]
from test_unfinished import MODES, lab_of, artifact
cell, lab = MODES[sys.argv[1]], lab_of(Path(sys.argv[2]))
def tell(said, step, steps):
    if said == cell and step >= float(sys.argv[3]) * steps:
        os.kill(os.getpid(), signal.SIGKILL)
lab.tell = tell
artifact(cell, lab)
"""


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store in which nothing was ever interrupted."""
    return lab_of(tmp_path_factory.mktemp("whole"))


def lab_of(folder):
    machine.cores = lambda: 1
    return Lab(Store(folder), folder, keep_seconds=0.0)


def kept(lab):
    return sorted(p.name for p in (lab.store.root / "unfinished").glob("*"))


def weights(lab, cell):
    return (lab.store.path(key_of(cell, lab.content(cell))) / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("mode", "share"),
    [("dense", 0.6), ("pruned", 0.6), ("movement", 0.6), ("rewound", 0.7), ("rewound", 0.9), ("grown", 0.6)],
)
def test_a_killed_training_ends_in_the_same_bytes(mode, share, whole, tmp_path):
    cell, lab = MODES[mode], lab_of(tmp_path)
    folder = str(__file__).rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, mode, str(tmp_path), str(share), folder],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert kept(lab) == [f"{key_of(cell, lab.content(cell))}.safetensors"]
    values = Unfinished(lab.store.root / "unfinished", key_of(cell, lab.content(cell)), 0.0).values
    assert 0 < values["epoch"] <= cell.recipe.epochs
    steps = []
    lab.tell = lambda said, step, total: steps.append((step, total)) if said == cell else None
    made = artifact(cell, lab)
    reference = artifact(cell, whole)
    assert weights(lab, cell) == weights(whole, cell)
    for name in ("loss", "validation_accuracy", "digest", "collapse"):
        assert made.meta.get(name) == reference.meta.get(name)
    assert made.meta["training_seconds"] > values["seconds"]
    assert steps[0][0] > steps[0][1] / cell.recipe.epochs / 2  # it went on, it didn't start again
    assert kept(lab) == []


def test_a_kill_from_outside_at_any_time(whole, tmp_path):
    cell, lab = MODES["dense"], lab_of(tmp_path)
    folder = str(__file__).rsplit("/", 1)[0]
    child = subprocess.Popen([sys.executable, "-c", CHILD, "dense", str(tmp_path), "2", folder], env=environment())
    end = time.monotonic() + 100
    while not kept(lab) and time.monotonic() < end and child.poll() is None:
        time.sleep(0.005)
    child.kill()
    child.wait(10)
    artifact(cell, lab)
    artifact(cell, whole)
    assert weights(lab, cell) == weights(whole, cell)
    assert kept(lab) == []


def state(folder, **values):
    unfinished = Unfinished(folder, "key", 0.0)
    unfinished.write({"fit.a": torch.arange(3.0)}, {"epoch": 1, "stage": 2, **values})
    return unfinished.path


def test_what_is_written_is_read(tmp_path):
    state(tmp_path, loss=0.1 + 0.2)
    again = Unfinished(tmp_path, "key", 0.0)
    assert (again.stage, again.values["epoch"], again.values["loss"]) == (2, 1, 0.1 + 0.2)
    assert torch.equal(again.more("fit.")["a"], torch.arange(3.0))
    assert again.keeper(1).read() is None
    assert again.keeper(2).read()[1] == again.values
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", ["short", "flipped", "empty", "header", "schema"])
def test_a_damaged_state_is_told(spoil, tmp_path):
    path = state(tmp_path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "short": content[:-1],
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "empty": b"",
            "schema": content.replace(b'\\"schema\\": 1', b'\\"schema\\": 0'),
            "header": b"\xff" * 8 + content[8:],
        }[spoil]
    )
    assert path.read_bytes() != content
    with pytest.raises(UnfitState):
        Unfinished(tmp_path, "key", 0.0)
    assert path.exists()


def test_a_state_of_a_newer_format_is_refused_and_kept(tmp_path):
    path = state(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'\\"schema\\": 1', b'\\"schema\\": 9'))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="was kept by a newer prunebench") as error:
        Unfinished(tmp_path, "key", 0.0)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_leftovers_of_a_killed_write_go(tmp_path):
    path = state(tmp_path)
    (tmp_path / f".{path.name}.abc").write_bytes(b"half")
    Unfinished(tmp_path, "key", 0.0).remove()
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_every_so_many_seconds_only(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    keeper = Unfinished(tmp_path, "key", 30.0).keeper()
    due = []
    for second in (1, 29, 31, 59, 62):
        now[0] = 100.0 + second
        due.append(keeper.due())
        if due[-1]:
            keeper.write({}, {"epoch": 1})
    assert due == [False, False, True, False, True]
    text = next(tmp_path.glob("*.safetensors")).read_bytes()
    header = json.loads(text[8 : 8 + int.from_bytes(text[:8], "little")])
    assert json.loads(header["__metadata__"]["values"])["seconds"] == 62.0


def test_short_trainings_write_nothing(tmp_path):
    lab = Lab(Store(tmp_path), tmp_path)
    artifact(replace(CELL.control, recipe=replace(ADAM, epochs=1)), lab)
    assert not (tmp_path / "unfinished").exists()


def test_a_place_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as error:
        Unfinished(tmp_path / "file", "key", 0.0).write({}, {"stage": 0})
    assert "\n" not in str(error.value)
