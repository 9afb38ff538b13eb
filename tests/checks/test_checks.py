"""Each check finds what it looks for: a broken installation, store, dataset or run made here, and its remedy said."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import pytest
from running import ROOT, prunebench

from prunebench import checks, conditions
from prunebench.checks import BROKEN, OFF, OK, WARNING, Check, installed, machine, places
from prunebench.conditions import Conditions

CALM = Conditions(governor="performance", turbo=False, smt=False, quota=None, load=0.1, stolen=0.0)


def found(some) -> dict[str, Check]:
    return {check.name: check for check in some}


def test_the_worst_status_counts():
    some = [Check("a", "b", status, "") for status in (OK, WARNING, OFF)]
    assert checks.worst(some) == WARNING
    assert checks.worst([*some, Check("a", "b", BROKEN, "")]) == BROKEN
    assert checks.worst([]) == OK


def test_conditions_are_read_from_the_system_s_files(tmp_path):
    cpu = tmp_path / "sys/devices/system/cpu"
    for name, text in {
        "cpu0/cpufreq/scaling_governor": "powersave\n", "intel_pstate/no_turbo": "0\n", "smt/active": "1\n",
    }.items():  # fmt: skip
        (cpu / name).parent.mkdir(parents=True, exist_ok=True)
        (cpu / name).write_text(text)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("3.25 2.00 1.00 1/200 4242\n")
    (tmp_path / "proc/stat").write_text("cpu  50 0 20 20 0 0 0 10 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    now = conditions.conditions(tmp_path)
    assert now == Conditions(governor="powersave", turbo=True, smt=True, quota=1.5, load=3.25, stolen=0.1)
    told = found(machine.clock_checks(now, 2))
    assert {name for name, check in told.items() if check.status == WARNING} == {"governor", "quota", "load", "stolen"}
    assert all(check.remedy for check in told.values() if check.status == WARNING)
    assert "--threads 1" in told["quota"].remedy


def test_what_the_system_does_not_tell_is_unknown_and_no_fault(tmp_path):
    now = conditions.conditions(tmp_path)
    assert (now.governor, now.turbo, now.smt, now.quota, now.stolen) == (None,) * 5
    unknown = Conditions(None, None, None, None, None, None)
    assert checks.worst(machine.clock_checks(unknown, 2)) == OK
    assert checks.worst(machine.clock_checks(CALM, 2)) == OK


def test_an_unlimited_container_has_no_quota(tmp_path):
    (tmp_path / "sys/fs/cgroup/cpu").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    assert conditions.conditions(tmp_path).quota is None
    (tmp_path / "sys/fs/cgroup/cpu.max").unlink()
    for name, text in (("quota", "-1"), ("period", "100000")):
        (tmp_path / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us").write_text(text)
    assert conditions.conditions(tmp_path).quota is None
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("50000")
    assert conditions.conditions(tmp_path).quota == 0.5


def test_noise_is_what_the_same_work_varies_by():
    steps = iter([0.0] + [0.005] * 17 + [0.010] * 3)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += next(steps)
        return now

    spread = conditions.noise(0.05, clock)
    assert spread == pytest.approx(1.0)
    assert machine.noise_check(spread).status == WARNING
    assert machine.noise_check(0.01).status == OK


def test_a_needed_package_that_is_missing_or_too_old_is_broken_and_an_extra_is_off(monkeypatch):
    asked = ["numpy>=1.24", "scipy>=999", "no-such-package>=2", "no-such-extra; extra == 'more'"]
    about = metadata.metadata("prunebench")
    about.add_header("Provides-Extra", "more")
    monkeypatch.setattr(installed.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(installed.metadata, "metadata", lambda name: about)
    told = found(installed.packages())
    assert told["scipy"].status == BROKEN
    assert ">=999 is needed" in told["scipy"].found
    assert told["no-such-package"].remedy == "pip install 'no-such-package>=2'"
    assert told["more"].status == OFF
    assert told["more"].remedy == "pip install 'prunebench[more]'"
    assert "needed" not in told


def test_a_package_that_can_not_be_imported_is_broken(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: undefined symbol\nand more")

    monkeypatch.setattr(installed.importlib, "import_module", refuse)
    told = found(installed._importable())
    assert told["torchvision"].status == BROKEN
    assert "undefined symbol and more" in told["torchvision"].found


def test_an_engine_that_is_off_wrong_or_of_other_sources_is_said(monkeypatch):
    monkeypatch.setattr(installed, "build_info", lambda: {"off": "no C compiler found"})
    assert found(installed.engine())["build"].status == WARNING
    monkeypatch.setattr(installed, "build_info", lambda: {"isa": "scalar", "build": "of yesterday"})
    monkeypatch.setattr("prunebench.kernels.csr_matmul", lambda p, i, d, s, x: 0 * x[:1])
    told = found(installed.engine())
    assert told["kernels"].status == BROKEN
    assert "off by" in told["kernels"].found
    assert "built from other C sources" in told["build"].found


def test_a_plugin_that_can_not_be_loaded_is_named(monkeypatch, registry_sandbox):
    real = registry_sandbox.get

    def get(group, text):
        if text == "lamp":
            raise installed.PrunebenchError("scope 'lamp' raised ImportError")
        return real(group, text)

    monkeypatch.setattr(installed.registry, "get", get)
    told = found(installed.plugins())
    assert told["lamp"].status == WARNING
    assert "can't be loaded" in told["lamp"].found
    assert told["dense"].found == "ready"


def test_a_store_s_place_and_health(tmp_path):
    absent = found(places.store(tmp_path / "new"))
    assert absent["place"].status == OK
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "store"
    entry = folder / "artifacts" / "ab" / "abcd"
    entry.mkdir(parents=True)
    (entry / "meta.json").write_text("{}")
    (entry / "weights.safetensors").write_bytes(bytes(2_000_000))
    (folder / "artifacts" / "ab" / ".abce-x").mkdir()
    (folder / "artifacts" / "ab" / ".abce-x" / "meta.json").write_text("{}")
    assert found(places.store(folder))["artifacts"].found == "1 checkpoints, 2 MB"
    (folder / "damaged" / "abcd-1-1").mkdir(parents=True)
    told = found(places.store(folder))
    assert told["damaged"].status == WARNING
    assert str(folder / "damaged") in told["damaged"].remedy
    (tmp_path / "file").write_text("")
    assert found(places.store(tmp_path / "file"))["place"].status == BROKEN


def test_datasets_and_runs_are_found_or_not(tmp_path):
    (tmp_path / "MNIST").mkdir()
    told = found(places.data(tmp_path))
    assert {name for name, check in told.items() if check.status == OK} == {"digits", "imagefolder", "mnist"}
    assert "--data DIR" in told["cifar10"].remedy
    runs = tmp_path / "results" / "runs"
    runs.mkdir(parents=True)
    saved = min((ROOT / "results" / "runs").rglob("*.json"), key=lambda path: path.stat().st_size)
    shutil.copy(saved, runs)
    (runs / "0009_broken.json").write_text("{}")
    told = found(places.saved_runs(tmp_path / "results"))
    assert told["runs"].found.startswith("1 saved runs")
    assert told["0009_broken.json"].status == WARNING


def test_the_document_holds_every_check_and_the_exit_code_says_broken(tmp_path):
    (tmp_path / "file").write_text("")
    done = prunebench("doctor", "--json", "--store", tmp_path / "file", "--data", tmp_path)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["status"] == "broken"
    assert [c["name"] for c in document["checks"] if c["status"] == "broken"] == ["place"]
    assert {"machine", "timing", "package", "csr engine", "backend", "store", "data", "results"} <= {
        c["topic"] for c in document["checks"]
    }
    assert not [c for c in document["checks"] if c["status"] != "ok" and not c["remedy"]]
