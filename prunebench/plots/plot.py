"""A plot as a value: the numbers it shows, and the function that draws exactly those."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from prunebench.spec import Spec
from prunebench.tables.rendering import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWING = 1  # raise it when drawings change their look: every image is then made anew


@dataclass(frozen=True)
class Plot:
    """A name for its files, a heading, and numbers: every row is something drawn."""

    name: str
    title: str
    numbers: pd.DataFrame
    draw: Callable[[pd.DataFrame, str], Figure]  # (numbers, title) -> figure

    @property
    def csv(self) -> str:
        """The numbers as text."""
        return render(self.numbers, "csv")

    @property
    def digest(self) -> str:
        """What an image of it must carry to be up to date: a hash of everything that decides the drawing."""
        text = f"{DRAWING}\n{self.name}\n{self.title}\n{self.csv}"
        return hashlib.sha256(text.encode()).hexdigest()


def file_name(*parts: str) -> str:
    """Parts of an id joined by `-`, with no character that a file name can't take."""
    return "-".join(_short(re.sub(r"[^A-Za-z0-9_.]", "_", _slug(part))) for part in parts)


def _slug(part: str) -> str:
    return Spec.parse(part).slug if ":" in part else part


def _short(part: str) -> str:
    # A recipe with many values of its own would pass the longest name that file systems allow.
    return part if len(part) <= 48 else part[:39] + "_" + hashlib.sha256(part.encode()).hexdigest()[:8]
