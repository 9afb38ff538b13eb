"""The table of `prunebench pack --compare`: a row per way to store one network, without columns that nothing fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunebench.tables.rendering import speedup_text


def packing_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `measuring.packing.ways` as text, in their order."""
    table = pd.DataFrame([_shown(row) for row in rows])
    return table.loc[:, [column for column in table if (table[column] != "–").any()]]


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    def whole(key: str) -> str:
        return "–" if row[key] is None else f"{row[key]:,}"

    return {
        "stored as": row["name"],
        "values": row["values"] or "as they are",
        "bytes": whole("bytes"),
        "smaller": f"{row['smaller']:.1f}×",
        "after gzip": whole("gzip_bytes"),
        "after zstd": whole("zstd_bytes"),
        "output error": "–" if row["relative_error"] is None else f"{row['relative_error']:.1e}",
        "accuracy %": "–" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f}",
        "load ms": "–" if row["load_seconds"] is None else f"{1000 * row['load_seconds']:.3g}",
        "loads faster": "–"
        if row["load_speedup"] is None
        else speedup_text(row["load_speedup"], row["load_low"], row["load_high"], row["load_verdict"]),
    }
