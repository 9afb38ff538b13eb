"""What a user may ask of an executor, and what is asked of the cluster for it."""

from __future__ import annotations

import sys
import types

import pytest

from prunebench import executors
from prunebench.cli import main
from prunebench.errors import UsageError
from prunebench.executors.ray import check_reachable, demand


@pytest.mark.parametrize(
    ("device", "there", "cpus", "gpus", "asks", "where"),
    [
        ("auto", {"CPU": 8.0}, 1.0, None, {"num_cpus": 1.0}, "cpu"),
        ("auto", {"CPU": 8.0, "GPU": 2.0}, 4.0, None, {"num_cpus": 4.0, "num_gpus": 1.0}, "cuda"),
        (None, {"CPU": 8.0, "GPU": 2.0}, 1.0, 0.25, {"num_cpus": 1.0, "num_gpus": 0.25}, "cuda"),
        ("cpu", {"CPU": 8.0, "GPU": 2.0}, 1.0, None, {"num_cpus": 1.0}, "cpu"),
        ("auto", {"CPU": 8.0, "GPU": 2.0}, 1.0, 0.0, {"num_cpus": 1.0}, "cpu"),
        ("cuda", {"CPU": 8.0}, 1.0, None, {"num_cpus": 1.0, "num_gpus": 1.0}, "cuda"),  # an autoscaler's to bring
        ("auto", {"CPU": 8.0}, 1.0, 2.0, {"num_cpus": 1.0, "num_gpus": 2.0}, "cuda"),
    ],
)
def test_a_gpu_is_asked_for_where_there_is_one(device, there, cpus, gpus, asks, where):
    assert demand(device, there, cpus, gpus) == (asks, where)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 1.0), ("cuda", 0.0)])
def test_a_contradiction_is_named(device, gpus):
    with pytest.raises(UsageError, match="--gpus-per-cell"):
        demand(device, {"GPU": 1.0}, 1.0, gpus)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--executor", "cloud"], "unknown executor 'cloud'; known: local, ray"),
        (["--executor", "ray", "--jobs", "2"], "--jobs belongs to --executor local"),
        (["--address", "auto"], "--address belongs to --executor ray"),
        (["--gpus-per-cell", "1"], "--gpus-per-cell belongs to --executor ray"),
        (["--jobs", "0"], "--jobs 0 is too small"),
        (["--jobs", "many"], "--jobs 'many' is not a whole number"),
        (["--retries", "-1"], "--retries -1 is too small"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--executor", "ray", "--cpus-per-cell", "0"], "--cpus-per-cell 0 can't be used"),
        (["--executor", "ray", "--gpus-per-cell", "1.5"], "--gpus-per-cell 1.5 can't be used"),
        (["--executor", "ray", "--gpus-per-cell", "nan"], "--gpus-per-cell nan can't be used"),
        (["--store", "ftp2://host/x"], "unknown kind of store 'ftp2://'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRUNEBENCH_STORE", str(tmp_path / "store"))
    assert main(["sweep", "--profile", "smoke", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'prunebench\[ray\]', or use --jobs N"):
        executors.check(executors.Options("ray"))


def test_an_old_ray_is_refused(monkeypatch):
    import importlib.machinery

    from prunebench.executors.base import Place
    from prunebench.executors.ray import RayExecutor

    old = types.ModuleType("ray")
    old.__version__ = "2.9.3"
    old.__spec__ = importlib.machinery.ModuleSpec("ray", None)
    monkeypatch.setitem(sys.modules, "ray", old)
    with pytest.raises(UsageError, match=r"Ray 2\.9\.3 is too old"):
        RayExecutor(Place("s", "d"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port", "127.0.0.1:99999", "nowhere.invalid:6379"])
def test_an_address_where_nothing_listens_is_a_mistake_with_a_remedy(address):
    with pytest.raises(UsageError, match="'ray start --head', or use --address local"):
        check_reachable(address)


def test_other_addresses_are_ray_s_to_judge():
    for address in ("auto", "local", "ray://head:10001"):
        check_reachable(address)
