"""Claims about accuracies on synthetic runs with known answers: equal, one above another, at equal latency."""

from dataclasses import replace

import pytest
from claiming import (
    BETTER,
    MATCHED,
    RECIPE,
    SAME,
    accurate,
    at_latency,
    cell,
    curve,
    measured,
    one,
    outcomes,
    run,
    schedules,
)

from prunebench.cell import Recipe
from prunebench.claims import judge, summary_table


def replace_accuracy(facts, accuracy, **other):
    return {**facts, "accuracy": accuracy, **other}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.0, 0.001, -0.001], "holds"),
        ([-0.02, -0.021, -0.019], "refuted"),
        ([0.02, 0.021, 0.019], "refuted"),
        ([-0.004, -0.005, -0.006], "undecided"),
        ([0.0, 0.001], "undecided"),
    ],
)
def test_equal_accuracy(differences, verdict):
    found = one(SAME, *accurate(differences))
    assert (found.verdict, found.n) == (verdict, len(differences))
    assert len(found.evidence) == len(differences)
    assert bool(found.command) == (len(differences) < 3)


def test_equal_accuracy_in_words():
    found = one(SAME, *accurate([0.001, 0.002, 0.003]))
    assert (found.estimate_text, found.interval_text) == ("+0.20 points", "[+0.03, +0.37] (90 %)")
    assert found.scope == "mnist lenet5, l1 weight global agp, 90 %"
    assert found.machine == "aaaaaaaaaa"
    assert found.evidence[0] == "quick: lenet5-mnist-l1-weight-global-agp-s900-seed0-dense-b64"


def test_without_evidence_the_command_that_gives_it_is_told():
    [found] = judge([], [SAME])
    assert (found.verdict, found.n, found.evidence, found.reason) == ("undecided", 0, (), "not measured")
    assert found.command == (
        "pytest benchmarks --datasets mnist --models lenet5 --criteria l1 --granularities weight --scopes global "
        "--schedules agp --sparsities 0.9 --backends dense --batch-sizes 64 --seeds 0,1,2 --recipe brief "
        "--benchmark-save=claims"
    )


def test_what_lies_outside_the_scope_is_no_evidence():
    good = accurate([0.0, 0.001, -0.001])
    for other in ({"criterion": "l2"}, {"schedule": "linear"}, {"sparsity": 0.8}, {"scope": "layerwise"}):
        assert outcomes(SAME, [run(*accurate([-0.1] * 3, **other))]) == ["undecided"]
        assert outcomes(SAME, [run(*good, *accurate([-0.1] * 3, **other))]) == ["holds"]
    strange = [measured(replace(cell(n), recipe=Recipe(name="other")), accuracy=0.1) for n in range(3)]
    assert outcomes(SAME, [run(*good, *strange)]) == ["holds"]


def test_recipes_of_one_name_and_other_values_are_not_repetitions_of_each_other():
    other = [measured(replace(cell(n), recipe=replace(RECIPE, epochs=2)), "dense", accuracy_dense=0.9) for n in (0, 1)]
    found = judge([run(*accurate([0.0, 0.001, -0.001]), *other)], [SAME])
    assert sorted((v.verdict, v.n) for v in found) == [("holds", 3), ("undecided", 2)]


def test_accuracy_is_the_checkpoint_s_through_torch_and_the_latest():
    through_csr = [replace_accuracy(f, 0.5, backend="csr") for f in accurate([0.0] * 3)]
    assert one(SAME, *accurate([0.0, 0.001, -0.001]), *through_csr).verdict == "holds"
    old = run(*accurate([-0.1, -0.11, -0.12]), time="2023-01-01T00:00:00", machine="bbbbbbbbbb")
    new = run(*accurate([0.0, 0.001, -0.001]))
    for runs in ([old, new], [new, old]):
        [found] = judge(runs, [SAME])
        assert (found.verdict, found.machine) == ("holds", "aaaaaaaaaa")


@pytest.mark.parametrize("dense", [0.95, 0.9, 0.7, 0.3])
def test_what_lies_on_the_bound_is_decided_by_the_bound_and_not_by_how_floats_are_added(dense):
    """0.955 - 0.95 is more than 0.005 in floats, and 0.3 - 0.001 less than 0.001 below 0.3."""
    # Equal values have the spread of counts rounded: their interval is ±0.0000487.
    assert one(SAME, *accurate([0.00495] * 3, dense=dense)).verdict == "holds"
    assert one(SAME, *accurate([0.005] * 3, dense=dense)).verdict == "undecided"
    assert one(SAME, *accurate([-0.0051] * 3, dense=dense)).verdict == "refuted"
    first = accurate([-0.001] * 3, dense=dense)
    second = accurate([0.0] * 3, dense=dense, schedule="linear")
    assert outcomes(BETTER, [run(*first, *second)])[0] == "undecided"


