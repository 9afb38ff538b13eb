"""Several sweeps of one grid on one store: they share it, train nothing twice, outlive each other."""

import json
import subprocess
import sys

import pytest
from running import ROOT, environment
from sweeping import CELLS


def report_of(folder, processes, kills=0, seed=0):
    arguments = [str(folder), str(processes), str(kills), str(seed)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "sweeping.py"), *arguments],
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("processes", [2, 8])
def test_nothing_is_trained_twice(tmp_path, processes):
    report = report_of(tmp_path, processes)
    assert [one["code"] for one in report["processes"]] == [0] * processes, report
    counts = [one["counts"] for one in report["processes"]]
    assert all(cells == CELLS and failed == 0 for cells, _, _, failed in counts)
    assert sum(trained for _, trained, _, _ in counts) == CELLS == report["stored"]
    assert sum(trained > 0 for _, trained, _, _ in counts) > 1  # they shared it
    assert (report["damaged"], report["locks"], report["leftovers"]) == ([], [], 0)
    assert report["left"] == 2 * CELLS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_dead_hold_nobody_up(tmp_path, seed):
    report = report_of(tmp_path, 6, 4, seed)
    assert [one["code"] for one in report["processes"]][4:] == [0, 0], report
    assert report["stored"] == CELLS
    assert report["damaged"] == []
    assert report["left"] == 2 * CELLS
