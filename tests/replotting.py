"""What plots show, recomputed from raw facts by other means than the package's: a check for every kind of plot.

Nothing here imports prunebench, so that a mistake in how plots are made can't hide in how they are checked.
"""

import hashlib
import itertools
import json
import math
import re
import statistics

import pytest
from recomputing import grid, mean, method, question, raw_facts, shared, well
from scipy import stats

METHOD = ("criterion", "granularity", "scope", "schedule")
# What a view compares -> what parts its panels, in the order of their labels.
VIEWS = {
    "criterion": ("granularity", "scope", "schedule"),
    "scope": ("granularity", "schedule", "criterion"),
    "schedule": ("granularity", "scope", "criterion"),
    "granularity": ("scope", "schedule", "criterion"),
}
FIRST = ("dense", "masked", "scipy_csr", "csr")


def slug(part):
    return part if len(part) <= 48 else part[:39] + "_" + hashlib.sha256(part.encode()).hexdigest()[:8]


def parent(cell):
    return "-".join(slug(part) for part in (cell["model"], cell["dataset"], cell["recipe"]["name"]))


def same(shown, value):
    """A number of a CSV, nine digits of it, against the value; nothing stands for none."""
    if shown == "" or value is None or (isinstance(value, float) and math.isnan(value)):
        assert (shown, value is None or math.isnan(value)) == ("", True)
    elif isinstance(value, (str, bool)):
        assert shown == str(value)
    else:
        assert float(shown) == pytest.approx(value, rel=1e-8, abs=1e-12)


def check_rows(shown, expected, keys):
    """Rows of a CSV are those expected, each found by its keys, whatever their order; pages may repeat one."""
    found = {tuple(row[k] for k in keys): row for row in shown}
    assert set(found) == set(expected), set(found) ^ set(expected)
    for key, values in expected.items():
        for name, value in values.items():
            same(found[key][name], value)
    return len(found)


def student(values):
    """(mean, low, high) by Student's t at 95 %; one value has no interval."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return middle, None, None
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return middle, middle - half, middle + half


def checkpoints(runs):
    """{parent: facts of each cell and seed}: of the first backend in the usual order, measured last."""
    ranked = {}
    for f in raw_facts(runs):
        if "question" not in f:
            key = json.dumps(f["cell"], sort_keys=True)
            rank = (FIRST.index(f["backend"]) if f["backend"] in FIRST else len(FIRST), f["backend"])
            if key not in ranked or rank <= ranked[key][0]:
                ranked[key] = (rank, f)
    found = {}
    for _, f in ranked.values():
        assert f["status"] == "ok", "a failed cell is committed: say here how plots show it"
        assert not f["cell"]["scope"].startswith("like"), "a control is committed: say here how plots show it"
        found.setdefault(parent(f["cell"]), []).append(f)
    return found


def kept(facts):
    return statistics.fmean(f["nonzeros"] / f["prunable"] for f in facts)


def together(facts, key):
    found = {}
    for f in facts:
        found.setdefault(key(f), []).append(f)
    return found


def number(value):
    return f"{value:.9g}"


# A check for every kind of plot: (folder of runs, {file name without suffix: rows}) -> how many rows were checked


def accuracy_by(runs, files):
    count = 0
    for about, facts in checkpoints(runs).items():
        for view, axes in VIEWS.items():
            start = f"accuracy_by_{view}-{about}"
            pages = [name for name in files if re.fullmatch(re.escape(start) + r"(-part\d+)?", name)]
            pruned = [f for f in facts if f["cell"]["criterion"] != "none"]
            panels = together(pruned, lambda f, axes=axes: tuple(f["cell"][a] for a in axes))
            if view != "criterion":
                panels = {k: own for k, own in panels.items() if len({f["cell"][view] for f in own}) > 1}
            assert bool(panels) == bool(pages), start
            left = {dots(own, view): key for key, own in panels.items()}
            for page in pages:
                shown = together(files[page], lambda row: row["panel"])
                found = {label: left.pop(dots_shown(rows), None) for label, rows in shown.items() if label or
                         any(row["what"] == "seed" for row in rows)}  # fmt: skip
                assert None not in found.values(), (page, "shows a panel that no facts give")
                of_page = {key: panels[key] for key in found.values()}
                count += check_accuracy(files[page], facts, of_page, view)
            assert not left, (start, "lacks panels")
    return count


def dots(facts, view):
    """What tells a panel whatever its label: every seed's accuracy."""
    return frozenset(
        (f["cell"][view], number(f["cell"]["sparsity"]), str(f["cell"]["seed"]), number(f["accuracy"])) for f in facts
    )


