"""From which sparsity a backend is worth it for a whole network: synthetic runs whose answer is known."""

from dataclasses import replace

import pytest
from saved_facts import CONTROL, PRUNED, facts, run

from prunebench.tables.breakeven import network_breakeven_tables
from prunebench.tables.files import write_tables

HERE = ("aaaaaaaaaa", 1)


def at(sparsity, speedup, backend="csr", seed=0, **values):
    cell = replace(PRUNED, sparsity=sparsity, seed=seed) if sparsity else replace(CONTROL, seed=seed)
    return facts(cell, backend, speedup=speedup, **values)


def row(*found):
    [only] = network_breakeven_tables([run(*found)])[HERE].to_dict("records")
    return only


def test_a_row_reads_as_it_should():
    # Relative times 1.25 at 80 % and 0.5 at 95 %: a third of the way down lies 1.
    found = row(at(0, 0.5), at(0.8, 0.8), at(0.95, 2.0), at(0.8, 0.1, "scipy_csr"), at(0.95, 0.2, "scipy_csr"))
    assert found == {
        "dataset": "digits",
        "model": "lenet5",
        "recipe": "brief",
        "pruned by": "l1 weight global agp",
        "batch": "64",
        "measured": "80 to 95 %",
        "scipy_csr": "none up to 95 %",
        "csr": "85 %",
    }


def test_time_is_what_is_interpolated():
    # Time falls in a line from 2 at 40 % to 0.2 at 94 %: it is 1 at 70 %, where the speed-up's own line isn't.
    assert row(at(0, 0.1), at(0.4, 0.5), at(0.94, 5.0))["csr"] == "70 %"


def test_the_unpruned_network_may_run_by_other_kernels_and_is_no_end_of_a_line():
    assert row(at(0, 0.5), at(0.9, 5.0), at(0.95, 10.0))["csr"] == "below 90 %"
    assert row(at(0.9, 5.0), at(0.95, 10.0))["csr"] == "below 90 %"
    assert row(at(0, 1.1), at(0.9, 5.0), at(0.95, 10.0))["csr"] == "0 %"
    shy = at(0, 1.04, verdict="inconclusive")
    assert row(shy, at(0.9, 5.0), at(0.95, 10.0))["csr"] == "below 90 %"


def test_what_is_inconclusive_is_no_gain():
    shy = at(0.8, 1.01, verdict="inconclusive")
    assert row(shy, at(0.4, 0.5), at(0.94, 5.0))["csr"] == "70 %"
    assert row(shy, at(0.9, 0.99, verdict="inconclusive"))["csr"] == "inconclusive"


def test_seeds_are_their_geometric_mean():
    found = row(at(0.4, 0.5), *(at(0.94, s, seed=n) for n, s in enumerate((2.5, 10.0))))
    assert found["csr"] == "70 %"


def test_unstable_and_failed_timings_are_no_points():
    good = (at(0, 0.5), at(0.9, 5.0), at(0.95, 10.0))
    shaky = at(0.8, 50.0, verdict="unstable")
    failed = facts(replace(PRUNED, sparsity=0.85), status="failed", reason="no")
    assert row(*good, shaky, failed)["csr"] == row(*good)["csr"]


def test_a_backend_that_ran_the_unpruned_network_alone_says_nothing_of_a_method():
    assert row(at(0, 0.5), at(0, 0.9, "compact"), at(0.9, 5.0), at(0.95, 10.0))["compact"] == "–"


FAILED = facts(PRUNED, status="failed", reason="no")


@pytest.mark.parametrize("found", [[], [FAILED], [at(0, 0.5), at(0.9, 5.0)], [at(0, 0.5)]])
def test_one_sparsity_is_no_curve(found):
    assert network_breakeven_tables([run(*found)]) == {}


def test_methods_batches_machines_and_threads_stay_apart(tmp_path):
    here = [at(s, r) for s, r in ((0.8, 0.5), (0.9, 0.9))]
    batches = [{**f, "batch_size": 1} for f in here]
    random = [at_random(f) for f in here]
    two = [{**f, "threads": 2} for f in here]
    found = network_breakeven_tables([run(*here, *batches, *random, *two), run(*here, machine="bbbbbbbbbb")])
    assert {key: len(table) for key, table in found.items()} == {HERE: 3, ("aaaaaaaaaa", 2): 1, ("bbbbbbbbbb", 1): 1}
    files, _ = write_tables([run(*here)], tmp_path)
    assert tmp_path / "breakeven-networks-aaaaaaaaaa-t1.md" in files
    assert "(breakeven-networks-aaaaaaaaaa-t1.md)" in (tmp_path / "index.md").read_text()
    write_tables([run(here[0])], tmp_path)
    assert not list(tmp_path.glob("breakeven-*"))


def at_random(f):
    return {**f, "cell": {**f["cell"], "criterion": "random"}}
