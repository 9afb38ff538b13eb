"""Several sweeps of one grid on one store: they share it, train nothing twice, outlive each other."""

import json
import subprocess
import sys

import pytest
from running import ROOT, environment
from sweeping import CELLS


def reports_of(folder, *asked):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "sweeping.py"), str(folder), *asked],
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "report.json").read_text())


def test_two_and_eight_processes_train_nothing_twice(tmp_path):
    for report, processes in zip(reports_of(tmp_path, "2:0", "8:0"), (2, 8), strict=True):
        assert [one["code"] for one in report["processes"]] == [0] * processes, report
        counts = [one["counts"] for one in report["processes"]]
        assert all(cells == CELLS and failed == 0 for cells, _, _, failed in counts)
        assert sum(trained for _, trained, _, _ in counts) == CELLS == report["stored"]
        assert sum(trained > 0 for _, trained, _, _ in counts) > 1  # they shared it
        assert (report["damaged"], report["leftovers"]) == ([], [])
        assert report["left"] == 2 * CELLS


@pytest.mark.slow
def test_the_dead_hold_nobody_up(tmp_path):
    for report in reports_of(tmp_path, "6:4", "6:5", "4:3"):
        codes = [one["code"] for one in report["processes"]]
        assert codes[-1] == 0, report
        assert set(codes) <= {0, -9}
        assert report["stored"] == CELLS
        assert report["damaged"] == []
        assert report["left"] == 2 * CELLS
