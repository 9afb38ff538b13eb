"""The article's claims, judged by rule from saved runs: `holds`, `refuted`, `undecided` or `unstable`.

The claims are registered in claims.toml; a refuted one is a result. Nothing here trains or times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prunebench.claims.accuracy_rules import at_equal_latency, ordered, same_as_dense
from prunebench.claims.evidence import Evidence, gather
from prunebench.claims.ratio_rules import counted, paying, timed
from prunebench.claims.registered import Claim, registered
from prunebench.claims.summary import claims_table, summary_table
from prunebench.claims.verdicts import Verdict
from prunebench.runs import Run

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
