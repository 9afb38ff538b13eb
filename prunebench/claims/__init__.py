"""The article's claims, judged by rule from saved runs: `holds`, `refuted`, `undecided` or `unstable`.

The claims are registered in claims.toml; a refuted one is a result. Nothing here trains or times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from prunebench.claims.accuracy_rules import at_equal_latency, ordered, same_as_dense
from prunebench.claims.evidence import Evidence, gather
from prunebench.claims.ratio_rules import counted, paying, timed
from prunebench.claims.registered import Claim, registered
from prunebench.claims.verdicts import Verdict
from prunebench.runs import Run
from prunebench.statistics import VERDICTS, overall

__all__ = ["Claim", "Verdict", "claims_table", "judge", "registered", "summary_table"]

RULES: Mapping[str, Callable[[Claim, Evidence], list[Verdict]]] = {
    "equivalence": same_as_dense,
    "ordering": ordered,
    "matched": at_equal_latency,
    "count": counted,
    "time": timed,
    "breakeven": paying,
}


def judge(runs: Sequence[Run], claims: Sequence[Claim] | None = None) -> list[Verdict]:
    """Every claim (None: all that are registered) judged by the runs, wherever it can be: in order of claim and place.

    A claim without evidence is undecided, and its command says what would measure it. A run that was measured again
    counts once, with its latest facts; runs of different machines or thread counts are never mixed in one timing.
    """
    evidence = gather(runs)
    found = []
    for claim in registered() if claims is None else claims:
        own = RULES[claim.rule](claim, evidence)
        found += sorted(own, key=lambda v: (v.command != "" and not v.evidence, v.machine, _natural(v.scope)))
    return found


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    # Numbers by size: batch 8 before batch 64.
    words = text.replace(",", "").split()
    return tuple((0, float(w), "") if w.replace(".", "", 1).isdigit() else (1, 0.0, w) for w in words)


def summary_table(verdicts: Sequence[Verdict], claims: Sequence[Claim] | None = None) -> pd.DataFrame:
    """A row per claim: its verdict as a whole, and in how many places each verdict fell."""
    rows = []
    for claim in registered() if claims is None else claims:
        own = [one.verdict for one in verdicts if one.id == claim.id]
        counts = ", ".join(f"{own.count(kind)} {kind}" for kind in VERDICTS if kind in own)
        rows.append({
            "claim": claim.id, "statement": claim.statement, "the article": claim.article,
            "verdict": overall(own, claim.decides), "in detail": counts,
        })  # fmt: skip
    return pd.DataFrame(rows)


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
