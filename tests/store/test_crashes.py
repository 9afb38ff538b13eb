"""Grid runs killed at random moments: a second run completes them, to the same tables, training nothing twice."""

import json
import signal
import subprocess
import sys

import pytest
from crashing import CELLS
from running import ROOT, environment


def report_of(folder, kills, seed):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "crashing.py"), str(folder), str(kills), str(seed)],
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "report.json").read_text())


def check(report):
    assert len(report["facts"]) == CELLS
    assert all(facts["status"] == "ok" for facts in report["facts"].values())
    for kill in report["kills"]:
        assert kill["first"] == -signal.SIGKILL or (kill["first"] == 0 and isinstance(kill["moment"], float)), kill
        assert kill["again"] == 0, kill
        assert kill["trained"] == CELLS - kill["published"], kill
        assert kill["rewritten"] == [], kill
        assert kill["damaged"] == [], kill
        assert kill["left"] == [], kill
        assert kill["same"], kill
        assert kill["table"] == report["table"], kill


def test_a_run_killed_at_some_moments_is_completed(tmp_path):
    check(report_of(tmp_path, 8, 0))


@pytest.mark.slow
def test_a_run_killed_at_fifty_moments_is_completed(tmp_path):
    report = report_of(tmp_path, 50, 1)
    check(report)
    # The moments were where they hurt: nothing stored yet, some, all; a training half done; the run's own file.
    assert {kill["published"] for kill in report["kills"]} == set(range(CELLS + 1))
    assert any(kill["unfinished"] for kill in report["kills"])
    assert any(kill["readable"] for kill in report["kills"])
