"""Claims: what only they need. Do masks save time even with every weight removed, how slow is SciPy at which sizes?

Fails only where measuring fails: a refuted claim is a result, which `prunebench claims` tells. It runs where it is
named: pytest benchmarks/test_claims.py
"""


def test_evidence(claim_case, measure):
    """One case: checked against float64, then timed against dense torch in interleaved blocks."""
    facts = measure(claim_case)
    assert facts["status"] == "ok"
    assert facts["speedup"] > 0
