"""The article's claims as the page shows them: what it says, what became of it, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.claims import Verdict, claims_table, judge, registered, summary_table
from prunebench.claims.registered import Claim, rule_text
from prunebench.report.block import Block, block_of
from prunebench.runs import Run
from prunebench.statistics import VERDICTS

_SHORT = 3  # a card names so many places; where there are more it counts them


@dataclass(frozen=True)
class Card:
    """One claim judged as a whole, with the verdicts of its places."""

    claim: Claim
    verdict: str
    counts: str
    rule: str
    places: tuple[Verdict, ...]

    @property
    def told(self) -> tuple[Verdict, ...]:
        """The places that the card names without being opened: those with an estimate, where they are few."""
        found = tuple(one for one in self.places if one.evidence)
        return found if len(found) <= _SHORT else ()

    @property
    def commands(self) -> list[str]:
        """What would measure the evidence that is missing."""
        return list(dict.fromkeys(one.command for one in self.places if one.command))


@dataclass(frozen=True)
class Verdicts:
    """{the article's words: cards of the claims drawn from them}, how many there are of each verdict, and the table."""

    said: dict[str, list[Card]]
    counts: list[tuple[str, int]]
    table: Block


def verdicts_of(runs: Sequence[Run]) -> Verdicts:
    """Every registered claim judged by the runs, in the order of its registration."""
    found = judge(runs)
    said: dict[str, list[Card]] = {}
    overall = []
    for claim, row in zip(registered(), summary_table(found).to_dict("records"), strict=True):
        own = tuple(one for one in found if one.id == claim.id)
        said.setdefault(claim.article, []).append(
            Card(claim, row["verdict"], row["in detail"], rule_text(claim.rule), own)
        )
        overall.append(row["verdict"])
    counts = [(word, overall.count(word)) for word in VERDICTS if word in overall]
    return Verdicts(said, counts, block_of("places", "Every verdict, place by place", claims_table(found)))
