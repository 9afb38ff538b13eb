"""Claims about counts and times on synthetic runs with known answers; what is unstable or of two machines."""

from dataclasses import replace

import pytest
from claiming import FAST, FAST_SCOPE, PAYS, accurate, cell, claim, measured, one, outcomes, run, timed
from saved_answers import NETWORK, network
from saved_answers import run as answered

from prunebench.answers import answer
from prunebench.claims import judge
from prunebench.questions import ClaimCase


@pytest.mark.parametrize(
    ("quantity", "bound", "verdict", "text"),
    [
        ("parameters", 9.5, "holds", "9.88×"),  # 431,080 over 43,630 of which are left
        ("parameters", 9.9, "refuted", "9.88×"),
        ("file_fp32", 7.0, "holds", "7.00×"),
        ("file_fp32", 7.01, "refuted", "7.00×"),
        ("file_fp16", 5.4, "holds", "5.46×"),  # (1,750,000 − 2·431,080) / (250,000 − 2·43,630)
    ],
)
def test_counts_are_exact(quantity, bound, verdict, text):
    found = one(claim("count", quantity=quantity, direction="at_least", bound=bound), *accurate([0.0] * 3))
    assert (found.verdict, found.estimate_text) == (verdict, text)


@pytest.mark.parametrize(
    ("quantity", "changes", "text"),
    [
        ("parameters", {"nonzeros": 0}, "743.24×"),  # the biases alone are left: no weight is a count like any other
        ("parameters", {"nonzeros": 0, "prunable": 431_080}, None),
        ("file_fp16", {"disk_bytes": 2 * 43_630}, None),
        ("file_fp32", {"disk_bytes": 0}, None),
        ("file_fp32", {"dense_disk_bytes": 0}, None),
        ("file_fp32", {"disk_bytes": None}, None),
    ],
)
def test_a_count_that_can_not_be_is_no_evidence(quantity, changes, text):
    about = claim("count", {"seeds": 1}, quantity=quantity, direction="at_least", bound=1)
    found = one(about, *({**f, **changes} for f in accurate([0.0])))
    expected = ("undecided", "–") if text is None else ("holds", text)
    assert (found.verdict, found.estimate_text) == expected


@pytest.mark.parametrize("verdict", [None, "", "odd"])
def test_a_timing_that_was_not_judged_decides_nothing(verdict):
    assert one(FAST, *timed([2.0] * 3, verdict=verdict)).verdict == "unstable"


def test_an_interval_holds_its_own_estimate():
    beside = timed([4.0] * 3, speedup_low=1.6, speedup_high=1.7)
    turned = timed([2.0] * 3, speedup_low=9.0, speedup_high=1.6)
    assert [one(FAST, *f).interval_text for f in (beside, turned)] == ["[1.60, 4.00]", "[1.60, 9.00]"]
    assert one(FAST, *beside).verdict == one(FAST, *turned).verdict == "undecided"


def test_the_least_favourable_seed_decides_a_count():
    smaller = claim("count", quantity="file_fp32", direction="at_least", bound=7.0)
    facts = accurate([0.0] * 3)
    facts[1] = {**facts[1], "disk_bytes": 250_001}
    assert one(smaller, *facts).verdict == "refuted"
    assert one(smaller, *accurate([0.0] * 2)).verdict == "undecided"


def test_bytes_in_memory_are_compared_with_the_dense_backend_s():
    bytes_ = claim("count", {"backends": ["masked"]}, quantity="resident", direction="at_most", bound=1.0)
    dense = [measured(cell(n), "dense", resident_bytes=1000) for n in range(3)]

    def masked(*sizes):
        return [measured(cell(n), "masked", resident_bytes=size) for n, size in enumerate(sizes)]

    assert one(bytes_, *dense, *masked(3000, 1000, 3000)).verdict == "holds"
    assert one(bytes_, *dense, *masked(3000, 999, 3000)).verdict == "refuted"
    alone = one(bytes_, *masked(3000, 3000, 3000))
    assert (alone.verdict, "--backends dense,masked" in alone.command) == ("undecided", True)


