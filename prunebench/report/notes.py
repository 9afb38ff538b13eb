"""How to read each kind of table, in a sentence or three."""

from __future__ import annotations

NOTES = {
    "main": "A row is a pruned network at a batch size. Accuracy: mean ± sample standard deviation over n seeds, on "
    "the test split. A backend's column: median milliseconds per batch, then the speed-up over the faster of torch's "
    "dense ways (over says which it was) with its 95 % interval over interleaved blocks; it sorts by the speed-up. An "
    "n behind it: this backend ran other seeds than the row's. A word (inconclusive, unstable, mixed) means: don't "
    "rely on it.",
    "networks": "Whole networks with random weights, pruned layer by layer by magnitude. Milliseconds per batch of "
    "every way to run the unpruned network, of the engine with all weights (csr_unpruned) and pruned (csr), timed in "
    "the same interleaved blocks. The speed-up is over the fastest dense way of that row, which is named. ~: timed in "
    "the first blocks only, because it was clearly slower.",
    "layers": "Single layers with random weights against the faster of torch's two layouts. Useful GFLOP/s count the "
    "operations with a nonzero weight, dense-equivalent ones all of them; the roof was measured in the same run: l1, "
    "multiply-adds with one operand each from the L1 cache, or dense, torch's matrix product.",
    "breakeven": "The sparsity from which the engine is faster than torch on that layer, between measured sparsities "
    "by interpolation, unstable and inconclusive timings left out.",
    "breakeven-networks": "The sparsity from which a backend runs the network faster than the faster of torch's dense "
    "ways: interpolated in time per batch between measured sparsities, unstable and inconclusive ones left out; 0 %: "
    "it runs even the unpruned network faster.",
    "bytes": "Parameters, files, and the weights that each backend keeps in memory.",
    "numbers": "Every number behind the tables above, as the CSV files of results/tables hold them. The command of a "
    "row's network above measures it again.",
}
