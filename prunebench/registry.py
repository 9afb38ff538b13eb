"""Every plugin by name: entry points (built-ins use the same door) and file-local decorators.

Names are known from package metadata alone; a plugin's module is imported when it is first used.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from typing import Any

from prunebench.errors import PluginError, UsageError, reason, unknown
from prunebench.spec import NAME, Spec

GROUPS = {
    "criteria": "criterion",
    "granularities": "granularity",
    "scopes": "scope",
    "schedules": "schedule",
    "models": "model",
    "datasets": "dataset",
    "backends": "backend",
}


# Parameters of every plugin of a group, each a sparsity or "dense": its room acts on them, the plugin never sees them.
SHARED = {"scopes": ("first", "last")}
Check = Callable[..., object] | None  # of a plugin's parameters: see `criterion`


@dataclass(frozen=True)
class Plugin:
    """A registered function or class with what it declared about itself."""

    group: str
    name: str
    function: Callable[..., Any]
    origin: str
    declared: Mapping[str, Any] = field(default_factory=dict)
    check: Check = None
    file: str | None = None  # of the module, where a decorator registered it

    @property
    def builtin(self) -> bool:
        return self.origin.startswith("prunebench.")

    def bind(self, spec: Spec) -> Callable[..., Any]:
        """The function with the spec's parameters filled in; UsageError names an unknown parameter."""
        check_params(self, spec)
        params = {k: v for k, v in spec.params if k not in SHARED.get(self.group, ())}
        return partial(self.function, **params) if params else self.function


_local: dict[tuple[str, str], Plugin] = {}


def _register(group: str, name: str, check: Check, **declared: Any) -> Callable[[Any], Any]:
    kind = GROUPS[group]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{kind} name {name!r} can't be used; names match {NAME.pattern}")

    def decorate(function: Any) -> Any:
        origin = f"{function.__module__}:{function.__qualname__}"
        before = _local.get((group, name))
        if before is not None and before.origin != origin:
            raise UsageError(f"{kind} {name!r} is defined twice, by {before.origin} and by {origin}; rename one")
        file = getattr(sys.modules.get(function.__module__), "__file__", None)
        plugin = Plugin(group, name, function, origin, declared, check, file)
        _local[group, name] = plugin
        function.prunebench_plugin = plugin  # what it declared travels with it to its entry point
        return function

    return decorate


def criterion(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    rounds: int = 1,
    reduce: str | Callable[..., Any] = "sum",
    compare: str = "layer",
    update: Callable[..., Any] | None = None,
    check: Check = None,
) -> Callable[[Any], Any]:
    """Register `f(layer, **params) -> scores` (the weight's shape, higher = keep) as a pruning criterion.

    needs: what must be gathered on the layer ("gradients", "input_norms", …: the names in criteria.NEEDS); rounds: how
    often it rescores on the way; reduce: how a filter's score follows from its weights' ("sum", "mean", "max" or a
    function of a (filters, weights) tensor); compare: "layer", or "row" to rank within an output row; update:
    `u(layer, keep, **params) -> weight`, called once the masks are chosen, moves the kept weights to make up for the
    removed ones, unless the criterion has a parameter `update` and it is false; check: see below.

    Every decorator here takes check=f: f(**params) gets all parameters that have a default, and raises ValueError
    with a remedy ("give p > 0") for values that can't be; it is asked as soon as a string such as "lp:p=-1" is read.
    """
    declared: dict[str, Any] = {"needs": tuple(needs), "rounds": rounds, "reduce": reduce, "compare": compare}
    return _register("criteria", name, check, **declared, **({} if update is None else {"update": update}))


def scope(name: str, *, check: Check = None) -> Callable[[Any], Any]:
    """Register `f(sets, sparsity) -> counts`: how a total sparsity is shared among layers.

    Counts are whole units, one number per set, and reach the total: each set may be off by a unit, for rounding.
    Every scope also takes `first=` and `last=`, for which f need do nothing: see prunebench.scopes.
    """
    return _register("scopes", name, check)


def schedule(name: str, *, check: Check = None) -> Callable[[Any], Any]:
    """Register `f(t) -> share of the final sparsity` for t in [0, 1], with f(1) = 1; it never falls.

    Where the path depends on the final sparsity, f has a parameter `sparsity` with a default; it is filled in.
    """
    return _register("schedules", name, check)


def granularity(
    name: str, *, sparsity: Callable[..., float] | None = None, check: Check = None
) -> Callable[[Any], Any]:
    """Register `f(scored) -> unit sets`: what is removed together.

    sparsity: where there is only one that it can reach, a function of its parameters that gives it.
    """
    return _register("granularities", name, check, sparsity=sparsity)


def model(name: str, *, check: Check = None) -> Callable[[Any], Any]:
    """Register `f(input_shape, classes) -> torch.nn.Module` with random initial weights."""
    return _register("models", name, check)


def dataset(name: str, *, check: Check = None) -> Callable[[Any], Any]:
    """Register `f(root) -> prunebench.datasets.Dataset`; root is the folder that `--data` names."""
    return _register("datasets", name, check)


def backend(name: str, *, check: Check = None) -> Callable[[Any], Any]:
    """Register an executor class: `C(model, example_input, threads)`; see prunebench.backends."""
    return _register("backends", name, check)


@cache
def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=f"prunebench.{group}"):
        before = found.get(point.name)
        if before is not None and before.value != point.value:
            raise UsageError(
                f"{GROUPS[group]} {point.name!r} is offered twice, by {before.value} and {point.value}; uninstall one"
            )
        found[point.name] = point
    return found


def local_modules() -> list[str]:
    """NAME=FILE of the modules that registered plugins in this process alone, such as a conftest.py; in their order."""
    found = [p for p in _local.values() if not p.builtin and p.name not in _entry_points(p.group)]
    return list(dict.fromkeys(f"{p.function.__module__}={p.file or ''}" for p in found))


