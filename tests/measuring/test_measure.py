"""One case measured on digits: complete facts, checked before timed, the control beside it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import machine, pipeline
from prunebench.cell import Case, Cell, Recipe
from prunebench.errors import UsageError
from prunebench.facts import FIELDS, case_of
from prunebench.masks import pruned_count
from prunebench.measuring import grid as measure
from prunebench.measuring.grid import Bench
from prunebench.pipeline import Lab
from prunebench.reference import CheckFailed, Reference
from prunebench.store import Store
from prunebench.timing import interval
from prunebench.training.loop import accuracy

RECIPE = Recipe(name="brief", batch_size=128, epochs=2, fine_tune_epochs=1, prune_rounds=2)
CONTROL = Cell("digits:size=8", "lenet300", recipe=RECIPE)
PRUNED = replace(CONTROL, criterion="l1", granularity="weight", scope="global", schedule="agp", sparsity=0.9)
PRUNABLE = 64 * 300 + 300 * 100 + 100 * 10


@pytest.fixture(scope="module", autouse=True)
def one_core():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "cores", lambda: 1)
        patch.setattr(measure, "compare", quick_compare(measure.compare))
        yield


def quick_compare(compare):
    return lambda arms, baseline, **options: compare(arms, baseline, **{**options, "seconds": 0.0})


@pytest.fixture(scope="module")
def lab(tmp_path_factory, one_core):
    return Lab(Store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("data"))


@pytest.fixture
def bench(lab):
    return Bench(lab)


@pytest.mark.parametrize("backend", ["dense", "masked", "scipy_csr"])
def test_the_facts_of_a_case(bench, lab, backend):
    case = Case(PRUNED, backend, 7)
    measured = bench.measure(case)
    facts = measured.facts
    assert case_of(facts) == case
    assert (facts["status"], facts["threads"]) == ("ok", 1)
    assert [name for name in FIELDS if facts[name] is None] == ["not_pruned"]  # single weights leave no layer dense
    # Every block is kept, and what is said of them follows from them.
    logs, control = (np.log(facts[name]) for name in ("ratios", "control_ratios"))
    assert len(logs) == len(control) == facts["blocks"]
    middle, low, high = np.exp(interval(logs, 0))
    assert (facts["speedup"], facts["speedup_low"], facts["speedup_high"]) == pytest.approx((middle, low, high))
    assert (facts["prunable"], facts["nonzeros"]) == (PRUNABLE, PRUNABLE - pruned_count(PRUNABLE, 0.9))
    assert (facts["parameters"], facts["macs_dense"], facts["macs"]) == (PRUNABLE + 410, PRUNABLE, facts["nonzeros"])
    assert facts["relative_error"] < 1e-5
    assert facts["dense_disk_bytes"] > 4 * facts["disk_bytes"]
    assert facts["baseline"] == "dense"  # no convolution: channels_last is no other way
    assert facts["verdict"] in ("faster", "slower", "inconclusive", "unstable")
    assert facts["speedup_low"] <= facts["speedup"] <= facts["speedup_high"]
    data = lab.data(PRUNED.dataset)
    model = pipeline.model_of(PRUNED, pipeline.artifact(PRUNED, lab), lab)
    control = pipeline.model_of(CONTROL, pipeline.artifact(CONTROL, lab), lab)
    assert facts["accuracy"] == accuracy(model, data, data.test)
    assert facts["accuracy_dense"] == accuracy(control, data, data.test)
    assert measured.call().shape == (7, 10)


def test_a_batch_larger_than_the_test_split_is_filled_up(bench):
    measured = bench.measure(Case(CONTROL, "dense", 500))
    assert measured.call().shape == (500, 10)
    assert measured.facts["nonzeros"] == PRUNABLE


def test_the_two_ends_of_the_disk_encoding(bench):
    facts = bench.measure(Case(CONTROL, "dense", 1)).facts
    assert facts["disk_bytes"] == pytest.approx(facts["dense_disk_bytes"], rel=0.01)
    assert facts["dense_disk_bytes"] == pytest.approx(4 * (PRUNABLE + 410), rel=0.01)


def test_a_convolution_is_compared_with_the_faster_dense_way(bench):
    cell = replace(CONTROL, dataset="digits:size=16", model="lenet5", recipe=replace(RECIPE, epochs=1))
    assert bench.measure(Case(cell, "dense", 2)).facts["baseline"] in ("dense", "dense_channels_last")


def test_divergence_becomes_a_status_with_nulls(bench):
    wild = replace(RECIPE, optimizer="sgd", learning_rate=1e25)
    measured = bench.measure(Case(replace(PRUNED, recipe=wild), "dense", 1))
    assert measured.call is None
    assert measured.facts["status"] == "diverged"
    assert measured.facts["reason"]
    assert all(measured.facts[name] is None for name in FIELDS)


@pytest.mark.parametrize(
    "wrong", [lambda y: y * 1.01, lambda y: y + float("nan"), lambda y: y.flip(0), lambda y: torch.zeros_like(y)]
)
def test_a_wrong_backend_is_refused_before_any_timing(bench, registry_sandbox, monkeypatch, wrong):
    @pb.backend("sloppy")
    class Sloppy:
        def __init__(self, model, example_input, threads=1):
            self.model = model

        def __call__(self, x):
            with torch.inference_mode():
                return wrong(self.model(x))

    monkeypatch.setattr(measure, "compare", lambda *a, **k: pytest.fail("timed a wrong backend"))
    case = Case(replace(PRUNED, sparsity=0.5), "sloppy", 8)  # at 90 % this net collapses: equal rows for all inputs
    with pytest.raises(CheckFailed, match="float64 reference") as error:
        bench.measure(case)
    assert case.id in str(error.value)


@pytest.mark.parametrize("size", [1, 3, 8, 9, 40])
def test_both_ends_of_a_batch_are_checked(size):
    model = nn.Linear(4, 3).eval()
    x = torch.randn(size, 4)
    right = Reference(model, x)
    assert right.check(model, "x") < 1e-6
    for row in (0, size - 1):

        def broken(x, row=row):
            y = model(x).detach().clone()
            y[row] += 1
            return y

        with pytest.raises(CheckFailed):
            right.check(broken, "x")


def test_the_error_is_relative_to_the_largest_output():
    model = nn.Linear(2, 1, bias=False).eval()
    model.weight.data = torch.tensor([[3.0, 4.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # outputs 3 and 4
    found = Reference(model, x).check(lambda x: model(x) + 1e-4, "x")
    assert found == pytest.approx(1e-4 / 4, rel=1e-2)


def test_what_a_cell_has_in_common_is_worked_out_once(bench, lab, monkeypatch):
    bench.measure(Case(CONTROL, "dense", 1))
    done = []
    monkeypatch.setattr(type(lab.store), "get", noted(done, "read", type(lab.store).get))
    monkeypatch.setattr(measure, "Reference", noted(done, "reference", Reference))
    monkeypatch.setattr(measure, "_costs", noted(done, "costs", measure._costs))
    monkeypatch.setattr(measure.formats, "to_bytes", noted(done, "bytes", measure.formats.to_bytes))
    found = [bench.measure(Case(PRUNED, backend, size)).facts for backend in ("dense", "masked") for size in (1, 7)]
    assert sorted(done) == ["bytes", "costs", "read", "reference", "reference"]  # a reference for each batch size
    assert len({facts["disk_bytes"] for facts in found}) == len({facts["macs"] for facts in found}) == 1
    bench.measure(Case(CONTROL, "dense", 1))
    assert sorted(done[5:]) == ["bytes", "costs", "read", "reference"]  # and nothing of another cell


def noted(done, name, function):
    def noting(*arguments, **options):
        done.append(name)
        return function(*arguments, **options)

    return noting


def test_a_batch_that_fits_in_no_memory_is_one_line(bench):
    with pytest.raises(UsageError, match=r"batch size 99999999999999 needs .* GB for its images alone; give less"):
        bench.measure(Case(PRUNED, "dense", 99999999999999))
