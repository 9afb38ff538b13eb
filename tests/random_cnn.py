"""Random convolutional networks, one per seed, of the parts that real ones are made of: an engine's touchstone.

python tests/random_cnn.py 17    prints the network of seed 17 and how far the csr engine is from float64
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPARSITIES = (0.0, 0.7, 0.9, 0.98)
BATCHES = (1, 2, 3, 5, 16, 17, 33)
MOST = 24_000  # floats of one image's activation


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, name: str, f: Callable[[Tensor], Tensor]):
        super().__init__()
        self.name, self.f = name, f

    def forward(self, x):
        return self.f(x)

    def extra_repr(self) -> str:
        return self.name


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: Apply("F.relu", F.relu),
    "x.relu()": lambda: Apply("x.relu()", lambda x: x.relu()),
    "torch.relu": lambda: Apply("torch.relu", torch.relu),
    "clamp": lambda: Apply("x.clamp(min=0)", lambda x: x.clamp(min=0)),
    "ReLU6": nn.ReLU6,
    "F.relu6": lambda: Apply("F.relu6", F.relu6),
    "Hardtanh": lambda: nn.Hardtanh(-0.5, 0.75),
    "Hardswish": nn.Hardswish,
    "F.hardswish": lambda: Apply("F.hardswish", F.hardswish),
    "Hardsigmoid": nn.Hardsigmoid,
    "SiLU": nn.SiLU,
    "x * sigmoid(x)": lambda: Apply("x * sigmoid(x)", lambda x: x * x.sigmoid()),
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "GELU": nn.GELU,
    "ELU": nn.ELU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "LeakyReLU negative": lambda: nn.LeakyReLU(-0.3),
    "F.leaky_relu": lambda: Apply("F.leaky_relu", lambda x: F.leaky_relu(x, 0.2)),
    "PReLU": nn.PReLU,
    "Identity": nn.Identity,
    "Dropout": nn.Dropout,
}


class Residual(nn.Module):
    """The sum of two ways, written in one of the ways people write it."""

    FORMS = ("a + b", "b + a", "a += b", "b += a", "torch.add", "add_", "alpha", "same twice")

    def __init__(self, body: nn.Module, short: nn.Module, after: nn.Module, form: str):
        super().__init__()
        self.body, self.short, self.after, self.form = body, short, after, form

    def forward(self, x):
        if self.form in ("b + a", "b += a"):
            b, a = self.short(x), self.body(x)
        else:
            a, b = self.body(x), self.short(x)
        if self.form in ("a + b", "b + a"):
            y = a + b
        elif self.form == "a += b":
            a = a + 0.0  # the body may be the identity, whose sum in place would change x
            a += b
            y = a
        elif self.form == "b += a":
            b = b * 1.0
            b += a
            y = b
        elif self.form == "torch.add":
            y = torch.add(a, b)
        elif self.form == "add_":
            y = (a * 1.0).add_(b)
        elif self.form == "alpha":
            y = torch.add(a, b, alpha=0.5)
        else:
            y = a + b + a
        return self.after(y)

    def extra_repr(self) -> str:
        return self.form


class Concat(nn.Module):
    """Ways side by side."""

    def __init__(self, *ways: nn.Module):
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x):
        return torch.cat([way(x) for way in self.ways], 1)


class Dense(nn.Module):
    """A dense block: every layer sees all that came before."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return torch.cat(seen, 1)


class Shuffle(nn.Module):
    """Channel shuffle."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        n, c, h, w = x.size()
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous()
        return x.reshape(n, c, h, w)


class SqueezeExcite(nn.Module):
    """Channels scaled by what their means say."""

    def __init__(self, mean: str, squeeze: nn.Module, act: nn.Module, excite: nn.Module, gate: nn.Module, flip: bool):
        super().__init__()
        self.mean, self.flip = mean, flip
        self.squeeze, self.act, self.excite, self.gate = squeeze, act, excite, gate
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        if self.mean == "mean":
            s = x.mean((2, 3), keepdim=True)
        elif self.mean == "pool":
            s = self.pool(x)
        elif self.mean == "function":
            s = F.adaptive_avg_pool2d(x, (1, 1))
        else:  # linear layers instead of 1 x 1 convolutions
            s = x.mean(dim=(-2, -1))
        s = self.gate(self.excite(self.act(self.squeeze(s))))
        if self.mean == "linear":
            s = s[:, :, None, None]
        return s * x if self.flip else x * s


class UNet(nn.Module):
    """Down, work, up again to the input's size, beside the input."""

    def __init__(self, down: nn.Module, work: nn.Module, up: str, size: tuple[int, int]):
        super().__init__()
        self.down, self.work, self.up, self.size = down, work, up, size

    def forward(self, x):
        y = self.work(self.down(x))
        if self.up == "bilinear":
            y = F.interpolate(y, size=self.size, mode="bilinear", align_corners=False)
        else:
            y = F.interpolate(y, size=self.size, mode="nearest")
        return torch.cat([y, x], 1)

    def extra_repr(self) -> str:
        return f"{self.up} to {self.size}"


