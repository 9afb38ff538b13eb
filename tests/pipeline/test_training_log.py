"""Logs: a CSV per checkpoint, the same weights with and without, and what resuming makes of earlier rows."""

import csv
import importlib.util
from dataclasses import replace

import pytest
from running import pytest_grid

from prunebench import machine, settings
from prunebench.cell import Cell, Recipe
from prunebench.cli import main
from prunebench.errors import UsageError
from prunebench.pipeline import Lab, artifact
from prunebench.pipeline.training_log import COLUMNS, TrainingLog, check_tensorboard
from prunebench.store import Store
from prunebench.training import loop as training

CELL = Cell(
    "digits:size=8",
    "lenet300",
    "l1",
    "weight",
    "global",
    "linear",
    0.9,
    recipe=Recipe(batch_size=128, epochs=2, fine_tune_epochs=2, prune_rounds=3),
)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def row(**changes):
    return {**dict.fromkeys(COLUMNS, 0.5), "round": 0, "epoch": 1, "step": 11, **changes}


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)


def test_a_log_tells_of_every_epoch_and_changes_no_bit(tmp_path, one_core):
    quiet = Lab(Store(tmp_path / "quiet"), tmp_path)
    lab = Lab(Store(tmp_path / "told"), tmp_path, logs=tmp_path / "logs")
    plain, made = artifact(CELL, quiet), artifact(CELL, lab)
    assert plain.meta["digest"] == made.meta["digest"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs", "quiet", "told"]
    folders = {p.name.rsplit("-", 1)[0]: p for p in (tmp_path / "logs").iterdir()}
    assert set(folders) == {CELL.id, CELL.control.id}
    dense, pruned = (read(folders[c.id] / "log.csv") for c in (CELL.control, CELL))
    assert [(r["round"], r["epoch"], r["step"]) for r in pruned] == [("0", "1", "11"), ("0", "2", "22")]
    assert tuple(pruned[0]) == COLUMNS
    assert [float(r["sparsity"]) for r in dense] == [0, 0]
    assert [round(float(r["sparsity"]), 3) for r in pruned] == [0.9, 0.9]
    assert float(pruned[-1]["loss"]) == pytest.approx(made.meta["loss"], rel=1e-5)
    assert float(pruned[-1]["validation_accuracy"]) == pytest.approx(made.meta["validation_accuracy"], rel=1e-5)
    rate = CELL.recipe.fine_tune_learning_rate * training.decay("cosine", 21 / 22)
    assert float(pruned[-1]["lr"]) == pytest.approx(rate, rel=1e-5)
    assert 0 < float(pruned[0]["seconds"]) < float(pruned[1]["seconds"])


def test_every_round_of_a_rewinding_is_in_it(tmp_path, one_core):
    cell = replace(CELL, recipe=replace(CELL.recipe, rewind="weights", rewind_epoch=1))
    lab = Lab(Store(tmp_path / "store"), tmp_path, logs=tmp_path / "logs")
    artifact(cell, lab)
    rows = read(next((tmp_path / "logs").glob(f"{cell.id}-*")) / "log.csv")
    assert [(r["round"], r["epoch"], round(float(r["sparsity"]), 3)) for r in rows] == [
        ("0", "2", 0.3),
        ("1", "2", 0.6),
        ("2", "2", 0.9),
    ]


def test_rows_after_the_place_of_resuming_go(tmp_path):
    log = TrainingLog(tmp_path / "a")
    for round_, epoch in ((0, 1), (0, 2), (1, 1), (1, 2)):
        log.write(**row(round=round_, epoch=epoch))
    again = TrainingLog(tmp_path / "a")
    again.write(**row(round=1, epoch=1, loss=0.25))
    assert [(r["round"], r["epoch"], r["loss"]) for r in read(again.path)] == [
        ("0", "1", "0.5"),
        ("0", "2", "0.5"),
        ("1", "1", "0.25"),
    ]


def test_another_file_of_that_name_is_not_mixed_with(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n1,2\n")
    log = TrainingLog(tmp_path)
    log.write(**row())
    assert len(read(log.path)) == 1


def test_a_folder_that_can_not_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as error:
        settings.training("cpu", str(tmp_path / "file" / "logs"), False)
    assert "\n" not in str(error.value)


def test_tensorboard_only_where_it_is_installed_and_with_a_folder(monkeypatch):
    with pytest.raises(UsageError, match="--logs DIR"):
        settings.check_training(None, None, True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        settings.check_training(None, "logs", True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_tensorboard()


def events_of(folder, name):
    """[(step, value)] as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars(name)]


def test_tensorboard_gets_the_same_numbers_and_forgets_what_a_killed_run_wrote_later(tmp_path):
    pytest.importorskip("tensorboard")
    killed = TrainingLog(tmp_path, tensorboard=True)
    for epoch, loss in ((1, 0.75), (2, 0.5), (3, 0.25)):
        killed.write(**row(epoch=epoch, loss=loss))
    assert events_of(tmp_path, "loss") == [(1, 0.75), (2, 0.5), (3, 0.25)], "written at once, before it is closed"
    again = TrainingLog(tmp_path, tensorboard=True)
    again.write(**row(epoch=2, loss=0.4))
    again.close()
    killed.close()
    assert events_of(tmp_path, "loss") == [(1, 0.75), (2, 0.4)]


def test_the_command_line_writes_tensorboard_s_events(tmp_path, one_core):
    pytest.importorskip("tensorboard")
    places = ("--store", str(tmp_path / "store"), "--logs", str(tmp_path / "logs"), "--tensorboard")
    grid = ("--datasets", "digits:size=8", "--epochs", "2", "--fine-tune-epochs", "2")
    assert main(["sweep", "--profile", "smoke", *grid, *places]) == 0
    folders = list((tmp_path / "logs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        rows = read(folder / "log.csv")
        for name in COLUMNS[3:]:
            assert events_of(folder, name) == [(i + 1, float(r[name])) for i, r in enumerate(rows)]


def test_the_command_line_writes_a_log_where_asked(tmp_path, one_core, capsys):
    places = ("--store", str(tmp_path / "store"), "--logs", str(tmp_path / "logs"), "--device", "cpu")
    grid = ("--datasets", "digits:size=8", "--epochs", "1", "--fine-tune-epochs", "1")
    assert main(["sweep", "--profile", "smoke", *grid, *places]) == 0
    assert len(list((tmp_path / "logs").glob("*/log.csv"))) == 2
    assert "2 cells: 2 trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--tensorboard",), "--logs DIR"),
        (("--recipe", "lenet:rewind=all"), "unknown rewind 'all'"),
        (("--recipe", "lenet:regrow=random", "--schedule", "agp"), "schedule 'agp'"),
    ],
)
def test_the_command_line_refuses_before_training(tmp_path, option, words, capsys):
    assert main(["run", "--store", str(tmp_path / "store"), *option]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_pytest_refuses_them_too(tmp_path):
    done = pytest_grid(tmp_path, "--collect-only", "-q", "--device", "tpu")
    assert done.returncode == 4
    assert "unknown device 'tpu'" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"",
        ",".join(COLUMNS).encode() + b"\n=cmd|' /C calc'!A0,1,1,1,1,1,1,1\n",
        ",".join(COLUMNS).encode() + b"\n0,1,1,\x1b[31m,1,1,1,1\n",
        ",".join(COLUMNS).encode() + b"\n0,1\n",
        ",".join(COLUMNS).encode() + b"\n0,1,1,1,1,1,1,1,9\n",
        ",".join(COLUMNS).encode() + b'\n0,1,1,1,1,1,1,"' + b"9" * 200_000,
    ],
    ids=["bytes", "empty", "formula", "escape", "short", "long", "quote"],
)
def test_a_log_that_holds_something_else_is_replaced(content, tmp_path):
    (tmp_path / "log.csv").write_bytes(content)
    log = TrainingLog(tmp_path)
    log.write(**row(epoch=2))
    assert [r["epoch"] for r in read(log.path)] == ["2"]


def test_something_else_in_the_place_of_a_log_is_one_line(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(UsageError) as error:
        TrainingLog(tmp_path).write(**row())
    assert "\n" not in str(error.value)
