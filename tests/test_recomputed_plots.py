"""The numbers beside every committed plot, recomputed from the committed runs without the code that drew them."""

import re
import shutil
from pathlib import Path

import pytest
from recomputing import comma, geometric
from replotting import CHECKS, student

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "results" / "runs"
KINDS = tuple(CHECKS)


def plotted(folder: Path):
    return {path.stem: comma(path) for path in folder.glob("*.csv")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_of_every_committed_plot_are_what_the_committed_runs_say(kind):
    files = {name: rows for name, rows in plotted(ROOT / "results" / "plots").items() if name.startswith(kind)}
    assert CHECKS[kind](RUNS, files) >= sum(map(len, files.values())) * 0.5 > 0


def test_every_committed_plot_is_of_a_kind_that_is_recomputed():
    names = set(plotted(ROOT / "results" / "plots")) - {"schedules"}  # drawn from formulas, which have their own tests
    assert all(name.startswith(KINDS) for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_number_is_found(tmp_path, kind):
    """The recomputation can fail: a digit of one number of one file another, and it does."""
    folder = shutil.copytree(ROOT / "results" / "plots", tmp_path / "plots")
    path = sorted(folder.glob(f"{kind}*.csv"))[-1]
    lines = path.read_text().splitlines()
    changed = re.sub(r",(\d+\.\d{2})(\d)", lambda m: f",{m[1]}{(int(m[2]) + 3) % 10}", lines[1], count=1)
    assert changed != lines[1]
    path.write_text("\n".join([lines[0], changed, *lines[2:]]) + "\n")
    files = {name: rows for name, rows in plotted(folder).items() if name.startswith(kind)}
    with pytest.raises(AssertionError):
        CHECKS[kind](RUNS, files)


def test_geometric_means_and_students_intervals_by_hand():
    assert geometric([2.0, 8.0]) == pytest.approx(4.0)
    # s = 1, s/√3 = 0.57735, t(2, 0.975) = 4.302653
    assert student([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)
