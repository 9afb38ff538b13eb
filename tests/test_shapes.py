"""The tables of layers against the models themselves, and MobileNetV1 against its published counts."""

import re

import pytest
import torch
from torch import nn

from prunebench import models, shapes
from prunebench.errors import UsageError
from prunebench.measuring.layers import layer_model
from prunebench.questions import input_of
from prunebench.shapes import LayerShape, distinct, known_networks, layers_of


def found_in(model, shape):
    """The distinct layer shapes that a model's forward pass meets, by hooks."""
    found = {}

    def hook(module, args, out):
        x = args[0]
        if isinstance(module, nn.Linear):
            one = LayerShape("linear", module.in_features, module.out_features)
        else:
            assert x.shape[2] == x.shape[3]
            assert len({*module.kernel_size}) == len({*module.stride}) == len({*module.padding}) == 1
            one = LayerShape(
                "conv",
                module.in_channels,
                module.out_channels,
                module.kernel_size[0],
                module.stride[0],
                module.padding[0],
                module.groups,
                x.shape[2],
            )
        found[one] = True

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(hook)
    with torch.inference_mode():
        model.eval()(torch.zeros(1, *shape))
    return set(found)


@pytest.mark.parametrize("name", [n for n in known_networks() if n != "mobilenet_v1"])
def test_a_table_is_what_the_model_runs(name):
    shape, classes = input_of(name)
    assert set(layers_of(name)) == found_in(models.build(name, shape, classes), shape)


def test_mobilenet_has_its_published_weights_and_multiply_adds():
    weights = macs = 0
    for s in shapes._mobilenet_v1():
        count = s.outputs * s.inputs // s.groups * s.kernel**2
        weights += count
        macs += count * (-(-s.size // s.stride)) ** 2
    assert weights == 4_209_088  # 4.2 million (Howard et al. 2017, table 4), without norms and bias
    assert macs == 568_740_352  # 569 million


def test_ids_are_distinct_names():
    found = distinct(known_networks())
    ids = [shape.id for shape in found]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9_]+", i) for i in ids)


def test_ids_read_as_a_sentence():
    assert shapes.conv(64, 128, 3, 56, 2).id == "conv_64_128_3x3_stride2_at_56"
    assert shapes.conv(512, 512, 3, 14, groups=512).id == "depthwise_512_3x3_at_14"
    assert shapes.linear(800, 500).id == "linear_800_500"


def test_a_shared_shape_names_its_networks_and_stands_once():
    found = distinct(["resnet18_cifar", "resnet50", "resnet18_cifar"])
    assert len(found) == len(set(layers_of("resnet18_cifar")) | set(layers_of("resnet50")))
    assert found[shapes.conv(3, 64, 3, 32)] == ("resnet18_cifar",)


def test_an_unknown_network_lists_the_known():
    with pytest.raises(UsageError, match=r"'vgg11'.*lenet5.*mobilenet_v1"):
        layers_of("vgg11")


@pytest.mark.parametrize("shape", [shapes.conv(8, 8, 3, 5, 2, groups=8), shapes.linear(6, 4), shapes.conv(3, 4, 7, 9)])
def test_a_layer_s_module_has_its_shape_and_sparsity(shape):
    model = layer_model(shape, 0.5)
    assert found_in(model, shape.input_shape) == {shape}
    weight = model[0].weight
    assert int((weight == 0).sum()) == (weight.numel() + 1) // 2
