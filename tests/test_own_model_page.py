"""docs/prune-your-own-model.md: its Python runs in order, its commands are run too."""

import re
import shlex

import pytest
from running import ROOT

from prunebench.cli import main
from prunebench.engine import available

PAGE = (ROOT / "docs" / "prune-your-own-model.md").read_text()
pytestmark = pytest.mark.skipif(available() is not None, reason=f"no native engine: {available()}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks].count("sh") == 2
    names: dict[str, object] = {"__name__": "page"}
    ran = 0
    for kind, text in blocks:
        first = text.splitlines()[0]
        if kind == "python" and first.startswith("# ") and first.endswith(".py"):
            (tmp_path / first[2:]).write_text(text)
        elif kind == "python":
            exec(compile(text, "prune-your-own-model.md", "exec"), names)
        else:
            for line in text.splitlines():
                program, *words = shlex.split(line)
                assert program == "prunebench"
                assert main([*words, "--seconds", "0.3"]) == 0
                out = capsys.readouterr().out
                assert "csr_" in out
                assert "accuracy" in out.lower()
                ran += 1
    assert ran == 3
    assert "torch.Size([16, 10])" in capsys.readouterr().out


def test_the_page_and_the_example_use_the_same_calls():
    example = (ROOT / "examples" / "prune_your_model.py").read_text()
    for call in ("pb.Pruner(", "pruner.step()", "pb.save(", "pb.compile("):
        assert call in example
        assert call in PAGE
