"""TensorFlow's own pruning on LeNet-5: the schedule and the masks are ours step for step, and masks alone gain nothing.

What the published `prune_low_magnitude` does is held against `pb.Pruner`; bytes, operations and time are counted with
its masks on, and after `strip_pruning`.
"""

import gzip
import importlib.util
import os
from types import SimpleNamespace

import numpy as np
import pytest

import prunebench as pb
from prunebench import formats, models, schedules

MISSING = [
    p for p in ("tensorflow", "tf_keras", "tensorflow_model_optimization") if importlib.util.find_spec(p) is None
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed; pip install 'prunebench[tfmot]'"),
]
FINAL, STEPS = 0.9, 12
LAYERS = ("conv1", "conv2", "fc1", "fc2")


def to_keras(name, value):
    """A weight or mask of LeNet-5 as Keras lays it out, images with channels last."""
    value = value.detach().numpy()
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name == "fc1":  # the flattened map: torch counts channels first
        return value.reshape(500, 50, 4, 4).transpose(2, 3, 1, 0).reshape(800, 500)
    return value.T


def lenet5(keras, model):
    layers = keras.layers
    twin = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(20, 5, activation="relu", name="conv1"), layers.MaxPooling2D(),
        layers.Conv2D(50, 5, activation="relu", name="conv2"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(500, activation="relu", name="fc1"), layers.Dense(10, name="fc2"),
    ])  # fmt: skip
    for name in LAYERS:
        layer = getattr(model, name)
        twin.get_layer(name).set_weights([to_keras(name, layer.weight), layer.bias.detach().numpy()])
    return twin


@pytest.fixture(scope="module")
def tools():
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # tfmot prunes Keras 2's layers
    from prunebench.backends.tensorflow import own_pool

    tf = own_pool(1)
    import tensorflow_model_optimization as tfmot
    import tf_keras

    return SimpleNamespace(tf=tf, keras=tf_keras, sparsity=tfmot.sparsity.keras)


@pytest.fixture(scope="module")
def trained(tools):
    """LeNet-5 pruned by tfmot in a fit of STEPS batches that leaves weights as they are, with the masks after each."""
    model = models.build("lenet5", (1, 28, 28), 10, 3).eval()
    dense = lenet5(tools.keras, model)
    schedule = tools.sparsity.PolynomialDecay(0.0, FINAL, begin_step=0, end_step=STEPS, power=3, frequency=1)
    masked = tools.sparsity.prune_low_magnitude(lenet5(tools.keras, model), pruning_schedule=schedule)
    masks = []

    class Recorder(tools.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks.append({v.name.split("/")[0].removeprefix("prune_low_magnitude_"): mask.numpy()
                          for layer in masked.layers if hasattr(layer, "pruning_vars")
                          for v, mask, _ in layer.pruning_vars})  # fmt: skip

    masked.compile(tools.keras.optimizers.SGD(0.0), "mse")
    x, y = np.zeros((2 * STEPS, 28, 28, 1), np.float32), np.zeros((2 * STEPS, 10), np.float32)
    masked.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[tools.sparsity.UpdatePruningStep(), Recorder()])
    stripped = tools.sparsity.strip_pruning(masked)
    return SimpleNamespace(torch=model, dense=dense, masked=masked, stripped=stripped, masks=masks)


@pytest.mark.parametrize(("final", "steps"), [(0.9, 40), (0.8, 7), (0.95, 1000)])
def test_polynomial_decay_of_power_3_is_agp_step_for_step(tools, final, steps):
    theirs = tools.sparsity.PolynomialDecay(0.0, final, begin_step=0, end_step=steps, power=3, frequency=1)
    for step in range(1, steps + 1):
        prunes, sparsity = theirs(tools.tf.constant(step, tools.tf.int64))
        assert bool(prunes)
        assert float(sparsity) == pytest.approx(final * schedules.agp(step / steps), abs=1e-6)


