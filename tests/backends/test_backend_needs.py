"""What a backend lacks, told without importing it; which version it is; when TensorFlow would end the process."""

import importlib.util
import sys
from importlib import metadata
from types import ModuleType

import pytest

from prunebench import backends, registry
from prunebench.backends import needs
from prunebench.errors import BackendUnavailable, UsageError


def test_every_backend_of_this_package_is_known_here():
    own = {name for name in registry.names("backends") if registry.get("backends", name)[0].builtin}
    assert own <= set(needs.BUILT_IN)
    assert set(needs.EXTRAS) <= set(needs.BUILT_IN)


def test_all_that_is_missing_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (
        backends.unavailable("onnxruntime")
        == "onnx and onnxruntime not installed; pip install 'prunebench[onnxruntime]'"
    )
    assert needs.missing("jax_bcsr") == "jax not installed; pip install 'prunebench[jax]'"
    assert backends.unavailable("dense") is None
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert "no-such-compiler" in str(backends.unavailable("torch_compile"))


def test_an_unknown_backend_is_still_an_error():
    with pytest.raises(UsageError, match="unknown backend 'gpu'"):
        backends.unavailable("gpu")


def test_versions_are_of_the_runtime_under_either_of_its_names(monkeypatch):
    def version(name):
        if name == "tensorflow-cpu":
            return "2.21.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert needs.version("tensorflow:jit_compile=true") == "2.21.0"
    assert needs.version("jax") is None
    assert needs.version("dense") is None


def test_tensorflow_before_torchs_compiler_is_refused_not_fatal(monkeypatch):
    from prunebench.backends.tensorflow import own_pool

    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(BackendUnavailable, match=r"import torch\._dynamo before tensorflow"):
        own_pool(1)
