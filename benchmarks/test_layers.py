"""Layers: from which sparsity on is each conv and linear shape faster through the engine, and how near to a roof?

Takes its own quarter of an hour, so it runs where it is named: pytest benchmarks/test_layers.py
"""


def test_layer(layer_case, measure):
    """One shape at one sparsity and batch size: checked against float64, then timed against torch's dense ways."""
    facts = measure(layer_case)
    assert facts["status"] == "ok"
    assert facts["useful_gflops"] > 0