def test_a_diverged_seed_is_no_evidence():
    diverged = measured(cell(2), "dense", status="diverged", reason="loss is nan")
    found = one(SAME, *accurate([0.0, 0.001]), diverged)
    assert (found.verdict, found.n) == ("undecided", 2)
    assert "2 of at least 3 seeds" in found.reason


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01, 0.011, 0.012], "holds"),
        ([0.0, 0.0001, -0.0001], "holds"),  # no better, and no worse than the bound allows
        ([-0.01, -0.011, -0.012], "refuted"),
        ([-0.01, 0.02, 0.01], "undecided"),
        ([0.01, 0.011], "undecided"),
    ],
)
def test_one_setting_above_another(differences, verdict):
    found = judge([run(*schedules(differences), *schedules([0.01, 0.011, 0.012], 0.8))], [BETTER])
    by_scope = {v.scope: v.verdict for v in found}
    assert by_scope == {
        "mnist lenet5, l1 weight global agp − linear, 80 %": "holds",
        "mnist lenet5, l1 weight global agp − linear, 90 %": verdict,
    }


def test_only_seeds_that_both_have_are_compared():
    facts = schedules([0.01, 0.011, 0.012])
    found = judge([run(*facts[:-1])], [BETTER])
    assert [(v.verdict, v.n) for v in found] == [("undecided", 2), ("undecided", 0)]
    assert judge([run(*facts[:3])], [BETTER])[0].n == 0


def test_what_a_family_misses_is_told_and_counted():
    [here, missing] = judge([run(*schedules([0.004, 0.001, 0.002]))], [BETTER])
    assert (here.verdict, missing.reason) == ("undecided", "not measured: 80 %")
    assert "after Holm over 2" in here.reason
    alone = replace(BETTER, scope=replace(BETTER.scope, sparsities=(0.9,)))
    assert one(alone, *schedules([0.004, 0.001, 0.002])).verdict == "holds"


def test_equal_latency_is_interpolated_per_seed():
    weights = at_latency([0.98, 0.981, 0.982], 2.0, granularity="weight")
    found = one(MATCHED, *curve(), *weights)
    # Filters at latency 1/2: 0.90 + 0.09 / 3 = 0.93 and a little more for each seed.
    assert (found.verdict, found.estimate_text) == ("holds", "+5.03 points")
    worse = at_latency([0.9, 0.901, 0.902], 2.0, granularity="weight")
    assert one(MATCHED, *curve(), *worse).verdict == "refuted"


def test_a_latency_that_filters_do_not_reach_is_not_compared():
    found = one(MATCHED, *curve(), *at_latency([0.98, 0.981, 0.982], 5.0, granularity="weight"))
    assert found.verdict == "undecided"
    assert "latency not reached by filter through compact" in found.reason


def test_equal_latency_without_the_other_backend_says_what_to_run():
    found = judge([run(*at_latency([0.98] * 3, 2.0, granularity="weight"))], [MATCHED])[-1]
    assert (found.verdict, "--backends csr,compact" in found.command) == ("undecided", True)


def test_equal_latency_with_unstable_timings_is_unstable():
    weights = at_latency([0.98, 0.981], 2.0, granularity="weight")
    shaky = at_latency([0.98, 0.981, 0.982], 2.0, granularity="weight", verdict="unstable")
    assert one(MATCHED, *curve(), *weights, *shaky[2:]).verdict == "unstable"
    found = one(MATCHED, *curve(), *shaky)
    assert (found.verdict, found.reason) == ("unstable", "3 of 3 timings unstable")


def test_a_seed_that_has_no_filters_is_not_called_unstable():
    weights = at_latency([0.98, 0.981, 0.982], 2.0, granularity="weight")
    two = [f for f in curve() if f["cell"]["seed"] < 2 or f["cell"]["criterion"] == "none"]
    found = one(MATCHED, *two, *weights)
    assert (found.verdict, found.reason) == ("undecided", "2 of at least 3 seeds measured")


def test_seeds_beyond_the_measured_latencies_are_told():
    weights = at_latency([0.98, 0.981, 0.982, 0.983], 2.0, granularity="weight")
    far = at_latency([0.98] * 4, 9.0, granularity="weight")[3:]
    more = [{**f, "cell": {**f["cell"], "seed": 3}} for f in curve()[::3]]
    found = one(MATCHED, *curve(), *more, *weights[:3], *far)
    assert (found.verdict, found.n) == ("holds", 3)
    assert found.reason.endswith("; 1 more beyond the latencies measured")


def test_who_was_beaten_after_a_layer_collapse_is_told():
    collapsed = [{**f, "collapse": "fc2.weight would have lost every weight"} for f in accurate([0.0, 0.001, -0.001])]
    assert one(SAME, *collapsed).reason.endswith("; layer collapse in 3 of 3 networks")
    assert (
        one(
            SAME,
            *accurate([0.0, 0.001, -0.001]),
        ).reason
        == "two one-sided tests, ±0.5 points"
    )
    [row] = summary_table(judge([run(*collapsed)], [SAME]), [SAME]).to_dict("records")
    assert row["in detail"] == "1 holds; layer collapse in 1 of these places"
