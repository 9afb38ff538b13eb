"""masked: torch.nn.utils.prune's masks with the reparametrisation left on, which is what most people run."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import prune

from prunebench.backends.torch_modules import TorchExecutor
from prunebench.masks import PRUNABLE
from prunebench.registry import backend


@backend("masked")
class MaskedExecutor(TorchExecutor):
    """Every forward multiplies weight_orig by weight_mask, then runs torch's dense kernels."""

    name = "masked"

    def prepare(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, PRUNABLE):
                prune.custom_from_mask(module, "weight", (module.weight != 0).to(module.weight.dtype))
        return model

    def extra_tensors(self) -> list[Tensor]:
        # The product is a plain attribute that stays resident between calls.
        return [m.weight for m in self.module.modules() if isinstance(m, PRUNABLE)]
