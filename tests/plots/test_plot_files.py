"""Files of plots: the same runs, the same bytes; new numbers, new images; nothing of others touched."""

import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from saved_facts import CONTROL, PRUNED, facts, run

from prunebench.cli import main
from prunebench.errors import UsageError
from prunebench.plots import files, plots_of, style, write_plots
from prunebench.plots.plot import file_name

OTHER = replace(PRUNED, model="lenet300")


def grid(**changes):
    """Two networks; the changes are of lenet5's pruned case."""
    return [run(facts(PRUNED, **changes), facts(CONTROL), facts(OTHER), facts(replace(CONTROL, model="lenet300")))]


def contents(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A folder of plots as first written, not to be changed."""
    folder = tmp_path_factory.mktemp("first")
    assert set(write_plots(grid(), folder)) == set(folder.iterdir())
    return folder


@pytest.fixture
def folder(before, tmp_path):
    for name, content in contents(before).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_every_plot_is_three_files_and_the_index_shows_it(before):
    names = [p.name for p in plots_of(grid())]
    assert {f.name for f in before.iterdir()} == {f"{n}{s}" for n in names for s in (".csv", ".svg", ".png")} | {
        "index.md"
    }
    text = (before / "index.md").read_text()
    assert all(f"({name}.svg)" in text and f"({name}.csv)" in text for name in names)


def test_images_are_small_and_readable_and_say_neither_when_nor_with_what(before):
    for path in before.glob("*.png"):
        assert path.stat().st_size < 150_000
        image = Image.open(path)
        assert set(image.info) <= {"Description", "dpi"}
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    for path in before.glob("*.svg"):
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "dc:date" not in text
        assert "dc:creator" not in text


def test_the_same_numbers_give_the_same_bytes():
    kinds = ("accuracy_by_criterion-lenet5", "pareto_speedup-lenet5")
    chosen = [p for p in plots_of(grid()) if p.name.startswith(kinds)]
    assert len(chosen) == 2
    for one in chosen:
        assert files.images(one) == files.images(one)


def test_nothing_is_drawn_again_without_need(folder, monkeypatch):
    (folder / "schedules.svg").write_bytes((folder / "schedules.svg").read_bytes() + b"<!-- of another version -->")
    was = contents(folder)
    monkeypatch.setattr(files, "images", lambda plot: pytest.fail(f"{plot.name} is drawn again"))
    write_plots(list(reversed(grid())), folder)
    assert contents(folder) == was


def test_another_way_of_drawing_draws_everything_again(folder, monkeypatch):
    made = []
    monkeypatch.setattr(files, "REVISION", files.REVISION + 1)
    monkeypatch.setattr(files, "images", lambda plot: made.append(plot.name) or {})
    write_plots(grid(), folder)
    assert sorted(made) == sorted({path.stem for path in folder.glob("*.svg")})


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"accuracy": 0.8}, {"accuracy_by_criterion", "pareto_speedup", "pareto_bytes"}),
        ({"speedup_high": 2.5}, {"pareto_speedup", "speedup"}),
        ({"verdict": "unstable"}, {"pareto_speedup", "speedup"}),
        ({"disk_bytes": 240000}, {"pareto_bytes"}),
        ({"relative_error": 1e-6}, set()),
    ],
)
def test_one_value_changes_the_plots_that_show_it_and_no_other(changes, kinds, folder, monkeypatch):
    was = contents(folder)
    monkeypatch.setattr(files, "images", lambda plot: dict.fromkeys((".svg", ".png"), plot.digest.encode()))
    write_plots(grid(**changes), folder)
    changed = {name for name, content in contents(folder).items() if was.get(name) != content}
    assert {name.partition("-")[0] for name in changed} == kinds
    assert all("-lenet5-" in name for name in changed)
    assert len(changed) == 3 * len(kinds)


def test_a_lost_or_cut_off_image_is_drawn_again(folder, before):
    (folder / "schedules.png").unlink()
    write_plots(grid(), folder)
    (folder / "schedules.svg").write_bytes(b"<svg")
    write_plots(grid(), folder)
    assert contents(folder) == contents(before)


def test_plots_of_runs_no_longer_there_go_and_strangers_stay(folder):
    (folder / "mine.png").write_bytes(b"a picture")
    (folder / "accuracy_by_me.txt").write_text("notes")
    write_plots([run(facts(PRUNED), facts(CONTROL))], folder)
    names = {f.name for f in folder.iterdir()}
    assert not any("-lenet300-" in name for name in names)
    assert {"mine.png", "accuracy_by_me.txt", "schedules.svg"} <= names


def test_a_user_s_own_settings_stay_as_they_are():
    [one] = [p for p in plots_of(grid()) if p.name == "schedules"]
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9, "svg.hashsalt": "mine"}):
        was = dict(matplotlib.rcParams)
        strange = files.images(one)
        assert dict(matplotlib.rcParams) == was
    assert strange == files.images(one)


def test_names_that_mean_something_to_others_are_text():
    cell = replace(PRUNED, dataset="imagefolder:$x^2$/<b>&_{a}")
    found = plots_of([run(facts(cell), facts(replace(cell, dataset="imagefolder:y/<b>&_{a}")))])
    names = [p.name for p in found]
    assert len(names) == len(set(names))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for name in names)
    ElementTree.fromstring(files.images(found[0])[".svg"])


def test_long_recipes_have_short_file_names():
    long = ["lenet_" + "value0_" * 40 + end for end in ("a", "b")]
    assert len({file_name("speedup", name) for name in long}) == 2
    assert all(len(file_name("speedup", name)) < 60 for name in long)


def test_no_result_says_what_to_run(tmp_path):
    with pytest.raises(UsageError, match="--benchmark-save=NAME"):
        write_plots([run()], tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, prunebench.cli, prunebench.plots, prunebench.pytest_plugin; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_refuses_to_remove_the_plots_of_other_runs(tmp_path, capsys):
    assert main(["plots", "mine", "--results", str(tmp_path)]) == 2
    assert "--to DIR" in capsys.readouterr().err
    assert main(["plots", "nothing", "--results", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "unknown run 'nothing'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_two_methods_look_alike():
    for axis, text in style.ORDER.items():
        names = [*text.split(), "random", "plugin_a", "plugin_b"]
        found = [(one.colour, one.marker, str(one.dash)) for one in style.looks(axis, names).values()]
        assert len(set(found)) == len(set(names)) == len(found)
        assert style.looks(axis, names[:2]) == {n: style.looks(axis, names)[n] for n in names[:2]}


def test_words_of_somebody_else_stay_words_in_an_image(tmp_path):
    evil = "</text><script>alert(1)</script>&\"'\x1b[31m\u202e$\\frac{1}{0}$--><!--\x00"
    made = grid()
    made = [replace(one, machine={**one.machine, "cpu": evil, "versions": {"torch": evil}}) for one in made]
    drawn = 0
    for plot in plots_of(made):
        if plot.name.startswith("speedup-"):
            text = files.vector(plot).decode()
            ElementTree.fromstring(text)  # control characters would make it no XML
            assert "<script" not in text
            assert "\u202e" not in text
            drawn += 1
    assert drawn
