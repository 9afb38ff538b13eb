"""torch.compile(model, backend="prunebench"): right answers first, engines where they can be had."""

from __future__ import annotations

import copy
import importlib.metadata
import re
import threading
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import parametrize, prune

import prunebench as pb
from prunebench.engine import available, dynamo
from prunebench.engine.dynamo import CompiledGraph, prunebench
from prunebench.models import build

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no C extension: {available()}")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No graphs from another test; every CompiledGraph made in this one is listed."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    made = []

    def listed(*args):
        made.append(CompiledGraph(*args))
        return made[-1]

    monkeypatch.setattr(dynamo, "CompiledGraph", listed)
    yield made
    torch._dynamo.reset()


def small(sparsity: float = 0.9) -> nn.Module:
    """A convolutional network of a few layers, pruned, with batch-norm statistics that aren't the identity."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    pb.prune(model, sparsity=sparsity, scope="layerwise")
    return model.eval()


def images(batch: int = 2, size: int = 8) -> torch.Tensor:
    return torch.randn(batch, 3, size, size)


def assert_right(model: nn.Module, x: torch.Tensor, got: torch.Tensor) -> None:
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
    assert got.shape == want.shape
    assert float((got.double() - want).abs().max()) <= 1e-4 * float(want.abs().max())


def quiet(model, *args, **options):
    """Compiled, and called without gradients; a warning is an error."""
    compiled = torch.compile(model, backend=prunebench, **options)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", UserWarning)
        return compiled, compiled(*args)


def sparse_layers(made: list[CompiledGraph]) -> int:
    return sum(row["kernel"] != "torch" for graph in made for b in graph.engines for row in b.engine.summary())


@pytest.mark.parametrize(("name", "size"), [("resnet18", 33), ("mobilenet_v2", 32), ("squeezenet1_1", 40)])
def test_torchvision_models_at_several_batch_sizes(fresh, name, size):
    model = getattr(torchvision.models, name)(num_classes=10).eval()
    pb.prune(model, sparsity=0.9, scope="layerwise")
    compiled, _ = quiet(model, images(1, size))
    for batch in (1, 5, 16, 1):
        x = images(batch, size)
        with torch.inference_mode():
            assert_right(model, x, compiled(x))
            assert_right(model, x, compiled(x))  # a shape's first answer is torch's own
    assert sparse_layers(fresh)


@pytest.mark.parametrize(("name", "channels", "size"), [("lenet5", 1, 28), ("resnet20", 3, 32)])
def test_the_projects_models(fresh, name, channels, size):
    model = build(name, (channels, size, size), 10).eval()
    pb.prune(model, sparsity=0.9, scope="layerwise")
    x = torch.randn(3, channels, size, size)
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        assert_right(model, x, compiled(x))
    assert sparse_layers(fresh)


def test_the_entry_point_is_torchs_own(monkeypatch):
    """What pyproject declares, found as torch finds it."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    value = re.search(r'"?torch_dynamo_backends"?\]\nprunebench = "(.+)"', text)[1]
    entry = importlib.metadata.EntryPoint("prunebench", value, "torch_dynamo_backends")
    assert entry.load() is prunebench
    registry = torch._dynamo.backends.registry
    monkeypatch.setitem(registry._BACKENDS, "prunebench", entry)
    monkeypatch.delitem(registry._COMPILER_FNS, "prunebench", raising=False)
    model, x = small(), images()
    with torch.no_grad():
        assert_right(model, x, torch.compile(model, backend="prunebench")(x))
    registry._COMPILER_FNS.pop("prunebench", None)


