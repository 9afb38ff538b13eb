"""Networks: published sizes, shapes, seeds, names, and what they can't take."""

import subprocess
import sys

import pytest
import torch
import torchvision

from prunebench import models
from prunebench.errors import UsageError


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("lenet300", (1, 28, 28), 10, 266610),
        ("lenet5", (1, 28, 28), 10, 431080),
        ("lenet5", (1, 16, 16), 10, 20 * 26 + 50 * 501 + 500 * 51 + 10 * 501),
        ("resnet20", (3, 32, 32), 10, 272474),
        ("resnet20", (1, 28, 28), 10, 272474 - 2 * 16 * 9),
        ("resnet56", (3, 32, 32), 10, 855770),
        ("resnet18_cifar", (3, 32, 32), 10, 11173962),
        ("resnet50_cifar", (3, 32, 32), 10, 23520842),
    ],
)
def test_sizes(name, shape, classes, count):
    model = models.build(name, shape, classes)
    assert parameters(model) == count
    with torch.inference_mode():
        assert model.eval()(torch.zeros(3, *shape)).shape == (3, classes)


def test_lenet5_has_caffe_s_widths():
    shapes = [tuple(p.shape) for p in models.build("lenet5", (1, 28, 28), 10).parameters() if p.ndim > 1]
    assert shapes == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 12)])
def test_a_vision_transformer_s_size_is_what_its_shape_says(shape):
    channels, height, width = shape
    tokens, dim = height * width // 16, 96
    block = (3 * dim * dim + 3 * dim) + (dim * dim + dim) + (4 * dim * dim + 3 * dim) + 4 * dim
    count = (16 * channels + 1) * dim + tokens * dim + 4 * block + 2 * dim + 7 * (dim + 1)
    model = models.build("vit_tiny_cifar", shape, 7).eval()
    assert parameters(model) == count
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


def test_a_vision_transformer_s_attention_is_torch_s_own():
    attention = models.build("vit_tiny_cifar", (3, 32, 32), 10).eval().blocks[0].attention
    own = torch.nn.MultiheadAttention(96, 3, batch_first=True).eval()
    own.in_proj_weight.data, own.in_proj_bias.data = attention.qkv.weight.data, attention.qkv.bias.data
    own.out_proj.load_state_dict(attention.proj.state_dict())
    x = torch.randn(2, 5, 96)
    torch.testing.assert_close(attention(x), own(x, x, x)[0], rtol=1e-4, atol=1e-5)


def test_a_vision_transformer_s_parameters_widen_and_deepen_it():
    model = models.build("vit_tiny_cifar:depth=2:dim=64:heads=4:mlp=4:patch=7", (1, 28, 28), 10)
    shapes = [tuple(p.shape) for n, p in model.named_parameters() if p.ndim > 1]
    block = [(192, 64), (64, 64), (256, 64), (64, 256)]
    assert sorted(shapes) == sorted([(1, 16, 64), (64, 1, 7, 7), *block, *block, (10, 64)])


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("vit_tiny_cifar:patch=5", "patch=2"),
        ("vit_tiny_cifar:heads=5", "heads=5"),
        ("vit_tiny_cifar:depth=0", "depth=0"),
        ("vit_tiny_cifar:dim=1.5", "dim=1.5"),
    ],
)
def test_a_vision_transformer_that_can_t_be_is_refused_in_a_line(name, named):
    with pytest.raises(UsageError, match=named) as error:
        models.build(name, (1, 28, 28), 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet56", 56)])
def test_a_resnet_has_as_many_layers_as_it_says(name, layers):
    model = models.build(name, (3, 32, 32), 10)
    convs = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and "shortcut" not in n]
    assert len(convs) + 1 == layers


def test_the_small_stem_keeps_the_resolution():
    model = models.build("resnet18_cifar", (3, 32, 32), 10).eval()
    sizes = []
    model.layer1.register_forward_pre_hook(lambda m, args: sizes.append(tuple(args[0].shape)))
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(1, 64, 32, 32)]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_the_seed_decides_the_weights_and_nothing_outside_does(name):
    torch.manual_seed(1)
    one = models.build(name, (3, 32, 32), 10, 5).state_dict()
    after = torch.rand(1)
    torch.manual_seed(2)
    two = models.build(name, (3, 32, 32), 10, 5).state_dict()
    other = models.build(name, (3, 32, 32), 10, 6).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)


def test_torchvision_s_own_names_are_known_without_torch():
    code = (
        "import sys; from prunebench.models.names import torchvision_names as f; "
        "print('torch' in sys.modules); print(' '.join(sorted(f())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported, found = done.stdout.splitlines()
    assert imported == "False"
    assert set(found.split()) >= set(torchvision.models.list_models(module=torchvision.models))


def test_a_torchvision_model_takes_gray_images_too():
    model = models.build("squeezenet1_1", (1, 64, 64), 7).eval()
    with torch.inference_mode():
        x = torch.rand(2, 1, 64, 64)
        assert model(x).shape == (2, 7)
        torch.testing.assert_close(model(x), model.model(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("lenet6", (1, 28, 28), ["'lenet6'", "lenet5", "torchvision"]),
        ("lenet5", (1, 8, 8), ["lenet5", "16x16"]),
        ("vgg11:x=1", (3, 32, 32), ["vgg11", "x=1"]),
        ("lenet5:width=3", (1, 28, 28), ["lenet5", "'width'"]),
        ("alexnet", (3, 16, 16), ["'alexnet'", "3x16x16"]),
        ("LeNet5", (1, 28, 28), ["'LeNet5'"]),
    ],
)
def test_what_can_not_be_is_one_line(name, shape, words):
    with pytest.raises(UsageError) as error:
        models.build(name, shape, 10)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_plugin_with_the_wrong_output_is_named(registry_sandbox):
    import prunebench as pb

    pb.model("narrow")(lambda shape, classes: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    with pytest.raises(UsageError, match=r"'narrow' returns \(2, 3\).*expected \(2, 10\)"):
        models.build("narrow", (1, 8, 8), 10)
