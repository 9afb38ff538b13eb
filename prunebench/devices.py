"""Where training runs: a device by name, autocast and repeatable algorithms on a GPU, random numbers of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prunebench.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def check_device(name: str | None) -> str:
    """The name, `auto` where none was given; UsageError for another word. Imports no torch."""
    if name is not None and name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return name or "auto"


def device_of(name: str | None) -> str:
    """`cpu` or `cuda` for a name of DEVICES: auto is a GPU where there is one; UsageError for cuda without."""
    import torch

    name = check_device(name)
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu, or a CUDA build of torch")
    return "cuda" if there and name != "cpu" else "cpu"


def check_precision(recipe: Any, device: torch.device) -> None:
    """UsageError where a recipe's precision is not to be had on the device.

    bf16 runs on every CPU; it pays where the processor multiplies it (AVX-512 BF16, AMX: ResNet-20 trains 1.5 times
    as fast on one Zen 4 core). fp16 needs a GPU: its gradients must be scaled, and few CPUs compute in it.
    """
    if recipe.precision == "fp16" and device.type != "cuda":
        raise UsageError(
            f"recipe {recipe.name!r}: precision 'fp16' needs a GPU; use --device cuda there, "
            "or precision=bf16 or precision=float32"
        )


def autocast(precision: str, device: torch.device) -> Any:
    """A context in which a forward pass takes the recipe's precision; float32 changes nothing."""
    import torch

    kind = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, kind, enabled=precision != "float32")


@contextmanager
def own_random(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of the device, then put back what they were."""
    import torch

    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits every time, where wanted; torch's setting is put back."""
    import torch

    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with a fixed workspace
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