def dots_shown(rows):
    seeds = [row for row in rows if row["what"] == "seed"]
    return frozenset((r["series"], r["sparsity"], str(int(float(r["seed"]))), r["accuracy"]) for r in seeds)


def check_accuracy(rows, facts, panels, view):
    told = [n for n in range(3) if len({key[n] for key in panels}) > 1]
    expected = {}
    for key, own in panels.items():
        panel = ", ".join(key[n] for n in told)
        lines = together(own, lambda f: (f["cell"][view], f["cell"]["sparsity"]))
        for (series, sparsity), at in lines.items():
            middle, low, high = student([f["accuracy"] for f in at])
            most = max(len(other) for (name, _), other in lines.items() if name == series)
            about = (panel, series, number(sparsity))
            expected[(*about, "mean", "")] = {"accuracy": middle, "low": low, "high": high, "n": len(at),
                                            "cases": len(at), "kept": kept(at), "lost": None}  # fmt: skip
            if len(at) < most:
                expected[(*about, "missing", "")] = {"n": len(at), "cases": most, "kept": kept(at)}
            for f in at:
                expected[(*about, "seed", number(f["cell"]["seed"]))] = {"accuracy": f["accuracy"], "kept": kept([f])}
        for series in {name for name, _ in lines}:
            for sparsity in {s for _, s in lines} - {s for name, s in lines if name == series}:
                most = max(len(other) for (name, _), other in lines.items() if name == series)
                expected[panel, series, number(sparsity), "missing", ""] = {"n": 0, "cases": most}
    controls = [f for f in facts if f["cell"]["criterion"] == "none"]
    if controls:
        middle, low, high = student([f["accuracy"] for f in controls])
        expected["", "none", "0", "control", ""] = {"accuracy": middle, "low": low, "high": high, "n": len(controls)}
    assert {row["view"] for row in rows} == {view}
    return check_rows(rows, expected, ("panel", "series", "sparsity", "what", "seed"))


def words(cell):
    """The method as the fronts name it: the granularity only where it isn't `weight`."""
    return method(cell).replace(" weight ", " ") + ("" if cell["criterion"] == "none" else f" {percent(cell)}")


def percent(cell):
    return f"{100 * cell['sparsity']:g} %"


def check_front(rows, margin, smaller):
    """Numbered by their x, and no point is beaten by another; what has no number is beaten by one that has."""
    points = [(1 / float(r["x"]) if smaller else float(r["x"]), float(r["accuracy"]), r["number"]) for r in rows
              if "unstable" not in r["verdict"]]  # fmt: skip
    front = [p for p in points if p[2]]
    assert sorted(int(float(n)) for _, _, n in front) == list(range(1, len(front) + 1))
    ordered = sorted(front, key=lambda p: -p[0] if smaller else p[0])
    assert [int(float(n)) for _, _, n in ordered] == list(range(1, len(front) + 1))
    assert not any(row["number"] for row in rows if "unstable" in row["verdict"])
    for x, y, n in points:
        beaten = any(a > x * (1 + margin) and b > y + 0.0005 for a, b, _ in points)
        covered = any(x <= a * (1 + margin) and y <= b + 0.0005 for a, b, _ in front)
        assert covered, (x, y, n)
        assert not (n and beaten), (x, y, n)


