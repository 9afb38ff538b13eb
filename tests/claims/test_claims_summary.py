"""From many estimates in words to one span of them, by hand."""

import pytest
from claiming import FAST, run, timed

from prunebench.claims import judge
from prunebench.claims.summary import estimates_text, summary_table


@pytest.mark.parametrize(
    ("estimates", "text"),
    [
        ([], "–"),
        (["–"], "–"),
        (["9.86×"], "9.86×"),
        (["9.88×", "–", "9.86×"], "9.86× to 9.88×"),
        (["0.33×", "0.33×"], "0.33×"),
        (["10.00×", "9.00×", "9.50×"], "9.00× to 10.00×"),
        (["+0.05 points", "-0.93 points"], "-0.93 to +0.05 points"),
        (["2.90× the time", "0.76× the time"], "0.76× to 2.90× the time"),
        (["break-even: 84 %", "break-even: none at 90 %", "break-even: 9 %"],
         "break-even: 9 to 84 %; break-even: none at 90 %"),
        (["nothing that counts"], "nothing that counts"),
    ],
)  # fmt: skip
def test_a_span_goes_from_the_least_to_the_greatest(estimates, text):
    assert estimates_text(estimates) == text


def test_a_claim_says_by_how_much():
    runs = [run(*timed([2.0] * 3), name="one"), run(*timed([5.0] * 3), name="two", machine="bbbbbbbbbb")]
    [row] = summary_table(judge(runs, [FAST]), [FAST]).to_dict("records")
    assert row["by how much"] == "2.00× to 5.00×"
    [row] = summary_table(judge([], [FAST]), [FAST]).to_dict("records")
    assert row["by how much"] == "–"
