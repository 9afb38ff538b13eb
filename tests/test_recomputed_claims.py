"""Every committed verdict and estimate, recomputed from the raw runs and claims.toml without the code that judges."""

import json
import math
import re
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from recomputing import comma, method, percent, raw_facts
from scipy import stats

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = tomllib.loads((ROOT / "prunebench" / "claims.toml").read_text())["claims"]
AXES = {"datasets": "dataset", "models": "model", "criteria": "criterion", "granularities": "granularity",
        "scopes": "scope", "schedules": "schedule"}  # fmt: skip
FIRST = ("dense", "masked", "csr", "compact", "scipy_csr")  # whose accuracy is the checkpoint's


def measured():
    """The latest facts of every case that did not fail, oldest first."""
    found = {}
    for f in raw_facts(ROOT / "results" / "runs"):
        key = (*place(f), f["backend"], f.get("question"), json.dumps([f["cell"], f.get("layer")], sort_keys=True))
        found.pop(key, None)
        if f["status"] == "ok":
            found[key] = f
    return list(found.values())


def place(f):
    return f["machine"], f["threads"], f["batch_size"]


CASE = {"backends": "backend", "batch_sizes": "batch_size", "threads": "threads"}


def fits(f, claim):
    scope, cell = claim["scope"], f["cell"]
    if f.get("question", "grid") != claim.get("source", "grid"):
        return False
    right = [(cell[one], scope.get(many)) for many, one in AXES.items()]
    right += [(f[one], scope.get(many)) for many, one in CASE.items()]
    right += [((cell["recipe"] or {}).get("name"), scope.get("recipes"))]
    at = any(math.isclose(cell["sparsity"], s) for s in scope["sparsities"])
    return at and all(value in allowed for value, allowed in right if allowed)


def bounds(claim):
    kind = claim["direction"]
    if kind == "equal":
        return -claim["margin"], claim["margin"]
    if kind == "within":
        return tuple(claim["range"])
    return (-math.inf, claim["bound"]) if kind == "at_most" else (claim["bound"], math.inf)


def decided(claim, low, high):
    least, most = bounds(claim)
    return "holds" if least <= low and high <= most else "refuted" if high < least or low > most else "undecided"


def like(f, **changes):
    """A cell without its seed, as text."""
    return json.dumps({**f["cell"], "seed": None, **changes}, sort_keys=True)


def groups(facts, key):
    found = {}
    for f in facts:
        found.setdefault(key(f), []).append(f)
    return found


def where(f, *more, **changes):
    cell = {**f["cell"], **changes}
    if f.get("question"):
        parts = [cell["model"], "random weights"]
    else:
        parts = [f"{cell['dataset']} {cell['model']}", method(cell)]
    return ", ".join([*parts, percent(cell), *more])


def there(f):
    return f"batch {f['batch_size']}, {f['threads']} thread" + ("s" if f["threads"] > 1 else "")


def error(values):
    """Of the mean; no spread is taken to be less than that of rounding to a count out of 10,000."""
    return max(statistics.stdev(values), 1e-4 / math.sqrt(12)) / math.sqrt(len(values))


