"""Saved runs and tables read once more, by other means than the package's: json, text and arithmetic alone.

Nothing here imports prunebench, so that a mistake in how tables are made can't hide in how they are checked.
"""

from __future__ import annotations

import csv
import html
import json
import math
import re
import statistics
from pathlib import Path

ORDER = ("dense", "masked", "scipy_csr", "csr")
LABELS = ("dataset", "model", "recipe", "pruned by", "sparsity", "batch")
DECIDED = ("faster", "slower")


# Raw facts


def raw_facts(folder: Path):
    """Facts of every saved run under a folder, earliest run first, each with its machine's id."""
    runs = []
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        facts = [b["extra_info"] for b in content["benchmarks"]] + content["prunebench"]["untimed"]
        name = re.sub(r"^\d{4}_|\.json$", "", path.name)
        runs.append((content["datetime"], name, content["machine_info"]["prunebench"]["id"], facts))
    for _, _, machine, facts in sorted(runs, key=lambda run: run[:2]):
        yield from ({**f, "machine": machine} for f in facts)


def latest(facts, identity):
    """The facts that count: where a case was measured again, the last."""
    return list({(f["machine"], f["threads"], f["backend"], f["batch_size"], identity(f)): f for f in facts}.values())


def grid(folder: Path):
    """{(machine, threads): {labels of a row: {backend: facts of its seeds}}}"""
    found = {}
    chosen = (f for f in raw_facts(folder) if "question" not in f)
    for f in latest(chosen, lambda f: json.dumps(f["cell"], sort_keys=True)):
        table = found.setdefault((f["machine"], f["threads"]), {})
        table.setdefault(labels(f), {}).setdefault(f["backend"], []).append(f)
    return found


def labels(f):
    cell = f["cell"]
    return (cell["dataset"], cell["model"], cell["recipe"]["name"], method(cell), percent(cell), str(f["batch_size"]))


def percent(cell):
    return f"{100 * cell['sparsity']:g} %"


def method(cell):
    if cell["criterion"] == "none":
        return "unpruned"
    copied = re.fullmatch(r"like:criterion=([^:]*):scope=([^:]*)", cell["scope"])
    if copied is None:
        return " ".join(cell[k] for k in ("criterion", "granularity", "scope", "schedule"))
    criterion, scope = (text.replace("/", ":") for text in copied.groups())
    of = f"{criterion} {cell['granularity']} {scope} {cell['schedule']}"
    return f"control: {cell['criterion']}, same proportions as {of}"


def question(folder: Path, name: str):
    """{(machine, threads): facts of one question}"""
    found = {}
    chosen = (f for f in raw_facts(folder) if f.get("question") == name)
    for f in latest(
        chosen, lambda f: (f["cell"]["model"] if name == "networks" else f["layer"]["id"], percent(f["cell"]))
    ):
        found.setdefault((f["machine"], f["threads"]), []).append(f)
    return found


# Tables as rows of text


def markdown(text: str):
    """Every table in a text: [{column: cell}]"""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = ([c.strip() for c in line.strip().strip("|").split("|")] for line in block.splitlines())
        tables.append([dict(zip(head, row, strict=True)) for row in rows])
    return tables


def comma(path: Path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def web(text: str):
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]
    head, *rest = ([html.unescape(c).strip() for c in row] for row in rows)
    return [dict(zip(head, row, strict=True)) for row in rest]


def latex(text: str):
    rows = [line.removesuffix(r"\\") for line in text.splitlines() if line.endswith(r"\\")]
    plain = [row.replace(r"\textasciitilde{}", "~").replace(r"\^{}", "^") for row in rows]
    plain = [re.sub(r"\\ensuremath\{(.)\}", r"\1", re.sub(r"\\([%_&#${}])", r"\1", row)) for row in plain]
    head, *rest = ([c.strip() for c in row.split(" & ")] for row in plain)
    return [dict(zip(head, row, strict=True)) for row in rest]


