"""Where a plan's values lie: shared memory, halos, phases, one arena."""

from __future__ import annotations

from prunebench.engine.arena import place
from prunebench.engine.layout import LANES
from prunebench.engine.planner import Planner
from prunebench.engine.steps import Step, Value


def images_of(step: Step) -> int:
    """Images of a group of the step."""
    layout = step.out.layout or step.inputs[0].layout
    if step.kind == "sum":
        layout = step.inputs[0].layout
    assert layout is not None
    return layout.images * layout.stack


class Memory:
    """Where a value that owns memory lies, in floats and lane vectors."""

    def __init__(self, root: Value, family: list[Value]):
        self.layout = root.layout
        c = root.shape[0]
        assert root.layout is not None
        if root.layout.vector:
            self.pads, self.rows, self.cols, self.row = [0, 0, 0, 0], 1, 1, 0
            self.size = -(-c // LANES) * LANES
        else:
            self.pads = [max(v.pads[i] for v in family) for i in range(4)]
            self.rows = root.layout.rh + self.pads[0] + self.pads[1]
            self.cols = root.layout.rw * root.layout.stack + self.pads[2] + self.pads[3]
            self.row = c * self.cols
            while self.rows > 1 and not 3 <= self.row % 16 <= 13:  # rows of a tile in different sets of the L1 cache
                self.row += 1
            self.size = ((self.rows - 1) * self.row + c * self.cols) * LANES
        self.off = self.group = 0
        self.groups, self.local = 1, 1

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the map's first pixel."""
        return self.pads[0], self.pads[2]


class Schedule:
    """The steps of a plan in phases, and the memory of every value that owns some."""

    def __init__(self, plan: Planner):
        self.chunk, self.steps = plan.chunk, plan.steps
        self._share_memory()
        self._halos()
        self._phases()
        self._memory()

    def _share_memory(self) -> None:
        """Copies into a concatenation become the place where the part is made; maps work in place."""
        made = {step.out: step for step in self.steps}
        last: dict[Value, int] = {}
        for i, step in enumerate(self.steps):
            for v in step.inputs:
                last[v] = i
        kept = []
        held = {v for v in made if v.parent}
        for i, step in enumerate(self.steps):
            source = step.inputs[0]
            alone = source.parent is None and source in made and source.layout == step.out.layout
            alone = alone and made[source].kind in ("conv", "dot", "window", "map", "sum") and source not in held
            pads_agree = not any(source.pads) or not any(step.out.root.pads) or source.fill == step.out.root.fill
            if step.attrs.get("copy") and step.kind == "map" and alone and pads_agree and not step.out.layout.vector:  # type: ignore[union-attr]
                source.parent, source.first = step.out.parent, step.out.first
                continue
            in_place = (
                step.kind == "map"
                and not step.attrs.get("copy")
                and alone
                and last[source] == i
                and not any(source.pads)
            )
            if in_place and step.out.parent is None and step.out not in held:
                source.parent, source.first = step.out, 0
                held.add(step.out)
            kept.append(step)
            self._add_in_place(step, i, last, made, held)
        self.steps = kept

    def _add_in_place(
        self, step: Step, i: int, last: dict[Value, int], made: dict[Value, Step], held: set[Value]
    ) -> None:
        """A residual that nobody reads any more: the convolution adds to it where it lies."""
        if step.kind != "conv" or len(step.inputs) < 2 or step.out.parent is not None or step.out in held:
            return
        if any(step.out in s.inputs and images_of(s) != images_of(step) for s in self.steps):
            return  # it outlives its phase, so it lies apart for every group: what comes before it shouldn't
        source, other = step.inputs
        unread = all(last.get(v, i) <= i for v in last if v.root is other)
        free = other in made and other.parent is None and unread and last[other] == i
        if free and other.layout == step.out.layout and other.root is not source.root:
            other.parent, other.first = step.out, 0
            held.add(step.out)

    def _halos(self) -> None:
        """A halo step after the last step that writes to a value whose surroundings are read."""
        written: dict[Value, int] = {}
        for i, step in enumerate(self.steps):
            v: Value | None = step.out
            while v is not None:
                written[v] = i
                v = v.parent
        whole = {step.out for step in self.steps if step.attrs.get("whole")}
        after: dict[int, list[Value]] = {}
        for v, i in written.items():
            if any(v.pads) and v not in whole:
                after.setdefault(i, []).append(v)
        seen = set(written)
        for step in self.steps:  # a part of a value, read with a halo but written as a whole
            for v in step.inputs:
                if v not in seen and v.layout is not None and any(v.pads) and v.parent is not None:
                    seen.add(v)
                    top = v.parent
                    while top not in written and top.parent is not None:
                        top = top.parent
                    after.setdefault(written[top], []).append(v)
        steps = []
        for i, step in enumerate(self.steps):
            steps.append(step)
            steps += [Step("halo", None, [v], v) for v in after.get(i, [])]
        self.steps = steps

    def _phases(self) -> None:
        self.phases: list[tuple[int, int, int]] = []
        first = 0
        for i in range(1, len(self.steps) + 1):
            if i == len(self.steps) or images_of(self.steps[i]) != images_of(self.steps[first]):
                self.phases.append((first, i, self.chunk // images_of(self.steps[first])))
                first = i

    def _memory(self) -> None:
        family: dict[Value, list[Value]] = {}
        used: dict[Value, list[int]] = {}
        for i, step in enumerate(self.steps):
            for v in [*step.inputs, step.out]:
                if v.layout is not None:
                    members = family.setdefault(v.root, [])
                    if v not in members:
                        members.append(v)
                    used.setdefault(v.root, []).append(i)
        phase_of = [f for f, (a, b, _) in enumerate(self.phases) for _ in range(a, b)]
        self.where = {root: Memory(root, members) for root, members in family.items()}
        shared, local = [], []
        for root, memory in self.where.items():
            lo, hi = used[root][0], used[root][-1]
            if phase_of[lo] == phase_of[hi]:
                local.append((memory, lo, hi))
            else:
                assert root.layout is not None
                memory.local, memory.groups = 0, self.chunk // (root.layout.images * root.layout.stack)
                memory.group = memory.size
                shared.append((memory, self.phases[phase_of[lo]][0], self.phases[phase_of[hi]][1] - 1))
        self.shared = place([(m, m.size * m.groups, lo, hi) for m, lo, hi in shared])
        self.slot = place([(m, m.size, lo, hi) for m, lo, hi in local])
