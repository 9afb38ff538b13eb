"""What a training did epoch by epoch: a CSV file per checkpoint, and TensorBoard's events where asked for."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

from prunebench.atomic import make_folder, write_text
from prunebench.errors import UsageError
from prunebench.untrusted import read_text

COLUMNS = (
    "round",  # of training anew between prunings, from 0
    "epoch",  # from 1
    "step",
    "lr",  # of the epoch's last step
    "loss",  # mean over the training split, as trained
    "validation_accuracy",
    "sparsity",  # share of prunable weights that the masks remove
    "seconds",  # of training up to here, those before a kill included
)


def check_tensorboard() -> None:
    """UsageError where TensorBoard is asked for and not installed. Imports nothing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard: TensorBoard is not installed; pip install tensorboard, or leave it out")


class TrainingLog:
    """Writes `folder/log.csv`, whole after each epoch; a training that goes on from earlier replaces what follows."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        make_folder(folder)
        self.path = folder / "log.csv"
        self.rows = _rows(self.path)
        self._events: Any = None
        if tensorboard:
            check_tensorboard()
        self._tensorboard = tensorboard

    def write(self, **row: Any) -> None:
        """Add an epoch, given by COLUMNS; rows of the same and of later epochs, left by a killed run, go."""
        here = row["round"], row["epoch"]
        self.rows = [r for r in self.rows if (int(r["round"]), int(r["epoch"])) < here]
        self.rows.append({name: _text(row[name]) for name in COLUMNS})
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
        if self._tensorboard:
            self._add_events(row)

    def _add_events(self, row: dict[str, Any]) -> None:
        number = len(self.rows)
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a killed run wrote of this epoch and later ones doesn't count.
            self._events = SummaryWriter(str(self.path.parent), purge_step=number)
        for name in COLUMNS[3:]:
            self._events.add_scalar(name, row[name], number)
        self._events.flush()

    def close(self) -> None:
        """Close what is open."""
        if self._events is not None:
            self._events.close()


def _rows(path: Path) -> list[dict[str, str]]:
    # Another file of that name, or a damaged one, is replaced, not mixed with.
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        head, *rows = reader
        if tuple(head) != COLUMNS:
            return []
        return [_row(values) for values in rows]
    except (OSError, ValueError, csv.Error):
        return []


def _row(values: list[str]) -> dict[str, str]:
    """A row's values by column; ValueError where they aren't numbers."""
    row = dict(zip(COLUMNS, values, strict=True))
    for name, text in row.items():
        (int if name in ("round", "epoch") else float)(text)
    return row


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
