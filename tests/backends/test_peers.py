"""jax, jax_bcsr and tensorflow, where installed: right, honest about bytes and threads, refusing in one line."""

import copy
import os

import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import backends, machine, models
from prunebench.errors import BackendUnavailable, UsageError
from prunebench.measuring.workers import Worker

NAMES = ["jax", "jax_bcsr", "tensorflow"]
LAYERS = {
    "padded": (nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "uneven": (nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(2, 0)), (3, 8, 9)),
    "strided": (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), (3, 8, 9)),
    "dilated": (nn.Conv2d(3, 5, 3, dilation=2), (3, 8, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 8, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, stride=2, groups=4, padding=1), (4, 8, 9)),
    "pointwise": (nn.Conv2d(4, 6, 1, stride=2), (4, 8, 9)),
    "linear": (nn.Linear(7, 4), (7,)),
    "linear on tokens": (nn.Linear(7, 4, bias=False), (5, 7)),
    "pooling": (nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, padding=1), nn.Sigmoid()), (3, 8, 9)),
}


@pytest.fixture(params=NAMES)
def name(request):
    reason = backends.unavailable(request.param)
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def error_of(engine, model, x):
    with torch.inference_mode():
        expected = copy.deepcopy(model).double()(x.double())
    return ((engine(x).double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(name, kind):
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    for p in layer.parameters():
        p.data = torch.randn(p.shape) * (torch.rand(p.shape) < 0.4)
    model = nn.Sequential(layer).eval()
    x = torch.randn(3, *shape)
    assert error_of(pb.compile(model, x, name, threads=1), model, x) < 1e-5


@pytest.mark.parametrize(("model", "shape"), [("lenet5", (1, 28, 28)), ("vit_tiny_cifar:depth=1", (3, 32, 32))])
def test_networks(name, model, shape):
    net = models.build(model, shape, 10).eval()
    pb.prune(net, 0.9, scope="layerwise")
    x = torch.randn(2, *shape)
    engine = pb.compile(net, x, name, threads=1)
    assert error_of(engine, net, x) < 1e-5
    assert error_of(engine, net, torch.randn(3, *shape)) < 1e-5
    dense = sum(4 * p.numel() for p in net.parameters())
    assert engine.nbytes < 0.35 * dense if name == "jax_bcsr" else engine.nbytes == dense
    rows = engine.summary()
    assert {row["kernel"] for row in rows} == {name}


def test_a_layer_without_a_weight_left(name):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 2)).eval()
    for i in (0, 2):
        model[i].weight.data.zero_()
    x = torch.randn(4, 2, 5, 5)
    torch.testing.assert_close(pb.compile(model, x, name, threads=1)(x), model(x).detach())


def test_what_it_can_not_do_is_named_in_one_line(name):
    model = nn.Sequential(nn.ConvTranspose2d(2, 2, 3)).eval()
    with pytest.raises(BackendUnavailable, match=r"can't take this model.*aten\.convolution has no") as error:
        pb.compile(model, torch.randn(1, 2, 5, 5), name, threads=1)
    assert "\n" not in str(error.value)


def test_another_number_of_threads_is_refused_where_it_runs_already(name):
    model, x = nn.Linear(3, 2).eval(), torch.zeros(1, 3)
    pb.compile(model, x, name, threads=1)
    with pytest.raises(BackendUnavailable, match=r"one pool of threads per process, here of 1, not 2.*process of its"):
        pb.compile(model, x, name, threads=2)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads threads' times in /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_of_its_own_uses_the_threads_asked_for_and_holds_what_it_says(name, threads):
    if name == "jax_bcsr" or threads > machine.cores():
        pytest.skip("its threads are those of jax" if name == "jax_bcsr" else "there are fewer cores")
    with Worker(name, "pool_of_a_peer:built", timeout=300) as worker:
        facts = worker.prepare(backend=name, threads=threads)
    first, second, *_ = [*facts["shares"], 0.0]
    assert 0.8 < facts["held"] < 2.5, facts
    if threads == 1:
        assert first > 0.9
    else:
        assert second > 0.2


def test_jit_compile_is_tensorflows_other_way():
    reason = backends.unavailable("tensorflow")
    if reason:
        pytest.skip(reason)
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(3, 6)
    assert error_of(pb.compile(model, x, "tensorflow:jit_compile=true", threads=1), model, x) < 1e-5
    with pytest.raises(UsageError, match="give true or false"):
        pb.compile(model, x, "tensorflow:jit_compile=7", threads=1)
