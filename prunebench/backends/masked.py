"""masked: torch.nn.utils.prune's masks with the reparametrisation left on, which is what most people run."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import prune

from prunebench.backends.torch_modules import TorchExecutor
from prunebench.masks import held_weights
from prunebench.registry import backend


@backend("masked")
class MaskedExecutor(TorchExecutor):
    """Every forward multiplies weight_orig by weight_mask, then runs torch's dense kernels."""

    name = "masked"

    def prepare(self, model: nn.Module) -> nn.Module:
        for _, module, name in list(held_weights(model)):
            weight = getattr(module, name)
            prune.custom_from_mask(module, name, (weight != 0).to(weight.dtype))
        return model

    def extra_tensors(self) -> list[Tensor]:
        # The product is a plain attribute that stays resident between calls.
        return [getattr(module, name) for _, module, name in held_weights(self.module)]
