"""The cases of the questions beside the grid: layers and networks at given sparsities, and what only claims need.

Their weights are random, so that nothing is trained: what is asked is speed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prunebench import machine, profiles, registry
from prunebench.cell import check_sparsity, per_mille, unique
from prunebench.errors import UsageError, unknown
from prunebench.models.names import check_model
from prunebench.shapes import LayerShape, distinct, known_networks
from prunebench.spec import Spec

SPARSE = ("csr", "jax_bcsr", "masked", "scipy_csr", "torch_csr")  # no way to run an unpruned network
OPTIONS = ("models", "sparsities", "batch_sizes", "threads", "backends")


@dataclass(frozen=True)
class LayerCase:
    """One layer at one sparsity, batch size and thread count, through the engine."""

    layer: LayerShape
    networks: tuple[str, ...]  # that have it
    sparsity: float
    batch_size: int
    threads: int = 1
    backend: str = "csr"

    @property
    def model(self) -> str:
        return self.networks[0]

    @property
    def id(self) -> str:
        """`conv_64_64_3x3_at_32-s900-csr-b1-t1`."""
        return f"{self.layer.id}-{_tail(self)}"

    @property
    def group(self) -> str:
        """The heading under which pytest-benchmark lists it."""
        return f"layers-{self.model}-b{self.batch_size}-t{self.threads}"

    def marks(self) -> dict[str, Any]:
        """Keyword values of the `cell` marker; sparsity in per mille."""
        return {"layer": self.layer.id, "kind": self.layer.kind, **_marks(self)}


@dataclass(frozen=True)
class NetworkCase:
    """One network at one sparsity, batch size and thread count, through the engine and its dense peers."""

    model: str
    sparsity: float
    batch_size: int
    threads: int = 1
    peers: tuple[str, ...] = ("dense",)  # backends that run the unpruned network
    backend: str = "csr"

    @property
    def id(self) -> str:
        """`resnet18_cifar-s900-csr-b16-t1`."""
        return f"{Spec.parse(self.model).slug}-{_tail(self)}"

    @property
    def group(self) -> str:
        return f"networks-{self.model}-b{self.batch_size}-t{self.threads}"

    def marks(self) -> dict[str, Any]:
        """Keyword values of the `cell` marker; sparsity in per mille."""
        return _marks(self)


@dataclass(frozen=True)
class ClaimCase:
    """What only a claim needs: a layer through SciPy, or a network whose masks remove up to all of its weights."""

    model: str  # or a layer's id
    backend: str
    sparsity: float  # up to 1, which the grid refuses
    batch_size: int
    threads: int = 1
    layer: LayerCase | None = None

    @property
    def id(self) -> str:
        """`lenet5-s1000-masked-b64-t1`."""
        return f"{Spec.parse(self.model).slug}-{_tail(self)}"

    @property
    def group(self) -> str:
        return f"claims-{self.backend}-b{self.batch_size}-t{self.threads}"

    def marks(self) -> dict[str, Any]:
        """Keyword values of the `cell` marker; sparsity in per mille."""
        return _marks(self)


def _tail(case: LayerCase | NetworkCase | ClaimCase) -> str:
    return f"s{per_mille(case.sparsity)}-{case.backend}-b{case.batch_size}-t{case.threads}"


def _marks(case: LayerCase | NetworkCase | ClaimCase) -> dict[str, Any]:
    mille = per_mille(case.sparsity)
    return {
        "model": case.model,
        "criterion": "l1",
        "sparsity": int(mille) if mille.isdigit() else mille,
        "backend": case.backend,
        "batch": case.batch_size,
        "batch_size": case.batch_size,
        "threads": case.threads,
    }


AnyCase = TypeVar("AnyCase", LayerCase, NetworkCase, ClaimCase)


@dataclass(frozen=True)
class Question(Generic[AnyCase]):
    """A question's cases, and the time that one measurement may take."""

    cases: tuple[AnyCase, ...]
    timing_seconds: float


def layers(profile: str | None = None, overrides: Mapping[str, Any] | None = None) -> Question[LayerCase]:
    """Every distinct layer of the chosen networks; UsageError where none of them has a list of layers."""
    chosen = _Choice("layers", profile, overrides)
    for name in chosen.models:
        if name not in known_networks():
            check_model(name)  # an unknown name is told as such, a model without a list of layers is left out
    found = [name for name in chosen.models if name in known_networks()]
    if not found:
        raise unknown("model with a list of layers", chosen.models[0], known_networks())
    cases = tuple(
        LayerCase(shape, networks, sparsity, batch, threads)
        for threads in chosen.threads
        for shape, networks in distinct(found).items()
        for batch in chosen.batch_sizes
        for sparsity in chosen.sparsities(batch)
    )
    return Question(cases, chosen.timing_seconds)


