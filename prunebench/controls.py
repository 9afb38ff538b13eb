"""Automatic controls (Blalock et al. 2020, section 6): what would random and magnitude do with the same proportions?

A cell's twin prunes as many weights of every layer as the cell does, but chooses them by another criterion. Its scope
says whose proportions those are: `like:criterion=snip:scope=global`, inner parameters behind slashes
(`like:criterion=lp/p=3:scope=global/last=dense`).
"""

from __future__ import annotations

from dataclasses import replace

from prunebench.cell import Cell
from prunebench.errors import UsageError
from prunebench.registry import check
from prunebench.spec import Spec

LIKE = "like"
CRITERIA = ("random", "l1")  # of the twins: the two baselines that every method must beat


def copied(scope: str) -> tuple[str, str] | None:
    """The (criterion, scope) whose proportions a scope string copies, known here or not; None for a scope of its own.

    Layers' own sparsities mean the same inside and outside: `like:scope=global/last=dense`, `like:last=dense`.
    """
    spec = Spec.parse(scope, "scope")
    if spec.name != LIKE:
        return None
    given = {key: str(value) for key, value in spec.params}
    ends = [f"{key}={given[key]}" for key in ("first", "last") if key in given]
    return _outer(given.get("criterion", "l1")), Spec.parse(
        ":".join([_outer(given.get("scope", "global")), *ends])
    ).text


def check_copied(criterion: str = "l1", scope: str = "global") -> None:
    """UsageError unless both are known, and the scope is none that copies."""
    check("criteria", _outer(criterion))
    if Spec.parse(check("scopes", _outer(scope))).name == LIKE:
        raise UsageError("scope 'like' can't copy a scope that copies another; name the original's own")


def original(cell: Cell) -> Cell | None:
    """The cell whose proportions a twin has; None for any other cell."""
    pair = None if cell.is_control else copied(cell.scope)
    return None if pair is None else replace(cell, criterion=pair[0], scope=pair[1])


def twins(cell: Cell) -> list[Cell]:
    """The controls of a pruned cell, one per criterion of CRITERIA but its own; none for the unpruned, or for twins."""
    if cell.is_control or original(cell) is not None:
        return []
    scope = check("scopes", f"{LIKE}:criterion={_inner(cell.criterion)}:scope={_inner(cell.scope)}")
    return [replace(cell, criterion=name, scope=scope) for name in CRITERIA if name != cell.criterion]


def _inner(text: str) -> str:
    if "/" in text:
        raise UsageError(f"{text!r} holds a slash, so it can't be copied by scope 'like'; leave its controls out")
    return text.replace(":", "/")


def _outer(text: str) -> str:
    return str(text).replace("/", ":")
