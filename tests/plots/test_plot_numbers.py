"""What plots show is what the runs hold: numbers by hand, numbers read back from the drawn figures."""

import math
from dataclasses import replace

import pytest
from saved_answers import CONV, NETWORK, layer, network
from saved_answers import run as answered
from saved_facts import CONTROL, PRUNED, facts, run

from prunebench.controls import twins
from prunebench.plots import plots_of, style
from prunebench.plots.points import front
from prunebench.plots.roofline import intensity
from prunebench.plots.speed import crossings

SEEDS = {0: 0.90, 1: 0.92, 2: 0.94}


def seeds(cell=PRUNED, offset=0.0, **values):
    return [facts(replace(cell, seed=seed), accuracy=a + offset, **values) for seed, a in SEEDS.items()]


def plot(runs, kind):
    [found] = [p for p in plots_of(runs) if p.name.startswith(kind)]
    return found


def drawn(one):
    """{gid: (x, y) of every artist with that name} of a plot's figure."""
    found = {}
    with style.look(one.name):
        figure = one.draw(one.numbers, one.title)
        figure.canvas.draw()
    for ax in figure.axes:
        for line in ax.lines:
            if line.get_gid():
                found.setdefault(line.get_gid(), []).append((list(line.get_xdata()), list(line.get_ydata())))
    return found


def words(one):
    """Every text of a plot's figure, in one line."""
    from matplotlib.text import Text

    with style.look(one.name):
        figure = one.draw(one.numbers, one.title)
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


def rows(one, what):
    return one.numbers[one.numbers["what"] == what].to_dict("records")


def test_a_mean_has_its_seeds_and_its_t_interval():
    one = plot([run(*seeds(), *seeds(CONTROL, 0.02))], "accuracy_by_criterion")
    [mean] = rows(one, "mean")
    half = 4.302652730 * 0.02 / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert mean["accuracy"] == pytest.approx(0.92)
    assert (mean["low"], mean["high"]) == pytest.approx((0.92 - half, 0.92 + half))
    assert (mean["n"], mean["cases"], mean["kept"]) == (3, 3, pytest.approx(0.1))
    assert [r["accuracy"] for r in rows(one, "seed")] == [0.90, 0.92, 0.94]
    [control] = rows(one, "control")
    assert control["accuracy"] == pytest.approx(0.94)


def test_the_figure_shows_the_numbers():
    harder = replace(PRUNED, sparsity=0.95)
    one = plot(
        [run(*seeds(), *seeds(harder, -0.1, nonzeros=430500 * 0.05), *seeds(CONTROL, 0.02))], "accuracy_by_criterion"
    )
    found = drawn(one)
    [(x, y)] = found["means l1"]
    assert (x, y) == (pytest.approx([0.1, 0.05]), pytest.approx([8, 18]))  # percent wrong
    assert found["seeds l1"][0][1] == pytest.approx([10, 8, 6, 20, 18, 16])
    upper, lower = found["intervals l1"][0][1][:2]
    assert (upper, lower) == (pytest.approx(8 - 4.9683, abs=1e-3), pytest.approx(8 + 4.9683, abs=1e-3))
    assert found["none"][0][1] == pytest.approx([6, 6])


def test_one_seed_has_no_interval():
    one = plot([run(facts(), facts(CONTROL))], "accuracy_by_criterion")
    assert math.isnan(rows(one, "mean")[0]["low"])
    assert "intervals l1" not in drawn(one)


def test_perfect_accuracy_and_none_at_all_can_be_drawn():
    one = plot([run(facts(accuracy=1.0), facts(replace(PRUNED, sparsity=0.95), accuracy=0.0))], "accuracy_by_criterion")
    assert drawn(one)["means l1"][0][1] == [0.01, 100]


def test_what_diverged_is_marked_and_breaks_the_line():
    cells = [replace(PRUNED, sparsity=s) for s in (0.8, 0.9, 0.95)]
    lost = facts(cells[1], status="diverged")
    one = plot([run(facts(cells[0]), lost, facts(cells[2]))], "accuracy_by_criterion")
    [mark] = rows(one, "failed")
    assert (mark["sparsity"], mark["n"], mark["lost"]) == (0.9, 0, "diverged")
    found = drawn(one)
    assert found["failed"][0][0] == pytest.approx([0.1])
    assert [math.isnan(v) for v in found["means l1"][0][1]] == [False, True, False]


