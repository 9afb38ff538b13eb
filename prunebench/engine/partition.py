"""Cuts a traced model into parts that run natively and what torch runs between them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunebench.engine.importer import Importer, Shapes
from prunebench.engine.ir import Op
from prunebench.engine.layout import LANES, best_layout
from prunebench.engine.products import conv_axes, product_op
from prunebench.engine.purify import written
from prunebench.engine.segment import Segment
from prunebench.engine.weights import MOST

# containers whose children may be replaced when the model can't be traced: others may read their children's weights
_PLAIN = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LEFT_TO_TORCH = "prunebench_left_to_torch"  # attribute of a layer that is too large for native offsets
Chooser = Callable[[nn.Module], bool]


def hooked(module: nn.Module) -> bool:
    """Whether replacing the module would lose somebody's hook."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def eligible(module: nn.Module) -> bool:
    """A plain Conv2d or Linear (a subclass may compute something else) with float32 weights and no hooks."""
    return type(module) in (nn.Conv2d, nn.Linear) and module.weight.dtype == torch.float32 and not hooked(module)


class _Shapes(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.found: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.found[n] = result.shape
        return result


def shapes_of(traced: fx.GraphModule, example: torch.Tensor) -> Shapes:
    """Shape of every float32 tensor in the graph, by running the example through it."""
    interpreter = _Shapes(traced)
    interpreter.run(example)
    return interpreter.found


def fold_norms(traced: fx.GraphModule) -> None:
    """Batch norms into the convolution before them."""
    modules = dict(traced.named_modules())
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            calls[name] = calls.get(name, 0) + 1
    read = [str(n.target) for n in traced.graph.nodes if n.op == "get_attr"]
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if node.args else None
        if (
            type(norm) is not nn.BatchNorm2d
            or hooked(norm)
            or norm.running_var is None
            or not isinstance(before, fx.Node)
        ):
            continue
        name = str(before.target)
        conv = modules.get(name) if before.op == "call_module" and len(before.users) == 1 else None
        if conv is None or not eligible(conv) or type(conv) is not nn.Conv2d or calls[name] != 1:
            continue
        if any(r.startswith((name + ".", str(node.target) + ".")) for r in read) or calls[str(node.target)] != 1:
            continue
        fused = fuse_conv_bn_eval(conv, norm)
        parent, _, last = name.rpartition(".")
        setattr(traced.get_submodule(parent), last, fused)
        modules[name] = fused
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()


def _needed(traced: fx.GraphModule, made: dict[fx.Node, Any]) -> set[fx.Node]:
    """The nodes that the output needs when recognised operations read what they say, and nothing on the way to it."""
    left = [n for n in traced.graph.nodes if n.op == "output" or n.is_impure()]
    found = set(left)
    while left:
        node = left.pop()
        for n in made[node][0] if node in made else node.all_input_nodes:
            if n not in found:
                found.add(n)
                left.append(n)
    return found


def _runs(nodes: list[fx.Node], made: dict[fx.Node, Any], given: set[fx.Node], free: bool) -> list[list[fx.Node]]:
    """The nodes in runs, all native or all torch's; free: each run as long as its inputs allow, else in their order."""
    native = set(made)
    runs: list[list[fx.Node]] = []
    if not free:
        for n in nodes:
            if runs and (runs[-1][0] in native) == (n in native):
                runs[-1].append(n)
            else:
                runs.append([n])
        return runs
    left, done, want = list(nodes), set(given), True
    while left:
        run, rest = [], []
        for n in left:
            reads = made[n][0] if n in native else n.all_input_nodes
            if (n in native) == want and all(i in done for i in reads):
                run.append(n)
                done.add(n)
            else:
                rest.append(n)
        if run:
            runs.append(run)
        left, want = rest, not want
    return runs


def _reorder(traced: fx.GraphModule, runs: list[list[fx.Node]]) -> None:
    last = next(n for n in traced.graph.nodes if n.op == "output")
    for run in runs:
        for node in run:
            last.prepend(node)


def _ends(run: list[fx.Node], made: dict[fx.Node, Any], needed: set[fx.Node]) -> tuple[list, list]:
    """The nodes that a run reads, and those of its nodes that are read outside."""
    inside = set(run)
    sources = list(dict.fromkeys(n for node in run for n in made[node][0] if n not in inside))
    return sources, [n for n in run if any(u not in inside and u in needed for u in n.users)]


def _segment(run: list[fx.Node], made: dict[fx.Node, Any], ends: tuple[list, list], shapes: Shapes,
             threads: int) -> tuple[Segment, int]:  # fmt: skip
    """The run as a segment, and how many products are in it."""
    inputs = [Op("input", [], n.name, {}, len(shapes[n]) == 2) for n in ends[0]]
    ops: dict[fx.Node, Op] = dict(zip(ends[0], inputs, strict=True))
    order: list[Op] = []
    for node in run:
        reads, build = made[node]
        ops[node] = build([ops[n] for n in reads])
        order.append(ops[node])
    order = [*inputs, *(op for op in dict.fromkeys(order) if op not in inputs)]
    count = sum(op.kind in ("conv", "linear") for op in order)
    return Segment(order, [ops[n] for n in ends[1]], threads), count


def _shorten(traced: fx.GraphModule, made: dict[fx.Node, Any], needed: set[fx.Node]) -> None:
    """Takes the nodes out that nothing needs once recognised operations read what they say."""
    for node, (reads, _) in made.items():
        if set(reads) != set(node.all_input_nodes):
            node.args, node.kwargs = tuple(reads), {}
    for node in reversed(list(traced.graph.nodes)):
        if node not in needed and node.op != "placeholder":
            traced.graph.erase_node(node)


def _reachable(module: nn.Module, shapes: Shapes, node: fx.Node) -> bool:
    """Whether 16-bit offsets reach over the input of a convolution, in regions of one image."""
    source = node.args[0]
    if (
        not isinstance(module, nn.Conv2d)
        or not isinstance(source, fx.Node)
        or source not in shapes
        or node not in shapes
    ):
        return True
    y, x = conv_axes(module)
    layout = best_layout(1, int(shapes[node][2]), int(shapes[node][3]))
    cols = layout.rw * x.stride + x.reach - 1
    row = int(shapes[source][1]) * cols + LANES  # of all channels, and what keeps rows apart in the cache
    reachable = y.dilation * (y.taps - 1) * row + cols <= MOST
    if not reachable:
        setattr(module, LEFT_TO_TORCH, True)
    return reachable


def partition(traced: fx.GraphModule, example: torch.Tensor, product: Chooser, threads: int, free: bool) -> int:
    """Replaces the runs of known operations by segments; returns how many products are in them.

    free: nothing in the graph works in place, so operations may move past each other.
    """
    shapes = shapes_of(traced, example)
    importer = Importer(traced, shapes, lambda node, m: product(m) and eligible(m) and _reachable(m, shapes, node))
    given = {n for n in traced.graph.nodes if n.op in ("placeholder", "get_attr")}
    nodes = [n for n in traced.graph.nodes if n not in given and n.op != "output"]
    made = {n: found for n in nodes if (found := importer.recognise(n)) is not None}
    if not free:  # a segment's results are tensors of their own, never views of each other
        kept = written(traced)
        made = {n: found for n, found in made.items() if n not in kept or not kept & set(found[0])}

    def becomes_segment(run: list[fx.Node]) -> bool:
        product = any(n.op == "call_module" and eligible(importer.modules[str(n.target)]) for n in run)
        sources, results = _ends(run, made, needed)
        return run[0] in made and product and len(sources) <= 16 and 0 < len(results) <= 16

    while True:
        # what only leads from one operation to the next, like the tuple of a chunk, isn't needed
        needed = _needed(traced, made) if free else set(traced.graph.nodes)
        runs = _runs([n for n in nodes if n in needed], made, given, free)
        other = [n for run in runs if run[0] in made and not becomes_segment(run) for n in run]
        back = {n for n in other if set(made[n][0]) != set(n.all_input_nodes)} if free else set()
        if not back:
            break
        made = {n: found for n, found in made.items() if n not in back}
    if free:
        _shorten(traced, made, needed)
    _reorder(traced, runs)
    renamed: dict[fx.Node, fx.Node] = {}
    count = number = 0
    for run in runs:
        if run[0] not in made or not becomes_segment(run):
            continue
        sources, results = ends = _ends(run, made, needed)
        segment, products = _segment(run, made, ends, shapes, threads)
        name = f"prunebench_segment_{number}"
        traced.add_submodule(name, segment)
        with traced.graph.inserting_after(run[-1]):
            call = traced.graph.call_module(name, tuple(renamed.get(n, n) for n in sources))
        after = call
        for i, node in enumerate(results):
            new = call
            if len(results) > 1:
                with traced.graph.inserting_after(after):
                    new = after = traced.graph.call_function(operator.getitem, (call, i))
            renamed[node] = new
            for user in [u for u in node.users if u not in set(run)]:
                user.replace_input_with(node, new)
        for node in reversed(run):
            traced.graph.erase_node(node)
        number, count = number + 1, count + products
    if free:  # torch takes a write like x.zero_() for dead code
        traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return count


class Product(nn.Module):
    """A sparse Conv2d or Linear on its own: any number of dimensions in front that torch's module takes."""

    def __init__(self, module: nn.Module, threads: int):
        super().__init__()
        self.conv = isinstance(module, nn.Conv2d)
        x = Op("input", [], flat=not self.conv)
        op = product_op(module, [x], "")
        self.features, self.rows, self.segment = op.channels, op.weights.rows, Segment([x, op], [op], threads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """act(W x + bias), float32, shapes as the module's it stands for."""
        if self.conv:
            return self.segment(x.unsqueeze(0)).squeeze(0) if x.dim() == 3 else self.segment(x)
        if x.shape[-1] != self.features:
            raise ValueError(f"expected {self.features} input features, got {x.shape[-1]}")
        if x.dim() == 2:
            return self.segment(x)
        return self.segment(x.reshape(-1, self.features)).reshape(*x.shape[:-1], self.rows)


def swap_products(model: nn.Module, product: Chooser, threads: int) -> int:
    """Products on their own in place of modules, wherever torch still runs them; returns how many."""
    made: dict[int, Product] = {}
    for parent in list(model.modules()):
        plain = isinstance(parent, _PLAIN) or type(parent) is nn.Module  # as a traced model's containers are
        if type(parent).__module__.startswith("torch.nn.") and not plain:
            continue
        for name, child in list(parent.named_children()):
            wanted = eligible(child) and product(child) and not getattr(child, LEFT_TO_TORCH, False)
            if id(child) not in made and wanted:
                made[id(child)] = Product(child, threads)
            if id(child) in made:
                setattr(parent, name, made[id(child)])
    return len(made)
