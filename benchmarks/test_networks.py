"""Networks: is the pruned network through the engine faster than the unpruned one through whatever runs it fastest?

Takes its own quarter of an hour, so it runs where it is named: pytest benchmarks/test_networks.py
"""


def test_network(network_case, measure):
    """One network: every arm checked against float64, then all timed in the same interleaved blocks.

    With several threads each arm has a process of its own. What pytest-benchmark times after that, for its history, is
    the engine alone, in pytest's process.
    """
    facts = measure(network_case)
    assert facts["status"] == "ok"
    assert facts["arms"][facts["baseline"]]["status"] == "ok"