def student(values, claim):
    """(low, high) of the 1 − 2·alpha interval, and the row's texts."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return -math.inf, math.inf, (f"{100 * middle:+.2f} points", "–")
    level = 1 - 2 * claim["alpha"]
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * error(values)
    ends = f"[{100 * (middle - half):+.2f}, {100 * (middle + half):+.2f}] ({100 * level:g} %)"
    return middle - half, middle + half, (f"{100 * middle:+.2f} points", ends)


def checkpoints(facts, order=FIRST):
    """{cell: {seed: facts through the backend that stands first, measured last}}"""
    found = {}
    for f in facts:
        own = found.setdefault(like(f), {})
        rank = order.index(f["backend"]) if f["backend"] in order else len(order)
        if rank <= own.get(f["cell"]["seed"], (rank,))[0]:
            own[f["cell"]["seed"]] = (rank, f)
    return [{seed: f for seed, (_, f) in own.items()} for own in found.values()]


def equivalence(claim, facts):
    for seeds in checkpoints([f for f in facts if fits(f, claim)]):
        values = [f["accuracy"] - f["accuracy_dense"] for f in seeds.values()]
        low, high, texts = student(values, claim)
        verdict = decided(claim, low, high) if len(values) >= claim["scope"]["seeds"] else "undecided"
        yield where(next(iter(seeds.values()))), verdict, *texts, len(values)


def ordering(claim, facts):
    every = {like(next(iter(s.values()))): s for s in checkpoints([f for f in facts if fits(f, claim)])}
    families = {}
    for seeds in every.values():
        f = next(iter(seeds.values()))
        if f["cell"][claim["axis"]] == claim["first"]:
            other = every.get(like(f, **{claim["axis"]: claim["second"]}), {})
            values = [seeds[n]["accuracy"] - other[n]["accuracy"] for n in seeds if n in other]
            if values:
                families.setdefault(like(f, sparsity=0), []).append((f, "", values))
    yield from corrected(claim, families)


def corrected(claim, families):
    """Holm's correction over the sparsities of the scope, measured or not, on either side."""
    bound, many = bounds(claim)[0], len(claim["scope"]["sparsities"])
    title = {claim["axis"]: f"{claim['first']} − {claim['second']}"}
    for members in families.values():
        sides = []
        for side in ("greater", "less"):
            enough = [len(v) >= claim["scope"]["seeds"] for _, _, v in members]
            sign = 1 if side == "greater" else -1
            ps = [float(stats.t.sf(sign * (statistics.fmean(v) - bound) / error(v), len(v) - 1)) if ok else 1.0
                  for ok, (_, _, v) in zip(enough, members, strict=True)]  # fmt: skip
            worst, adjusted = 0.0, {}
            for rank, n in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
                worst = adjusted[n] = max(worst, min(1.0, (many - rank) * ps[n]))
            sides.append(adjusted)
        for n, (f, at, values) in enumerate(members):
            above, below = (side[n] <= claim["alpha"] for side in sides)
            verdict = "holds" if above else "refuted" if below else "undecided"
            yield where(f, *([at] if at else []), **title), verdict, *student(values, claim)[2], len(values)


def matched(claim, facts):
    families, beyond = {}, {}
    for f in facts:
        axis = f["cell"][claim["axis"]]
        if not fits(f, claim) or (axis, f["backend"]) != (claim["first"], claim["first_backend"]) or not steady(f):
            continue
        wanted = like(f, **{claim["axis"]: claim["second"], "sparsity": 0})
        points = [
            (1 / o["speedup"], o["accuracy"]) for o in facts
            if o["backend"] == claim["second_backend"] and place(o) == place(f) and o["baseline"] == f["baseline"]
            and o["cell"]["seed"] == f["cell"]["seed"] and steady(o)
            and (like(o, sparsity=0) == wanted or (o["cell"]["criterion"] == "none" and alike(o, f)))
        ]  # fmt: skip
        time, key = 1 / f["speedup"], (like(f, sparsity=0), place(f))
        spans = [(a, b) for a, b in pairwise(sorted(points)) if a[0] <= time <= b[0]]
        if spans:
            (x0, y0), (x1, y1) = spans[0]
            gap = f["accuracy"] - (y0 + (y1 - y0) * (time - x0) / (x1 - x0))
            families.setdefault(key, {}).setdefault(f["cell"]["sparsity"], (f, there(f), []))[2].append(gap)
        elif points:
            beyond.setdefault((key, f["cell"]["sparsity"]), []).append(f)
    yield from corrected(claim, {key: list(own.values()) for key, own in families.items()})
    title = {claim["axis"]: f"{claim['first']} − {claim['second']}"}
    for (key, sparsity), own in beyond.items():
        if sparsity not in families.get(key, {}):
            yield where(own[0], there(own[0]), **title), "undecided", "–", "–", len(own)


def alike(control, f, names=("dataset", "model", "recipe")):
    return all(control["cell"][name] == f["cell"][name] for name in names)