class Split(nn.Module):
    """Some channels go through a way, some past it."""

    def __init__(self, how: str, sizes: tuple[int, int], way: nn.Module):
        super().__init__()
        self.how, self.sizes, self.way = how, sizes, way

    def forward(self, x):
        if self.how == "chunk":
            a, b = x.chunk(2, dim=1)
        elif self.how == "split":
            a, b = torch.split(x, list(self.sizes), dim=1)
        else:
            a, b = x[:, : self.sizes[0]], x[:, self.sizes[0] :]
        return torch.cat([a, self.way(b)], 1) if self.how != "slice" else torch.cat([self.way(b), a], 1)

    def extra_repr(self) -> str:
        return f"{self.how} {self.sizes}"


class Twice(nn.Module):
    """One layer, and perhaps one norm, called twice."""

    def __init__(self, layer: nn.Module, norm: nn.Module, act: nn.Module, form: str):
        super().__init__()
        self.layer, self.norm, self.act, self.form = layer, norm, act, form

    def forward(self, x):
        y = self.act(self.norm(self.layer(x)))
        if self.form == "chain":
            return self.layer(y)
        if self.form == "sum":
            return F.relu(x + self.norm(self.layer(y)))
        return F.relu(self.layer(y) + x)  # "sum without norm"

    def extra_repr(self) -> str:
        return self.form


class Tap(nn.Module):
    """Values in the middle of what could be one step (convolution, norm, ReLU, sum) that somebody else reads too."""

    FORMS = (
        "before relu", "relu then raw", "before norm", "before sum", "after sum", "other way round", "in place",
        "alias",
    )  # fmt: skip

    def __init__(self, conv: nn.Module, norm: nn.Module, second: nn.Module, form: str):
        super().__init__()
        self.conv, self.norm, self.second, self.form = conv, norm, second, form

    def forward(self, x):
        y = self.conv(x)
        if self.form == "before norm":
            return torch.cat([self.norm(y), y], 1)
        z = self.norm(y)
        if self.form == "before relu":
            return torch.cat([z, F.relu(z)], 1)
        if self.form == "relu then raw":
            return F.relu(z) - z
        w = self.second(x)
        if self.form == "before sum":
            return torch.cat([F.relu(z + w), w], 1)
        if self.form == "after sum":
            total = w + z
            return torch.cat([F.relu(total), total], 1)
        if self.form == "other way round":
            return torch.cat([z, F.relu(w + z)], 1)
        kept = z[:, :1] if self.form == "alias" else z + 1.0  # the view sees the sum below
        z += w
        return torch.cat([F.relu(z), kept], 1)

    def extra_repr(self) -> str:
        return self.form


