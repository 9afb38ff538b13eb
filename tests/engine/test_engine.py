"""Whole models through the engine: fusion, odd modules, fallbacks, input checks, threads, fork, memory."""

from __future__ import annotations

import copy
import multiprocessing
import os
import resource
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from prunebench.backends.csr import CsrExecutor
from prunebench.engine import available, compile_engine
from prunebench.engine.segment import Segment
from prunebench.errors import BackendUnavailable, UsageError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


def zero_out(model: nn.Module, sparsity: float = 0.9) -> nn.Module:
    g = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.weight.data[torch.rand(m.weight.shape, generator=g) < sparsity] = 0
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1, generator=g)
            m.running_var.uniform_(0.5, 1.5, generator=g)
    return model.eval()


def error(model: nn.Module, engine, x: torch.Tensor) -> float:
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
    got = engine(x)
    assert got.shape == want.shape
    assert got.is_contiguous()
    return float((got - want).abs().max() / want.abs().max())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.c, self.d = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.short, self.pre = nn.Conv2d(4, 8, 1, 2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = self.d(self.c(F.relu(self.b(self.a(x)))))
        y += self.short(x)
        y = F.max_pool2d(self.pre(F.relu(y)), 2)
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))


@pytest.mark.parametrize("n", [1, 2, 16, 21, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_block_with_everything(n, threads):
    model = zero_out(Block())
    before = copy.deepcopy(model.state_dict())
    engine = compile_engine(model, torch.randn(2, 4, 12, 12), threads=threads)
    assert error(model, engine, torch.randn(n, 4, 12, 12)) < 1e-5
    assert engine.form == "traced"
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [n.op for n in engine.module.graph.nodes] == ["placeholder", "call_module", "output"]
    assert not any(op.kind == "act" for op in engine._segments[0].ops[-3:])


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.tied = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.conv(F.relu(self.conv(x))) + x
        x = self.fc(F.relu(self.fc(x.mean((2, 3)))))
        return F.linear(self.tied(x), self.tied.weight, self.fc.bias)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else F.relu(self.conv(x))


class Doubling(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.a(x)
        z = y + 1
        y += self.b(x)
        return z * y


@pytest.mark.parametrize("make", [Shared, Branches, InPlace, lambda: nn.Sequential(Doubling(3, 3, 3), nn.ReLU())])
def test_unusual_models(make):
    model = zero_out(make(), 0.7)
    engine = compile_engine(model, torch.randn(2, 3, 6, 6), threads=1)
    for x in (torch.rand(3, 3, 6, 6), -torch.rand(17, 3, 6, 6)):
        assert error(model, engine, x) < 1e-5


def test_forms():
    assert compile_engine(zero_out(Branches()), torch.rand(2, 3, 6, 6)).form == "swapped"
    noisy = zero_out(nn.Sequential(nn.Conv2d(3, 4, 3)))
    noisy.register_forward_hook(lambda m, a, y: y + 1)
    x = torch.rand(2, 3, 6, 6)
    assert torch.allclose(compile_engine(noisy, x)(x), noisy(x), atol=1e-5)
    hooked = zero_out(nn.Sequential(nn.Conv2d(3, 4, 3)))
    hooked[0].register_forward_hook(lambda m, a, y: y + 1)
    assert torch.allclose(compile_engine(hooked, x)(x), hooked(x), atol=1e-5)


def test_masks_of_torch_prune():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
    for m in (model[0], model[3]):
        prune.l1_unstructured(m, "weight", 0.9)
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    engine = compile_engine(model, x, threads=1)
    assert torch.allclose(engine(x), model(x), atol=1e-5)
    assert [row["kernel"] for row in engine.summary()] == ["csr", "csr"]
    assert prune.is_pruned(model)


def test_bytes_and_summary():
    model = zero_out(nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 100)))
    engine = compile_engine(model, torch.randn(1, 16, 3, 3), threads=1)
    dense = sum(p.nbytes for p in model.parameters())
    assert 0.1 * dense < engine.nbytes < 0.35 * dense
    rows = engine.summary()
    assert {row["kernel"] for row in rows} == {"csr"}
    assert sum(row["bytes"] for row in rows) == engine.nbytes
    assert "sparsity" in str(rows)
    control = compile_engine(zero_out(nn.Sequential(nn.Linear(8, 8)), 0.0), torch.randn(1, 8), threads=1)
    assert control.summary()[0]["kernel"] == "torch"
    assert control.nbytes == 8 * 9 * 4
    assert not list(engine.module.parameters())


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.randn(2, 3, 8, 8, dtype=torch.float64), "float32"), (torch.randn(2, 4, 8, 8), "channels"),
        (torch.randn(3, 8, 8), "dimensions"), ([1.0], "tensor"), (torch.randn(2, 3, 1, 1), "doesn't run"),
    ],
)  # fmt: skip
def test_wrong_inputs(x, words):
    engine = compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 3))), torch.randn(2, 3, 8, 8), threads=1)
    with pytest.raises(UsageError, match=words) as caught:
        engine(x)
    assert "\n" not in str(caught.value)


