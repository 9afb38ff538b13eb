"""Building without a C compiler: the wheel is still made, and carries the reason why the csr backend is off."""

from __future__ import annotations

import re
import shutil
import sys
import zipfile

import pytest
from running import ROOT, command

import prunebench


def test_the_version_is_said_alike_everywhere():
    written = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert written
    assert written[1] == prunebench.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", prunebench.__version__)
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] in ("Unreleased", prunebench.__version__)


@pytest.mark.slow
def test_without_a_compiler_the_install_succeeds_and_says_why(tmp_path):
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "*.so", "*.egg-info", "results", "native_off.txt")
    shutil.copytree(ROOT, source, ignore=unwanted)
    built = command(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path / "wheels",
        source,
        CC="/nowhere/cc",
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        assert not [n for n in names if "_native" in n and n.endswith((".so", ".pyd"))]
        assert {"prunebench/profiles.toml", "prunebench/py.typed"} <= set(names)
        reason = content.read("prunebench/engine/native_off.txt").decode().strip()
        content.extractall(tmp_path / "unpacked")
    assert "\n" not in reason
    assert "/nowhere/cc" in reason
    code = (
        "import torch, prunebench as pb\n"
        "try:\n    pb.compile(torch.nn.Linear(4, 4).eval(), torch.ones(1, 4))\n"
        "except pb.errors.BackendUnavailable as error:\n    print(error)\n"
        "print(pb.compile(torch.nn.Linear(4, 4).eval(), torch.ones(1, 4), backend='dense')(torch.ones(1, 4)).shape)\n"
    )
    used = command(
        sys.executable, "-c", "import prunebench.errors\n" + code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "unpacked")
    )
    assert used.returncode == 0, used.stderr
    assert "backend 'csr' is off" in used.stdout
    assert reason in used.stdout
    assert "torch.Size([1, 4])" in used.stdout
