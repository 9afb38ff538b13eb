"""torch.nn.MultiheadAttention's projections as layers: its weights are bare parameters that no module's forward uses.

A `Projection` gives one of them a linear module's face, so that whatever takes a model's prunable modules takes it
too; `unpacked` makes the attention call these faces, so that hooks see each projection's input and output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKED = "in_proj_weight"
SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class Projection(nn.Linear):
    """The face of one projection of an attention module: its weight (out, in) is the attention's own parameter.

    It is no child of the attention and holds nothing itself: a weight that the attention gets later is seen here.
    Where one packed matrix meets queries, keys and values that differ, it runs on all their tokens, one input behind
    the other; `lengths` holds how many there were of each, because a third of its rows belongs to each (else None).
    """

    attention: Any
    parameter: str
    lengths: list[int] | None = None

    def __init__(self, attention: nn.MultiheadAttention, parameter: str) -> None:
        nn.Module.__init__(self)  # not Linear's, which would make a weight of its own
        self.__dict__["attention"], self.__dict__["parameter"] = attention, parameter
        self.out_features, self.in_features = getattr(attention, parameter).shape
        self.training = attention.training

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return getattr(self.attention, self.parameter)

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The projection's part of the attention's one bias, or None."""
        whole = self.attention.in_proj_bias
        if whole is None or self.parameter == PACKED:
            return whole
        return whole.chunk(3)[SEPARATE.index(self.parameter)]


def projection_names(attention: nn.MultiheadAttention) -> list[str]:
    """Attributes that hold weights: in_proj_weight, or q/k/v_proj_weight where keys and values have other widths."""
    return [name for name in (PACKED, *SEPARATE) if getattr(attention, name, None) is not None]


@contextmanager
def unpacked(model: nn.Module, modules: Mapping[str, Any] | None = None) -> Iterator[None]:
    """While it lasts, every attention computes its projections by calling modules, samples first: (n, tokens, width).

    The faces called are those in `modules`, where it has them. Outputs are the attention's own. Fused paths that
    skip modules are off meanwhile.
    """
    faces = {(id(m.attention), m.parameter): m for m in (modules or {}).values() if isinstance(m, Projection)}
    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    try:
        for attention in attentions:
            own = {n: faces.get((id(attention), n)) or Projection(attention, n) for n in projection_names(attention)}
            attention.__dict__["forward"] = _Unpacked(attention, own)
        with unfused():
            yield
    finally:
        for attention in attentions:
            attention.__dict__.pop("forward", None)


@contextmanager
def unfused() -> Iterator[None]:
    """While it lasts, torch's attention and encoder layers take no fused path, which reads the weights of children."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Unpacked:
    def __init__(self, attention: nn.MultiheadAttention, faces: Mapping[str, Projection]) -> None:
        self.attention, self.faces = attention, faces

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        a, batched = self.attention, query.dim() == 3
        first = batched and a.batch_first
        q, k, v = (part.transpose(0, 1) for part in self._project(query, key, value, first, batched))
        eye = torch.eye(a.embed_dim, dtype=q.dtype, device=q.device)
        # torch's own attention on projected inputs: masks, biases of keys and weights returned are then its own too.
        mixed, weights = F.multi_head_attention_forward(
            q if batched else q.squeeze(1), k if batched else k.squeeze(1), v if batched else v.squeeze(1),
            a.embed_dim, a.num_heads, None, None, a.bias_k, a.bias_v, a.add_zero_attn, a.dropout, eye, None,
            training=a.training, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=True, q_proj_weight=eye, k_proj_weight=eye, v_proj_weight=eye,
            average_attn_weights=average_attn_weights, is_causal=is_causal,
        )  # fmt: skip
        out = a.out_proj(mixed.transpose(0, 1) if batched else mixed.unsqueeze(0))
        if first:
            return out, weights
        return (out.transpose(0, 1) if batched else out.squeeze(0)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor, first: bool, batched: bool) -> list[Tensor]:
        """The three projections as (n, tokens, embed_dim)."""
        same = query is key and key is value
        parts = [x if first else x.transpose(0, 1) if batched else x.unsqueeze(0) for x in (query, key, value)]
        if PACKED not in self.faces:
            return [self.faces[name](x) for name, x in zip(SEPARATE, parts, strict=True)]
        packed = self.faces[PACKED]
        packed.lengths = None if same else [x.shape[1] for x in parts]
        if packed.lengths is None:
            return list(packed(parts[0]).chunk(3, -1))
        pieces = packed(torch.cat(parts, 1)).split(packed.lengths, 1)
        return [piece.chunk(3, -1)[i] for i, piece in enumerate(pieces)]