def test_a_dynamic_batch_needs_one_graph(fresh):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()[:5]
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            y = self.body(x).mean((2, 3))
            return self.head(y.view(x.shape[0], -1)), x.shape[0] * 2

    model = Views().eval()
    compiled, _ = quiet(model, images(6), dynamic=True)
    for batch, size in ((5, 8), (9, 8), (4, 11)):
        x = images(batch, size)
        with torch.no_grad():
            for _ in range(2):
                got, number = compiled(x)
                assert number == 2 * batch
                torch.testing.assert_close(got, model(x)[0], rtol=1e-4, atol=1e-4)
    assert len(fresh) == 1
    assert len(fresh[0].engines[0].shapes) == 4
    with torch.no_grad():
        model.head.weight.mul_(2)
        torch.testing.assert_close(compiled(x)[0], model(x)[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(compiled(x)[0], model(x)[0], rtol=1e-4, atol=1e-4)


def test_graph_breaks_give_several_engines(fresh):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = small()[:5], small()

        def forward(self, x):
            y = self.a(x)
            torch._dynamo.graph_break()
            return self.b(y[:, :3])

    model, x = Broken().eval(), images()
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        assert_right(model, x, compiled(x))
    assert len(fresh) == 2


def test_a_functional_model_gets_sparse_layers(fresh):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 3, 3, 3) * (torch.rand(16, 3, 3, 3) > 0.9))
            self.register_buffer("v", torch.randn(5, 16) * (torch.rand(5, 16) > 0.9))

        def forward(self, x):
            y = F.relu(F.conv2d(x, self.w, padding="same"))
            return F.linear(F.adaptive_avg_pool2d(y, 1).flatten(1), self.v)

    model, x = Functional().eval(), images()
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        assert_right(model, x, compiled(x))
    assert sparse_layers(fresh) == 2


class Mask(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("mask", torch.rand_like(weight) > 0.9)

    def forward(self, weight):
        return weight * self.mask


def test_masks_of_torch_prune_and_parametrizations_are_folded(fresh):
    model, x = small(0.0), images()
    prune.l1_unstructured(model[0], "weight", 0.95)
    parametrize.register_parametrization(model[3], "weight", Mask(model[3].weight))
    prune.l1_unstructured(model[7], "weight", 0.9)
    compiled, _ = quiet(model, x)
    want = model(x)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-4)
        assert sparse_layers(fresh) == 3
        model[0].weight.zero_()  # what torch.nn.utils.prune computed and stored; it is computed anew at every call
        torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-4)
        assert torch.equal(model[0].weight, model[0].weight_orig * model[0].weight_mask)


def test_weights_changed_in_place_are_seen(fresh):
    model, x = small(), images()
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        for change in (
            lambda: model[3].weight.mul_(-1),
            lambda: model[7].bias.add_(1),
            lambda: model[1].running_mean.add_(1),
            lambda: setattr(model[3], "weight", nn.Parameter(torch.randn(16, 16, 3, 3))),
            lambda: setattr(model[3].weight, "data", torch.randn(16, 16, 3, 3)),
            lambda: model.load_state_dict(small().state_dict()),
        ):
            change()
            assert_right(model, x, compiled(x))
            assert_right(model, x, compiled(x))
    assert len(fresh) == 1
    assert len(fresh[0].engines) == 1


def test_weights_that_keep_changing_are_left_to_torch():
    model, x = small(), images()
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(20):
                model[3].weight.mul_(1.5)
                assert_right(model, x, compiled(x))
        assert ["weights keep changing" in str(w.message) for w in seen] == [True]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_right(model, x, compiled(x))