def test_up_to_is_reached_once_or_refuted_when_all_is_measured():
    scope = {"backends": ["csr"], "sparsities": [0.8, 0.9], "seeds": 1}
    most = claim("count", scope, quantity="resident", direction="reached", bound=12.8, decides="any")

    def at(sparsity, size):
        here = cell(sparsity=sparsity)
        return [measured(here, "dense", resident_bytes=12800), measured(here, "csr", resident_bytes=size)]

    assert one(most, *at(0.9, 1000), *at(0.8, 5000)).verdict == "holds"
    assert one(most, *at(0.9, 1000)).verdict == "holds"
    assert one(most, *at(0.9, 1001), *at(0.8, 5000)).verdict == "refuted"
    part = one(most, *at(0.9, 1001))
    assert part.verdict == "undecided"
    assert "1 of the scope's 2 sparsities" in part.reason
    assert part.command


@pytest.mark.parametrize(
    ("speedups", "verdict", "reason"),
    [
        ([2.0, 2.1, 1.9], "holds", "at least 1.5 and at most 2.5"),
        ([3.0, 3.1, 2.9], "refuted", "above 2.5"),
        ([1.2, 1.1, 1.3], "refuted", "below 1.5"),
        ([2.0, 2.1, 3.0], "undecided", "across the bound"),
        ([2.0, 2.1], "undecided", "2 of at least 3 seeds"),
    ],
)
def test_a_speed_up_in_a_range(speedups, verdict, reason):
    found = one(FAST, *timed(speedups))
    assert found.verdict == verdict
    assert reason in found.reason


def test_seeds_are_combined_by_their_geometric_mean_and_all_of_their_intervals():
    found = one(FAST, *timed([1.6, 2.0, 2.4]))
    assert (found.estimate_text, found.interval_text, found.n) == ("1.97×", "[1.58, 2.42]", 3)


def test_unstable_timings_decide_nothing():
    shaky = timed([2.0, 2.1, 1.9], verdict="unstable")
    assert one(FAST, *shaky).verdict == "unstable"
    assert one(FAST, *timed([2.0, 2.1, 1.9])[:2], shaky[2]).verdict == "unstable"
    fourth = timed([2.0, 2.1, 1.9, 9.0])[:3] + timed([2.0] * 4, verdict="unstable")[3:]
    found = one(FAST, *fourth)
    assert (found.verdict, found.n) == ("holds", 3)
    assert "1 unstable left out" in found.reason
    assert one(FAST, *shaky[:2]).verdict == "undecided"  # too few even if they had been stable


def test_a_case_that_failed_when_it_was_measured_again_is_no_evidence_any_more():
    """As in the tables, where the later measurement counts whatever came of it."""
    held = run(*timed([4.0] * 3), time="2024-01-01T00:00:00")
    again = run({**timed([4.0] * 3)[0], "status": "failed", "reason": "no"}, time="2024-01-02T00:00:00")
    for runs in ([held, again], [again, held]):
        [found] = judge(runs, [FAST])
        assert (found.verdict, found.n) == ("undecided", 2)
    assert judge([replace(held, datetime="2024-01-03T00:00:00"), again], [FAST])[0].verdict != "undecided"


def test_every_baseline_of_the_seeds_is_named():
    first, *rest = timed([4.0] * 3)
    found = one(FAST, {**first, "baseline": "dense_channels_last"}, *rest)
    assert found.scope.endswith("against dense and dense_channels_last")


def test_an_inconclusive_timing_reaches_to_one():
    wide = claim("time", FAST_SCOPE, quantity="speedup", direction="at_least", bound=1.01)
    assert one(wide, *timed([1.05] * 3)).verdict == "holds"
    assert one(wide, *timed([1.05] * 3, verdict="inconclusive")).verdict == "undecided"


def test_a_slow_down_is_a_speed_up_upside_down():
    slower = claim("time", FAST_SCOPE, quantity="slowdown", direction="within", range=[50.0, 200.0])
    found = one(slower, *timed([0.01] * 3, half=0.001, verdict="slower"))
    assert (found.verdict, found.estimate_text, found.interval_text) == ("holds", "100.00× the time", "[90.91, 111.11]")


