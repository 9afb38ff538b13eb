"""The recipe: every training and fine-tuning hyperparameter, checked when made, and what of it an identity holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from prunebench.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """Every training and fine-tuning hyperparameter; learning rates per step, lengths in epochs.

    Raises UsageError naming the recipe and the value where one can't be used.
    """

    name: str = "custom"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 128
    epochs: int = 10
    decay: str = "cosine"  # constant, cosine, or step: ×0.1 at 50 % and 75 %
    augment: str = "none"  # none, or crop_flip: pad by 4, random crop, random mirror
    fine_tune_epochs: int = 5
    fine_tune_learning_rate: float = 1e-3
    prune_rounds: int = 5  # prune/fine-tune alternations of every schedule but one_shot
    prune_until: float = 0.5  # they are spread over this share of the fine-tuning; the rest recovers
    nesterov: bool = False  # Nesterov momentum, SGD only
    warmup_epochs: float = 0.0  # of the dense schedule: the rate grows linearly over them, times the decay
    label_smoothing: float = 0.0  # share of each target spread evenly over the classes
    precision: str = "float32"  # float32, or by autocast bf16, or fp16 on a GPU
    deterministic: bool = False  # only algorithms that repeat bit for bit on a GPU, slower there
    compiled: bool = False  # torch.compile: a minute's start, paid back by long trainings
    distill_weight: float = 0.0  # share of the loss of a pruned network that asks for its dense parent's outputs
    distill_temperature: float = 4.0  # softens both outputs (Hinton et al. 2015)
    rewind: str = "none"  # instead of fine-tuning, train again from: weights, or only the learning_rate, of …
    rewind_epoch: int = 0  # … this epoch of the dense training; 0 = its start
    regrow: str = "none"  # train sparse from the start: static masks, or moving by gradient (RigL) or random (SET)
    regrow_fraction: float = 0.3  # share of a layer's weights that moves at first; a cosine takes it to 0
    regrow_every: int = 100  # steps between two moves
    regrow_until: float = 0.75  # no moves after this share of the training
    regrow_rescale: bool = True  # initial weights grow by 1/√density, as if they had been drawn for that many

    def __post_init__(self) -> None:
        for f in fields(self):
            self._check_type(f.name, f.default)
        for name in ("epochs", "fine_tune_epochs", "batch_size", "prune_rounds", "regrow_every"):
            low = 0 if name == "fine_tune_epochs" else 1
            if getattr(self, name) < low:
                raise self._wrong(name, f"it must be at least {low}")
        for name, allowed, fits in _RANGES:
            if not fits(getattr(self, name)):
                raise self._wrong(name, f"it must be {allowed}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"recipe {self.name!r}: unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}"
                )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum <= 0):
            raise self._wrong("nesterov", "it needs optimizer sgd with a momentum above 0")
        if self.rewind != "none" and self.regrow != "none":
            raise self._wrong("regrow", f"it can't be combined with rewind={self.rewind}; choose one")
        if not 0 <= self.rewind_epoch < self.epochs:
            raise self._wrong("rewind_epoch", f"it must be at least 0 and less than epochs={self.epochs}")

    def training_fields(self) -> dict[str, Any]:
        """What the dense checkpoint depends on: all but the name and what comes after dense training."""
        return {k: v for k, v in self._identity().items() if not k.startswith(_AFTERWARDS)}

    def fine_tuning_fields(self) -> dict[str, Any]:
        """What a pruned checkpoint depends on besides its dense parent."""
        return {k: v for k, v in self._identity().items() if k not in ("epochs", "learning_rate")}

    def _identity(self) -> dict[str, Any]:
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name != "name" and (f.name in _ALWAYS_HASHED or getattr(self, f.name) != f.default)
        }

    def _check_type(self, name: str, default: Any) -> None:
        value = getattr(self, name)
        if isinstance(default, bool):
            right, kind = isinstance(value, bool), "true or false"
        elif isinstance(default, int):
            right, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        elif isinstance(default, float):
            right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            kind = "a finite number"
        else:
            right, kind = isinstance(value, str), "a word"
        if not right:
            raise self._wrong(name, f"it must be {kind}")
        if isinstance(default, float) and name not in _ALWAYS_HASHED:
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one identity

    def _wrong(self, name: str, remedy: str) -> UsageError:
        return UsageError(f"recipe {self.name!r}: {name} is {getattr(self, name)!r}; {remedy}")


_CHOICES = {
    "optimizer": ("adam", "sgd"),
    "decay": ("constant", "cosine", "step"),
    "augment": ("none", "crop_flip"),
    "precision": ("float32", "bf16", "fp16"),
    "rewind": ("none", "weights", "learning_rate"),
    "regrow": ("none", "static", "gradient", "random"),
}
_RANGES = (
    ("prune_until", "in (0, 1]", lambda v: 0.0 < v <= 1.0),
    ("warmup_epochs", "at least 0", lambda v: v >= 0.0),
    ("label_smoothing", "in [0, 1)", lambda v: 0.0 <= v < 1.0),
    ("distill_weight", "in [0, 1]", lambda v: 0.0 <= v <= 1.0),
    ("distill_temperature", "above 0", lambda v: v > 0.0),
    ("regrow_fraction", "in [0, 1]", lambda v: 0.0 <= v <= 1.0),
    ("regrow_until", "in [0, 1]", lambda v: 0.0 <= v <= 1.0),
)
_AFTERWARDS = ("fine_tune", "prune", "distill", "rewind", "regrow")
# Schema 1's fields. One added later is hashed only where it differs from its default, so old keys stay.
_ALWAYS_HASHED = frozenset(
    [
        "optimizer",
        "learning_rate",
        "momentum",
        "weight_decay",
        "batch_size",
        "epochs",
        "decay",
        "augment",
        "fine_tune_epochs",
        "fine_tune_learning_rate",
        "prune_rounds",
        "prune_until",
    ]
)