def test_the_masks_after_every_step_are_those_of_our_pruner(trained):
    pruner = pb.Pruner(trained.torch, FINAL, "l1", scope="layerwise", schedule="agp", steps=STEPS)
    assert len(trained.masks) == STEPS
    for step, theirs in enumerate(trained.masks, 1):
        pruner.step()
        assert set(theirs) == set(LAYERS)
        for name in LAYERS:
            ours = to_keras(name, pruner.masks[f"{name}.weight"])
            # It rounds the number that is kept, in float32: one weight more or less, nothing else.
            assert abs(int(theirs[name].sum()) - int(ours.sum())) <= 1, (step, name)
            assert np.count_nonzero(theirs[name].astype(bool) != ours) <= 1, (step, name)
            sparsity = 1 - theirs[name].mean()
            assert sparsity == pytest.approx(FINAL * schedules.agp(step / STEPS), abs=1.5 / ours.size)


def held(model):
    return sum(v.numpy().nbytes for v in model.variables)


def graph_of(tools, model):
    call = tools.tf.function(lambda x: model(x, training=False))
    return call.get_concrete_function(tools.tf.TensorSpec((1, 28, 28, 1), tools.tf.float32))


def heavy(concrete):
    """The products, with the shapes that they multiply, and how many operations there are in all."""
    ops = concrete.graph.get_operations()
    products = [(op.type, *(tuple(i.shape) for i in op.inputs)) for op in ops if op.type in ("Conv2D", "MatMul")]
    return products, len(ops)


def test_masks_take_memory_and_operations_and_stripping_gives_back_the_dense_network(tools, trained):
    dense, masked, stripped = (getattr(trained, name) for name in ("dense", "masked", "stripped"))
    kernels = sum(4 * trained.torch.get_submodule(name).weight.numel() for name in LAYERS)
    # A mask of float32 beside every weight; after stripping as many bytes as before pruning, zeros and all.
    assert held(masked) >= held(dense) + kernels
    assert held(stripped) == held(dense)
    (products, plain), (same, most), (again, stripped_ops) = (
        heavy(graph_of(tools, m)) for m in (dense, masked, stripped)
    )
    assert len(products) == 4
    assert products == same == again  # no multiplication is saved
    assert most > plain == stripped_ops
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype(np.float32)
    assert np.array_equal(masked(x, training=False), stripped(x))


def test_only_compression_makes_the_stripped_file_smaller(trained):
    def raw(model):
        return b"".join(v.numpy().tobytes() for v in model.variables)

    files = {name: raw(getattr(trained, name)) for name in ("dense", "masked", "stripped")}
    packed = {name: len(gzip.compress(content, 6)) for name, content in files.items()}
    assert len(files["stripped"]) == len(files["dense"]) < 0.51 * len(files["masked"])
    assert packed["dense"] > 0.9 * len(files["dense"])
    assert packed["stripped"] < 0.25 * packed["dense"]
    assert packed["stripped"] < packed["masked"]
    # gzip finds the zeros almost as cheaply as they can be told: a bit per weight beside the nonzeros is near it.
    twin = models.build("lenet5", (1, 28, 28), 10, 3)
    pb.prune(twin, FINAL, scope="layerwise")
    bitmask = len(formats.to_bytes(twin.state_dict()))
    print({**{n: len(c) for n, c in files.items()}, **{f"{n} gzip": s for n, s in packed.items()}, "bitmask": bitmask})
    assert 0.9 * packed["stripped"] < bitmask < 1.2 * packed["stripped"]


def test_neither_masked_nor_stripped_is_faster_than_dense(tools, trained):
    from prunebench.timing import compare

    x = tools.tf.constant(np.random.default_rng(0).standard_normal((1, 28, 28, 1)).astype(np.float32))
    calls = {name: graph_of(tools, getattr(trained, name)) for name in ("dense", "masked", "stripped")}
    arms = {name: lambda call=call: call(x).numpy() for name, call in calls.items()}
    found = compare(arms, "dense", seconds=4.0)
    print({name: (c.speedup, c.low, c.high, c.verdict) for name, c in found.items()})
    assert found["masked"].verdict != "faster"
    assert not (found["stripped"].verdict == "faster" and found["stripped"].speedup > 1.05)