def test_timings_of_two_machines_or_thread_counts_are_judged_apart():
    scope = {**FAST_SCOPE, "threads": [1, 2]}
    both = claim("time", scope, quantity="speedup", direction="within", range=[1.5, 2.5])
    two = [{**f, "threads": 2} for f in timed([5.0] * 3)]
    here, there = run(*timed([2.0] * 3), *two), run(*timed([1.0] * 3), machine="bbbbbbbbbb", name="b")
    found = {(v.machine, "2 threads" in v.scope): v.verdict for v in judge([here, there], [both])}
    assert found == {
        ("aaaaaaaaaa", False): "holds",
        ("aaaaaaaaaa", True): "refuted",
        ("bbbbbbbbbb", False): "refuted",
    }
    # Two seeds here and one there are not three.
    split = [run(*timed([2.0] * 2)), run(timed([2.0] * 3)[2], machine="bbbbbbbbbb", name="b")]
    assert set(outcomes(FAST, split)) == {"undecided"}


def test_another_backend_is_compared_through_the_common_baseline():
    scope = {"backends": ["masked"], "batch_sizes": [64], "threads": [1]}
    masks = claim("time", scope, against="dense", quantity="speedup", direction="at_most", bound=1.05)
    dense = timed([0.5] * 3, "dense", half=0.005)
    masked = timed([0.5] * 3, "masked", half=0.005)
    found = one(masks, *dense, *masked)
    assert (found.verdict, found.estimate_text, found.interval_text) == ("holds", "1.00×", "[0.98, 1.02]")
    assert len(found.evidence) == 6
    assert one(masks, *dense, *timed([0.6] * 3, "masked", half=0.005)).verdict == "refuted"
    assert one(masks, *timed([0.5] * 3, "dense", verdict="unstable"), *masked).verdict == "unstable"
    elsewhere = timed([0.5] * 3, "dense", baseline="dense_channels_last")
    assert one(masks, *elsewhere, *masked).verdict == "undecided"
    assert one(masks, *masked).verdict == "undecided"


def test_networks_are_judged_by_the_fastest_dense_way():
    scope = {"models": ["resnet18_cifar"], "backends": ["csr"], "sparsities": [0.9], "batch_sizes": [16], "seeds": 1}
    empty = {key: [] for key in ("datasets", "criteria", "granularities", "scopes", "schedules", "recipes")}
    fast = claim("time", {**empty, **scope}, source="networks", quantity="speedup", direction="at_least", bound=4.0)
    [found] = judge([answered(network(), network(replace(NETWORK, sparsity=0.8)))], [fast])
    assert (found.verdict, found.estimate_text) == ("holds", "5.00×")
    assert found.scope == "resnet18_cifar, random weights, 90 %, csr, batch 16, 1 thread, against dense_channels_last"
    assert found.evidence == ("mine: resnet18_cifar-s900-csr-b16",)
    [missing] = judge([], [fast])
    assert missing.command == (
        "pytest benchmarks/test_networks.py --models resnet18_cifar --sparsities 0.9 --batch-sizes 16 "
        "--benchmark-save=networks"
    )


@pytest.mark.parametrize(
    ("speedups", "verdict", "estimate"),
    [
        ({0.8: 0.5, 0.9: 0.8}, "holds", "none up to 90 %"),
        ({0.8: 0.5, 0.9: 2.0}, "refuted", "87 %"),  # in time: from 2 to 1/2, two thirds of the way
        ({0.9: 1.5}, "refuted", "below 90 %"),
        ({0.8: 0.5}, "undecided", "none at 80 %"),
        ({0.8: 0.5, 0.9: 1.0}, "undecided", "none up to 90 %"),
    ],
)
def test_break_even(speedups, verdict, estimate):
    facts = [
        measured(cell(sparsity=s), "scipy_csr", speedup=r, speedup_low=r - 0.1, speedup_high=r + 0.1)
        for s, r in speedups.items()
    ]
    found = judge([run(*facts)], [PAYS])
    assert (found[0].verdict, found[0].estimate_text) == (verdict, f"break-even: {estimate}")
    assert len(found) == 1 + (len(speedups) == 1)  # what isn't measured is told beside it


def test_an_inconclusive_timing_is_not_slower_than_dense():
    near = {"speedup": 0.995, "speedup_low": 0.985, "speedup_high": 0.999}
    shy = [measured(cell(sparsity=s), "scipy_csr", verdict="inconclusive", **near) for s in (0.8, 0.9)]
    found = one(PAYS, *shy)
    assert (found.verdict, found.estimate_text, found.n) == ("undecided", "–", 0)
    slow = measured(cell(sparsity=0.8), "scipy_csr", speedup=0.5, speedup_low=0.4, speedup_high=0.6, verdict="slower")
    assert one(PAYS, slow, shy[1]).verdict == "undecided"


