"""No source of the project runs what a file says: read from the syntax trees, and each rule shown to find its case."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(
    path
    for pattern in ("prunebench/**/*.py", "benchmarks/**/*.py", "examples/**/*.py", "docs/**/*.py", "*.py")
    for path in ROOT.glob(pattern)
)
# Each of them makes objects, and so calls functions, as its input says.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle",
           "xmlrpc", "hickle"}  # fmt: skip
CALLS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "tempfile.mktemp", "torch.package.PackageImporter",
    "torch.hub.load", "torch.jit.load", "torch.export.load", "runpy.run_path", "runpy.run_module", "code.interact",
    "pandas.read_pickle", "pd.read_pickle", "pandas.eval", "pd.eval", "logging.config.listen",
    "xml.etree.ElementTree.parse", "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
# A module's name comes from the code there, from entry points, or from the parent process; none from a file.
IMPORTS_BY_NAME = {
    "prunebench/__init__.py", "prunebench/engine/__init__.py", "prunebench/engine/native_loader.py",
    "prunebench/measuring/workers.py", "prunebench/measuring/nursery.py", "prunebench/measuring/serving.py",
    "prunebench/backends/tensorflow.py", "prunebench/checks/installed.py", "docs/make_reference.py",
    # What a user's command line names is the user's code.
    "prunebench/sources/__init__.py", "prunebench/sources/factory.py", "prunebench/sources/zoo.py",
}  # fmt: skip
# The name of an exception.
PICKLES = {
    "prunebench/formats/torch_files.py": {"imports pickle"},
}


def dotted(node: ast.expr) -> str:
    """`torch.load` of a call's function; empty where it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}"
    return ""


def given(call: ast.Call, name: str) -> object:
    """A keyword's constant value; None without one, the node where it is no constant."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else keyword.value
    return None


def findings(text: str, place: str = "x.py") -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"imports {name}" for name in names if name.split(".")[0] in MODULES or name in CALLS]
        if isinstance(node, ast.Call):
            found += _called(node, place)
    return found


def _called(node: ast.Call, place: str) -> list[str]:
    name = dotted(node.func)
    last = name.rpartition(".")[2]
    found = [f"calls {name}"] if name in CALLS else []
    if name in ("torch.load", "load") and "torch" in name and given(node, "weights_only") is not True:
        found.append("torch.load without weights_only=True")
    if given(node, "allow_pickle") not in (None, False):
        found.append("allow_pickle")
    if given(node, "shell") not in (None, False) and name not in ("argcomplete.shellcode", "emit"):
        found.append("shell=True")
    if given(node, "trust_remote_code") not in (None, False):
        found.append("trust_remote_code")
    if last in ("extract", "extractall") and given(node, "filter") is None:
        found.append(f"{last} without a filter")
    if last == "import_module" and place not in IMPORTS_BY_NAME:
        found.append("imports by name")
    if last in ("Environment", "Template") and name.startswith("jinja2") and given(node, "autoescape") is not True:
        found.append("jinja2 without autoescape")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_what_a_file_says(path):
    place = path.relative_to(ROOT).as_posix()
    assert set(findings(path.read_text(), place)) <= PICKLES.get(place, set())


def test_there_are_sources():
    assert len(SOURCES) > 150
    assert all((ROOT / name).is_file() for name in IMPORTS_BY_NAME)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import joblib as j", "from marshal import *", "import yaml",
        "eval('1')", "exec(text)", "import os\nos.system(x)", "from os import system", "__import__(name)",
        "import torch\ntorch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)",
        "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=maybe)", "subprocess.run(x, shell=True)",
        "pd.read_pickle(p)", "tar.extractall(folder)", "importlib.import_module(name)", "torch.jit.load(p)",
        "from torch.hub import load", "tempfile.mktemp()", "jinja2.Environment()",
        "x.from_pretrained(trust_remote_code=1)",
    ],
)  # fmt: skip
def test_each_rule_finds_its_case(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text",
    ["model.eval()", "re.compile(x)", "torch.load(p, weights_only=True)", "np.load(p)", "safetensors.torch.load(b)",
     "subprocess.run([x])", "tar.extractfile(m)", "json.loads(t)"],
)  # fmt: skip
def test_what_is_harmless_is_not_found(text):
    assert findings(text) == []
