"""Pruning a model: `prune` in one call, `Pruner` inside anybody's training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunebench import controls, criteria, schedules, scopes
from prunebench.cell import check_sparsity
from prunebench.criteria import updates
from prunebench.criteria.watching import Watching
from prunebench.errors import UsageError
from prunebench.granularities import Scored, reachable, unit_sets
from prunebench.masks import apply, check_weights, meant, prunable_modules, sparsity_of, weight_names
from prunebench.proportions import Given, Proportions, by_density, on_the_way, removed
from prunebench.registry import check
from prunebench.reparametrised import takes_masks
from prunebench.units import select

_Data = Iterable[tuple[Any, Any]]
_Loss = Callable[[Tensor, Tensor], Tensor]
_Target = Callable[[float], float]  # a layer's final sparsity -> that it has now


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    criterion: str = "l1",
    scope: str = "global",
    granularity: str = "weight",
    data: _Data | None = None,
    *,
    exclude: Sequence[str] = (),
    overrides: Mapping[str, float] | None = None,
    proportions: Given | None = None,
    loss: _Loss | None = None,
    batch_norm: str = "running",
) -> dict[str, Tensor]:
    """Prune a model in place, at once; returns {parameter name: bool mask, True = kept}.

    sparsity: fraction of prunable weights removed, in [0, 1): ⌊N·s + ½⌋ of N, exact in total for scope "global" and
    per layer for "layerwise", at least one weight per layer left. data: batches of (x, y) for criteria that need
    them; loss: mean over a batch, cross-entropy unless given. exclude: patterns such as "*.fc". overrides: layers that
    get a sparsity of their own, {"*.fc": 0.5, "conv1": 0.0}, the first pattern that fits; the rest takes the scope at
    the asked sparsity. scope="global:first=dense:last=dense" does so for the model's ends. proportions: masks of
    another pruning, instead of a sparsity: each layer loses as much as there, by this criterion;
    scope="like:criterion=snip:scope=global" does so for what another criterion and scope would give here. batch_norm:
    "batch" lets gradients (SNIP, GraSP, …) go through each batch's own statistics, as published for pruning at
    initialisation, where the running ones say nothing yet.
    Raises UsageError for a value that can't be, PluginError for a plugin that misbehaves; the model is then untouched.
    """
    pruner = Pruner(
        model,
        sparsity,
        criterion,
        scope,
        "one_shot",
        1,
        granularity=granularity,
        data=data,
        exclude=exclude,
        overrides=overrides,
        proportions=proportions,
        loss=loss,
        batch_norm=batch_norm,
    )
    return pruner.masks


class _Ranking:
    """How a criterion orders weights: how often it scores on the way, within what it compares, what it watches."""

    def __init__(self, criterion: str, modules: Mapping[str, Any]) -> None:
        self.criterion = criterion
        self.reduce, self.rounds = criteria.reducer(criterion), criteria.rounds(criterion)
        self.compare, self.watching = criteria.compare(criterion), criteria.observer(criterion, modules)


class Pruner:
    """Prunes along a schedule inside a training loop, and keeps pruned weights at exactly zero.

    Call `step()` after every `optimizer.step()`: call k of n = steps prunes to schedule(k/n) of the final sparsity
    ("one_shot" prunes all when made), and every call sets pruned weights back to zero, so that neither momentum nor
    weight decay revives them. `masks` holds {parameter name: bool, True = kept}; masks only ever shrink.
    `prunings` holds what each pruning left out in all, {parameter name: weights}; as `proportions=` of another Pruner
    with the same schedule it gives the same counts per layer at every pruning.
    Weights that torch.nn.utils.prune masked before count as pruned and stay zero; its masks are made permanent.
    every: prune only at each every-th call (n calls then reach k = n/every prunings; the last one is never missed).
    A criterion that asks for rounds (SynFlow: 100) rescores between the densities d^(k/rounds), d the final one, that a
    pruning passes. One that watches the training (movement) reads `weight.grad` in `step()`: don't clear it before.
    Raises what `prune` raises.
    """

    given: dict[str, Tensor]  # masks of torch.nn.utils.prune that the model came with

    @takes_masks(meant)
    def __init__(
        self,
        model: nn.Module,
        sparsity: float | None = None,
        criterion: str = "l1",
        scope: str = "global",
        schedule: str = "agp",
        steps: int = 1000,
        *,
        granularity: str = "weight",
        data: _Data | None = None,
        exclude: Sequence[str] = (),
        overrides: Mapping[str, float] | None = None,
        proportions: Given | None = None,
        loss: _Loss | None = None,
        batch_norm: str = "running",
        every: int = 1,
        start: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"prune takes a torch.nn.Module, not {type(model).__name__}")
        for name, value in (("steps", steps), ("every", every)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}={value!r} can't be used; give a whole number of at least 1")
        self.criterion, self.scope = check("criteria", criterion), check("scopes", scope)
        self.schedule, self.granularity = check("schedules", schedule), check("granularities", granularity)
        self.model, self.steps, self.every = model, steps, every
        # A generator can be read once, a schedule prunes many times.
        self._data, self._loss, self._batch_norm = list(data) if isinstance(data, Iterator) else data, loss, batch_norm
        self._modules = prunable_modules(model, exclude)
        check_weights(self._modules)
        self._proportions = self._given(proportions, sparsity, overrides)
        copied = None if self._proportions is not None else controls.copied(self.scope)
        self._ranking = _Ranking(self.criterion, self._modules)
        # Whose proportions are copied, where the scope says so.
        self._original = None if copied is None else _Ranking(copied[0], self._modules)
        rankings = [r for r in (self._ranking, self._original) if r is not None]
        self.watching = Watching(ranking.watching for ranking in rankings)
        for ranking in rankings:
            wanted = criteria.missing(ranking.criterion, model, data)
            if wanted is not None:
                raise UsageError(f"criterion {ranking.criterion!r} needs {wanted}")
        self._sharing = self.scope if copied is None else copied[1]
        if self._proportions is not None:
            self.sparsity, own = self._proportions.sparsity, {}
        else:
            self.sparsity = reachable(self.granularity, check_sparsity(sparsity))
            own = scopes.own_sparsities(self._sharing, weight_names(model), overrides or {})
        schedules.check_path(self.schedule, self.sparsity)
        self._own = {n: reachable(self.granularity, value) for n, value in own.items() if n in self._modules}
        # What torch.nn.utils.prune masked before stays so, whatever the criterion says.
        self.masks = {n: self.given.get(n, torch.ones_like(m.weight, dtype=torch.bool))
                      for n, m in self._modules.items()} if self.given else {}  # fmt: skip
        self.prunings: list[dict[str, int]] = []
        self._factors: list[tuple[Tensor, Tensor]] | None = None
        self._share, self._calls = 0.0, 0
        if start and schedules.share(self.schedule, 0.0) == 1.0:
            self.prune_to(1.0)

    @property
    def current_sparsity(self) -> float:
        """The share of prunable weights that the masks remove now."""
        return sparsity_of(self.masks)

    def step(self) -> None:
        """Prune if the schedule says so, then set every pruned weight to zero."""
        self._calls += 1
        if self._calls <= self.steps and (self._calls % self.every == 0 or self._calls == self.steps):
            self.watching.observe()
            self.prune_to(self._calls / self.steps)
        else:
            self.enforce()

    def prune_to(self, t: float) -> None:
        """Prune to the schedule's sparsity at progress t in [0, 1]; earlier than before means no change."""
        share = schedules.share(self.schedule, t, self.sparsity)
        if share > self._share:
            check_weights(self._modules)
            self._prune_to(lambda final: final * schedules.share(self.schedule, t, final))
            self._share = share
        apply(self.model, self.masks)
        self.watching.renew()

    def enforce(self) -> None:
        """After an optimizer step without pruning: set every pruned weight to zero; cheap enough for every step.

        A product and a sum are several times faster than filling by mask.
        """
        self.watching.observe()
        if self._factors is None:
            self._factors = [
                (self._modules[n].weight, m.to(self._modules[n].weight.dtype)) for n, m in self.masks.items()
            ]
        with torch.no_grad():
            for weight, factor in self._factors:
                weight.mul_(factor).add_(0.0)  # -0 + 0 is +0
        self.watching.renew()

    @property
    def share(self) -> float:
        """The share of the final sparsity that was last pruned to."""
        return self._share

    def replace(self, masks: Mapping[str, Tensor], share: float | None = None) -> None:
        """Take other masks, {parameter name: bool, True = kept}, and apply them; share: of the final sparsity."""
        if {n: tuple(m.shape) for n, m in masks.items()} != {
            n: tuple(w.weight.shape) for n, w in self._modules.items()
        }:
            raise UsageError("these masks don't fit the model's prunable weights; take them from the same model")
        self.masks = {name: masks[name].bool() for name in self._modules}
        self._factors = None
        self._share = self._share if share is None else share
        apply(self.model, self.masks)

    def _prune_to(self, target: _Target) -> None:
        """To target(final sparsity), layers sharing it as the scope, the original or the given proportions say."""
        wanted = self._proportions if self._original is None else self._copied(self._original, target)
        self._in_rounds(self._ranking, target, wanted)
        self.prunings.append(removed(self.masks))

    def _copied(self, original: _Ranking, target: _Target) -> Proportions:
        """What the original would leave here: it prunes this very model, which is then put back."""
        masks, before = self.masks, {n: m.weight.detach().clone() for n, m in self._modules.items()}
        try:
            self._in_rounds(original, target, None)
            return Proportions([removed(self.masks)], before)
        finally:
            self._put_back(masks, before)

    def _in_rounds(self, ranking: _Ranking, target: _Target, wanted: Proportions | None) -> None:
        """By way of the sparsities at density d^(k/rounds), d the final one; no training between."""
        now, n = self.sparsity * self._share, ranking.rounds
        parts = [k / n for k in range(1, n)]
        between = [part for part in parts if now < by_density(self.sparsity, part) < target(self.sparsity)]
        masks = self.masks
        before = {n: m.weight.detach().clone() for n, m in self._modules.items()} if between else {}
        try:
            for part in between:
                self._prune(ranking, partial(on_the_way, part, target), target, wanted)
                apply(self.model, self.masks)
            self._prune(ranking, target, target, wanted)
        except BaseException:
            self._put_back(masks, before)
            raise

    def _put_back(self, masks: dict[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        self.masks, self._factors = masks, None
        for name, weight in weights.items():
            self._modules[name].weight.data.copy_(weight)

    def _prune(self, ranking: _Ranking, now: _Target, target: _Target, wanted: Proportions | None) -> None:
        """Prune each layer to now(its final sparsity), on the way to its target."""
        # What was gathered to score is needed again to update: gathering twice would take twice the time.
        layers: dict[str, criteria.Layer] | None = {} if updates.moves(ranking.criterion) else None
        scores = criteria.score(
            ranking.criterion,
            self.model,
            self._modules,
            data=self._data,
            loss=self._loss,
            watched=ranking.watching,
            gathered=layers,
            batch_norm=self._batch_norm,
        )
        keep: Mapping[str, Tensor] | None = self.masks or None
        sets = unit_sets(
            self.granularity, Scored(self.model, self._modules, scores, keep, ranking.reduce, ranking.compare)
        )
        if wanted is None:
            own = {name: now(final) for name, final in self._own.items()}
            counts = scopes.share_out(self._sharing, sets, now(self.sparsity), own)
        else:
            whole = target(self.sparsity) if wanted.exact else self.sparsity
            counts = wanted.counts(sets, now(self.sparsity) / whole if whole else 1.0, len(self.prunings))
        chosen = select(sets, counts)
        masks = {
            name: chosen[name] if name in chosen else scores[name].new_ones(scores[name].shape).bool()
            for name in self._modules
        }
        masks |= {name: masks[name] & mask for name, mask in self.given.items() if name in masks}
        # Every layer's update is made and checked before the first is written.
        moved = updates.moved(ranking.criterion, self.model, layers, masks) if layers else {}
        self._factors, self.masks = None, masks
        with torch.no_grad():
            for name, weight in moved.items():
                self._modules[name].weight.copy_(weight)

    def _given(self, given: Given | None, sparsity: float | None, overrides: Any) -> Proportions | None:
        if given is None:
            if sparsity is None:
                raise UsageError("neither a sparsity nor proportions are given; pass sparsity=0.9, for example")
            return None
        if sparsity is not None or overrides:
            raise UsageError("proportions say how much each layer loses; leave sparsity and overrides out")
        return Proportions(given, {name: module.weight for name, module in self._modules.items()})
