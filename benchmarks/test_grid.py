"""The grid: does pruning make these networks smaller and faster at the same accuracy, on this machine?"""


def test_cell(case, measure):
    """One cell on one backend at one batch size: checked against float64, its accuracy, bytes and speed measured."""
    facts = measure(case)
    assert facts["status"] == "ok"
    assert 0.0 <= facts["accuracy"] <= 1.0
