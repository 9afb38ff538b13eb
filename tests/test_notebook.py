"""The example notebook runs from top to bottom, is small, and is committed without outputs."""

from __future__ import annotations

import importlib.util
import json

import pytest
from running import ROOT, environment

NOTEBOOK = ROOT / "examples" / "prunebench.ipynb"
MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]


def test_it_is_small_and_holds_no_output():
    assert NOTEBOOK.stat().st_size < 20_000
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'prunebench[notebook]'")
def test_it_runs_from_top_to_bottom(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = json.dumps(outputs)
    assert len(said) < 100_000
    assert "of the test digits right" in said
    assert "scipy_csr" in said
    tables = [output["data"]["text/plain"] for output in outputs if "text/html" in output.get("data", {})]
    by_criterion = {line.split()[1]: float(line.split()[-1]) for line in tables[0].splitlines()[1:]}
    assert by_criterion["l1"] > by_criterion["random"]
    assert by_criterion["l1"] > 0.9
