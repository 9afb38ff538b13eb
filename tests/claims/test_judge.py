"""The registered claims, what one edited value changes, and the page that tells of them."""

import pytest
from claiming import BETTER, FAST, PAYS, SAME, claim, curve, run, schedules, timed

from prunebench.claims import RULES, Claim, claims_table, judge, registered, summary_table
from prunebench.claims.files import claims_markdown, commands_text, write_claims
from prunebench.claims.registered import rule_text


def everything():
    """A run with evidence for every registered claim's rule, and other things besides."""
    schedule = [f for s in (0.8, 0.9) for f in schedules([0.01, 0.011, 0.012], s)]
    scipy = [f for s in (0.8, 0.9) for f in timed([0.5] * 3, "scipy_csr", sparsity=s)]
    return [*schedule, *timed([2.0, 2.1, 1.9]), *scipy, *curve()]


@pytest.mark.parametrize(
    ("backend", "field", "value", "changed"),
    [
        ("csr", "speedup_high", 9.0, {"some_time"}),
        ("csr", "verdict", "unstable", {"some_time"}),
        ("scipy_csr", "speedup_high", 1.2, {"some_breakeven"}),
        ("dense", "accuracy", 0.5, {"some_equivalence", "some_ordering"}),
        ("dense", "disk_bytes", 300_000, {"some_count"}),
        ("dense", "latency_seconds", 7.0, set()),
        ("compact", "accuracy", 0.1, set()),
    ],
)
def test_one_edited_value_changes_exactly_the_verdicts_that_depend_on_it(backend, field, value, changed):
    smaller = claim("count", quantity="file_fp32", direction="at_least", bound=7.0)
    claims = [SAME, smaller, FAST, PAYS, BETTER, claim("ordering", id="other", axis="criterion", first="l1",
              second="l2", direction="at_least", bound=0.0)]  # fmt: skip
    facts = everything()
    index = next(i for i, f in enumerate(facts) if f["backend"] == backend and f["cell"]["sparsity"] in (0.9, 0.0)
                 and f["cell"]["schedule"] in ("agp", "none"))  # fmt: skip
    edited = [*facts]
    edited[index] = {**facts[index], field: value}
    before, after = (judge([run(*rows)], claims) for rows in (facts, edited))
    assert len(before) == len(after)
    assert {a.id for b, a in zip(before, after, strict=True) if a != b} == changed


def test_the_registered_claims_are_whole():
    ids = [one.id for one in registered()]
    assert len(ids) == len(set(ids)) >= 17
    for one_claim in registered():
        assert one_claim.rule in RULES
        assert rule_text(one_claim.rule)
        assert one_claim.low < one_claim.high
        assert one_claim.statement.endswith(".")
        assert one_claim.article
        assert one_claim.scope.models
        assert one_claim.scope.sparsities
        assert one_claim.scope.seeds >= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "sideways"},
        {"colour": "red"},
        {"decides": "most"},
        {"scope": {"planets": ["mars"]}},
    ],
)
def test_a_claim_that_cannot_be_is_refused(wrong):
    entry = {"id": "x", "statement": "X.", "article": "x", "rule": "time", "direction": "at_least", "bound": 1.0,
             "scope": {}}  # fmt: skip
    assert Claim.from_dict(entry).low == 1.0
    with pytest.raises(ValueError, match="claim 'x'"):
        Claim.from_dict({**entry, **wrong})


def test_every_registered_claim_without_a_run_says_what_to_run():
    found = judge([])
    assert {v.id for v in found} == {one.id for one in registered()}
    assert all(v.verdict == "undecided" and v.command.startswith("pytest benchmarks") for v in found)


def test_the_page_is_the_same_for_the_same_runs_and_summed_up(tmp_path):
    runs = [run(*everything(), name="one"), run(*timed([5.0] * 3), name="two", machine="bbbbbbbbbb")]
    for folder, order in (("a", runs), ("b", runs[::-1])):
        write_claims(order, tmp_path / folder)
    assert {f.name for f in (tmp_path / "a").iterdir()} == {"claims.md", "claims.csv"}
    for name in ("claims.md", "claims.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = summary_table(judge(runs, [FAST]), [FAST]).to_dict("records")
    assert [(r["verdict"], r["in detail"]) for r in rows] == [("refuted", "1 holds, 1 refuted")]
    page = claims_markdown(judge(runs, [FAST, SAME]), [FAST, SAME])
    assert "## some_time" in page
    assert "speedup between 1.5 and 2.5" in page
    assert "between -0.5 and +0.5 points" in page


def test_what_is_printed_ends_with_what_to_run():
    text = commands_text(judge([run(*timed([2.0] * 2))], [FAST]))
    assert text.count("pytest benchmarks") == 1
    assert text.splitlines()[-1].startswith("  pytest benchmarks --datasets mnist")
    assert "pytest benchmarks" not in commands_text(judge([run(*timed([2.0] * 3))], [FAST]))


def test_the_table_has_a_row_per_verdict():
    [row] = claims_table(judge([run(*timed([2.0] * 3))], [FAST])).to_dict("records")
    assert row["runs"] == "quick (3 cases)"
    assert (row["verdict"], row["machine"], row["what would decide"]) == ("holds", "aaaaaaaaaa", "–")