def test_wrong_models():
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(UsageError, match=r"model\.eval\(\)"):
        compile_engine(nn.Sequential(nn.Conv2d(3, 4, 3)), x)
    bad = zero_out(nn.Sequential(nn.Conv2d(3, 4, 3)))
    bad[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match="layer '0'"):
        compile_engine(bad, x)
    with pytest.raises(UsageError, match="float"):
        compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 3))).double(), x)
    with pytest.raises(UsageError, match="threads"):
        compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 3))), x, threads=0)
    with pytest.raises(UsageError, match="example_input"):
        compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 3))), (x,))


def test_sequences_of_any_batch():
    model = zero_out(nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)))
    engine = compile_engine(model, torch.randn(1, 5, 6), threads=1)
    for shape in ((1, 5, 6), (4, 5, 6), (0, 5, 6), (7, 2, 6)):
        x = torch.randn(shape)
        assert torch.allclose(engine(x), model(x), atol=1e-5)
    single = compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 3))), torch.randn(3, 8, 8), threads=1)
    with pytest.raises(UsageError, match="3 input channels, got 4"):
        single(torch.randn(4, 8, 8))


def mixed() -> nn.Module:
    """A dense layer between sparse ones, 10 channels of 5 x 5 out."""
    model = zero_out(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 10, 1)))
    model[1].weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("n", [2, 16])