def count(claim, facts):
    chosen, order = [f for f in facts if fits(f, claim)], claim["scope"].get("backends", FIRST)
    if claim.get("source", "grid") == "grid":
        chosen = [f for seeds in checkpoints(chosen, order) for _, f in sorted(seeds.items())]
    once = claim["direction"] == "reached"
    names = ("dataset", "model") if once else ("dataset", "model", *list(AXES.values())[2:], "sparsity", "recipe")
    for own in groups(chosen, lambda f: json.dumps([f["cell"][n] for n in names], sort_keys=True)).values():
        own = [f for f in own if claim["quantity"] != "resident" or f.get("question") or through_torch(f, facts)]
        values = {ratio(claim["quantity"], f, facts): f for f in own}
        if not values:
            continue
        best = min(values) if claim["direction"] == "at_least" else max(values)
        verdict = decided(claim, best, best)
        measured_at = {f["cell"]["sparsity"] for f in own}
        if once and verdict == "refuted" and len(measured_at) < len(claim["scope"]["sparsities"]):
            verdict = "undecided"
        over = [f"dense over {backend}" for backend in claim["scope"].get("backends", ())]
        span = f"exact, {min(values):.2f} to {max(values):.2f}"
        yield (
            where(values[best], *over),
            verdict,
            f"{best:.2f}×",
            span,
            len({json.dumps(f["cell"], sort_keys=True) for f in own}),
        )


def ratio(quantity, f, facts):
    left = f["parameters"] - f["prunable"] + f["nonzeros"]
    if f.get("question"):
        return f["dense_resident_bytes"] / f["resident_bytes"]
    if quantity == "resident":
        return through_torch(f, facts)[-1]["resident_bytes"] / f["resident_bytes"]
    return {
        "parameters": f["parameters"] / left,
        "file_fp32": f["dense_disk_bytes"] / f["disk_bytes"],
        "file_fp16": (f["dense_disk_bytes"] - 2 * f["parameters"]) / (f["disk_bytes"] - 2 * left),
    }[quantity]


def through_torch(f, facts):
    """Dense torch keeps every weight: any case of the network tells its bytes."""
    same = [o for o in facts if "question" not in o and alike(o, f, ("dataset", "model")) and o["backend"] == "dense"]
    assert len({o["resident_bytes"] for o in same}) <= 1
    return same


def steady(f):
    return f["speedup"] is not None and f["verdict"] != "unstable"


def ends(f):
    """(speed-up, low, high); what is inconclusive reaches to 1."""
    reach = [1.0] if f["verdict"] == "inconclusive" else []
    return f["speedup"], min([f["speedup_low"], *reach]), max([f["speedup_high"], *reach])


def ratios(claim, own, facts):
    """(speed-up, low, high) of every stable seed, over the baseline or over another backend; and how many were not."""
    found, unstable = [], 0
    for f in own:
        other = None
        if claim.get("against"):
            same = [o for o in facts if o["cell"] == f["cell"] and place(o) == place(f) and "question" not in o]
            other = [o for o in same if o["backend"] == claim["against"]][-1]
        if not steady(f) or (other and not steady(other)):
            unstable += 1
        else:
            one, two = ends(f), ends(other) if other else (1, 1, 1)
            found.append((one[0] / two[0], one[1] / two[2], one[2] / two[1]))
    return found, unstable


def together(found):
    return (math.exp(statistics.fmean(math.log(r[0]) for r in found)), min(r[1] for r in found),
            max(r[2] for r in found))  # fmt: skip


def time(claim, facts):
    chosen = [f for f in facts if fits(f, claim)]
    for own in groups(chosen, lambda f: (like(f), f["backend"], place(f))).values():
        found, unstable = ratios(claim, own, facts)
        texts, verdict = ("–", "–"), "undecided"
        slow = claim["quantity"] == "slowdown"
        if found:
            value, low, high = together(found)
            if slow:
                value, low, high = 1 / value, 1 / high, 1 / low
            texts = (f"{value:.2f}×" + (" the time" if slow else ""), f"[{low:.2f}, {high:.2f}]")
        if len(found) >= claim["scope"]["seeds"]:
            verdict = decided(claim, low, high)
        elif len(found) + unstable >= claim["scope"]["seeds"]:
            verdict = "unstable"
        [over] = {claim.get("against") or f["baseline"] for f in own}
        yield where(own[0], own[0]["backend"], there(own[0]), f"against {over}"), verdict, *texts, len(found)