def test_one_graph_for_several_blocks_takes_each_ones_weights(fresh):
    """Regional compilation: torch runs one captured graph with the parameters of every block."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)
            pb.prune(self, sparsity=0.9)

        def forward(self, x):
            return F.relu(self.conv(x)) * 2

    blocks = nn.Sequential(*[Block() for _ in range(4)]).eval()
    plain = copy.deepcopy(blocks)
    for block in blocks:
        block.compile(backend=prunebench)
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            assert_right(plain, x, blocks(x))
    assert len(fresh) == 1
    assert len(fresh[0].engines) == 4


def test_training_gives_gradients_and_inference_an_engine(fresh):
    model, x = small(), images()
    model.train()
    compiled = torch.compile(model, backend=prunebench)
    with pytest.warns(UserWarning, match="runs in torch, because"):
        y = compiled(x)
    y.sum().backward()
    assert model[3].weight.grad is not None
    assert not fresh
    model.eval()
    with torch.no_grad():
        before = model[1].running_mean.clone()
        assert_right(model, x, compiled(x))
        assert_right(model, x, compiled(x))
        assert torch.equal(before, model[1].running_mean)
        assert len(fresh) == 1
    model.train()
    with torch.no_grad(), pytest.warns(UserWarning, match=r"writes to its input or its buffers; call model\.eval"):
        compiled(x)
    assert int(model[1].num_batches_tracked) == 2


def test_gradients_are_kept_where_they_are_asked_for():
    model, x = small(), images()
    compiled = torch.compile(model, backend=prunebench)
    with pytest.warns(UserWarning, match="gradients on; call it under torch.inference_mode"):
        assert compiled(x).requires_grad
    frozen = small().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = torch.compile(frozen, backend=prunebench)(x)
    assert not y.requires_grad
    (y @ nn.Parameter(torch.ones(10))).sum().backward()  # a result of inference can still go into training
    frozen[3].weight.requires_grad_(True)
    with pytest.warns(UserWarning, match="gradients on"):
        assert torch.compile(frozen, backend=prunebench)(x).requires_grad


def test_inference_mode_and_no_grad_give_normal_tensors_where_torch_does():
    model, x = small(), images()
    compiled, _ = quiet(model, x)
    with torch.no_grad():
        assert not compiled(x).is_inference()
    with torch.inference_mode():
        assert compiled(x).is_inference() == model(x).is_inference()


def _dropout(model):
    return lambda x: F.dropout(model(x), 0.5, training=True)


def _autocast(model):
    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    return run


@pytest.mark.parametrize(
    ("wrap", "why"),
    [
        (_dropout, "random numbers"),
        (lambda m: lambda x: m(x) if x.add_(1) is x else None, "writes to its input"),
        (lambda m: lambda x: (m(x), x.view(-1)), "share memory"),
        (lambda m: lambda x: m(x + x.new_ones(1)) * m(x.double().float()), None),
    ],
)
def test_graphs_with_effects_are_torchs(wrap, why):
    model = small().requires_grad_(False)
    run, x = wrap(model), images()
    compiled = torch.compile(run, backend=prunebench)
    for _ in range(2):
        torch.manual_seed(1)
        a = x.clone()
        if why and _ == 0:
            with pytest.warns(UserWarning, match=why):
                got = compiled(a)
        else:
            got = compiled(a)
        torch.manual_seed(1)
        b = x.clone()
        torch.testing.assert_close(got, run(b), rtol=1e-4, atol=1e-4)
        assert torch.equal(a, b)


def test_two_inputs_other_dtypes_autocast_and_nan_weights_are_torchs(fresh):
    model, x = small().requires_grad_(False), images()
    two = torch.compile(lambda a, b: model(a) + model(b), backend=prunebench)
    with pytest.warns(UserWarning, match="takes 2 input tensors"):
        torch.testing.assert_close(two(x, x + 1), model(x) + model(x + 1))
    double = copy.deepcopy(model).double()
    with pytest.warns(UserWarning, match="float64"):
        torch.testing.assert_close(torch.compile(double, backend=prunebench)(x.double()), double(x.double()))
    half = copy.deepcopy(model).bfloat16()
    with pytest.warns(UserWarning, match="bfloat16"):
        torch.testing.assert_close(torch.compile(half, backend=prunebench)(x.bfloat16()), half(x.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="autocast is on"):
        torch.testing.assert_close(torch.compile(model, backend=prunebench)(x), model(x))
    inner = torch.compile(_autocast(model), backend=prunebench)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(inner(x), _autocast(model)(x))
        torch.testing.assert_close(inner(x), _autocast(model)(x))
    fresh.clear()
    nan = copy.deepcopy(model)
    nan[3].weight[0, 0, 0, 0] = float("nan")
    with pytest.warns(UserWarning, match="NaN or infinite"):
        torch.testing.assert_close(torch.compile(nan, backend=prunebench)(x), nan(x), equal_nan=True)
    assert not fresh


def test_a_number_that_is_no_size_of_the_input():
    model = small().requires_grad_(False)
    compiled = torch.compile(lambda x, n: model(x) * n, backend=prunebench, dynamic=True)
    x = images(3)
    with pytest.warns(UserWarning, match="calculates with the number"):
        compiled(x, 2)
    for n in (3, 4, 5):
        torch.testing.assert_close(compiled(x, n), model(x) * n)


def test_outputs_keep_their_structure(fresh):
    model = small().requires_grad_(False)

    def run(x):
        y = model[:5](x)
        return {"map": y, "more": [model[5:](y), None, 3, "text"], "size": y.shape[-1]}

    x = images()
    compiled, _ = quiet(run, x)
    got, want = compiled(x), run(x)
    assert got["more"][1:] == want["more"][1:]
    assert got["size"] == want["size"]
    torch.testing.assert_close(got["map"], want["map"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["more"][0], want["more"][0], rtol=1e-4, atol=1e-4)
    assert fresh


def test_graphs_without_weights_stay_torchs_silently(fresh):
    _, y = quiet(lambda x: (x * 2).relu(), torch.ones(3))
    assert torch.equal(y, torch.full((3,), 2.0))
    assert not fresh


def test_options(fresh):
    model, x = small(), images()
    quiet(model, x, options={"threads": 1})
    assert fresh[0].threads == 1
    for options, text in (({"speed": 9}, "unknown option 'speed'"), ({"threads": 0}, "threads is 0")):
        torch._dynamo.reset()
        with torch.no_grad(), pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=text):
            torch.compile(model, backend=prunebench, options=options)(x)


def test_a_wrong_engine_is_never_used(monkeypatch, fresh):
    model, x = small(), images()
    real = dynamo.compile_engine

    def off_by_a_little(module, example, threads):
        engine = real(module, example, threads=threads)
        return lambda x: tuple(v + 1e-3 * v.abs().max() for v in engine(x))

    monkeypatch.setattr(dynamo, "compile_engine", off_by_a_little)
    with pytest.warns(UserWarning, match="differs from torch"), torch.no_grad():
        assert_right(model, x, torch.compile(model, backend=prunebench)(x))
    assert not fresh


def test_a_shape_that_the_engine_gets_wrong_is_left_to_torch(fresh):
    model, x = small(), images(6)
    compiled, _ = quiet(model, x, dynamic=True)
    bound = fresh[0].engines[0]
    bound.engine = lambda x: (x,)
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"input of shape \(5, 3, 8, 8\)"):
            assert_right(model, x := images(5), compiled(x))
        assert_right(model, x, compiled(x))


def test_without_the_extension_torch_runs(monkeypatch):
    from prunebench.errors import BackendUnavailable

    def missing(*args, **options):
        raise BackendUnavailable("the C extension isn't built")

    monkeypatch.setattr(dynamo, "compile_engine", missing)
    model, x = small(), images()
    with pytest.warns(UserWarning, match="isn't built"), torch.no_grad():
        assert_right(model, x, torch.compile(model, backend=prunebench)(x))


def test_several_threads_share_a_compiled_model():
    model = small()
    compiled, _ = quiet(model, images())
    inputs = [images() for _ in range(4)]
    results: dict[int, torch.Tensor] = {}

    def work(i):
        with torch.no_grad():
            for _ in range(5):
                results[i] = compiled(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, x in enumerate(inputs):
        assert_right(model, x, results[i])


def test_graphs_that_hold_their_weights(fresh):
    """The form of torch 2.4: modules and parameters are attributes of the captured graph."""
    model = small()
    graph = torch.fx.symbolic_trace(model)
    graph.graph.output_node().args = ((graph.graph.output_node().args[0],),)
    graph.recompile()
    x = images()
    with torch.no_grad():
        compiled = prunebench(graph, [x])
        for _ in range(2):
            assert_right(model, x, compiled(x)[0])
        model[3].weight.mul_(-2)
        for _ in range(2):
            assert_right(model, x, compiled(x)[0])
    assert sparse_layers(fresh)
