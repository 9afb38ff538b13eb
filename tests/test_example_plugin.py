"""The example package in a fresh environment: installed, found by the grid, and in the table."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv

import pytest
from running import ROOT, TINY, command, grid_command


@pytest.mark.slow
def test_a_third_party_criterion_reaches_the_table(tmp_path):
    environment = tmp_path / "fresh"
    venv.EnvBuilder().create(environment)
    python = environment / "bin" / "python"
    # The fresh environment borrows this one's torch (5 GB), prunebench and pip; what is installed into it is its own.
    packages = command(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip()
    here = sysconfig.get_paths()["purelib"]
    (tmp_path / "fresh" / packages / "borrowed.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    package = shutil.copytree(ROOT / "examples" / "criterion_plugin", tmp_path / "criterion_plugin")
    installed = command(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", package)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    listed = command(python, "-m", "prunebench.cli", "list", "criteria")
    assert "saliency" in listed.stdout.split()
    assert "saliency" not in command(sys.executable, "-m", "prunebench.cli", "list", "criteria").stdout.split()
    choice = ("--benchmark-save=mine", "--criteria", "l1,saliency", "--backends", "dense,masked")
    grid = command(*grid_command(tmp_path, *TINY, *choice, python=python))
    assert grid.returncode == 0, grid.stdout + grid.stderr
    tables = command(python, "-m", "prunebench.cli", "tables", "--results", tmp_path / "results")
    assert "saliency weight global one_shot" in tables.stdout
    assert "l1 weight global one_shot" in tables.stdout

    contract = command(
        python, "-m", "pytest", "tests/test_contracts.py", "-q", "-k", "saliency", "-p", "no:cacheprovider"
    )
    assert contract.returncode == 0, contract.stdout
