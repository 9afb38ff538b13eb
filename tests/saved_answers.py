"""Facts of layers and of whole networks as a saved run holds them, made up."""

from pathlib import Path

from prunebench.answers import answer, arm
from prunebench.questions import LayerCase, NetworkCase
from prunebench.runs import Run
from prunebench.shapes import conv

CONV = LayerCase(conv(64, 64, 3, 32), ("resnet18_cifar", "resnet50"), 0.9, 1)
NETWORK = NetworkCase("resnet18_cifar", 0.9, 16)


def layer(case=CONV, speedup=3.0, status="ok", **values):
    about = {"layer": case.layer.as_dict(), "networks": list(case.networks)}
    if status != "ok":
        return answer("layers", case, status, **about, **values)
    numbers = {
        "latency_seconds": 0.0001, "baseline_seconds": 0.0001 * speedup, "speedup": speedup,
        "speedup_low": 0.9 * speedup, "speedup_high": 1.1 * speedup, "verdict": "faster", "baseline": "dense",
        "useful_gflops": 60.0, "dense_equivalent_gflops": 600.0, "roof": "l1", "roof_percent": 51.2,
        "roofs": {"l1": 117.0, "l2": 90.0, "dense": 100.0}, "kernel": "csr", "layout": "pixels", "tile": "4x4",
    }  # fmt: skip
    return answer("layers", case, **about, **{**numbers, **values})


def network(case=NETWORK, status="ok", **values):
    if status != "ok":
        return answer("networks", case, status, **values)
    arms = {
        "dense": arm(seconds=0.2, blocks=2),
        "dense_channels_last": arm(seconds=0.1, blocks=20),
        "torch_compile": arm("off", reason="torch.compile took more than | 60 s"),
        "csr_unpruned": arm(seconds=0.11, blocks=20),
        "csr": arm(seconds=0.02, blocks=20),
    }
    numbers = {"arms": arms, "speedup": 5.0, "speedup_low": 4.9, "speedup_high": 5.1, "verdict": "faster",
               "baseline": "dense_channels_last", "blocks": 20}  # fmt: skip
    return answer("networks", case, **{**numbers, **values})


def run(*answers, name="mine", time="2024-01-01T00:00:00", machine="aaaaaaaaaa", grid=()):
    about = {"id": machine, "cpu": "some CPU", "cores": 2, "engine": {"isa": "avx2"}, "versions": {"torch": "2"}}
    return Run(Path(f"0001_{name}.json"), name, time, about, tuple(grid), True, tuple(answers))
