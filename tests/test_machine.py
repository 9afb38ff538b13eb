"""The machine as a value: a stable id without names or paths, and threads held for a while."""

import json
import os
import platform
import re

import pytest
import torch

from prunebench import machine


def test_the_description_is_stable_and_plain():
    one, two = machine.describe({"isa": "avx2"}), machine.describe({"isa": "avx2"})
    assert one == two
    assert json.loads(json.dumps(one)) == one
    assert re.fullmatch(r"[0-9a-f]{10}", one["id"])
    assert {"cpu", "cores", "architecture", "engine", "versions"} <= set(one)


def test_the_engine_and_the_versions_are_part_of_the_id(monkeypatch):
    before = machine.describe({"isa": "avx2"})["id"]
    assert machine.describe({"isa": "scalar"})["id"] != before
    monkeypatch.setattr(machine, "versions", lambda: {"torch": "0.0.1"})
    assert machine.describe({"isa": "avx2"})["id"] != before


def test_memory_is_no_part_of_the_id(monkeypatch):
    before = machine.describe()["id"]
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1)
    assert machine.describe()["id"] == before


def test_no_host_name_and_no_path():
    text = json.dumps(machine.describe())
    assert platform.node() not in text
    assert os.path.expanduser("~") + "/" not in text


def test_cores_are_those_this_process_may_use():
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


def test_threads_are_held_and_given_back():
    before = torch.get_num_threads()
    other = 2 if before == 1 else 1
    with machine.threads(other):
        assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), machine.threads(other):
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_a_worker_takes_no_more_cores_than_its_share():
    before = machine.cores()
    try:
        machine.limit_cores(1)
        assert machine.cores() == 1
        machine.limit_cores(before + 7)
        assert machine.cores() == before
    finally:
        machine.limit_cores(None)
    assert machine.cores() == before


def test_the_id_of_a_description_is_the_same_in_whatever_order_a_file_holds_it():
    about = machine.describe({"isa": "avx2", "build": "0123"})
    turned = {name: dict(reversed(v.items())) if isinstance(v, dict) else v for name, v in reversed(about.items())}
    assert machine.identity(about) == machine.identity(turned) == about["id"]
    assert machine.identity(about | {"versions": {**about["versions"], "torch": "0"}}) != about["id"]
    assert machine.identity(about, "more") != about["id"]