def test_a_sparsity_that_only_others_measured_breaks_no_line():
    other = replace(PRUNED, criterion="random")
    cells = [replace(PRUNED, sparsity=s) for s in (0.8, 0.95)] + [replace(other, sparsity=s) for s in (0.8, 0.9, 0.95)]
    one = plot([run(*map(facts, cells))], "accuracy_by_criterion")
    assert [(r["series"], r["sparsity"]) for r in rows(one, "missing")] == [("l1", 0.9)]
    assert [math.isnan(v) for v in drawn(one)["means l1"][0][1]] == [False, False]


def test_a_caption_tells_how_many_seeds_there_were():
    single, several = run(facts(), facts(CONTROL)), run(*seeds(), facts(CONTROL))
    assert "One seed, so without intervals" in words(plot([single], "accuracy_by_criterion"))
    assert "seeds (n = 1–3) with 95 % t intervals" in words(plot([several], "accuracy_by_criterion"))
    for name in ("pareto_bytes", "pareto_speedup"):
        assert "seeds (n = 1–3)" in words(plot([several], name))


def test_lines_that_look_alike_are_explained():
    alone = [facts(replace(PRUNED, sparsity=s)) for s in (0.8, 0.9)]
    both = [*alone, *(facts(replace(PRUNED, sparsity=s, schedule="linear")) for s in (0.8, 0.9))]
    said = "Every schedule has a line of its own."
    assert said not in words(plot([run(*alone)], "speedup"))
    assert said in words(plot([run(*both)], "speedup"))


def test_a_lost_seed_and_a_missing_one_are_marked():
    part = [f for f in seeds(replace(PRUNED, sparsity=0.95)) if f["cell"]["seed"] < 2]
    part.append(facts(replace(PRUNED, sparsity=0.95, seed=2), status="diverged"))
    gone = seeds(replace(PRUNED, sparsity=0.98))[:1]
    one = plot([run(*seeds(), *part, *gone)], "accuracy_by_criterion")
    assert [(r["sparsity"], r["n"], r["cases"]) for r in rows(one, "failed")] == [(0.95, 2, 3)]
    assert [(r["sparsity"], r["n"], r["cases"]) for r in rows(one, "missing")] == [(0.98, 1, 3)]


def test_a_sparsity_that_one_method_lacks_is_marked():
    other = replace(PRUNED, criterion="random")
    cells = [replace(c, sparsity=s) for c in (PRUNED, other) for s in (0.8, 0.9)]
    one = plot([run(*map(facts, cells[:3]))], "accuracy_by_criterion")
    assert [(r["series"], r["sparsity"]) for r in rows(one, "missing")] == [("random", 0.9)]


def test_nothing_but_failures_is_drawn_as_such():
    lost = run(facts(status="diverged"), facts(CONTROL, status="failed"))
    for one in plots_of([lost]):
        with style.look(one.name):
            one.draw(one.numbers, one.title)
    found = plot([lost], "pareto_speedup")
    assert set(found.numbers["status"]) == {"diverged", "failed"}


def test_a_comparison_needs_two_and_panels_hold_the_rest_fast():
    names = {p.name.partition("-")[0] for p in plots_of([run(facts())])}
    assert names == {"accuracy_by_criterion", "pareto_speedup", "pareto_bytes", "speedup", "schedules"}
    cells = [replace(PRUNED, schedule=t, scope=s, criterion=c)
             for t in ("agp", "linear") for s in ("global", "layerwise") for c in ("l1", "random")]  # fmt: skip
    found = [run(*map(facts, cells))]
    schedules = plot(found, "accuracy_by_schedule")
    assert list(dict.fromkeys(schedules.numbers["panel"])) == [
        "global, l1", "global, random", "layerwise, l1", "layerwise, random",
    ]  # fmt: skip
    assert set(schedules.numbers["series"]) == {"agp", "linear"}
    assert plot(found, "accuracy_by_scope").title.endswith("(recipe brief, weight)")
    assert not [p for p in plots_of(found) if p.name.startswith(("accuracy_by_control", "accuracy_by_granularity"))]


def test_twins_are_held_against_their_original_and_only_there():
    snip = replace(PRUNED, criterion="snip")
    one, *_ = found = plots_of([run(facts(snip), *(facts(t, accuracy=0.5) for t in twins(snip)))])
    assert set(one.numbers["series"]) == {"snip"}
    [control] = [p for p in found if p.name.startswith("accuracy_by_control")]
    means = {r["series"]: r["accuracy"] for r in rows(control, "mean")}
    assert means == {"itself": 0.9, "l1": 0.5, "random": 0.5}
    assert set(next(p for p in found if p.name.startswith("speedup")).numbers["criterion"]) == {"snip"}


