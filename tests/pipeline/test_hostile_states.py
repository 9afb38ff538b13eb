"""Kept states that anybody may have written, their digest right: set aside with a warning, and the training begun anew.

Each is a real one, of a training stopped half way, with one thing changed.
"""

import copy
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from test_unfinished import MODES, lab_of, weights

from prunebench.pipeline import artifact, early_key, key_of
from prunebench.pipeline.unfinished import _digest

pytestmark = pytest.mark.usefixtures("one_core")
REWOUND_EARLY = replace(MODES["rewound"], recipe=replace(MODES["rewound"].recipe, epochs=3, rewind_epoch=2))
CELLS = {**MODES, "early": REWOUND_EARLY}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(what an undisturbed run makes, {mode: the content of a state kept half way})"""
    whole, states = lab_of(tmp_path_factory.mktemp("whole")), {}
    for mode, cell in CELLS.items():
        artifact(cell, whole)
        stopped = lab_of(tmp_path_factory.mktemp(mode))
        teller = cell.control if mode == "early" else cell
        if mode == "early":
            artifact(cell.control, stopped)

        def tell(said, step, steps, teller=teller):
            if said == teller and step >= 0.6 * steps:
                raise Stopped

        stopped.tell = tell
        with pytest.raises(Stopped):
            artifact(cell, stopped)
        [file] = (stopped.store.root / "unfinished").iterdir()
        assert file.stem == key(mode, stopped)
        states[mode] = file.read_bytes()
    return whole, states


def key(mode, lab):
    cell = CELLS[mode]
    content = lab.content(cell)
    return early_key(cell, content) if mode == "early" else key_of(cell, content)


def changed(content, change):
    """A state after change(tensors, values), its digest renewed."""
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    values = json.loads(header["__metadata__"]["values"])
    change(tensors, values)
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    values["digest"] = _digest(save(tensors))
    return save(tensors, {"values": json.dumps(values)})


def first(tensors, prefix):
    return next(name for name in sorted(tensors) if name.startswith(prefix) and tensors[name].ndim)


def setting(where, value):
    """A change: one value, at a path of names."""

    def change(tensors, values):
        inner = values
        for name in where[:-1]:
            inner = inner[name]
        inner[where[-1]] = copy.deepcopy(value)

    return change


def without(where):
    return lambda tensors, values: values.pop(where)


def dropping(prefix):
    def change(tensors, values):
        for name in [n for n in tensors if n.startswith(prefix)]:
            del tensors[name]

    return change


def turning(prefix, how):
    def change(tensors, values):
        name = prefix if prefix in tensors else first(tensors, prefix)
        tensors[name] = how(tensors[name])

    return change


def other(tensors, values):
    for name in list(tensors):
        tensors[f"{name}.more"] = tensors.pop(name)


EVERYWHERE = {
    "no tensors": lambda tensors, values: tensors.clear(),
    "other names": other,
    "weights missing": dropping("fit.model."),
    "weights short": turning("fit.model.", lambda t: t[:1]),
    "weights whole": turning("fit.model.", lambda t: t.long()),
    "weights nan": turning("fit.model.", lambda t: torch.full_like(t, math.nan)),
    "moments missing": dropping("fit.optimizer.0."),
    "moments short": turning("fit.optimizer.0.", lambda t: t.flatten()[:3]),
    "moments double": turning("fit.optimizer.0.", lambda t: t.double()),
    "moments of others": lambda tensors, values: tensors.update({"fit.optimizer.0.other": torch.zeros(3)}),
    "order missing": dropping("fit.random.order"),
    "order short": turning("fit.random.order", lambda t: t[:9]),
    "order of zeros": turning("fit.random.cpu", torch.zeros_like),
    "random of floats": turning("fit.random.cpu", lambda t: t.float()),
    "scaler nan": lambda tensors, values: tensors.update({"fit.scaler.scale": torch.tensor(math.nan)}),
    "epoch beyond": setting(["epoch"], 4),
    "epoch far beyond": setting(["epoch"], 10**30),
    "epoch negative": setting(["epoch"], -1),
    "epoch zero": setting(["epoch"], 0),
    "epoch nan": setting(["epoch"], math.nan),
    "epoch true": setting(["epoch"], True),
    "epoch text": setting(["epoch"], "2"),
    "epoch missing": without("epoch"),
    "loss nan": setting(["loss"], math.nan),
    "loss null": setting(["loss"], None),
    "loss huge": setting(["loss"], 10**400),
    "seconds nan": setting(["seconds"], math.nan),
    "seconds negative": setting(["seconds"], -1.0),
    "stage beyond": setting(["stage"], 7),
    "stage negative": setting(["stage"], -1),
    "stage half": setting(["stage"], 0.5),
    "stage missing": without("stage"),
    "schema text": setting(["schema"], "1"),
}
PRUNED = {
    "masks missing": dropping("mask."),
    "one mask missing": lambda tensors, values: tensors.pop(first(tensors, "mask.")),
    "masks short": turning("mask.", lambda t: t[:1]),
    "masks of floats": turning("mask.", lambda t: t.float()),
    "share nan": setting(["share"], math.nan),
    "share beyond": setting(["share"], 2),
    "share text": setting(["share"], "1"),
    "prunings null": setting(["prunings"], None),
    "prunings text": setting(["prunings"], ["many"]),
    "prunings of others": setting(["prunings"], [{"other": 3}]),
    "prunings negative": setting(["prunings", 0], {f"{i}.weight": -1 for i in range(9)}),
    "around missing": without("around"),
    "around list": setting(["around"], [1]),
    "around more": setting(["around", "more"], 1),
    "collapses null": setting(["collapses"], None),
    "collapses numbers": setting(["collapses"], [1, "a"]),
    "not pruned numbers": setting(["not_pruned"], 3),
}
OWN = {
    "pruned": {
        "step nan": turning("fit.optimizer.0.step", lambda t: torch.full_like(t, math.nan)),
        "step negative": turning("fit.optimizer.0.step", lambda t: torch.full_like(t, -5)),
        "step many": turning("fit.optimizer.0.step", lambda t: torch.zeros(3)),
        "done beyond": setting(["around", "done"], 99),
        "done text": setting(["around", "done"], "4"),
        "done huge": setting(["around", "done"], 10**40),
    },
    "movement": {
        "sums missing": dropping("watched."),
        "sums short": turning("watched.0.total.", lambda t: t[:1]),
        "steps short": turning("watched.0.steps", lambda t: torch.zeros(0)),
        "steps negative": turning("watched.0.steps", lambda t: torch.tensor(-1)),
        "steps nan": turning("watched.0.steps", lambda t: torch.tensor(math.nan)),
    },
    "grown": {
        "generator missing": dropping("generator"),
        "generator short": turning("generator", lambda t: t[:5]),
        "generator zeros": turning("generator", torch.zeros_like),
    },
}
TRIED = [
    *(("dense", name, change) for name, change in EVERYWHERE.items()),
    *(("early", name, EVERYWHERE[name]) for name in ("weights short", "epoch beyond", "no tensors")),
    *(("pruned", name, EVERYWHERE[name]) for name in ("weights nan", "moments short", "epoch nan", "stage beyond")),
    *(("pruned", name, change) for name, change in PRUNED.items()),
    *(("rewound", name, PRUNED[name]) for name in ("masks missing", "masks short", "share nan")),
    *((mode, name, change) for mode, own in OWN.items() for name, change in own.items()),
]
# One of each kind is tried at once, the rest with what takes its time.
AT_ONCE = {"weights nan", "moments short", "epoch nan", "epoch beyond", "no tensors", "masks short", "done beyond",
           "sums short", "generator short", "stage half"}  # fmt: skip
PARAMETERS = [
    pytest.param(*one, id="-".join(one[:2]), marks=() if one[1] in AT_ONCE else pytest.mark.slow) for one in TRIED
]


@pytest.mark.parametrize(("mode", "name", "change"), PARAMETERS)
def test_a_hostile_state_is_set_aside_and_the_training_begun_anew(mode, name, change, kept, tmp_path):
    whole, states = kept
    cell, lab = CELLS[mode], lab_of(tmp_path)
    file = tmp_path / "unfinished" / f"{key(mode, lab)}.safetensors"
    file.parent.mkdir()
    content = changed(states[mode], change)
    assert content != states[mode]
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="is set aside and begun anew: ") as warned:
        artifact(cell, lab)
    assert len([w for w in warned if "begun anew" in str(w.message)]) == 1
    assert weights(lab, cell) == weights(whole, cell)
    [aside] = (tmp_path / "damaged").iterdir()
    assert (aside / file.name).read_bytes() == content
    assert (aside / "reason.txt").read_text().strip()
    assert lab.store.set_aside == 1
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("mode", list(CELLS))
def test_a_state_written_again_unchanged_is_gone_on_with(mode, kept, tmp_path, recwarn):
    whole, states = kept
    cell, lab = CELLS[mode], lab_of(tmp_path)
    file = tmp_path / "unfinished" / f"{key(mode, lab)}.safetensors"
    file.parent.mkdir()
    file.write_bytes(changed(states[mode], lambda tensors, values: None))
    artifact(cell, lab)
    assert weights(lab, cell) == weights(whole, cell)
    assert not [w for w in recwarn if "begun anew" in str(w.message)]
    assert lab.store.set_aside == 0


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "text"])
def test_something_else_in_the_place_of_a_state_is_set_aside(what, kept, tmp_path):
    whole, _ = kept
    cell, lab = CELLS["dense"], lab_of(tmp_path)
    file = tmp_path / "unfinished" / f"{key('dense', lab)}.safetensors"
    file.parent.mkdir()
    if what == "folder":
        (file / "inner").mkdir(parents=True)
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        (tmp_path / "precious").write_text("precious")
        file.symlink_to(tmp_path / "precious")
    else:
        file.write_text("{}")
    with pytest.warns(UserWarning, match="begun anew"):
        artifact(cell, lab)
    assert weights(lab, cell) == weights(whole, cell)
    if what == "link":
        assert (tmp_path / "precious").read_text() == "precious"