def pareto_bytes(runs, files):
    count = 0
    for about, facts in checkpoints(runs).items():
        rows, expected = files[f"pareto_bytes-{about}"], {}
        for own in together(facts, lambda f: json.dumps({**f["cell"], "seed": 0}, sort_keys=True)).values():
            cell = own[0]["cell"]
            middle, low, high = student([f["accuracy"] for f in own])
            series = "unpruned" if cell["criterion"] == "none" else cell["criterion"]
            expected["file on disk, by criterion", series, words(cell)] = {
                "x": mean(own, "disk_bytes"), "accuracy": middle, "accuracy_low": low, "accuracy_high": high,
                "n": len(own)}  # fmt: skip
        last = {
            (json.dumps(f["cell"], sort_keys=True), f["backend"]): f for f in raw_facts(runs) if "question" not in f
        }
        mine = [f for f in last.values() if parent(f["cell"]) == about]
        for own in together(
            mine, lambda f: (json.dumps({**f["cell"], "seed": 0}, sort_keys=True), f["backend"])
        ).values():
            middle, low, high = student([f["accuracy"] for f in own])
            expected["weights in memory, by backend", own[0]["backend"], words(own[0]["cell"])] = {
                "x": mean(own, "resident_bytes"), "accuracy": middle, "accuracy_low": low, "accuracy_high": high,
                "n": len(own)}  # fmt: skip
        count += check_rows(rows, expected, ("panel", "series", "method"))
        for panel in {row["panel"] for row in rows}:
            check_front([row for row in rows if row["panel"] == panel], 0.01, smaller=True)
    return count


def timed(runs):
    """(parent, machine, threads) -> [(batch, backend, facts of the seeds)]"""
    found = {}
    for (machine, threads), table in grid(runs).items():
        for (*_, batch), by_backend in table.items():
            for backend, own in by_backend.items():
                about = parent(own[0]["cell"])
                found.setdefault((about, machine, threads), []).append((batch, backend, own))
    return found


def pareto_speedup(runs, files):
    count = 0
    for (about, machine, threads), rows in timed(runs).items():
        shown, expected = files[f"pareto_speedup-{about}-{machine}-t{threads}"], {}
        for batch, backend, own in rows:
            ok = well(own)
            middle, low, high = student([f["accuracy"] for f in ok])
            expected[f"batch {batch}", backend, words(own[0]["cell"])] = {
                "x": mean(ok, "speedup"), "low": mean(ok, "speedup_low"), "high": mean(ok, "speedup_high"),
                "accuracy": middle, "accuracy_low": low, "accuracy_high": high, "n": len(ok), "cases": len(own),
                "verdict": shared(f["verdict"] for f in ok), "machine": machine, "threads": threads}  # fmt: skip
        count += check_rows(shown, expected, ("panel", "series", "method"))
        for panel in {row["panel"] for row in shown}:
            check_front([row for row in shown if row["panel"] == panel], 0.03, smaller=False)
    return count


def speedup(runs, files):
    count = 0
    for (about, machine, threads), rows in timed(runs).items():
        pages = [n for n in files if re.fullmatch(rf"speedup-{re.escape(about)}-{machine}-t{threads}(-part\d+)?", n)]
        cells = [(batch, backend, own, own[0]["cell"]) for batch, backend, own in rows]
        expected, lines = {}, {}
        for batch, backend, own, cell in cells:
            if cell["criterion"] != "none":
                key = (
                    f"{cell['granularity']}, {cell['scope']}, batch {batch}",
                    backend,
                    cell["criterion"],
                    cell["schedule"],
                )
                lines.setdefault(key, []).append(own)
        for key, points in lines.items():
            batch = key[0].rpartition("batch ")[2]
            points += [own for n, backend, own, cell in cells
                       if (n, backend, cell["criterion"]) == (batch, key[1], "none")]  # fmt: skip
            line = []
            for own in points:
                ok, sparsity = well(own), own[0]["cell"]["sparsity"]
                line.append((sparsity, mean(ok, "nonzeros") / mean(ok, "prunable"), mean(ok, "speedup")))
                expected[(*key, "point", number(sparsity))] = {
                    "kept": line[-1][1], "speedup": line[-1][2], "low": mean(ok, "speedup_low"), "n": len(ok),
                    "high": mean(ok, "speedup_high"), "verdict": shared(f["verdict"] for f in ok)}  # fmt: skip
            line.sort()
            for (_, k0, s0), (_, k1, s1) in itertools.pairwise(line):
                if s0 <= 1 < s1:
                    at = k0 ** (math.log(s1) / math.log(s1 / s0)) * k1 ** (-math.log(s0) / math.log(s1 / s0))
                    expected[(*key, "break-even", number(1 - at))] = {"kept": at, "speedup": 1.0}
        shown = [row for page in pages for row in files[page]]
        count += check_rows(shown, expected, ("panel", "backend", "criterion", "schedule", "what", "sparsity"))
    return count


