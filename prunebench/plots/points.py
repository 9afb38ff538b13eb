"""What the grid's plots show, as rows: accuracies over seeds, and speeds per backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prunebench.plots.style import in_order
from prunebench.tables.grid import detail
from prunebench.tables.groups import Groups

PARENT = ["dataset", "model", "recipe"]
METHOD = ["criterion", "granularity", "scope", "schedule"]
CELL = [*PARENT, *METHOD, "sparsity"]


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and seed of a tables.frame: accuracy, share of weights kept, bytes, status.

    A checkpoint's accuracy is one number, whichever backend and machine read it: the first backend's that worked,
    of the run that was last.
    """
    place = {name: n for n, name in enumerate(("dense", "masked", "scipy_csr", "csr"))}
    rank = table["backend"].map(lambda name: place.get(name, len(place)))
    ordered = table.assign(_rank=rank, _bad=table["status"] != "ok", _order=-np.arange(len(table)))
    ordered = ordered.sort_values(["_bad", "_rank", "backend", "_order"], kind="stable")
    found = ordered.drop_duplicates("identity").copy()
    found["kept"] = kept(found)
    columns = [*CELL, "seed", "kept", "accuracy", "status", "disk_bytes", "dense_disk_bytes"]
    return found[columns].sort_values([*CELL, "seed"], kind="stable").reset_index(drop=True)


def kept(rows: pd.DataFrame) -> pd.Series:
    """Share of prunable weights that are not zero; what was asked for, where nothing was counted."""
    counted = rows["nonzeros"] / rows["prunable"]
    return counted.where(counted > 0, 1 - rows["sparsity"])


def interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a mean of n values by Student's t; NaN for one value, which has none."""
    from scipy.special import stdtrit

    if n < 2:
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return mean - half, mean + half


def over_seeds(rows: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """One row per cell: the mean accuracy with its interval, n of how many cases, and what became of the others.

    also: columns that part a cell's rows further.
    """
    groups = Groups(rows, [*CELL, *also])
    ok = (rows["status"] == "ok").to_numpy()
    n, mean, deviation = groups.sizes(ok), groups.means(rows["accuracy"], ok), groups.deviations(rows["accuracy"], ok)
    ends = [interval(*one) for one in zip(mean.tolist(), deviation.tolist(), n.tolist(), strict=True)]
    return groups.keys.assign(
        accuracy=mean,
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        n=n,
        cases=groups.sizes(),
        lost=[" ".join(kinds) for kinds in groups.kinds(rows["status"], ~ok)],
        kept=np.where(n > 0, groups.means(rows["kept"], ok), groups.means(rows["kept"])),
        **{name: groups.means(rows[name], ok) for name in ("disk_bytes", "dense_disk_bytes")},
    )


def speeds(table: pd.DataFrame) -> pd.DataFrame:
    """tables.detail with the share of weights kept and the interval of the mean accuracy."""
    rows = detail(table)
    ends = [interval(r.accuracy, r.accuracy_std, r.n) for r in rows.itertuples()]
    return rows.assign(kept=kept(rows), accuracy_low=[a for a, _ in ends], accuracy_high=[b for _, b in ends])


def method_text(row: Mapping[Any, Any], also: Sequence[str] = ()) -> str:
    """`l1 global agp 90 %`; the granularity where it is another than `weight`."""
    if row["criterion"] == "none":
        return "unpruned"
    names = [row["criterion"], *([] if row["granularity"] == "weight" else [row["granularity"]]), row["scope"],
             row["schedule"], f"{100 * row['sparsity']:g} %"]  # fmt: skip
    return " ".join([*also, *names])


def front(x: Sequence[float], y: Sequence[float], able: Sequence[bool], margin: float, alike: float) -> list[bool]:
    """Which able points no other one beats, more being better.

    Walked from the most accurate on: of those whose y is alike, the one with the largest x; after it only what gains
    more than the margin in x, a ratio. So no point is on the front for a difference that means nothing.
    """
    left = [n for n in range(len(x)) if able[n] and x[n] == x[n] and y[n] == y[n]]
    found = [False] * len(x)
    while left:
        best = max(y[n] for n in left)
        chosen = max((n for n in left if y[n] >= best - alike), key=lambda n: (x[n], y[n], -n))
        found[chosen] = True
        left = [n for n in left if x[n] > x[chosen] * (1 + margin)]
    return found


def ordered(axis: str, values: pd.Series) -> list[str]:
    """Distinct values of a column in the order in which plots show them."""
    return in_order(axis, [str(v) for v in values])