def names(group: str) -> list[str]:
    """Sorted names registered in a group; imports no plugin."""
    return sorted({*_entry_points(group), *(n for g, n in _local if g == group)})


@cache
def _load(group: str, name: str) -> Plugin:
    point = _entry_points(group)[name]
    try:
        function = point.load()
    except Exception as error:
        raise PluginError(f"{GROUPS[group]} {name!r} ({point.value}) can't be imported: {error}") from error
    registered = getattr(function, "prunebench_plugin", None)
    if isinstance(registered, Plugin) and (registered.group, registered.name) == (group, name):
        return registered
    if not callable(function):
        raise PluginError(f"{GROUPS[group]} {name!r} ({point.value}) is not callable; point the entry at a function")
    if not NAME.fullmatch(name):
        raise UsageError(f"{GROUPS[group]} name {name!r} can't be used; names match {NAME.pattern}")
    # A plain function without the decorator: what it would have declared is the default.
    declared = {"needs": (), "rounds": 1, "reduce": "sum", "compare": "layer"} if group == "criteria" else {}
    return Plugin(group, name, function, point.value, declared)


def get(group: str, text: str | Spec) -> tuple[Plugin, Spec]:
    """The plugin that a spec string names; UsageError lists the known names, or the two that clash."""
    spec = Spec.parse(text, GROUPS[group])
    local, installed = _local.get((group, spec.name)), _entry_points(group).get(spec.name)
    if installed is not None:
        plugin = _load(group, spec.name)
        if local is None or local.origin == plugin.origin:
            return plugin, spec
        raise UsageError(
            f"{GROUPS[group]} {spec.name!r} is defined twice, by {plugin.origin} and by {local.origin}; rename one"
        )
    if local is None:
        raise unknown(GROUPS[group], spec.name, names(group), f"see 'prunebench list {group}'")
    return local, spec


def check(group: str, text: str | Spec) -> str:
    """The canonical spec string; imports the plugin only to check parameters. UsageError as in `get`."""
    spec = Spec.parse(text, GROUPS[group])
    if spec.name not in names(group):
        raise unknown(GROUPS[group], spec.name, names(group), f"see 'prunebench list {group}'")
    if spec.params or (spec.args and group != "datasets"):  # a dataset's path costs no import before it is loaded
        check_params(*get(group, spec))
    return spec.text


def check_params(plugin: Plugin, spec: Spec) -> None:
    """UsageError if the spec gives a value or a parameter that the plugin's signature doesn't take."""
    if not spec.params and not spec.args:
        return
    parameters = inspect.signature(plugin.function).parameters
    # Only a dataset has values by position: f(root, *values, **params).
    takes = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values()) - 1 if plugin.group == "datasets" else 0
    if len(spec.args) > takes and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        raise UsageError(
            f"{GROUPS[plugin.group]} {plugin.name!r} takes no value {spec.args[takes]!r}; "
            "parameters are written :key=value, for example lp:p=3"
        )
    known = defaults(plugin)
    shared = SHARED.get(plugin.group, ())
    for key in shared:
        own_sparsity(plugin, spec, key)
    known = {**known, **dict.fromkeys(shared)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key, _ in spec.params:
            if key not in known:
                raise unknown(f"parameter of {GROUPS[plugin.group]} {plugin.name!r}:", key, known)
    for key, value in spec.params:
        remedy = _wrong_kind(value, known.get(key))
        if remedy:
            raise UsageError(f"{GROUPS[plugin.group]} {plugin.name!r}: {spec.text!r} can't be used; {remedy}")
    if plugin.check is not None:
        _ask(plugin.check, plugin, spec, {k: v for k, v in {**known, **dict(spec.params)}.items() if k not in shared})


def defaults(plugin: Plugin) -> dict[str, Any]:
    """The plugin's parameters with their defaults."""
    parameters = inspect.signature(plugin.function).parameters
    return {n: p.default for n, p in parameters.items() if p.default is not p.empty}


def own_sparsity(plugin: Plugin, spec: Spec, key: str) -> float | None:
    """What a shared parameter such as `first=dense` asks for: a sparsity, 0 for dense; None where it isn't given."""
    value = dict(spec.params).get(key)
    if value == "dense":
        return 0.0
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1):
        return value
    raise UsageError(
        f"{GROUPS[plugin.group]} {plugin.name!r}: {spec.text!r} can't be used; "
        f"give {key}=dense, or a sparsity in [0, 1) such as {key}=0.5"
    )


def _wrong_kind(value: Any, default: Any) -> str | None:
    # A number where the default is one; NaN is none.
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "give true or false"
    if not isinstance(default, (int, float)):
        return None
    return "give a number" if isinstance(value, (str, bool)) or value != value else None


def _ask(check: Callable[..., object], plugin: Plugin, spec: Spec, params: Mapping[str, Any]) -> None:
    kind = GROUPS[plugin.group]
    try:
        check(**params)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{kind} {plugin.name!r}: {spec.text!r} can't be used; {error}") from None
    except Exception as error:
        raise PluginError(f"{kind} {plugin.name!r}: checking {spec.text!r} raised {reason(error)}") from error


def fingerprint(group: str, text: str | Spec) -> str | None:
    """None for a built-in; else a hash of the plugin module's source, so that an edited plugin is a new one."""
    if Spec.parse(text).name not in names(group):
        return None
    plugin, _ = get(group, text)
    if plugin.builtin:
        return None
    try:
        source = inspect.getsource(inspect.getmodule(plugin.function) or plugin.function)
    except (OSError, TypeError):
        source = plugin.origin
    return hashlib.sha256(source.encode()).hexdigest()[:16]
