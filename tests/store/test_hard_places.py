"""The commands where it is hard: a full disk, a store that can only be read, a path with spaces and Unicode."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hard_places import CELLS
from running import ROOT, environment


@pytest.fixture(scope="module")
def report():
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are their owner's alone
    words = [sys.executable, str(ROOT / "tests" / "hard_places.py"), str(folder)]
    apart = ["unshare", "--mount"]
    if shutil.which("unshare") and subprocess.run([*apart, "true"], capture_output=True).returncode == 0:
        words = [*apart, *words]
    done = subprocess.run(
        words, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=600
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    yield json.loads((folder / "report.json").read_text())
    shutil.rmtree(folder)


def failed(done, words):
    """The only line of an error, which is its last."""
    assert done["code"] == 2, done
    errors = [line for line in done["lines"] if words in line]
    assert errors == done["lines"][-1:], done
    assert "Traceback" not in "".join(done["lines"])
    return errors[0]


@pytest.mark.parametrize("place", ["told before", "found out"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(report, place):
    found = report[place]
    if "skip" in found:
        pytest.skip(f"no file system may be mounted here ({found['skip']}); a limit on files is tried below")
    line = failed(found["first"], "No space left on device")
    assert "--store DIR" in line
    assert ("can't be written and lacks" in line) == (place == "told before")
    assert len(found["left"]) in (2, 4)
    assert all(name.startswith("artifacts/") and "/." not in name for name in found["left"])
    assert found["verified"]["code"] == 0
    assert found["again"]["code"] == 0
    trained = CELLS - len(found["left"]) // 2
    assert f"{CELLS} cells: {trained} trained," in found["again"]["lines"][-1]
    assert len([name for name in found["all"] if name.startswith("artifacts/")]) == 2 * CELLS


def test_files_that_may_not_grow_are_one_line(report):
    found = report["limited"]
    assert "--store DIR" in failed(found["first"], "File too large")
    assert found["left"] == []
    assert found["again"]["code"] == 0
    assert f"{CELLS} cells: {CELLS} trained" in found["again"]["lines"][-1]


def test_a_store_that_can_only_be_read_serves_hits(report):
    found = report["read only"]
    assert found["hits"]["code"] == 0, found["hits"]
    assert f"{CELLS} cells: 0 trained, {CELLS} from the store" in found["hits"]["lines"][-1]
    assert "can't be written and lacks what this run needs" in failed(found["misses"], "--store DIR")
    failed(found["gc"], "can't be cleaned up")
    for action, words in (("ls", f"{CELLS} entries"), ("verify", f"{CELLS} entries are whole")):
        assert found[action]["code"] == 0, found[action]
        assert words in found[action]["lines"][-1]
    assert found["same"]


def test_a_path_with_spaces_and_unicode(report):
    found = report["odd name"]
    assert [done["code"] for done in (*found["sweeps"], found["path"], *found["kept"])] == [0] * 5, found
    assert "0 trained" in found["sweeps"][1]["lines"][-1]
    assert found["path"]["lines"] == [found["entry"]["path"]]
    assert found["whole"]