def breakeven(claim, facts):
    chosen = [f for f in facts if fits(f, claim)]
    for curve in groups(chosen, lambda f: (like(f, sparsity=0), f["backend"], place(f))).values():
        points, sides = [], []
        for sparsity, own in sorted(groups(curve, lambda f: f["cell"]["sparsity"]).items()):
            found, _ = ratios(claim, own, facts)
            if len(found) < claim["scope"]["seeds"]:
                sides.append("unstable")
                continue
            if any(f["verdict"] == "inconclusive" for f in own):
                sides.append("undecided")
                continue
            value, low, high = together(found)
            points.append((sparsity, value))
            sides.append(decided(claim, low, high))
        whole = len(sides) == len(claim["scope"]["sparsities"])
        verdict = next((s for s in ("refuted", "unstable") if s in sides), "undecided")
        verdict = "holds" if whole and set(sides) == {"holds"} else verdict
        at = "at " + ", ".join(f"{100 * s:g} %" for s, _ in points)
        f = curve[0]
        here = re.sub(r", [\d.]+ %", "", where(f, f["backend"], there(f)))
        in_time = claim.get("source", "grid") == "grid"
        text = f"break-even: {crossing(points, in_time)}" if points else "–"
        yield here, verdict, text, at if points else "–", len(points)


def crossing(points, in_time):
    """As in the tables: linear in the speed-up for layers, in time for networks."""
    first = next((n for n, (_, r) in enumerate(points) if r > 1), None)
    if first is None:
        return f"none {'up to' if len(points) > 1 else 'at'} {100 * points[-1][0]:g} %"
    lost = ", ".join(f"{100 * s:g} %" for s, r in points[first:] if r <= 1)
    again = f", slower again at {lost}" if lost else ""
    if first == 0:
        return f"below {100 * points[0][0]:g} %{again}"
    (s0, r0), (s1, r1) = [(s, 1 / r if in_time else r) for s, r in points[first - 1 : first + 1]]
    return f"{100 * (s0 + (s1 - s0) * (1 - r0) / (r1 - r0)):.0f} %{again}"


RULES = {"equivalence": equivalence, "ordering": ordering, "matched": matched, "count": count, "time": time,
         "breakeven": breakeven}  # fmt: skip


@pytest.fixture(scope="module")
def facts():
    return measured()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_the_committed_verdicts_are_what_the_committed_runs_say(claim, facts):
    rows = [row for row in comma(ROOT / "results" / "claims.csv") if row["id"] == claim["id"]]
    assert rows
    shown = [row for row in rows if row["evidence"]]
    assert all((row["verdict"], row["n"]) == ("undecided", "0") for row in rows if row not in shown)
    found = [tuple(row[k] for k in ("scope", "verdict", "estimate_text", "interval_text", "n")) for row in shown]
    expected = [(*texts, str(n)) for *texts, n in RULES[claim["rule"]](claim, facts)]
    assert sorted(found) == sorted(expected)


def span(texts):
    """From the least to the greatest of estimates that differ in a number alone, apart where more differs."""
    kinds = {}
    for text in texts:
        number = re.search(r"[+-]?[\d.]+", text)
        kinds.setdefault(text.replace(number[0], "#", 1), []).append(number[0])
    spans = []
    for kind, numbers in kinds.items():
        low, high = min(numbers, key=float), max(numbers, key=float)
        times = "×" if "#×" in kind else ""
        spans.append(kind.replace("#", low if float(low) == float(high) else f"{low}{times} to {high}"))
    return "; ".join(spans) or "–"


def test_the_summaries_count_them():
    pages = [(ROOT / "results" / name).read_text() for name in ("claims.md", "README.md")]
    rows = comma(ROOT / "results" / "claims.csv")
    for claim in CLAIMS:
        own = [row["verdict"] for row in rows if row["id"] == claim["id"]]
        first, last = ("holds", "refuted") if claim.get("decides") == "any" else ("refuted", "holds")
        whole = (
            first if first in own else last if set(own) == {last} else "unstable" if "unstable" in own else "undecided"
        )
        lost = sum("layer collapse" in r["reason"] for r in rows if r["id"] == claim["id"])
        counts = ", ".join(f"{own.count(v)} {v}" for v in ("holds", "refuted", "undecided", "unstable") if v in own)
        counts += f"; layer collapse in {lost} of these places" if lost else ""
        found = [r["estimate_text"].lstrip("'") for r in rows if r["id"] == claim["id"] and r["estimate_text"] != "–"]
        for page in pages:
            [line] = re.findall(rf"^\| \[{claim['id']}\].*$", page, re.MULTILINE)
            assert [cell.strip() for cell in line.strip("|").split("|")][3:] == [whole, span(found), counts]
