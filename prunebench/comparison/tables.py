"""A comparison of two runs as text: notes, a summary per backend, and a row per case, what changed most first."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd

from prunebench.comparison.cases import Interval, Side
from prunebench.comparison.judging import JUDGED, UNJUDGED, Pair, Result, mean_change, mean_points
from prunebench.tables.rendering import markdown, render
from prunebench.untrusted import plain_line


def comparison_text(result: Result, format: str) -> str:
    """The whole comparison in one of FORMATS; CSV holds the numbers of every case and nothing else."""
    if format == "csv":
        return render(numbers_table(result), "csv")
    tables = [render(summary_table(result), format), render(cases_table(result), format)]
    said = [plain_line(line) for line in notes(result)]
    if format == "html":
        tables = [tables[0], tables[1].partition("\n")[2]]  # the character set is said once
        return "".join([*tables, *(f"<p>{html.escape(line)}</p>\n" for line in said)])
    if format == "latex":
        return "\n".join([*(f"% {line}" for line in said), *tables])
    return "\n\n".join([*map(markdown, said), *tables])


def notes(result: Result) -> list[str]:
    """What the numbers are and aren't, one paragraph each."""
    a, b = result.a, result.b
    said = [f"B = {b.label} against A = {a.label}."]
    if result.differing:
        parts = "; ".join(f"{name} ({one} and {other})" for name, (one, other) in result.differing.items())
        said[0] += f" They differ in {parts}."
    said += [f"Run {c.label} was cut off; it holds what was finished." for c in (a, b) if not c.complete]
    if result.timed and a.plain:
        said.append(
            "Change: median seconds of A over those of B, above 1 where B is faster, with a 95 % interval from "
            "the rounds of each run. These files hold no baseline: what else the machine did during one run and not "
            "during the other is in the change and not in its interval."
        )
    elif result.timed:
        said.append(
            "Change: speed-up of B over speed-up of A, above 1 where B is faster. Each is over the fastest dense way "
            "of its own run (where the two had different ones, over one that both timed), from interleaved blocks, and "
            "their 95 % intervals are combined on the log scale. The runs themselves weren't interleaved: the raw "
            "seconds stand beside it, and what slowed only one of backend and baseline in only one run is not in the "
            "intervals."
        )
    if result.timed:
        said.append(_margin_note(result))
    else:
        said.append("Accuracies and bytes only: one row per cell and backend, nothing about time.")
    return said


def _margin_note(result: Result) -> str:
    margin = f"{100 * math.expm1(result.margin):.1f} %"
    if result.controls:
        why = (
            f"1 %, or what 95 of 100 control cases need ({result.controls} here: dense ways, which should "
            "not have changed)"
        )
    else:
        why = "1 %, as no control case tells how much two runs differ by themselves"
    return (
        f"Faster or slower: the interval clears 1 by more than {margin} ({why}). The mean is geometric, over judged "
        "cases, its interval a bootstrap over cases as if they were independent."
    )


def summary_table(result: Result) -> pd.DataFrame:
    """A row per backend: how many cases, the mean change with its interval, how many are what."""
    rows = []
    for group, pairs in result.groups().items():
        row: dict[str, str] = {"backend": group, "cases": str(len(pairs))}
        if result.timed:
            row["mean change"] = _ratio(mean_change(pairs))
            counts = {verdict: sum(p.verdict == verdict for p in pairs) for verdict in (*JUDGED, *UNJUDGED)}
            row |= {k: str(n) for k, n in counts.items()}
        if any(p.points is not None for p in pairs):
            row["accuracy, points"] = _points(mean_points(pairs))
        rows.append(row)
    table = pd.DataFrame(rows).fillna("–")
    # The columns that always stand are those of a judged case; one of zeros alone says nothing else.
    return table.drop(columns=[c for c in UNJUDGED if c in table and set(table[c]) == {"0"}])


