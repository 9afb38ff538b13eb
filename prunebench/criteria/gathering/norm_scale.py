"""Need `norm_scale`: |γ| of the batch norm that a layer's output goes into."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.criteria.gathering.run import Run
from prunebench.errors import UsageError


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A subclass of one of these from elsewhere is a layer all the same.
        layer = isinstance(m, (nn.modules.conv._ConvNd, nn.Linear, _BatchNorm))
        return layer or super().is_leaf_module(m, module_qualified_name)


def gather(run: Run, names: Sequence[str]) -> dict[str, Tensor | None]:
    """{name: |γ| (outputs,), or None where no batch norm with a scale reads the layer's output directly}.

    A layer used several times takes its first batch norm. Raises UsageError where torch.fx can't trace the model, or
    where no layer at all is followed by a batch norm.
    """
    try:
        graph = _Tracer().trace(run.model)
    except Exception as error:  # any of user code's own errors on a proxy
        raise UsageError(
            f"criterion {run.criterion!r} can't tell which batch norm follows which layer: torch.fx can't trace "
            f"{type(run.model).__name__}; use another criterion"
        ) from error
    names_of = {id(module.weight): name for name, module in run.modules.items()}
    modules = dict(run.model.named_modules(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        source = node.all_input_nodes[0] if isinstance(norm, _BatchNorm) and node.all_input_nodes else None
        if source is None or source.op != "call_module" or not isinstance(getattr(norm, "weight", None), Tensor):
            continue
        name = names_of.get(id(getattr(modules[str(source.target)], "weight", None)))
        if name is not None and name not in found:
            found[name] = norm.weight.detach().abs()  # type: ignore[union-attr]
    if not found:
        raise UsageError(
            f"criterion {run.criterion!r} needs batch norms, but no layer of {type(run.model).__name__} "
            "is followed by one; use another criterion"
        )
    return {name: found.get(name) for name in names}