def test_break_even_with_an_unstable_sparsity_is_unstable():
    values = {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6}
    shaky = measured(cell(sparsity=0.8), "scipy_csr", verdict="unstable", **values)
    assert one(PAYS, shaky, measured(cell(), "scipy_csr", **values)).verdict == "unstable"


def test_a_thread_count_that_is_not_measured_is_told():
    both = claim("time", {"backends": ["csr"], "batch_sizes": [64], "threads": [1, 2]}, quantity="speedup",
                 direction="within", range=[1.5, 2.5])  # fmt: skip
    found = judge([run(*timed([2.0, 2.1, 1.9]))], [both])
    assert [(v.verdict, v.reason) for v in found][1:] == [("undecided", "not measured: 90 % at batch 64 on 2 threads")]
    two = [{**f, "threads": 2} for f in timed([2.0, 2.1, 1.9])]
    assert [v.verdict for v in judge([run(*timed([2.0, 2.1, 1.9]), *two)], [both])] == ["holds", "holds"]


def test_dense_bytes_are_those_of_the_network_whatever_was_pruned():
    less = claim("count", {"backends": ["csr"], "seeds": 1}, quantity="resident", direction="at_least", bound=5.0)
    pruned = measured(cell(), "csr", resident_bytes=1000)
    assert [v.verdict for v in judge([run(pruned)], [less])] == ["undecided"]
    elsewhere = measured(cell(seed=4, sparsity=0.5, criterion="l2"), "dense", resident_bytes=6000)
    found = one(less, pruned, elsewhere)
    assert (found.verdict, found.estimate_text) == ("holds", "6.00×")


def evidence(speedup, size=3000, **values):
    numbers = {"speedup": speedup, "speedup_low": speedup - 0.01, "speedup_high": speedup + 0.01, "verdict": "slower",
               "baseline": "dense", "resident_bytes": size, "dense_resident_bytes": 1000}  # fmt: skip
    return answer("claims", ClaimCase("lenet5", "masked", 1.0, 64), **{**numbers, **values})


NOTHING_LEFT = {"datasets": [], "criteria": [], "granularities": [], "scopes": [], "schedules": [], "recipes": [],
                "sparsities": [1.0], "backends": ["masked"], "seeds": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "time", "memory"),
    [
        ([evidence(0.9)], "holds", "holds"),
        ([evidence(1.2)], "refuted", "holds"),
        ([evidence(1.2, verdict="unstable")], "unstable", "holds"),
        ([evidence(0.9, size=999)], "holds", "refuted"),
        ([], "undecided", "undecided"),
    ],
)
def test_a_wholly_masked_network_has_evidence_of_its_own(facts, time, memory):
    scope = {**NOTHING_LEFT, "batch_sizes": [64], "threads": [1]}
    no_time = claim("time", scope, source="claims", quantity="speedup", direction="at_most", bound=1.05)
    no_memory = claim("count", NOTHING_LEFT, source="claims", quantity="resident", direction="at_most", bound=1.0)
    for one_claim, outcome in ((no_time, time), (no_memory, memory)):
        [found] = judge([answered(*facts)], [one_claim])
        assert found.verdict == outcome
        if facts:
            assert found.scope.startswith("lenet5, random weights, 100 %")
            assert found.evidence == ("mine: lenet5-s1000-masked-b64",)
        else:
            assert found.command == "pytest benchmarks/test_claims.py --benchmark-save=claims"


def test_a_layer_s_break_even_comes_from_its_own_measurements():
    scope = {**NOTHING_LEFT, "models": ["linear_784_300"], "backends": ["scipy_csr"], "sparsities": [0.8, 0.9],
             "batch_sizes": [64], "threads": [1]}  # fmt: skip
    pays = claim("breakeven", scope, source="claims", direction="at_most", bound=1.0)
    facts = [
        {**evidence(r), "cell": {**evidence(r)["cell"], "model": "linear_784_300", "sparsity": s},
         "backend": "scipy_csr"} for s, r in ((0.8, 0.5), (0.9, 1.5))
    ]  # fmt: skip
    [found] = judge([answered(*facts)], [pays])
    assert (found.verdict, found.estimate_text) == ("refuted", "break-even: 85 %")
    assert found.scope == "linear_784_300, random weights, scipy_csr, batch 64, 1 thread"