def test_many_panels_go_on_another_image():
    criteria = ["l1", "l2", "linf", "snip", "taylor", "obd", "wanda"]
    cells = [replace(PRUNED, criterion=c, scope=s, schedule=t)
             for c in criteria for s in ("global", "erk") for t in ("agp", "linear")]  # fmt: skip
    names = [p.name for p in plots_of([run(*map(facts, cells))])]
    assert [n.rpartition("-")[2] for n in names if n.startswith("accuracy_by_scope")] == ["part1", "part2"]


def test_the_front_is_numbered_and_leaves_out_what_is_unstable():
    cells = {0.8: (0.99, 2.0, "faster"), 0.9: (0.98, 4.0, "faster"), 0.95: (0.97, 4.05, "faster"),
             0.98: (0.96, 9.0, "unstable"), 0.99: (0.5, 8.0, "mixed: faster inconclusive")}  # fmt: skip
    made = [facts(replace(PRUNED, sparsity=s), accuracy=a, speedup=x, speedup_low=0.9 * x, speedup_high=1.1 * x,
                  verdict=v) for s, (a, x, v) in cells.items()]  # fmt: skip
    one = plot([run(*made)], "pareto_speedup")
    numbers = dict(zip(one.numbers["sparsity"], one.numbers["number"], strict=True))
    assert {s: n for s, n in numbers.items() if n == n} == {0.8: 1, 0.9: 2, 0.99: 3}
    found = drawn(one)
    assert found["front"][0][1] == pytest.approx([1, 2, 50])
    hollow = [x for x, _ in found["csr pruned"]]
    assert hollow == [pytest.approx([2.0, 4.0, 4.05]), pytest.approx([9.0, 8.0])]
    assert found["csr pruned sideways"][0][0][:2] == pytest.approx([0.9 * 4.05, 1.1 * 4.05])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3], [3, 2, 1], [True, True, True]),
        ([1, 2, 3], [1, 2, 3], [False, False, True]),
        ([1, 1.02, 2], [0.9, 0.8, 0.7], [True, False, True]),  # 2 % faster is no reason
        ([1, 2], [0.9, 0.8999], [False, True]),  # nor is a hundredth of a point
        ([math.nan, 2], [0.9, 0.8], [False, True]),
        ([2, 2], [0.5, 0.5], [True, False]),
        ([], [], []),
    ],
)
def test_a_front(x, y, expected):
    assert front(x, y, [True] * len(x), 0.03, 0.0005) == expected


def test_speed_ups_begin_at_the_unpruned_and_break_even_is_marked():
    values = {0.0: 0.5, 0.9: 2.0}
    made = [facts(PRUNED if s else CONTROL, speedup=v, speedup_low=v, speedup_high=v, nonzeros=(1 - s) * 430500)
            for s, v in values.items()]  # fmt: skip
    one = plot([run(*made)], "speedup")
    found = drawn(one)
    assert found["csr l1"][0] == (pytest.approx([1, 0.1]), [0.5, 2.0])
    [(x, y)] = found["csr l1 break-even"]
    assert (x, list(y)) == (pytest.approx([math.sqrt(0.1)]), [1.0])


def test_crossings():
    assert crossings([(1, 2.0), (0.1, 3.0)]) == []
    assert crossings([(1, 0.5), (0.1, 0.9)]) == []
    assert crossings([(1, 0.5), (0.5, 1.0), (0.1, 2.0)]) == pytest.approx([0.5])
    assert len(crossings([(1, 0.5), (0.5, 2.0), (0.3, 0.5), (0.1, 2.0)])) == 2


def test_bytes_are_of_the_disk_and_of_each_backend():
    one = plot([run(facts(), facts(backend="dense", resident_bytes=1750000))], "pareto_bytes")
    found = {(r["panel"], r["series"]): r["x"] for r in one.numbers.to_dict("records")}
    assert found == {("file on disk, by criterion", "l1"): 250000, ("weights in memory, by backend", "csr"): 300000,
                     ("weights in memory, by backend", "dense"): 1750000}  # fmt: skip
    assert drawn(one)["dense pruned"][0] == ([1750000], pytest.approx([10]))


def test_a_roofline_counts_bytes_once():
    # 64 channels of 32 x 32 in and out in float32, and 10 kB of weights
    f = layer(macs=100_000_000, resident_bytes=10_000)
    assert intensity(f) == pytest.approx(2e8 / (10_000 + 4 * 2 * 64 * 32 * 32))
    one = plot([answered(f, layer(replace(CONV, sparsity=0.95), status="failed", reason="x"))], "roofline")
    assert set(one.numbers["status"]) == {"ok", "failed"}
    found = drawn(one)
    assert found["roof l1"][0][1] == [117.0, 117.0]
    [points] = [v for k, v in found.items() if k.startswith("points")]
    assert points[0] == (pytest.approx([intensity(f)]), [60.0])