def networks(profile: str | None = None, overrides: Mapping[str, Any] | None = None) -> Question[NetworkCase]:
    """Every chosen network; models that exist only as a list of layers are left out."""
    chosen = _Choice("networks", profile, overrides)
    models = [check_model(name) for name in chosen.models if name not in known_networks() or name in _models()]
    if not models:
        raise UsageError(f"model {chosen.models[0]!r} is known by its layers only; pytest benchmarks/test_layers.py")
    cases = tuple(
        NetworkCase(model, sparsity, batch, threads, chosen.peers())
        for model in models
        for batch in (chosen.batch_sizes if input_of(model)[0][1] < 100 else chosen.large())
        for threads in chosen.threads
        for sparsity in chosen.sparsities(batch)
    )
    return Question(cases, chosen.timing_seconds)


def claims(profile: str | None = None, overrides: Mapping[str, Any] | None = None) -> Question[ClaimCase]:
    """The chosen networks fully masked, and those of the profile's layers that they have through SciPy."""
    chosen = _Choice("claims", profile, overrides)
    settings = profiles.question("claims", profile)
    networks = [check_model(name) for name in chosen.models if name not in known_networks() or name in _models()]
    shapes = distinct(name for name in chosen.models if name in known_networks())
    layers = [(shape, own) for shape, own in shapes.items() if shape.id in settings["layers"]]
    cases = []
    for threads in chosen.threads:
        for batch in chosen.batch_sizes:
            cases += [ClaimCase(n, "masked", s, batch, threads) for n in networks for s in settings["masked"]]
            for shape, own in layers:
                for s in chosen.sparsities(batch):
                    layer = LayerCase(shape, own, s, batch, threads, "scipy_csr")
                    cases.append(ClaimCase(shape.id, "scipy_csr", s, batch, threads, layer))
    return Question(tuple(cases), chosen.timing_seconds)


def _models() -> list[str]:
    return [name for name in known_networks() if name != "mobilenet_v1"]


def input_of(model: str) -> tuple[tuple[int, int, int], int]:
    """((channels, height, width), classes) that a network is timed with: MNIST's, CIFAR's or ImageNet's."""
    name = Spec.parse(model).name
    if name.startswith("lenet"):
        return (1, 28, 28), 10
    return ((3, 32, 32), 10) if name in registry.names("models") else ((3, 224, 224), 1000)


class _Choice:
    """A question's settings under a profile, with the lists given on the command line in their place."""

    def __init__(self, question: str, profile: str | None, overrides: Mapping[str, Any] | None) -> None:
        self._settings = profiles.question(question, profile)
        self._given = {k: v for k, v in (overrides or {}).items() if k in OPTIONS and v is not None}
        self.timing_seconds = float(self._settings["timing_seconds"])
        self.models: list[str] = self._list("models")
        self.batch_sizes = [profiles.whole_number("batch size", b, 1) for b in self._list("batch_sizes")]
        wanted = [profiles.whole_number("--threads", t, 1) for t in self._list("threads")]
        self.threads = unique(min(t, machine.cores()) for t in wanted)

    def _list(self, option: str) -> list[Any]:
        return unique(profiles.items(option, self._given.get(option, self._settings[option])))

    def sparsities(self, batch: int) -> list[float]:
        """Those given, else the profile's for this batch size, else its first."""
        by_batch: dict[str, Sequence[float]] = self._settings["sparsities"]
        default = by_batch.get(str(batch), next(iter(by_batch.values())))
        return unique(check_sparsity(s) for s in profiles.items("sparsities", self._given.get("sparsities", default)))

    def large(self) -> list[int]:
        """Batch sizes for large images."""
        return self.batch_sizes if "batch_sizes" in self._given else list(self._settings["large"])

    def peers(self) -> tuple[str, ...]:
        """Backends that run the unpruned network; torch's eager mode is always among them."""
        named = [registry.check("backends", b) for b in self._list("backends")]
        return tuple(unique(["dense", *(b for b in named if b not in SPARSE)]))