def test_settings_of_torch_do_not_reach_the_engine(n):
    model, x = mixed(), torch.randn(n, 3, 7, 7)
    want = model(x)
    engine = compile_engine(model, x, threads=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(engine(x), want, atol=1e-5)
        inside = compile_engine(model, x, threads=1)
    assert inside.form == "traced"
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.allclose(engine(x), want, atol=1e-5)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("meta")
        got = engine(x)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.allclose(got, want, atol=1e-5)


def test_input_with_the_negative_bit():
    model, z = mixed(), torch.randn(2, 3, 7, 7, dtype=torch.complex64)
    x = z.conj().imag
    assert x.is_neg()
    for example in (x, x.clone()):
        engine = compile_engine(model, example, threads=1)
        assert engine.form == "traced"
        assert torch.allclose(engine(x), model(x), atol=1e-5)


class OtherDtypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        return F.max_pool2d(y.double(), 2), y.bfloat16().mean((2, 3)), y.double().mean((2, 3))


@pytest.mark.parametrize("n", [1, 16])
def test_other_dtypes_inside_the_model(n):
    model = zero_out(OtherDtypes(), 0.7)
    engine = compile_engine(model, torch.randn(n, 3, 8, 8), threads=1)
    assert engine.form == "traced"
    x = torch.randn(17, 3, 8, 8)
    for got, want in zip(engine(x), model(x), strict=True):
        assert got.dtype == want.dtype
        assert torch.allclose(got, want, rtol=1e-2 if want.dtype == torch.bfloat16 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("size", [15, 32, 400])
def test_mean_over_a_large_map(size, keep):
    model = zero_out(MeanAfter(keep), 0.5)
    for n in (1, 2, 16):
        x = torch.rand(n, 2, size, size) + 1
        assert error(model, compile_engine(model, x, threads=1, sparse_from=0.0), x) < 1e-6


class MeanAfter(nn.Module):
    def __init__(self, keep):
        super().__init__()
        self.conv, self.keep = nn.Conv2d(2, 2, 1), keep

    def forward(self, x):
        return self.conv(x).mean((2, 3), keepdim=self.keep)


def test_gradients_and_layout_of_the_input_do_not_matter():
    model = zero_out(nn.Sequential(nn.Conv2d(3, 4, 3)))
    engine = compile_engine(model, torch.randn(1, 3, 8, 8), threads=1)
    x = torch.randn(2, 3, 8, 8)
    want = model(x)
    for view in (x.clone().requires_grad_(), x.to(memory_format=torch.channels_last), torch.stack([x, x], -1)[..., 1]):
        assert torch.allclose(engine(view), want, atol=1e-5)


def test_two_engines_from_two_threads():
    models = [zero_out(Block()) for _ in range(2)]
    xs = [torch.randn(n, 4, 16, 16) for n in (3, 32)]
    engines = [compile_engine(m, x, threads=2) for m, x in zip(models, xs, strict=True)]
    want = [e(x) for e, x in zip(engines, xs, strict=True)]
    wrong: list[int] = []

    def loop(i):
        for _ in range(60):
            for j in (i, 1 - i):
                if not torch.equal(engines[j](xs[j]), want[j]):
                    wrong.append(j)

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_threads_that_add_plans_at_once():
    """More sizes than a segment keeps plans for: every thread drops the plans of the others."""
    model = zero_out(nn.Sequential(nn.Conv2d(3, 4, 1)))
    engine = compile_engine(model, torch.randn(1, 3, 2, 2), threads=1)
    failures: list[BaseException] = []

    def loop(start):
        try:
            for i in range(300):
                x = torch.randn(1, 3, 1 + (start + i) % 40, 3)
                if not torch.allclose(engine(x), model(x), atol=1e-5):
                    raise AssertionError(x.shape)
        except BaseException as failure:
            failures.append(failure)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=loop, args=(13 * i,)) for i in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


def test_plans_are_forgotten_oldest_first():
    engine = compile_engine(zero_out(nn.Sequential(nn.Conv2d(3, 4, 1))), torch.randn(1, 3, 2, 2), threads=1)
    segment = engine._segments[0]
    assert isinstance(segment, Segment)
    for n in range(1, 31):
        engine(torch.randn(1, 3, n, 2))
    assert [key[0][0][1] for key in segment.plans] == list(range(19, 31))


def test_one_and_two_threads_agree():
    model, x = zero_out(Block()), torch.randn(16, 4, 20, 20)
    assert torch.equal(compile_engine(model, x, threads=1)(x), compile_engine(model, x, threads=2)(x))


def _matmul_in_child(queue):
    import numpy as np

    from prunebench.kernels import csr_matmul

    ones, dense = np.ones(200, np.float32), np.ones((50, 500), np.float32)
    y = csr_matmul(np.arange(201), np.arange(200) % 50, ones, (200, 50), dense, threads=2)
    queue.put(float(y.sum()))


def test_after_fork():
    queue = multiprocessing.get_context("fork").Queue()
    _matmul_in_child(queue)  # the parent's pool has a thread now
    child = multiprocessing.get_context("fork").Process(target=_matmul_in_child, args=(queue,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == queue.get() == 200 * 500


def _engine_in_child(engine, x, queue):
    queue.put(float(engine(x).sum()))


def test_an_engine_survives_a_fork():
    model, x = zero_out(Block()), torch.randn(16, 4, 12, 12)
    engine = compile_engine(model, x, threads=2)
    want = float(engine(x).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_engine_in_child, args=(engine, x, queue), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == pytest.approx(want)


def test_many_runs_do_not_grow():
    engine = compile_engine(zero_out(Block()), torch.randn(16, 4, 16, 16), threads=2)
    for n in [*range(1, 60), 16, 16, 16]:
        engine(torch.randn(n, 4, 16, 16))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(2000):
        engine(torch.randn(1 + i % 20, 4, 16, 16))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB on Linux


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_isa_can_be_forced():
    from prunebench.engine.native_loader import native

    for name in native().isas():
        done = run_python("from prunebench.kernels import isa; print(isa())", PRUNEBENCH_ISA=name)
        assert done.stdout.strip() == name
    for name in ("sse9", "neon" if "avx2" in native().isas() or os.uname().machine == "x86_64" else "avx2"):
        done = run_python("from prunebench.kernels import isa; print(isa())", PRUNEBENCH_ISA=name)
        assert "UsageError" in done.stderr
        assert "scalar" in done.stderr.splitlines()[-1]


def test_import_without_torch():
    code = (
        "import sys, prunebench.engine as e, prunebench.backends.csr, prunebench.kernels; "
        "e.available(); print('torch' in sys.modules)"
    )
    assert run_python(code).stdout.strip() == "False"


def test_without_the_extension(monkeypatch, tmp_path):
    from prunebench.engine import native_loader

    note = tmp_path / "native_off.txt"
    note.write_text("no C compiler found: 'gcc' is not on the PATH\n")
    monkeypatch.setattr(native_loader, "NOTE", note)
    monkeypatch.setattr(native_loader.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    native_loader._load.cache_clear()
    try:
        assert "no C compiler found" in native_loader.available()
        assert CsrExecutor.unavailable() == native_loader.available()
        with pytest.raises(BackendUnavailable, match=r"pip install -e \."):
            native_loader.native()
        note.unlink()
        told = native_loader._load.cache_clear() or native_loader.available()
        assert f"not built in {note.parents[1]}; run 'pip install -e .'" in told
    finally:
        monkeypatch.undo()
        native_loader._load.cache_clear()


def test_executor():
    model, x = zero_out(Block()), torch.randn(2, 4, 12, 12)
    executor = CsrExecutor(model, x, threads=1)
    assert executor.name == "csr"
    assert torch.allclose(executor(x), model(x), atol=1e-4)
    assert executor.nbytes == executor.engine.nbytes
    assert len(executor.summary()) == 4