def test_ways_to_run_a_network_stand_relative_to_the_fastest_dense_one():
    failed = network(replace(NETWORK, batch_size=99), "failed", reason="x")
    one = plot([answered(network(), failed)], "networks-s900-aaaaaaaaaa-t1")
    found = {(r["network"], r["way"]): r for r in one.numbers.to_dict("records")}
    name = next(n for n, way in found if way == "dense")
    ratios = {way: r["ratio"] for (n, way), r in found.items() if n == name and r["status"] == "ok"}
    # The paired estimate counts for the engine; others are ratios to the baseline's 0.1 s.
    assert ratios == pytest.approx({"dense": 0.5, "dense_channels_last": 1.0, "csr_unpruned": 0.1 / 0.11, "csr": 5.0})
    assert found[name, "torch_compile"]["status"] == "off"
    assert [r["status"] for (n, _), r in found.items() if n != name] == ["failed"]
    shown = drawn(one)
    assert shown["csr sure"] == [([5.0], [0])]
    assert shown["intervals csr"][0][0][:2] == pytest.approx([4.9, 5.1])
    assert "torch_compile sure" not in shown


def test_a_way_that_was_timed_in_the_first_blocks_only_is_pale():
    few = network()
    every = {**few, "arms": {name: {**one, "blocks": few["blocks"]} for name, one in few["arms"].items()}}
    for facts_, kind, said in ((few, "dense dropped", True), (every, "dense sure", False)):
        one = plot([answered(facts_)], "networks-s900-aaaaaaaaaa-t1")
        assert {name for name in drawn(one) if name.startswith("dense ")} == {kind}
        assert ("Pale: " in words(one)) == said


def test_a_layer_has_a_line_in_every_network_that_holds_it():
    higher = layer(replace(CONV, sparsity=0.95), speedup=4.0, verdict="unstable")
    lost = layer(replace(CONV, sparsity=0.98), status="failed", reason="x")
    one = plot([answered(layer(), higher, lost)], "layer_speedup-aaaaaaaaaa-t1")
    assert set(one.numbers["network"]) == set(CONV.networks)
    assert len(one.numbers) == 3 * len(CONV.networks)
    shown = drawn(one)
    name = CONV.layer.id
    assert shown[f"line {name}"][0] == (pytest.approx([1 - CONV.sparsity, 0.05]), [3.0, 4.0])
    assert len(shown[f"line {name}"]) == len(CONV.networks)
    sure, doubtful = shown[f"points {name}"][:2]
    assert (sure[1], doubtful[1]) == ([3.0], [4.0])


def test_machines_and_threads_never_share_a_timing_plot():
    runs = [
        run(facts(), facts(threads=4, speedup=3.0)),
        run(facts(speedup=7.0), machine="bbbbbbbbbb", time="2025-01-01"),
    ]
    for kind, column in (("speedup", "speedup"), ("pareto_speedup", "x")):
        found = {p.name[-13:]: set(p.numbers[column].round(9)) for p in plots_of(runs)
                 if p.name.startswith(kind)}  # fmt: skip
        assert found == {"aaaaaaaaaa-t1": {2.0}, "aaaaaaaaaa-t4": {3.0}, "bbbbbbbbbb-t1": {7.0}}
    # Accuracy belongs to the checkpoint: one plot, and the seed counts once.
    assert len(rows(plot(runs, "accuracy_by_criterion"), "seed")) == 1


def test_a_failed_backend_does_not_hide_the_accuracy():
    one = plot([run(facts(PRUNED, "dense", status="failed"), facts(PRUNED, "csr"))], "accuracy_by_criterion")
    assert [r["what"] for r in one.numbers.to_dict("records")] == ["mean", "seed"]


def test_schedules_need_no_runs():
    one = plot([answered(layer())], "schedules")
    agp = one.numbers[one.numbers["schedule"] == "agp"].set_index("progress")["sparsity"]
    assert agp[0.5] == pytest.approx(0.9 * (1 - 0.5**3))
    assert agp[1.0] == 0.9
    assert drawn(one)["agp"][0][1] == list(agp)


def test_many_criteria_go_on_another_image_beside_the_baselines():
    criteria = ["l1", "l2", "linf", "snip", "taylor", "obd", "wanda", "movement", "grasp", "random"]
    found = plots_of([run(*(facts(replace(PRUNED, criterion=c)) for c in criteria))])
    first, second = [p for p in found if p.name.startswith("accuracy_by_criterion")]
    assert {"l1", "random"} == set(first.numbers["series"]) & set(second.numbers["series"])
    assert set(first.numbers["series"]) | set(second.numbers["series"]) == set(criteria)
