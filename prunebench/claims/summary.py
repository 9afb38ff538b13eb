"""Verdicts as tables: a row per claim with how much came out, and a row per place that it was judged in."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from prunebench.claims.registered import Claim, registered
from prunebench.claims.verdicts import Verdict
from prunebench.statistics import VERDICTS, overall

_NUMBER = re.compile(r"(.*?)([+-]?\d+(?:\.\d+)?)(.*)")  # a sign belongs to its number; what is around it, to the unit
_NONE = "–"


def summary_table(verdicts: Sequence[Verdict], claims: Sequence[Claim] | None = None) -> pd.DataFrame:
    """A row per claim: its verdict as a whole, the span of its estimates, and in how many places which fell."""
    rows = []
    for claim in registered() if claims is None else claims:
        own = [one for one in verdicts if one.id == claim.id]
        fell = [one.verdict for one in own]
        rows.append({
            "claim": claim.id, "statement": claim.statement, "the article": claim.article,
            "verdict": overall(fell, claim.decides), "by how much": estimates_text([one.estimate_text for one in own]),
            "in detail": ", ".join(f"{fell.count(kind)} {kind}" for kind in VERDICTS if kind in fell) + _noted(own),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _noted(own: Sequence[Verdict]) -> str:
    collapsed = sum("layer collapse" in one.reason for one in own)
    return f"; layer collapse in {collapsed} of these places" if collapsed else ""


def estimates_text(estimates: Sequence[str]) -> str:
    """`2.35× to 9.43×`: the least and the greatest of estimates in words, those without a number behind them."""
    units: dict[tuple[str, str], list[str]] = {}
    for one in estimates:
        if one != _NONE:
            found = _NUMBER.fullmatch(one)
            before, number, after = found.groups() if found else (one, "", "")
            units.setdefault((before, after), []).append(number)
    return "; ".join(_span(before, numbers, after) for (before, after), numbers in units.items()) or _NONE


def _span(before: str, numbers: Sequence[str], after: str) -> str:
    low, *_, high = sorted((*numbers, *numbers), key=lambda n: float(n or 0))
    if float(low or 0) == float(high or 0):
        return f"{before}{low}{after}"
    return f"{before}{low}{'×' if after.startswith('×') else ''} to {high}{after}"


def claims_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row per verdict, to read: where, what came out, on which evidence, and what is missing."""
    return pd.DataFrame(
        [
            {
                "claim": one.id, "where": one.scope, "verdict": one.verdict, "estimate": one.estimate_text,
                "interval": one.interval_text, "n": str(one.n), "machine": one.machine or "–",
                "runs": runs_of(one), "why": one.reason, "what would decide": one.command or "–",
            }
            for one in verdicts
        ]
    )  # fmt: skip


def runs_of(one: Verdict) -> str:
    """`mnist (6 cases)`: the runs that a verdict rests on."""
    names = [case.partition(": ")[0] for case in one.evidence]
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{name} ({n} case{'s' if n > 1 else ''})" for name, n in counts.items()) or "–"
