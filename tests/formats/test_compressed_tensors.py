"""compressed-tensors' own sparse-bitmask decompressor reads our bitmask files (its releases 0.9 to 0.13 have it)."""

import json

import pytest
import torch

import prunebench as pb

try:  # later releases keep the package and the format's name, but not its compressor
    from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskCompressor
    from compressed_tensors.config import BitmaskConfig
except ImportError as error:
    pytest.skip(f"no compressed-tensors with a sparse-bitmask compressor: {error}", allow_module_level=True)


def sparse(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    return (values * (torch.rand(shape, generator=generator) < 0.1)).to(dtype)


STATE = {"fc.weight": sparse(30, 77), "half.weight": sparse(16, 64, dtype=torch.float16), "fc.bias": torch.ones(30)}


def decompressed(path) -> dict[str, torch.Tensor]:
    return dict(BitmaskCompressor(BitmaskConfig()).decompress(str(path)))


def test_linear_weights_are_read(tmp_path):
    pb.save(STATE, tmp_path / "model.safetensors", format="bitmask")
    found = decompressed(tmp_path / "model.safetensors")
    assert found.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_convolution_is_read_as_the_matrix_of_its_filters(tmp_path):
    weight = sparse(12, 5, 3, 3)
    pb.save({"conv.weight": weight}, tmp_path / "model.safetensors", format="bitmask")
    assert torch.equal(decompressed(tmp_path / "model.safetensors")["conv.weight"], weight.flatten(1))


def test_int8_values_are_read_with_their_scales(tmp_path):
    pb.save(STATE, tmp_path / "model.safetensors", format="bitmask", values="int8")
    found = decompressed(tmp_path / "model.safetensors")
    ours = pb.load(tmp_path / "model.safetensors")
    assert found["fc.weight"].dtype == torch.int8
    assert torch.equal(found["fc.weight"].float() * found["fc.weight_scale"], ours["fc.weight"])


def test_what_it_writes_has_our_parts(tmp_path):
    theirs = BitmaskCompressor(BitmaskConfig()).compress({"fc.weight": STATE["fc.weight"]})
    pb.save({"fc.weight": STATE["fc.weight"]}, tmp_path / "m", format="bitmask")
    from safetensors.torch import load_file

    ours = load_file(tmp_path / "m")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_files_metadata_is_a_sparsity_config(tmp_path):
    from safetensors import safe_open

    pb.save(STATE, tmp_path / "m", format="bitmask")
    with safe_open(tmp_path / "m", "pt") as file:
        config = BitmaskConfig(**json.loads(file.metadata()["sparsity_config"]))
    assert config.format == "sparse-bitmask"
    assert 0.85 < config.global_sparsity < 0.95
