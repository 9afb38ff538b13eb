"""Tasks on a Ray cluster: each is one Ray task, which asks for CPUs, and for a GPU where the cluster has some.

Retries are the driver's: Ray's own would start a poisonous task again and again for lack of memory, uncounted.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
from dataclasses import replace
from typing import Any

from prunebench.errors import UsageError
from prunebench.executors.base import Outcome, Place, Task
from prunebench.executors.work import work_at

MINIMUM = (2, 52)
CONNECT_SECONDS = 10.0


def check_installed() -> None:
    """UsageError where Ray can't be imported; imports nothing."""
    try:
        found = importlib.util.find_spec("ray")
    except ValueError:  # blocked: None in sys.modules
        found = None
    if found is None:
        raise UsageError("--executor ray: Ray is not installed; pip install 'prunebench[ray]', or use --jobs N")


def check_reachable(address: str) -> None:
    """UsageError unless something listens at HOST:PORT: Ray itself tries for ten minutes. Other addresses pass."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"no Ray cluster at {address!r} ({' '.join(str(error).split())[:200]}); start one with 'ray start --head', or "
        "use --address local"
    )


def demand(
    device: str | None, there: dict[str, float], cpus: float, gpus: float | None
) -> tuple[dict[str, float], str]:
    """What a task asks of the cluster, and the device it trains on, for what the user asks and what is there.

    gpus: None means one where the device isn't the CPU. With device cuda they are asked for even where none is there
    yet, because an autoscaler adds nodes for what waits. UsageError where the two contradict each other.
    """
    if device == "cpu" and gpus:
        raise UsageError(f"--gpus-per-cell {gpus:g} can't be used with --device cpu; leave one of them out")
    wanted = device == "cuda" or (device != "cpu" and (bool(gpus) or there.get("GPU", 0) > 0))
    if not wanted or gpus == 0:
        if device == "cuda":
            raise UsageError("--gpus-per-cell 0 can't be used with --device cuda; give a share such as 0.5")
        return {"num_cpus": cpus}, "cpu"
    return {"num_cpus": cpus, "num_gpus": 1.0 if gpus is None else gpus}, "cuda"


class RayExecutor:
    """A cluster at an address: `auto` is the one that this machine belongs to, `local` one started here for the sweep.

    Worker processes stay between tasks, so that each loads a dataset once. Raises UsageError where no cluster answers.
    """

    def __init__(self, place: Place, address: str = "auto", cpus: float = 1.0, gpus: float | None = None) -> None:
        check_installed()
        import ray

        if tuple(int(part) for part in ray.__version__.split(".")[:2]) < MINIMUM:
            wanted = ".".join(map(str, MINIMUM))
            raise UsageError(f"Ray {ray.__version__} is too old; pip install 'ray>={wanted}' on every node")
        self._ray: Any = ray
        check_reachable(address)
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable(address, error) from None
        try:
            self.asks, device = demand(place.device, ray.cluster_resources(), cpus, gpus)
        except UsageError:
            ray.shutdown()
            raise
        self.needs = ", ".join(f"{name} {share:g}" for name, share in self.asks.items())
        self._place = ray.put(replace(place, device=device, cores=max(1, int(cpus))))
        # max_calls=0: Ray would end a worker after each task with a GPU, and its loaded dataset with it.
        self._work = ray.remote(max_retries=0, max_calls=0, **self.asks)(work_at)
        self._running: dict[Any, Task] = {}

    @property
    def slots(self) -> int:
        shares = {"CPU": self.asks["num_cpus"], "GPU": self.asks.get("num_gpus", 0.0)}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(min(int(n.get(name, 0.0) / share) for name, share in shares.items() if share) for n in nodes)

    def submit(self, task: Task) -> None:
        options = {"name": f"{task.cell.id}{' (early weights)' if task.early else ''}"}
        self._running[self._work.options(**options).remote(task, self._place)] = task

    def finished(self, seconds: float) -> list[Outcome]:
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds) if self._running else ([], [])
        return [self._outcome(answer, self._running.pop(answer)) for answer in ended]

    def close(self) -> None:
        for answer in self._running:
            self._ray.cancel(answer, force=True)
        self._running = {}
        self._ray.shutdown()

    def _outcome(self, answer: Any, task: Task) -> Outcome:
        exceptions = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(answer)
            return outcome
        except exceptions.OutOfMemoryError:
            why = "Ray ended its worker because the node's memory was full; --cpus-per-cell lets fewer run beside it"
        except (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError, exceptions.RaySystemError) as error:
            # The task itself raises nothing: it couldn't be unpacked there, or its answer couldn't here.
            last = str(error).strip().splitlines()[-1]
            said = f"a node can't run prunebench's tasks: {last}; install the same versions on every node"
            return Outcome(task.key, "failed", said, stop=True)
        except exceptions.RayError as error:
            why = f"its worker died ({type(error).__name__})"
        return Outcome(task.key, "died", why, again=True)