def cases_table(result: Result) -> pd.DataFrame:
    """A row per case of either run; columns in which nothing was measured are left out."""
    rows = [_row(pair, result) for pair in result.pairs]
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in table if c not in ("case", "verdict") and set(table[c]) == {"–"}])


def _row(pair: Pair, result: Result) -> dict[str, str]:
    a, b = pair.a, pair.b
    row = {"case": pair.name.replace("|", "/"), "change": _ratio(pair.log_change), "verdict": pair.verdict or "–"}
    if not result.timed:
        row = {"case": row["case"], "verdict": row["verdict"]}
    elif not result.a.plain:
        row |= {"speed-up A": _speedup(a, pair.against), "speed-up B": _speedup(b, pair.against)}
    if result.timed:
        seconds = [side.seconds if side else None for side in (a, b)]
        row["ms"] = _both(seconds, lambda s: f"{1000 * s:.3g}", "{:.2f}×")
    row["accuracy %"] = _accuracy(pair)
    for title, name in (("bytes on disk", "disk_bytes"), ("in memory", "resident_bytes")):
        row[title] = _both([getattr(side, name) if side else None for side in (a, b)], lambda n: f"{n / 1000:,.1f} kB")
    statuses = [side.status if side else None for side in (a, b)]
    row["status"] = "–" if set(statuses) <= {"ok", None} else " → ".join(s or "–" for s in statuses)
    return row


def _ratio(log: Interval | None) -> str:
    if log is None:
        return "–"
    low, middle, high = map(math.exp, log)
    return f"{middle:.3f}×" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _points(mean: Interval | None) -> str:
    if mean is None:
        return "–"
    low, middle, high = mean
    return f"{middle:+.2f}" + ("" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]")


def _speedup(side: Side | None, against: str | None) -> str:
    name = _baseline(side, against)
    return "–" if side is None or name is None else f"{math.exp(side.over[name][1]):.2f}× over {name}"


def _baseline(side: Side | None, against: str | None) -> str | None:
    """The dense way that a case's speed-up is shown over: the one compared over, else its own."""
    if side is None or not side.over:
        return None
    return side.against if against is None else against


def _both(values: list[float | None], show: Any, ratio: str = "") -> str:
    """`0.42 → 0.21 (2.00×)`; a value that both have alike is shown once."""
    first, second = values
    if first is None and second is None:
        return "–"
    shown = ["–" if v is None else show(v) for v in values]
    if first == second and not ratio:
        return str(shown[0])
    behind = f" ({ratio.format(first / second)})" if ratio and first and second else ""
    return f"{shown[0]} → {shown[1]}{behind}"


def _accuracy(pair: Pair) -> str:
    values = [side.accuracy if side else None for side in (pair.a, pair.b)]
    text = _both(values, lambda share: f"{100 * share:.2f}")
    return f"{text} ({pair.points:+.2f})" if pair.points else text


def numbers_table(result: Result) -> pd.DataFrame:
    """Every number of every case, for programs; what is missing is empty."""
    rows = []
    for pair in result.pairs:
        low, middle, high = map(math.exp, pair.log_change) if pair.log_change else (None, None, None)
        row: dict[str, Any] = {"case": pair.name, "backend": pair.group, "verdict": pair.verdict,
                               "change": middle, "change_low": low, "change_high": high}  # fmt: skip
        for letter, side in (("a", pair.a), ("b", pair.b)):
            over = _baseline(side, pair.against) if result.timed and not result.a.plain else None
            speedups = list(map(math.exp, side.over[over])) if side and over else [None, None, None]
            row |= dict(
                zip([f"speedup_low_{letter}", f"speedup_{letter}", f"speedup_high_{letter}"], speedups, strict=True)
            )
            row[f"baseline_{letter}"] = over
            row[f"seconds_{letter}"] = side.seconds if side and result.timed else None
            for name in ("accuracy", "disk_bytes", "resident_bytes", "status"):
                row[f"{name}_{letter}"] = getattr(side, name) if side else None
        rows.append(row)
    return pd.DataFrame(rows)
