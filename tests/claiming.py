"""Synthetic facts and small claims that the tests of claims share."""

from saved_facts import facts as measured
from saved_facts import run

from prunebench.cell import Cell, Recipe
from prunebench.claims import Claim, judge

RECIPE = Recipe(name="brief")
LISTS = {
    "datasets": ["mnist"], "models": ["lenet5"], "criteria": ["l1"], "granularities": ["weight"],
    "scopes": ["global"], "schedules": ["agp"], "sparsities": [0.9], "recipes": ["brief"], "seeds": 3,
}  # fmt: skip


def claim(rule, scope=(), **entry):
    texts = {"id": f"some_{rule}", "statement": "It is so.", "article": "so", "rule": rule}
    return Claim.from_dict({**texts, **entry, "scope": {**LISTS, **dict(scope)}})


def cell(seed=0, sparsity=0.9, **axes):
    values = {"criterion": "l1", "granularity": "weight", "scope": "global", "schedule": "agp", **axes}
    return Cell("mnist", "lenet5", **values, sparsity=sparsity, seed=seed, recipe=RECIPE)


def one(claim, *facts, **options):
    [verdict] = judge([run(*facts, **options)], [claim])
    return verdict


def outcomes(claim, runs):
    return [v.verdict for v in judge(runs, [claim])]


def accurate(values, dense=0.95, **axes):
    return [measured(cell(n, **axes), "dense", accuracy=dense + v, accuracy_dense=dense) for n, v in enumerate(values)]


def timed(speedups, backend="csr", half=0.02, sparsity=0.9, **values):
    found = []
    for n, s in enumerate(speedups):
        numbers = {"speedup": s, "speedup_low": s - half, "speedup_high": s + half, "verdict": "faster"}
        found.append(measured(cell(n, sparsity), backend, **{**numbers, **values}))
    return found


def schedules(differences, sparsity=0.9):
    first = accurate(differences, dense=0.95, sparsity=sparsity)
    return [*first, *accurate([0.0] * len(differences), dense=0.95, sparsity=sparsity, schedule="linear")]


def at_latency(accuracies, speedup, verdict="faster", **axes):
    values = {"speedup": speedup, "speedup_low": speedup, "speedup_high": speedup, "verdict": verdict}
    backend = "compact" if axes.get("granularity", "none") != "weight" else "csr"
    return [measured(cell(n, **axes), backend, accuracy=a, **values) for n, a in enumerate(accuracies)]


def curve(spread=0.001):
    """Unpruned at relative latency 1, filters at 1/4: at 1/2 the line between them has a third of the way left."""
    unpruned = [
        measured(Cell("mnist", "lenet5", seed=n, recipe=RECIPE), "compact", accuracy=0.99, speedup=1.0, speedup_low=1.0,
                 speedup_high=1.0, verdict="inconclusive") for n in range(3)
    ]  # fmt: skip
    return unpruned + at_latency([0.90 + n * spread for n in range(3)], 4.0, granularity="filter")


SAME = claim("equivalence", direction="equal", margin=0.005)
FAST_SCOPE = {"backends": ["csr"], "batch_sizes": [64], "threads": [1]}
FAST = claim("time", FAST_SCOPE, quantity="speedup", direction="within", range=[1.5, 2.5])

BETTER = claim(
    "ordering", {"schedules": ["agp", "linear"], "sparsities": [0.8, 0.9]},
    axis="schedule", first="agp", second="linear", direction="at_least", bound=-0.001,
)  # fmt: skip
MATCHED = claim(
    "matched", {"granularities": ["weight", "filter"], "backends": ["csr", "compact"], "batch_sizes": [64],
                "threads": [1]},
    axis="granularity", first="weight", second="filter", first_backend="csr", second_backend="compact",
    direction="at_least", bound=0.0,
)  # fmt: skip

PAYS = claim(
    "breakeven", {"backends": ["scipy_csr"], "batch_sizes": [64], "threads": [1], "sparsities": [0.8, 0.9], "seeds": 1},
    direction="at_most", bound=1.0,
)  # fmt: skip
