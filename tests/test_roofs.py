"""Roofs: always a dense one; those of the caches where the engine has the loop. No absolute number is asserted."""

import math
from types import SimpleNamespace

import pytest
import torch

from prunebench import machine, roofs
from prunebench.engine import native_loader


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(roofs, "dense", lambda threads: 100.0 * threads)


def stand_in(monkeypatch, **functions):
    monkeypatch.setattr(native_loader, "native", lambda: SimpleNamespace(**functions))
    monkeypatch.setattr("prunebench.engine.available", lambda: None)


def test_the_dense_roof_is_a_finite_rate():
    before = torch.get_num_threads()
    found = roofs.dense(1, size=32, seconds=0.0)
    assert math.isfinite(found)
    assert found > 0
    assert torch.get_num_threads() == before


def test_an_engine_without_the_loop_leaves_its_caches_unknown(monkeypatch, brief):
    stand_in(monkeypatch)
    assert roofs.measure() == {"l1": None, "l2": None, "dense": 100.0}


def test_no_engine_at_all_is_no_error(monkeypatch, brief):
    monkeypatch.setattr("prunebench.engine.available", lambda: "no compiler")
    assert roofs.measure() == {"l1": None, "l2": None, "dense": 100.0}


@pytest.mark.parametrize(("cores", "threads", "factor"), [(4, 1, 1), (4, 2, 2), (2, 8, 2)])
def test_caches_belong_to_cores(monkeypatch, brief, cores, threads, factor):
    stand_in(monkeypatch, roofs=lambda: {"l1": 30.0, "l2": 20.0})
    monkeypatch.setattr(machine, "cores", lambda: cores)
    assert roofs.measure(threads) == {"l1": 30.0 * factor, "l2": 20.0 * factor, "dense": 100.0 * threads}


def test_the_real_engine_answers_one_way_or_the_other():
    found = roofs.measure()
    assert set(found) == set(roofs.ROOFS)
    assert found["dense"] > 0
    assert all(value is None or value > 0 for value in found.values())
