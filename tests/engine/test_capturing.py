"""Models that other libraries write: rank checks, control flow on shapes, outputs in containers, paddings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.engine import available
from prunebench.engine.capturing import capture
from prunebench.engine.compiler import compile_engine
from prunebench.engine.ranks import fold_ranks
from prunebench.engine.tracing import trace
from prunebench.errors import UsageError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


class NormAct(nn.BatchNorm2d):
    """As timm writes it: a batch norm that asks for the rank, calls the functional and an activation."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return F.relu(y)


class Checking(nn.Module):
    """As Hugging Face writes it: checks shapes in Python, pads by size as TensorFlow does, returns a container."""

    def __init__(self, container: bool = True) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.conv2, self.head, self.container = nn.Conv2d(8, 16, 3), nn.Linear(16, 5), container

    def forward(self, x: Tensor) -> dict[str, Tensor] | Tensor:
        if x.shape[1] != 3:
            raise ValueError("colours")
        if x.shape[2] % 2 == 0:
            x = F.pad(x, (0, 1, 0, 1), "constant", 0.0)
        x = F.relu(self.norm(self.conv1(F.pad(x, (0, 0, 0, 0)))))
        x = F.relu(self.conv2(F.pad(x, (1, 1, 1, 1))))
        y = self.head(x.mean((2, 3)))
        return {"logits": y, "features": x} if self.container else y


def pruned(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(m.weight)
            m.weight.data[torch.rand(m.weight.shape) < 0.8] = 0
        elif isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def kernels(engine) -> set[str]:
    return {row["kernel"] for row in engine.summary()}


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_questions_about_the_rank_end_no_segment():
    model = pruned(nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Conv2d(8, 16, 3), NormAct(16)))
    x = torch.randn(2, 3, 12, 12)
    graph = trace(nn.Sequential(NormAct(3)).eval()).graph
    assert any(n.target is torch._assert for n in graph.nodes)  # else this tests nothing
    engine = compile_engine(model, x)
    assert (engine.form, len(engine._segments)) == ("traced", 1)
    assert engine._direct is not None
    for n in (1, 2, 5):
        assert close(engine(x[:1].repeat(n, 1, 1, 1)), model(x[:1].repeat(n, 1, 1, 1)))


def test_a_rank_that_depends_on_the_batch_is_left_alone():
    class Squeezing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.squeeze().ndim

    graph = trace(Squeezing())
    before = [n.name for n in graph.graph.nodes]
    assert [n.name for n in fold_ranks(graph, torch.randn(1, 3)).graph.nodes] == before
    assert torch.equal(graph(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_an_assertion_that_fails_stays():
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.dim() != 2, "no rows")
            return x + x.ndim

    graph = trace(Wrong())
    with pytest.raises(AssertionError, match="no rows"):
        fold_ranks(graph, torch.randn(2, 3))
    folded = fold_ranks(trace(Wrong()), torch.randn(2, 3, 4))
    assert torch.equal(folded(torch.zeros(1, 1, 1)), torch.full((1, 1, 1), 3.0))
    assert len(list(folded.graph.nodes)) == 3


@pytest.mark.parametrize("container", [True, False])
@pytest.mark.parametrize("size", [12, 13])
def test_control_flow_and_containers_run_in_one_segment(container, size):
    model = pruned(Checking(container))
    x = torch.randn(3, 3, size, size)
    engine = compile_engine(model, x[:1])
    assert (engine.form, len(engine._segments), kernels(engine)) == ("captured", 1, {"csr"})
    for n in (1, 2, 3):
        got, want = engine(x[:n]), model(x[:n])
        if container:
            assert list(got) == list(want)
            assert all(close(got[name], want[name]) for name in want)
        else:
            assert close(got, want)


def test_a_captured_engine_takes_no_other_size_of_image():
    engine = compile_engine(pruned(Checking()), torch.randn(1, 3, 12, 12))
    with pytest.raises(UsageError, match=r"captured for \(3, 12, 12\).*compile again"):
        engine(torch.randn(1, 3, 13, 13))


def test_many_models_in_one_process_are_captured():
    name = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    with torch._dynamo.config.patch({name: 2}):
        for _ in range(4):
            graph, spec = capture(pruned(Checking(False)), torch.randn(1, 3, 12, 12))
            assert spec is None
            assert any(n.op == "call_module" for n in graph.graph.nodes)


def test_what_depends_on_values_still_runs_in_torch():
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y if bool(y.sum() > 0) else -y

    model = pruned(Deciding())
    x = torch.randn(2, 3, 8, 8)
    engine = compile_engine(model, x)
    assert engine.form == "swapped"
    assert close(engine(x), model(x))
    assert close(engine(-x), model(-x))


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 1, 2, 0), (0, 0, 3, 3), (0, 0, 0, 0)])
@pytest.mark.parametrize("own", [0, 1, "same"])
def test_zeros_around_an_image_become_the_convolutions_own(pads, own):
    model = pruned(nn.Sequential(nn.ZeroPad2d(pads), nn.Conv2d(3, 8, 3, padding=own), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    x = torch.randn(2, 3, 9, 8)
    engine = compile_engine(model, x)
    assert engine._direct is not None
    assert close(engine(x), model(x))


@pytest.mark.parametrize(
    "pad",
    [
        lambda x: F.pad(x, (1, 1, 1, 1), value=2.0),
        lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
        lambda x: F.pad(x, (-1, 0, 0, -1)),
        lambda x: F.pad(x, (1, 1)),
        lambda x: F.pad(x, (1, 1, 0, 0, 0, 1))[:, :3],
    ],
)
def test_other_paddings_stay_what_they_are(pad):
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(pad(x))

    model = pruned(Padded())
    x = torch.randn(2, 3, 9, 8)
    assert close(compile_engine(model, x)(x), model(x))


def test_zeros_before_a_convolution_that_reflects_stay():
    conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
    model = pruned(nn.Sequential(nn.ZeroPad2d(1), conv))
    x = torch.randn(2, 3, 9, 8)
    assert close(compile_engine(model, x)(x), model(x))
