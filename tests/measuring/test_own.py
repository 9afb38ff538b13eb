"""Somebody's own network measured: counts, ways, what is sparse already, what can't be measured, what torch runs."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunebench as pb
from prunebench import backends
from prunebench.engine import available
from prunebench.errors import BackendUnavailable, UsageError
from prunebench.measuring import own
from prunebench.measuring.own import Report, Wanted, Way, measure
from prunebench.tables.own import breakeven_text, left_text, own_table, own_text, verdict_text

needs_engine = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")
X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(1024, 5)).eval()


@needs_engine
def test_every_way_is_checked_timed_and_counted(one_thread):
    steps: list[str] = []
    report = measure(net(), X, Wanted((0.9, 0.5), seconds=0.2), steps.append)
    prunable = 27 * 16 + 144 * 16 + 5120
    assert (report.prunable, report.nonzeros, report.input_shape) == (prunable, prunable, [2, 3, 12, 12])
    assert [w.name for w in report.ways] == [
        "dense", "dense_channels_last", "csr_unpruned", "csr_s500", "csr_s900",
    ]  # fmt: skip
    assert [round(w.sparsity, 3) for w in report.sparse] == [0.0, 0.5, 0.9]
    assert report.baseline in ("dense", "dense_channels_last")
    for way in report.ways:
        assert way.status == "ok"
        assert 0 <= way.relative_error < 1e-5
        assert way.seconds > 0
        assert way.speedup > 0
    assert report.sparse[2].disk_bytes < report.sparse[0].disk_bytes
    assert report.sparse[2].resident_bytes < report.dense[0].resident_bytes
    assert any("timing 5 ways" in step for step in steps)
    json.dumps(report.as_dict(), allow_nan=False)


@needs_engine
@pytest.mark.parametrize("how", ["zeros", "mask"])
def test_a_network_that_is_sparse_already_comes_first_as_it_is(how, one_thread):
    model = net()
    if how == "zeros":
        pb.prune(model, 0.85)
    else:
        layers = [(m, "weight") for m in model if hasattr(m, "weight")]
        torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=0.85)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    report = measure(model, X, Wanted((0.8, 0.95), seconds=0.1))
    assert [w.name for w in report.sparse] == ["csr_s850", "csr_s950"]
    assert report.notes[0] == "80 % is left out: 85.0 % of the weights are zero already"
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert "85.0 % of its weights are zero already" in own_text(report, "net", "a machine")


class Returning(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.body, self.what = net(), what

    def forward(self, x):
        return self.what(self.body(x))


class Packed(dict):
    @property
    def logits(self):
        return self["logits"]


@needs_engine
def test_the_logits_of_a_container_are_what_is_measured(one_thread):
    report = measure(Returning(lambda y: Packed(logits=y)).eval(), X, Wanted((0.9,), seconds=0.1))
    assert all(w.status == "ok" for w in report.ways)


@needs_engine
@pytest.mark.parametrize(
    ("model", "wanted", "words"),
    [
        (net(), Wanted(criterion="snip"), "needs .* no data"),
        (nn.Sequential(nn.ReLU()), Wanted(), "nothing to prune"),
        (Returning(lambda y: (y, y)), Wanted(), "returns tuple"),
        (Returning(lambda y: y.sum()), Wanted(), r"returns \(\) for a batch of 2"),
        (Returning(lambda y: y * float("nan")), Wanted(), "NaN"),
        (nn.Sequential(nn.Conv2d(5, 4, 3)), Wanted(), "can't take an input of 2,3,12,12.*--input"),
    ],
)
def test_what_cannot_be_measured_says_why(model, wanted, words):
    with pytest.raises(UsageError, match=words):
        measure(model.eval(), X, wanted)


def test_without_the_engine_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(backends, "unavailable", lambda name: "not built; reinstall")
    with pytest.raises(BackendUnavailable, match="not built; reinstall"):
        measure(net(), X, Wanted())


@needs_engine
def test_a_wrong_answer_is_never_timed(monkeypatch, one_thread):
    real = backends.compile

    def wrong(model, x, backend, threads, **options):
        made = real(model, x, backend, threads, **options)
        if backend == "csr":
            made.engine.module.register_forward_hook(lambda m, i, o: o * 1.01)
            made.engine._ready.clear()
            monkeypatch.setattr(type(made.engine), "_prepare", lambda self, x: None)
        return made

    monkeypatch.setattr(backends, "compile", wrong)
    report = measure(net(), X, Wanted((0.9,), seconds=0.1))
    assert [w.status for w in report.sparse] == ["failed", "failed"]
    assert all(w.seconds is None and "float64" in w.reason for w in report.sparse)
    assert verdict_text(report).startswith("none")


@needs_engine
def test_a_peer_that_is_off_says_so(monkeypatch, one_thread):
    monkeypatch.setattr(own, "PEERS", ("onnxruntime",))
    real = backends.compile

    def off(model, x, backend, threads, **options):
        if backend == "onnxruntime":
            raise BackendUnavailable("not installed")
        return real(model, x, backend, threads, **options)

    monkeypatch.setattr(backends, "compile", off)
    report = measure(net(), X, Wanted((0.9,), seconds=0.1, peers=True))
    assert {w.name: w.status for w in report.dense}["onnxruntime"] == "off"
    assert "off: not installed" in own_table(report).to_string()


@needs_engine
def test_layers_the_engine_does_not_know_are_listed(one_thread):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(576, 5)).eval()
    report = measure(model, X, Wanted((0.9,), seconds=0.1))
    assert any("ConvTranspose2d" in line for w in report.sparse for line in w.left_to_torch)


def report_of(points: dict[float, tuple[float, str]], left: list[str] | None = None) -> Report:
    ways = [Way("dense", "dense", 0.0, seconds=0.01, speedup=1.0)]
    for sparsity, (speedup, verdict) in points.items():
        ends = (speedup * 0.98, speedup * 1.02)
        ways.append(Way(f"csr_s{1000 * sparsity:.0f}", "csr", sparsity, seconds=0.01 / speedup, speedup=speedup,
                        speedup_low=ends[0], speedup_high=ends[1], verdict=verdict, form="traced",
                        left_to_torch=left or []))  # fmt: skip
    return Report(100, 90, 90, 1000, [1, 3, 8, 8], 1, "l1", "global", "dense", ways, [])


def test_break_even_is_linear_in_time():
    # Twice as slow unpruned, twice as fast at 90 %: time falls from 2 to 1/2, and passes 1 at two thirds of the way.
    assert breakeven_text(report_of({0.0: (0.5, "slower"), 0.9: (2.0, "faster")})) == "60 %"
    assert "none" in breakeven_text(report_of({0.0: (0.5, "slower"), 0.9: (0.7, "slower")}))
    assert "not known" in breakeven_text(report_of({0.9: (2.0, "unstable")}))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("faster", "faster on this machine: 2.00×"), ("slower", "slower on"), ("inconclusive", "--seconds"),
     ("unstable", "too busy")],
)  # fmt: skip
def test_the_verdict_is_the_sparsest_networks(verdict, words):
    text = verdict_text(report_of({0.0: (1.0, "inconclusive"), 0.9: (2.0, verdict)}))
    assert words in text
    assert "90 % zeros" in text


def test_many_layers_in_torch_are_cut_short():
    text = left_text(report_of({0.9: (2.0, "faster")}, [f"layer{n}: why" for n in range(9)]))
    assert "layer4" in text
    assert "layer5" not in text
    assert "and 4 more" in text
