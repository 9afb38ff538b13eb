"""docs/reference.md is what the docstrings say now, and says something about everything public."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from documents import ROOT

import prunebench as pb


@pytest.fixture(scope="module")
def maker():
    path = sys.path.copy()
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_the_page_is_current(maker):
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == maker.page(), "run: python docs/make_reference.py"


def test_everything_public_is_on_it_with_words(maker):
    listed = {name.partition(":")[2] for _, _, names in maker.SECTIONS for name in names}
    assert set(pb.__all__) - {"kernels", "schedules"} <= listed
    for line in maker.page().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[2].strip(), f"no docstring: {line}"