# One shown number against the value it is of


def agrees(shown: str, value: float, significant: int | None = None) -> bool:
    """Whether a number as printed is the value, rounded to its last digit or to so many significant ones."""
    number = float(shown.replace(",", ""))
    if significant is None:
        unit = 10.0 ** -len(shown.partition(".")[2])
    else:
        unit = 10.0 ** (math.floor(math.log10(value)) - significant + 1) if value else 1e-9
    return abs(number - value) <= 0.5001 * unit


def geometric(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def mean(facts, name):
    values = [f[name] for f in facts if f.get(name) is not None]  # an older run lacks newer facts
    if not values:
        return None
    return geometric(values) if name.startswith("speedup") else statistics.fmean(values)


def shared(values):
    kinds = sorted({v for v in values if v is not None})
    return kinds[0] if len(kinds) == 1 else ("mixed: " + " ".join(kinds) if kinds else "")


def well(facts):
    return [f for f in facts if f["status"] == "ok"]


def first_backend(by_backend):
    """The backend whose accuracy and counts stand for the row: of those with most seeds the first column."""
    ordered = columns_of(by_backend)
    return min(ordered, key=lambda b: (-len(well(by_backend[b])), ordered.index(b)))


def columns_of(backends):
    return [b for b in ORDER if b in backends] + sorted(set(backends) - set(ORDER))


def apart_by_seed(by_backend):
    """{backend: [accuracy minus that of the same seed through the first backend that has it]}"""
    found, first = {}, {}
    for backend in columns_of(by_backend):
        for f in well(by_backend[backend]):
            reference = first.setdefault(f["cell"]["seed"], f["accuracy"])
            found.setdefault(backend, []).append(f["accuracy"] - reference)
    return found


# The cells of the main table


def check_main_row(row, by_backend):
    """Raises AssertionError where a cell isn't what the facts give."""
    first = by_backend[first_backend(by_backend)]
    check_accuracy(row["accuracy %"], first, by_backend)
    ok = well(first)
    if not ok:
        assert (row["nonzeros"], row["bytes on disk"]) == ("–", "–")
    else:
        left, of, said = re.fullmatch(r"([\d,]+) of ([\d,]+)(?: \((.*)\))?", row["nonzeros"]).groups()
        noted = {"layer collapse": "collapse", "some layers left dense": "not_pruned"}
        words = [text for text, name in noted.items() if any(f.get(name) for f in ok)]
        assert (said or "") == "; ".join(words), row
        assert agrees(left, mean(ok, "nonzeros")), row
        assert agrees(of, mean(ok, "prunable")), row
        check_disk(row["bytes on disk"], ok)
    baselines = {f["baseline"] for facts in by_backend.values() for f in well(facts)}
    assert row["over"] == (" ".join(sorted(baselines)) or "–"), row
    for backend in set(row) - {*LABELS, "accuracy %", "nonzeros", "bytes on disk", "over"}:
        check_speed(row[backend], by_backend.get(backend), len(ok))


def check_accuracy(text, facts, by_backend):
    ok = well(facts)
    if not ok:
        assert text == shared(f["status"] for f in facts)
        return
    pattern = r"([\d.]+)(?: ± ([\d.]+))? \(n=(\d+)(?: of (\d+), (.*?))?\)(.*)"
    shown, deviation, n, of, status, others = re.fullmatch(pattern, text).groups()
    values = [100 * f["accuracy"] for f in ok]
    assert agrees(shown, statistics.fmean(values)), text
    assert int(n) == len(values), text
    assert (deviation is None) == (len(values) == 1), text
    if deviation is not None:
        assert agrees(deviation, statistics.stdev(values)), text
    if len(facts) > len(ok):
        assert (int(of), status) == (len(facts), shared(f["status"] for f in facts)), text
    apart = dict(pair.rsplit(" ", 1) for pair in others.split(", ") if pair)
    gaps = {backend: statistics.fmean(values) for backend, values in apart_by_seed(by_backend).items()}
    for backend, gap in gaps.items():
        if abs(gap - gaps[first_backend(by_backend)]) > 0.0005:
            assert agrees(apart.pop(backend), 100 * mean(well(by_backend[backend]), "accuracy")), text
    assert not apart, text


def check_disk(text, ok):
    size, ratio = re.fullmatch(r"([\d.,]+) kB \(([\d.]+)× smaller\)", text).groups()
    assert agrees(size, mean(ok, "disk_bytes") / 1000), text
    assert agrees(ratio, mean(ok, "dense_disk_bytes") / mean(ok, "disk_bytes")), text


def check_speed(text, facts, usual):
    if facts is None:
        assert text == "–"
        return
    ok = well(facts)
    if not ok:
        assert text == shared(f["status"] for f in facts)
        return
    pattern = r"([\d.e+-]+) ms, ([\d.]+)× \[([\d.]+), ([\d.]+)\](?: (.*?))??(?: \(n=(\d+)(?: of (\d+))?\))?"
    ms, speedup, low, high, words, n, of = re.fullmatch(pattern, text).groups()
    assert agrees(ms, 1000 * mean(ok, "latency_seconds"), 3), text
    for shown, name in ((speedup, "speedup"), (low, "speedup_low"), (high, "speedup_high")):
        assert agrees(shown, mean(ok, name)), (text, name)
    verdict = shared(f["verdict"] for f in ok)
    assert (words or "") == ("" if verdict in DECIDED else verdict), text
    told = (str(len(ok)), str(len(facts)) if len(facts) > len(ok) else None)
    assert (n, of) == (told if len(facts) > len(ok) or len(ok) != usual else (None, None)), text


# The bytes tables: one row per cell, whatever the batch size


def standing(by_batch):
    """(batch size, backend) with most seeds; of several the first column, then the smallest batch."""
    names = columns_of({b for found in by_batch.values() for b in found})
    found = [(-len(well(facts)), names.index(b), n) for n, own in by_batch.items() for b, facts in own.items()]
    _, column, batch = min(found)
    return batch, names[column]


def check_bytes_row(row, by_batch):
    """by_batch: {batch size: {backend: facts}}. File sizes are those of the backend and batch standing for it."""
    present = {n: {b: well(f) for b, f in found.items() if well(f)} for n, found in by_batch.items()}
    batch, backend = standing(by_batch)
    first = present[batch][backend]
    unprunable = mean(first, "parameters") - mean(first, "prunable")
    [fewer] = re.fullmatch(r"([\d.]+)× fewer", row["parameters"]).groups()
    assert agrees(fewer, mean(first, "parameters") / (unprunable + mean(first, "nonzeros"))), row
    assert agrees(row["dense file"].removesuffix(" kB"), mean(first, "dense_disk_bytes") / 1000), row
    check_disk(row["bitmask file"], first)
    for column in (c for c in row if c.endswith(" in memory")):
        sizes = [mean(found[b], "resident_bytes") for found in present.values() if (b := column.split()[0]) in found]
        if not sizes:
            assert row[column] == "–"
        else:
            assert agrees(row[column].removesuffix(" kB"), statistics.fmean(sizes) / 1000), row


# Networks and layers


def check_speedup_text(text, f):
    shown, ends, words = re.fullmatch(r"([\d.]+)×(?: \[(.*?)\])?(?: (\w+))?", text).groups()
    assert agrees(shown, f["speedup"]), text
    for end, name in zip(ends.split(", "), ("speedup_low", "speedup_high"), strict=True):
        assert agrees(end, f[name]), text
    assert words == (None if f["verdict"] in DECIDED else f["verdict"]), text


def check_network_row(row, f):
    if f["status"] != "ok":
        assert row["speed-up"].startswith(f["status"])
        return
    check_speedup_text(row["speed-up"], f)
    assert row["over"] == f["baseline"]
    for column in (c for c in row if c.endswith(" ms")):
        one = f["arms"].get(column.removesuffix(" ms"))
        if one is None:
            assert row[column] == "–"
        elif one["status"] != "ok":
            assert row[column].startswith(one["status"])
        else:
            assert row[column].startswith("~") == (one["blocks"] < f["blocks"]), row
            assert agrees(row[column].lstrip("~"), 1000 * one["seconds"], 3), row


def check_layer_row(row, f):
    if f["status"] != "ok":
        assert row["kernel"].startswith(f["status"])
        return
    speed, over = row["speed-up"].split(" over ")
    check_speedup_text(speed, f)
    assert over == f["baseline"]
    assert row["of"].split(", ") == f["networks"]
    assert agrees(row["µs"], 1e6 * f["latency_seconds"], 4), row
    assert agrees(row["dense µs"], 1e6 * f["baseline_seconds"], 4), row
    assert agrees(row["useful GFLOP/s"], f["useful_gflops"], 3), row
    assert agrees(row["dense-equivalent"], f["dense_equivalent_gflops"], 4), row
    if f["roof_percent"] is not None:
        share, roof = re.fullmatch(r"(\d+) % of (\w+)", row["roof"]).groups()
        assert agrees(share, f["roof_percent"]), row
        assert roof == f["roof"]


def check_breakeven(text, points, in_time=False):
    """points: (sparsity, speed-up), in any order; between two of them linear in the speed-up, or in its inverse."""
    if points is None:
        assert text == "inconclusive"
        return
    points = sorted(points)
    if not points:
        assert text == "–"
        return
    gains = [s for s, speedup in points if speedup > 1]
    if not gains:
        assert text in {f"none {word} {100 * points[-1][0]:g} %" for word in ("up to", "at")}
        return
    said, _, again = text.partition(", slower again at ")
    lost = [f"{100 * s:g} %" for s, speedup in points if s > gains[0] and speedup <= 1]
    assert [a for a in again.split(", ") if a] == lost, text
    before = [(s, speedup) for s, speedup in points if s < gains[0]]
    if not before:
        assert said == (f"below {100 * gains[0]:g} %" if gains[0] else "0 %"), text
        return
    (s0, r0), r1 = before[-1], dict(points)[gains[0]]
    if in_time:
        r0, r1 = 1 / r0, 1 / r1
    assert agrees(said.removesuffix(" %"), 100 * (s0 + (gains[0] - s0) * (1 - r0) / (r1 - r0))), text


def network_points(table):
    """{labels without the sparsity: {backend: [(sparsity, speed-up)]}} of one machine, unstable timings left out.

    Inconclusive ones are no points either, and the unpruned network is one where it is faster; a method with fewer than
    two pruned sparsities is no line. A list of none: nothing was conclusive.
    """
    timed = {}
    for (*network, how, _, batch), by_backend in table.items():
        for backend, facts in by_backend.items():
            steady = [f for f in well(facts) if f["verdict"] != "unstable"]
            if steady:
                sure = "inconclusive" not in shared(f["verdict"] for f in steady)
                point = (steady[0]["cell"]["sparsity"], mean(steady, "speedup"), sure)
                timed.setdefault((*network, how, batch), {}).setdefault(backend, []).append(point)
    found = {}
    for (*network, how, batch), by_backend in timed.items():
        pruned = {s for points in by_backend.values() for s, *_ in points}
        if how != "unpruned" and len(pruned) > 1:
            own = timed.get((*network, "unpruned", batch), {})
            found[(*network, how, batch)] = {
                b: [p[:2] for p in (*(p for p in own.get(b, []) if p[1] > 1), *points) if p[2]]
                if any(p[2] for p in points) else None
                for b, points in by_backend.items()
            }  # fmt: skip
    return found