class Functional(nn.Module):
    """Parameters that a module owns and the forward reads itself."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x):
        y = F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        n = self.norm
        y = F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, False, 0.0, n.eps)
        return torch.cat([F.relu(y), self.conv(x).relu()], 1)


class Gate(nn.Module):
    """Two ways multiplied."""

    def __init__(self, way: nn.Module, gate: nn.Module):
        super().__init__()
        self.way, self.gate = way, gate

    def forward(self, x):
        return self.way(x) * torch.sigmoid(self.gate(x))


class Several(nn.Module):
    """Several outputs of one trunk."""

    def __init__(self, trunk: nn.Module, heads: list[nn.Module], form: str):
        super().__init__()
        self.trunk, self.heads, self.form = trunk, nn.ModuleList(heads), form

    def forward(self, x):
        y = self.trunk(x)
        out = [head(y) for head in self.heads]
        if self.form == "tuple":
            return tuple(out)
        return {"first": out[0], "rest": out[1:]}


class Builder:
    """Draws one network from a seed. `used` names every feature it drew."""

    def __init__(self, seed: int):
        self.r = random.Random(seed)
        self.seed = seed
        self.used: set[str] = set()
        r = self.r
        self.sparsity = SPARSITIES[seed % len(SPARSITIES)]
        self.used.add(f"sparsity {self.sparsity}")
        self.x = torch.randn(2, *self.image(), generator=torch.Generator().manual_seed(seed))
        self.example = self.x[:1]
        blocks: list[nn.Module] = []
        kinds = [
            self.conv_unit, self.conv_unit, self.conv_unit, self.residual, self.residual, self.concat, self.dense_block,
            self.shuffle, self.squeeze_excite, self.max_pool, self.avg_pool, self.adaptive_pool, self.unet, self.split,
            self.twice, self.gate, self.tap, self.tap, self.functional, self.depthwise_separable, self.norm_first,
            self.view, self.transposed,
        ]  # fmt: skip
        plain_start, length = r.random() < 0.8, r.randint(2, 6)
        while len(blocks) < length:
            block = self.conv_unit() if plain_start and not blocks else r.choice(kinds)()
            if self.step(block):
                blocks.append(block)
        blocks.append(self.head())
        self.model = nn.Sequential(*blocks)
        if r.random() < 0.1:
            self.model = self.several(nn.Sequential(*blocks[:-1]))
        for attempt in range(4):
            self.fill(100 * seed + attempt)
            if self.input_matters():
                break

    def image(self) -> tuple[int, int, int]:
        r = self.r
        sizes = [5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 24, 28, 31, 32, 33]
        h = r.choice(sizes)
        w = h if r.random() < 0.6 else r.choice(sizes)
        self.used.add("odd size" if h % 2 else "even size")
        if h != w:
            self.used.add("oblong")
        return r.choice([1, 2, 3, 3, 3, 4, 7, 16, 24]), h, w

    def pick(self, feature: str, *choices):
        """One of the choices, written down as used."""
        choice = self.r.choice(choices)
        self.used.add(f"{feature} {choice}")
        return choice

    def step(self, block: nn.Module) -> bool:
        """Runs the block on the probe; False (and nothing has happened) where its result is empty or too large."""
        block.eval()
        with torch.no_grad():
            try:
                y = block(self.x.clone())
            except (RuntimeError, ValueError):  # kernel larger than the image, and the like
                return False
        if y.dim() != 4 or min(y.shape) < 1 or y[0].numel() > MOST or y.shape[1] > 200:
            return False
        self.x = y.detach()
        return True

    @property
    def c(self) -> int:
        return self.x.shape[1]

    def width(self) -> int:
        return self.r.choice([1, 3, 4, 6, 8, 10, 12, 13, 16, 17, 24, 32, 40, 64])

    def act(self) -> nn.Module:
        return ACTIVATIONS[self.pick("activation", *ACTIVATIONS)]()

    def norm(self, c: int) -> nn.Module:
        kind = self.pick("norm", "none", "BatchNorm2d", "BatchNorm2d", "BatchNorm2d", "plain BatchNorm2d", "GroupNorm")
        if kind == "none":
            return nn.Identity()
        if kind == "GroupNorm":
            return nn.GroupNorm(1, c)
        return nn.BatchNorm2d(c, affine=kind == "BatchNorm2d")

    def conv(self, cin: int, cout: int | None = None, same: bool = False, stride: int | None = None) -> nn.Module:
        """A convolution; same=True keeps the image's size."""
        r = self.r
        cout = cout or self.width()
        groups = 1
        if r.random() < 0.3:
            divisors = [g for g in range(2, cin + 1) if cin % g == 0]
            if divisors:
                groups = r.choice(divisors)
                cout = -(-cout // groups) * groups
                self.used.add("groups" if groups < cin else "depthwise")
        kernel = self.pick("kernel", 1, 1, 3, 3, 3, 3, 5, 7, (1, 3), (3, 1), (5, 3), 2, 4)
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        dilation = (1, 1) if r.random() < 0.8 else (self.pick("dilation", 2, 3), r.choice([1, 2]))
        bias = r.random() < 0.6
        if same:
            self.used.add("padding same")
            return nn.Conv2d(cin, cout, kernel, 1, "same", dilation, groups, bias, self.padding_mode())
        stride = stride or self.pick("stride", 1, 1, 1, 2, 2, 3)
        strides = (stride, stride) if r.random() < 0.85 else (stride, r.choice([1, 2, 3]))
        half = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
        padding = self.pick("padding", "half", "half", "half", "valid", "asymmetric", "module", "wide", "uneven")
        if padding in ("half", "valid", "wide", "uneven"):
            given: str | tuple[int, int] = {
                "half": half, "valid": "valid", "wide": (half[0] + 1, half[1] + 2), "uneven": (half[0], 0),
            }[padding]  # fmt: skip
            return nn.Conv2d(cin, cout, kernel, strides, given, dilation, groups, bias, self.padding_mode())
        sides = [r.randint(0, half[1] + 1), r.randint(0, half[1] + 2), r.randint(0, half[0] + 2), r.randint(0, half[0])]
        if padding == "module":
            pad = r.choice([nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d])(tuple(sides))
        else:
            value = self.pick("pad value", 0.0, 0.0, 0.0, 0.5)
            pad = Apply(f"F.pad(x, {sides}, value={value})", lambda x: F.pad(x, sides, value=value))
        return nn.Sequential(pad, nn.Conv2d(cin, cout, kernel, strides, 0, dilation, groups, bias))

    def padding_mode(self) -> str:
        if self.r.random() < 0.9:
            return "zeros"
        return self.pick("padding mode", "reflect", "replicate", "circular")

    def conv_unit(self) -> nn.Module:
        conv = self.conv(self.c)
        return nn.Sequential(conv, self.norm(self.channels(conv)), self.act())

    @staticmethod
    def channels(conv: nn.Module) -> int:
        """Output channels of the last convolution inside."""
        return [m for m in conv.modules() if isinstance(m, nn.Conv2d)][-1].out_channels

    def way(self, cin: int, cout: int | None = None) -> nn.Module:
        """One to three convolutions that keep the image's size, the last without groups where `cout` is fixed."""
        layers: list[nn.Module] = []
        for _ in range(self.r.randint(0, 2)):
            conv = self.conv(cin, same=True)
            cin = self.channels(conv)
            layers += [conv, self.norm(cin), self.act()]
        last = nn.Conv2d(cin, cout or self.width(), self.r.choice([1, 3]), padding="same", bias=self.r.random() < 0.5)
        return nn.Sequential(*layers, last, self.norm(last.out_channels))

    def residual(self) -> nn.Module:
        self.used.add("residual")
        form = self.pick("sum", *Residual.FORMS)
        after = self.act()
        if self.r.random() < 0.5:
            return Residual(self.way(self.c, self.c), nn.Identity(), after, form)
        stride, cout = self.pick("residual stride", 1, 2), self.width()
        body = [self.way(self.c), self.act()]
        cin = self.channels(body[0])
        body.append(nn.Conv2d(cin, cout, 3, stride, 1, bias=False))
        if self.r.random() < 0.3:
            short: nn.Module = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True), nn.Conv2d(self.c, cout, 1, bias=False)
            )
        else:
            short = nn.Conv2d(self.c, cout, 1, stride, bias=False)
        return Residual(
            nn.Sequential(*body, self.norm(cout)), nn.Sequential(short, self.norm(cout)), after, form
        )  # fmt: skip

    def concat(self) -> nn.Module:
        self.used.add("concat")
        ways: list[nn.Module] = [nn.Sequential(self.way(self.c), self.act()) for _ in range(self.r.randint(1, 3))]
        if self.r.random() < 0.5:
            ways.insert(self.r.randint(0, len(ways)), nn.Identity())
        if self.r.random() < 0.3:
            ways.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(self.c, self.width(), 1), self.act()))
        return Concat(*ways)

    def dense_block(self) -> nn.Module:
        self.used.add("dense block")
        growth, layers, c = self.r.choice([4, 8, 12]), [], self.c
        for _ in range(self.r.randint(2, 3)):
            layers.append(
                nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(self.r.random() < 0.5), nn.Conv2d(c, growth, 3, padding=1))
            )
            c += growth
        return Dense(*layers)

    def shuffle(self) -> nn.Module:
        groups = [g for g in (2, 3, 4) if self.c % g == 0]
        if not groups:
            return self.conv_unit()
        self.used.add("shuffle")
        return Shuffle(self.r.choice(groups))

    def squeeze_excite(self) -> nn.Module:
        mean = self.pick("squeeze by", "mean", "pool", "function", "linear")
        inner = max(1, self.c // 4) if self.r.random() < 0.7 else self.c * 2
        gate = self.pick("gate", nn.Sigmoid, nn.Hardsigmoid, nn.Tanh)()
        if mean == "linear":
            pair: list[nn.Module] = [nn.Linear(self.c, inner), nn.Linear(inner, self.c)]
        else:
            pair = [nn.Conv2d(self.c, inner, 1), nn.Conv2d(inner, self.c, 1)]
        return SqueezeExcite(mean, pair[0], self.act(), pair[1], gate, self.r.random() < 0.5)

    def max_pool(self) -> nn.Module:
        self.used.add("max pool")
        k, s = self.r.choice([2, 2, 3, 3, (2, 3), 5]), self.r.choice([None, 1, 2, 2, 3])
        small = k if isinstance(k, int) else min(k)
        padding = self.r.randint(0, small // 2)
        ceil = self.r.random() < 0.4
        dilation = 2 if self.r.random() < 0.1 else 1
        self.used |= {
            f"max pool {w}" for w, on in (("padding", padding), ("ceil", ceil), ("dilation", dilation > 1)) if on
        }
        if self.r.random() < 0.3:
            return Apply(
                f"F.max_pool2d(x, {k}, {s}, {padding}, {dilation}, {ceil})",
                lambda x: F.max_pool2d(x, k, s, padding, dilation, ceil),
            )
        return nn.MaxPool2d(k, s, padding, dilation, ceil_mode=ceil)

    def avg_pool(self) -> nn.Module:
        self.used.add("avg pool")
        k, s = self.r.choice([2, 3, 3, (3, 2)]), self.r.choice([None, 1, 2, 3])
        padding = self.r.randint(0, 1)
        ceil, count = self.r.random() < 0.4, self.r.random() < 0.5
        self.used |= {f"avg pool {w}" for w, on in (("padding", padding), ("ceil", ceil), ("count", count)) if on}
        divisor = self.r.choice([None, None, None, 5])
        return nn.AvgPool2d(k, s, padding, ceil, count, divisor)

    def adaptive_pool(self) -> nn.Module:
        size = self.r.choice([1, 2, 3, 5, (2, 3), (None, 4)])
        kind = self.pick("adaptive", nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
        return kind(size)

    def unet(self) -> nn.Module:
        h, w = self.x.shape[2:]
        if min(h, w) < 4:
            return self.conv_unit()
        up = self.pick("upsample", "nearest", "bilinear")
        if self.r.random() < 0.5:
            down: nn.Module = nn.MaxPool2d(2)
            c = self.c
        else:
            c = self.width()
            down = nn.Conv2d(self.c, c, 3, 2, 1)
        return UNet(down, nn.Sequential(self.way(c), self.act()), up, (int(h), int(w)))

    def split(self) -> nn.Module:
        if self.c < 2:
            return self.conv_unit()
        how = self.pick("split by", "chunk", "split", "slice")
        first = (self.c + 1) // 2 if how == "chunk" else self.r.randint(1, self.c - 1)
        sizes = (first, self.c - first)
        return Split(how, sizes, nn.Sequential(self.way(sizes[1]), self.act()))

    def twice(self) -> nn.Module:
        self.used.add("shared layer")
        form = self.pick("shared", "chain", "sum", "sum without norm")
        conv = nn.Conv2d(self.c, self.c, self.r.choice([1, 3]), padding="same")
        return Twice(conv, self.norm(self.c), self.act(), form)

    def tap(self) -> nn.Module:
        cout = self.width()
        conv, second = (nn.Conv2d(self.c, cout, 3, padding=1, bias=self.r.random() < 0.5) for _ in range(2))
        norm = self.r.choice([nn.BatchNorm2d(cout), nn.BatchNorm2d(cout), nn.Identity()])
        return Tap(conv, norm, second, self.pick("tap", *Tap.FORMS))

    def functional(self) -> nn.Module:
        self.used.add("functional")
        cout = self.width()
        return Functional(nn.Conv2d(self.c, cout, 3, padding=1), nn.BatchNorm2d(cout))

    def gate(self) -> nn.Module:
        self.used.add("gating")
        cout = self.width()
        return Gate(self.way(self.c, cout), self.way(self.c, self.r.choice([1, cout])))

    def depthwise_separable(self) -> nn.Module:
        self.used.add("depthwise separable")
        stride = self.r.choice([1, 1, 2])
        k = self.r.choice([3, 5])
        wide = self.c * self.r.choice([1, 2])
        return nn.Sequential(
            nn.Conv2d(self.c, wide, k, stride, k // 2, groups=self.c, bias=False), nn.BatchNorm2d(wide), self.act(),
            nn.Conv2d(wide, self.width(), 1), self.act(),
        )  # fmt: skip

    def norm_first(self) -> nn.Module:
        self.used.add("norm first")
        return nn.Sequential(nn.BatchNorm2d(self.c), self.act(), self.conv(self.c))

    def view(self) -> nn.Module:
        how = self.pick(
            "view", "transpose", "flip", "every second", "crop", "scale", "subtract", "roll", "channel softmax", "abs"
        )
        return Apply(
            how,
            {
                "transpose": lambda x: x.transpose(2, 3),
                "flip": lambda x: x.flip(3),
                "every second": lambda x: x[:, :, ::2, 1:],
                "crop": lambda x: x[..., 1:-1, :-1],
                "scale": lambda x: x * 1.5 + 0.25,
                "subtract": lambda x: 1 - x,
                "roll": lambda x: torch.roll(x, (1, 2), (2, 3)),
                "channel softmax": lambda x: F.softmax(x, 1) * 3,
                "abs": torch.abs,
            }[how],
        )

    def transposed(self) -> nn.Module:
        self.used.add("ConvTranspose2d")
        return nn.Sequential(nn.ConvTranspose2d(self.c, self.r.choice([4, 8]), self.r.choice([2, 3]), 2), self.act())

    def head(self) -> nn.Module:
        kind = self.pick("head", "mean", "pool", "flatten", "flatten", "map", "softmax", "log_softmax", "hidden")
        outputs = self.r.choice([2, 5, 10, 33] if "softmax" in kind else [1, 2, 5, 10, 33])
        c, h, w = self.x.shape[1:]
        if kind == "map":
            return nn.Conv2d(c, outputs, 1)
        if kind == "flatten":
            if c * h * w > 5000:
                size = self.r.choice([1, 2])
                return nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(c * size * size, outputs))
            flat = nn.Flatten() if self.r.random() < 0.5 else Apply("torch.flatten", lambda x: torch.flatten(x, 1))
            return nn.Sequential(flat, nn.Linear(c * h * w, outputs))
        if kind == "mean":
            return nn.Sequential(Apply("mean", lambda x: x.mean((2, 3))), nn.Linear(c, outputs))
        pool = [nn.AdaptiveAvgPool2d(1), Apply("view", lambda x: x.view(x.size(0), -1))]
        if kind == "hidden":
            width = self.r.choice([8, 30, 100])
            norm = nn.BatchNorm1d(width) if self.r.random() < 0.5 else nn.Identity()
            layers = [nn.Linear(c, width), norm, self.act(), nn.Dropout(), nn.Linear(width, outputs)]
            return nn.Sequential(*pool, *layers)
        last: list[nn.Module] = []
        if kind == "softmax":
            last = [nn.Softmax(1)]
        elif kind == "log_softmax":
            last = [Apply("log_softmax", lambda x: F.log_softmax(x, dim=-1))]
        return nn.Sequential(*pool, nn.Linear(c, outputs), *last)

    def several(self, trunk: nn.Module) -> nn.Module:
        self.used.add("several outputs")
        heads: list[nn.Module] = [self.head(), nn.Conv2d(self.c, 3, 1), nn.Identity()]
        return Several(trunk, heads, self.pick("outputs", "tuple", "dict"))

    @staticmethod
    def connect(keep: Tensor, g: torch.Generator) -> None:
        """At least one weight in every filter and for every channel: else a small layer passes nothing on."""
        rows, channels = keep.shape[:2]
        taps = keep.view(rows, channels, -1)
        for row in (~taps.any(2).any(1)).nonzero().flatten().tolist():
            taps[row].view(-1)[int(torch.randint(taps[row].numel(), (1,), generator=g))] = True
        for channel in (~taps.any(2).any(0)).nonzero().flatten().tolist():
            row, tap = (int(torch.randint(n, (1,), generator=g)) for n in (rows, taps.shape[2]))
            taps[row, channel, tap] = True

    def input_matters(self) -> bool:
        """Whether another image gives another output: else no error before the last layer would show."""
        x = torch.randn(3, *self.example.shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            pairs = zip(flat(self.model(x)), flat(self.model(x.flip(0) + 0.3)), strict=True)
            return all(float((a - b).abs().max()) > 0.01 * float(b.abs().max()) for a, b in pairs)

    def fill(self, seed: int) -> None:
        """Weights of a trained network's size, zeros where pruning puts them, statistics that aren't trivial."""
        g = torch.Generator().manual_seed(seed)
        seen: set[int] = set()
        for m in self.model.modules():
            if id(m) in seen:
                continue
            seen.add(id(m))
            if isinstance(m, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
                fan = m.weight[0].numel()
                sparsity = self.sparsity if self.r.random() < 0.85 else self.r.choice([0.0, 0.5, 0.8, 0.95])
                keep = torch.rand(m.weight.shape, generator=g) >= sparsity
                self.connect(keep, g)
                if keep.shape[0] > 2 and self.r.random() < 0.1:
                    keep[self.r.randrange(keep.shape[0])] = False  # a filter without a single weight
                    self.used.add("empty filter")
                if keep.shape[1] > 2 and self.r.random() < 0.1:
                    keep[:, self.r.randrange(keep.shape[1])] = False
                    self.used.add("unread channel")
                if self.r.random() < 0.01:
                    keep[:] = False
                    self.used.add("empty layer")
                scale = (2.0 / max(1.0, fan * (1 - sparsity))) ** 0.5
                m.weight.data.normal_(0, scale, generator=g).mul_(keep)
                if m.bias is not None:
                    m.bias.data.uniform_(-0.5, 0.5, generator=g)
            elif isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)):
                m.running_mean.normal_(0, 0.2, generator=g)
                m.running_var.uniform_(0.5, 1.5, generator=g)
                if m.affine:
                    m.weight.data.uniform_(0.6, 1.4, generator=g)
                    if self.r.random() < 0.1:
                        m.weight.data[0] = 0.0
                    m.bias.data.normal_(0, 0.2, generator=g)
        self.model.eval().requires_grad_(False)


def input_of(builder: Builder, n: int, size: tuple[int, int] | None = None) -> Tensor:
    """A batch of n images for the network; every third seed's lie in memory in an unusual order."""
    g = torch.Generator().manual_seed(1000 * builder.seed + n)
    x = torch.randn(n, builder.example.shape[1], *(size or tuple(builder.example.shape[2:])), generator=g)
    order = builder.seed % 6
    if order == 1:
        return x.to(memory_format=torch.channels_last)
    if order == 4:
        return torch.stack([x, x + 1], -1)[..., 0]
    return x


def float64(model: nn.Module, x: Tensor):
    """The reference: the same model and input in double precision."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(x.double())


def flat(out) -> list[Tensor]:
    """The tensors of an output, in order."""
    if isinstance(out, Tensor):
        return [out]
    return [t for o in (out.values() if isinstance(out, dict) else out) for t in flat(o)]


def distance(got, want) -> float:
    """Largest difference relative to the largest value, over all outputs."""
    a, b = flat(got), flat(want)
    assert type(got) is type(want)
    assert [t.shape for t in a] == [t.shape for t in b]
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        assert torch.isfinite(y).all()
        if y.numel():
            difference = float((x - y).abs().max() / y.abs().max().clamp(min=1e-3))
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def describe(builder: Builder) -> str:
    """The network, for a failure's message."""
    return (
        f"seed {builder.seed}, sparsity {builder.sparsity}, image {tuple(builder.example.shape[1:])}\n{builder.model}"
    )


def main() -> None:
    """Prints one network and the engine's distance from float64 for every batch size."""
    import prunebench as pb

    builder = Builder(int(sys.argv[1]))
    print(describe(builder))
    engine = pb.compile(builder.model, input_of(builder, 2), backend="csr", threads=1)
    print(engine.summary())
    for n in BATCHES:
        x = input_of(builder, n)
        want = float64(builder.model, x)
        print(f"batch {n}: engine {distance(engine(x), want):.1e}, torch {distance(builder.model(x), want):.1e}")


if __name__ == "__main__":
    main()
