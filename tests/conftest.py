"""Fixtures that many tests share: real data, tiny models, a clean registry, a fresh store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A pytest that a test starts is its own: with these it would think itself a worker of pytest-xdist, and time nothing.
for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the official MNIST files; its absence skips a test, but fails it in CI."""
    folder = Path(os.environ.get("PRUNEBENCH_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "MNIST" / "raw").is_dir():
        message = f"no MNIST under {folder}; set PRUNEBENCH_TEST_DATA to a folder that holds MNIST/raw"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def registry_sandbox():
    """Plugins registered in a test are forgotten after it."""
    from prunebench import registry

    before = dict(registry._local)
    yield registry
    registry._local.clear()
    registry._local.update(before)


@pytest.fixture(scope="module")
def one_core():
    """Training takes all cores; a tiny net is faster on one."""
    from prunebench import machine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "cores", lambda: 1)
        yield


@pytest.fixture
def one_thread():
    """Small networks: torch's own threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
