"""What the executors' tests share: a criterion that misbehaves, visible to every process, and a Ray cluster."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
from running import ROOT


@pytest.fixture(scope="package")
def sabotaged(tmp_path_factory):
    """The folder where the criterion `sabotage` keeps its traces; the criterion is installed for this process's kin."""
    from prunebench import registry

    package, traces = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("traces")
    sys.path.insert(0, str(ROOT / "tests" / "executors"))
    importlib.import_module("sabotage").install(package)
    del sys.modules["sabotage"]
    sys.path[0] = str(package)
    path = os.pathsep.join([str(package), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SABOTAGE", str(traces))
        patch.setenv("PYTHONPATH", path)
        registry._entry_points.cache_clear()
        yield traces
    sys.path.remove(str(package))
    registry._entry_points.cache_clear()
    registry._local.pop(("criteria", "sabotage"), None)


@pytest.fixture(scope="package")
def cluster(sabotaged):
    """A Ray cluster of two nodes with a CPU each, in processes of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'prunebench[ray]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()
