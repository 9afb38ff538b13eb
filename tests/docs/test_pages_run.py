"""The pages that teach are run from top to bottom, and show what comes out."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys

import pytest
from documents import ROOT, blocks, same_but_for_numbers
from running import BIN, command

TAUGHT = ["docs/plugins.md", "docs/tutorial.md"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout to work in: the benchmarks, no results, a store of its own, the package under test."""
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("PRUNEBENCH_STORE", "PRUNEBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", TAUGHT)
def test_a_page_works_from_top_to_bottom(page, project, registry_sandbox, one_thread):
    names: dict = {"__name__": "__main__"}
    written: list[str] = []  # python blocks so far: what `conftest.py` would hold
    said, checked = None, 0
    for block in blocks(ROOT / page):
        where = f"{page}:{block.line}"
        if block.mark == "not run":
            assert block.value, f"{where} is not run and doesn't say why"
        elif block.mark == "output":
            assert said is not None, where
            assert same_but_for_numbers(block.text, said), f"{where} shows\n{block.text}\n\nbut it is\n{said}"
            checked += 1
        elif block.mark == "file":
            (project / block.value).write_text(block.text)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, where, "exec"), names)
            said = out.getvalue()
            written.append(block.text)
        elif block.language == "sh":
            if page.endswith("plugins.md"):
                (project / "conftest.py").write_text((ROOT / "conftest.py").read_text() + "\n".join(written))
            paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            done = command(
                "bash", "-euo", "pipefail", "-c", block.text, cwd=project, timeout=600,
                PATH=f"{BIN}:{os.environ['PATH']}", PYTHONPATH=os.pathsep.join(paths),
            )  # fmt: skip
            assert done.returncode == 0, f"{where}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            said = done.stdout
    assert checked, f"{page} shows no output"
    assert sys.modules["prunebench"].__file__.startswith(str(ROOT))
