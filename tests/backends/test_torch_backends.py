"""dense, masked, scipy_csr and torch_csr: right on every kind of layer, honest about bytes, deaf to later changes."""

import numpy as np
import pytest
import torch
from torch import nn

import prunebench as pb
from prunebench import backends, models
from prunebench.errors import BackendUnavailable, UsageError

NAMES = ["dense", "masked", "scipy_csr", "torch_csr"]
LAYERS = {
    "plain": (nn.Conv2d(3, 5, 3), (3, 8, 9)),
    "padded": (nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "strided": (nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 8, 9)),
    "uneven": (nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(2, 0)), (3, 8, 9)),
    "dilated": (nn.Conv2d(3, 5, 3, dilation=2), (3, 8, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 8, 9)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 8, 9)),
    "pointwise": (nn.Conv2d(4, 6, 1), (4, 8, 9)),
    "pointwise strided": (nn.Conv2d(4, 6, 1, stride=2), (4, 8, 9)),
    "pointwise padded": (nn.Conv2d(4, 6, 1, padding=1), (4, 8, 9)),
    "same": (nn.Conv2d(3, 5, 4, padding="same"), (3, 8, 9)),
    "reflecting": (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (3, 8, 9)),
    "circular": (nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"), (3, 8, 9)),
    "no bias": (nn.Conv2d(3, 5, 3, bias=False), (3, 8, 9)),
    "linear": (nn.Linear(7, 4), (7,)),
    "linear on tokens": (nn.Linear(7, 4, bias=False), (5, 7)),
    "transposed": (nn.ConvTranspose2d(3, 5, 3, stride=2), (3, 4, 4)),
    "one-dimensional": (nn.Conv1d(3, 5, 3), (3, 9)),
}


def sparse(layer, share=0.7):
    generator = torch.Generator().manual_seed(0)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    layer.weight.data[torch.rand(layer.weight.shape, generator=generator) < share] = 0
    return layer.eval()


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(backend, kind):
    layer, shape = LAYERS[kind]
    sparse(layer)
    x = torch.randn(3, *shape)
    expected = layer.double()(x.double())
    layer.float()
    found = pb.compile(nn.Sequential(layer).eval(), x, backend)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pb.compile(layer, x, backend)(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", NAMES)
def test_a_layer_without_a_weight_left(backend):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 2)).eval()
    for i in (0, 2):
        model[i].weight.data.zero_()
    x = torch.randn(4, 2, 5, 5)
    torch.testing.assert_close(pb.compile(model, x, backend)(x), model(x))


@pytest.mark.parametrize("backend", NAMES)
def test_later_changes_do_not_reach_it_and_it_changes_nothing(backend):
    model = models.build("lenet5", (1, 28, 28), 10).eval()
    x = torch.randn(2, 1, 28, 28)
    engine = pb.compile(model, x, backend)
    before = engine(x).clone()
    model.conv1.weight.data.zero_()
    assert torch.equal(engine(x), before)
    assert type(model.conv1) is nn.Conv2d
    assert "weight_orig" not in dict(model.conv1.named_parameters())


def test_bytes_of_dense_are_its_parameters():
    model = models.build("lenet300", (1, 28, 28), 10).eval()
    assert pb.compile(model, torch.zeros(1, 1, 28, 28), "dense").nbytes == 4 * 266610


def test_masking_saves_no_memory():
    model = models.build("lenet300", (1, 28, 28), 10).eval()
    pb.prune(model, 0.9)
    assert pb.compile(model, torch.zeros(1, 1, 28, 28), "masked").nbytes == 4 * (3 * 266200 + 410)


@pytest.mark.parametrize("backend", ["scipy_csr", "torch_csr"])
def test_bytes_of_csr_follow_the_nonzeros(backend):
    model = models.build("lenet300", (1, 28, 28), 10).eval()
    pb.prune(model, 0.9)
    # Value and column index of 4 bytes each, a row pointer per row and layer, biases dense.
    engine = pb.compile(model, torch.zeros(1, 1, 28, 28), backend)
    assert engine.nbytes == 8 * 26620 + 4 * (301 + 101 + 11) + 4 * 410