def networks(runs, files):
    count = 0
    for (machine, threads), facts in question(runs, "networks").items():
        for sparsity, own in together(facts, lambda f: f["cell"]["sparsity"]).items():
            expected = {}
            for f in own:
                assert f["status"] == "ok", "a failed network is committed: say here how plots show it"
                for way, arm in f["arms"].items():
                    ratio = f["arms"][f["baseline"]]["seconds"] / arm["seconds"]
                    mine = way == f["backend"]
                    expected[f"{f['cell']['model']}, batch {f['batch_size']}", way] = {
                        "milliseconds": 1000 * arm["seconds"], "ratio": f["speedup"] if mine else ratio,
                        "low": f["speedup_low"] if mine else None, "high": f["speedup_high"] if mine else None,
                        "dropped": arm["blocks"] < f["blocks"]}  # fmt: skip
            rows = files[f"networks-s{1000 * sparsity:03.0f}-{machine}-t{threads}"]
            count += check_rows(rows, expected, ("network", "way"))
    return count


def layer_speedup(runs, files):
    count = 0
    for (machine, threads), facts in question(runs, "layers").items():
        expected = {
            (network, str(f["batch_size"]), f["layer"]["id"], number(f["cell"]["sparsity"])): {
                "speedup": f["speedup"], "low": f["speedup_low"], "high": f["speedup_high"], "verdict": f["verdict"]}
            for f in facts for network in f["networks"]
        }  # fmt: skip
        rows = files[f"layer_speedup-{machine}-t{threads}"]
        count += check_rows(rows, expected, ("network", "batch_size", "layer", "sparsity"))
    return count


def roofline(runs, files):
    count = 0
    for (machine, threads), facts in question(runs, "layers").items():
        expected = {}
        for f in facts:
            layer, batch, (sides, out) = f["layer"], f["batch_size"], sizes(f["layer"])
            moved = f["resident_bytes"] + 4 * batch * (layer["inputs"] * sides + layer["outputs"] * out)
            expected[layer["id"], str(batch), number(f["cell"]["sparsity"])] = {
                "intensity": 2 * batch * f["macs"] / moved, "useful_gflops": f["useful_gflops"],
                **{f"roof_{name}": f["roofs"][name] for name in ("l1", "l2", "dense")}}  # fmt: skip
        rows = files[f"roofline-{machine}-t{threads}"]
        count += check_rows(rows, expected, ("layer", "batch_size", "sparsity"))
    return count


def sizes(layer):
    """(pixels read, pixels written) of a channel; a linear layer has one of each."""
    if layer["kind"] == "linear":
        return 1, 1
    return layer["size"] ** 2, ((layer["size"] + 2 * layer["padding"] - layer["kernel"]) // layer["stride"] + 1) ** 2


# What a plot's file name begins with -> its check.
CHECKS = {
    one.__name__: one for one in (accuracy_by, pareto_bytes, pareto_speedup, speedup, networks, layer_speedup, roofline)
}
