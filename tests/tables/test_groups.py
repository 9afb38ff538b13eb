"""Statistics of all groups at once are those of each group by itself, to the last bit; and no row is looped over."""

import numpy as np
import pandas as pd
import pytest
from many_cases import save

from prunebench.runs import load_runs
from prunebench.tables import files, grid
from prunebench.tables.groups import Groups


@pytest.fixture(params=[0, 1, 2])
def table(request):
    """Groups of 1 to 12 rows, mixed up, with gaps among the numbers and texts."""
    rng = np.random.default_rng(request.param)
    sizes = rng.integers(1, 13, 60)
    rows = pd.DataFrame({"a": np.repeat(np.arange(60) % 7, sizes), "b": np.repeat([f"g{n}" for n in range(60)], sizes)})
    rows["x"] = np.where(rng.random(len(rows)) < 0.2, np.nan, rng.lognormal(0, 3, len(rows)))
    rows["text"] = rng.choice(np.array(["one", "two", None], dtype=object), len(rows), p=[0.7, 0.1, 0.2])
    return rows.sample(frac=1, random_state=request.param).reset_index(drop=True)


def test_statistics_are_those_of_each_group_by_itself(table):
    groups, some = Groups(table, ["a", "b"]), (table["text"] == "one").to_numpy()
    by_itself = [own for _, own in table.groupby(["a", "b"], sort=False)]
    assert groups.count == len(by_itself) == 60
    for rows, chosen in ((None, np.full(len(table), True)), (some, some)):
        own = [group[chosen[group.index]] for group in by_itself]
        assert groups.sizes(rows).tolist() == [len(g) for g in own]
        np.testing.assert_array_equal(groups.means(table["x"], rows), [g["x"].dropna().mean() for g in own])
        np.testing.assert_array_equal(groups.deviations(table["x"], rows), [g["x"].dropna().std(ddof=1) for g in own])
        assert groups.kinds(table["text"], rows) == [sorted(set(g["text"].dropna())) for g in own]
    assert groups.keys["b"].tolist() == [g["b"].iloc[0] for g in by_itself]


def test_shared_texts():
    table = pd.DataFrame({"k": [1, 1, 2, 2, 3], "text": ["b", "a", "c", None, None]})
    assert Groups(table, ["k"]).shared(table["text"]) == ["mixed: a b", "c", ""]


def test_no_rows_make_no_groups():
    groups = Groups(pd.DataFrame({"k": [], "x": []}), ["k"])
    assert (groups.count, groups.means(pd.Series([], dtype=float)).tolist()) == (0, [])


def test_a_row_without_a_key_is_in_no_group():
    table = pd.DataFrame({"k": ["a", None, "b", "a"], "x": [1.0, 9.0, 2.0, 3.0]})
    assert Groups(table, ["k"]).means(table["x"]).tolist() == [2.0, 2.0]


def test_more_cases_take_no_more_calls(tmp_path, monkeypatch):
    """Twice the cases, as many groupings: each is one pass over all rows, and a frame is made once."""

    def made(count):
        runs = load_runs(save(tmp_path / str(count), count).parent)
        done = []
        with monkeypatch.context() as patch:
            frame, init = grid._frame, Groups.__init__
            patch.setattr(grid, "_frame", lambda runs: done.append("frame") or frame(runs))
            patch.setattr(Groups, "__init__", lambda *a: done.append("groups") or init(*a))
            files.write_tables(runs, tmp_path / f"tables{count}")
        return done

    few, many = made(400), made(800)
    assert few == many
    assert few.count("frame") == 1
    assert len(few) < 10