def test_what_torch_csr_counts_is_what_it_holds():
    model = nn.Linear(50, 40).eval()
    pb.prune(model, 0.8)
    engine = pb.compile(model, torch.zeros(1, 50), "torch_csr")
    held = engine.module.matrix.csr
    parts = [held.values(), held.crow_indices(), held.col_indices()]
    assert sum(p.numel() * p.element_size() for p in parts) + 4 * 40 == engine.nbytes
    assert held.values().count_nonzero() == held.values().numel() == 400
    torch.testing.assert_close(held.to_dense(), model.weight.detach())


def test_a_torch_without_sparse_products_says_so(monkeypatch):
    def lacking(self, dense):
        raise RuntimeError("compiled without\nMKL")

    monkeypatch.setattr("prunebench.backends.torch_csr.TorchMatrix.product", lacking)
    with pytest.raises(BackendUnavailable, match="no product of a CSR tensor") as error:
        pb.compile(eval_linear(), torch.zeros(1, 3), "torch_csr")
    assert "\n" not in str(error.value)


def test_the_layer_table():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 4)).eval()
    model[0].weight.data = torch.tensor([0.0, 0, 0, 1, 2, 3, 0, 0]).view(2, 1, 2, 2)
    model[2].weight.data.fill_(1.0)
    for backend in NAMES:
        rows = pb.compile(model, torch.zeros(1, 1, 3, 3), backend).summary()
        assert [(r["layer"], r["shape"], r["sparsity"]) for r in rows] == [
            ("0", (2, 1, 2, 2), 5 / 8),
            ("2", (4, 8), 0.0),
        ]
        assert all(r["kernel"] == backend for r in rows)


@pytest.mark.parametrize("backend", NAMES)
def test_threads_are_given_back(backend):
    model = nn.Linear(3, 2).eval()
    before = torch.get_num_threads()
    pb.compile(model, torch.zeros(1, 3), backend, threads=2)(torch.zeros(1, 3))
    assert torch.get_num_threads() == before


def test_channels_last_is_dense_too():
    model = models.build("resnet20", (3, 32, 32), 10).eval()
    x = torch.randn(2, 3, 32, 32)
    for engine in (
        pb.compile(model, x, "dense", layout="channels_last"),
        pb.compile(model, x, "dense:layout=channels_last"),
    ):
        torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
        assert engine.module.stem.weight.is_contiguous(memory_format=torch.channels_last)


def eval_linear():
    return nn.Linear(3, 2).eval()


@pytest.mark.parametrize(
    ("make", "x", "options", "words"),
    [
        (eval_linear, torch.zeros(1, 3), {"backend": "gpu"}, ["'gpu'", "dense"]),
        (eval_linear, torch.zeros(1, 3), {"backend": "dense", "threads": 0}, ["threads=0"]),
        (eval_linear, torch.zeros(1, 3), {"backend": "dense", "threads": 1.5}, ["threads=1.5"]),
        (eval_linear, torch.zeros(1, 3), {"backend": "dense:speed=9"}, ["'speed'"]),
        (eval_linear, torch.zeros(1, 3), {"backend": "dense:layout=round"}, ["'round'", "channels_last"]),
        (eval_linear, np.zeros((1, 3)), {"backend": "dense"}, ["example input"]),
        (eval_linear, torch.zeros(1, 3).long(), {"backend": "dense"}, ["float32"]),
        (lambda: nn.Linear(3, 2), torch.zeros(1, 3), {"backend": "dense"}, ["model.eval()"]),
        (lambda: "resnet", torch.zeros(1, 3), {"backend": "dense"}, ["torch.nn.Module"]),
    ],
)
def test_what_can_not_be_is_one_line(make, x, options, words):
    with pytest.raises(UsageError) as error:
        pb.compile(make(), x, **options)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_backend_that_is_off_says_why(registry_sandbox):
    @pb.backend("absent")
    class Absent:
        @staticmethod
        def unavailable():
            return "not built; run make"

    assert backends.unavailable("absent") == "not built; run make"
    with pytest.raises(BackendUnavailable, match="'absent' is off: not built; run make"):
        pb.compile(eval_linear(), torch.zeros(1, 3), "absent")
