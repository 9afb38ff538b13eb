"""Statistics of many small groups of rows at once: a hundred thousand cases in the time that a loop takes for hundreds.

Every number is what numpy gives for a group by itself, to the last bit: groups of one size are the rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

Mask = np.ndarray  # (rows,) of bool


class Groups:
    """The rows of a table by equal keys; groups count in the order in which their first rows stand.

    Rows with a null among their keys belong to none.
    """

    def __init__(self, table: pd.DataFrame, keys: Sequence[str]) -> None:
        numbers = table.groupby(list(keys), sort=False).ngroup()
        self.of_row = numbers.fillna(-1).to_numpy(dtype=np.int64)
        self.count = int(self.of_row.max(initial=-1)) + 1
        order = np.argsort(self.of_row, kind="stable")
        order = order[self.of_row[order] >= 0]
        self.first = order[np.searchsorted(self.of_row[order], np.arange(self.count))]
        self.keys = table[list(keys)].iloc[self.first].reset_index(drop=True)

    def sizes(self, rows: Mask | None = None) -> np.ndarray:
        """(groups,): how many of the rows each has."""
        return np.bincount(self.of_row[self._chosen(rows)], minlength=self.count)

    def means(self, values: pd.Series, rows: Mask | None = None) -> np.ndarray:
        """(groups,): the mean of the values that are none of them NaN; NaN for no value."""
        return self._reduced(values, rows, lambda own: own.mean(axis=1))

    def deviations(self, values: pd.Series, rows: Mask | None = None) -> np.ndarray:
        """(groups,): the sample standard deviation; NaN for fewer than two values."""

        def deviation(own: np.ndarray) -> np.ndarray:
            if own.shape[1] < 2:
                return np.full(len(own), np.nan)
            squares = (own.mean(axis=1, keepdims=True) - own) ** 2
            return np.sqrt(squares.sum(axis=1) / (own.shape[1] - 1))

        return self._reduced(values, rows, deviation)

    def shared(self, values: pd.Series, rows: Mask | None = None) -> list[str]:
        """(groups,): the value that all have, "" where none has any, else `mixed: ` and the different ones."""
        return [
            kinds[0] if len(kinds) == 1 else ("mixed: " + " ".join(kinds) if kinds else "")
            for kinds in self.kinds(values, rows)
        ]

    def kinds(self, values: pd.Series, rows: Mask | None = None) -> list[list[str]]:
        """(groups,): the different values, sorted, without nulls."""
        codes, known = pd.factorize(values)
        chosen = self._chosen(rows) & (codes >= 0)
        pairs = pd.DataFrame({"group": self.of_row[chosen], "code": codes[chosen]}).drop_duplicates()
        found: list[list[str]] = [[] for _ in range(self.count)]
        for group, code in zip(pairs["group"].tolist(), pairs["code"].tolist(), strict=True):
            found[group].append(known[code])
        for kinds in found:
            kinds.sort()
        return found

    def _chosen(self, rows: Mask | None) -> Mask:
        inside: Mask = self.of_row >= 0
        return inside if rows is None else inside & rows

    def _reduced(self, values: pd.Series, rows: Mask | None, reduce: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        found = np.full(self.count, np.nan)
        for groups, own in self._by_size(numbers, self._chosen(rows) & ~np.isnan(numbers)):
            found[groups] = reduce(own)
        return found

    def _by_size(self, numbers: np.ndarray, chosen: Mask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(groups of one size, their values as (groups, size)), every size in turn."""
        owners, numbers = self.of_row[chosen], numbers[chosen]
        numbers = numbers[np.argsort(owners, kind="stable")]
        sizes = np.bincount(owners, minlength=self.count)
        starts = np.cumsum(sizes) - sizes
        for size in np.unique(sizes[sizes > 0]):
            groups = np.flatnonzero(sizes == size)
            yield groups, numbers[starts[groups, None] + np.arange(size)]
