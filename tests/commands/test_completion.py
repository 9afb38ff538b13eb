"""Shell completion, through the real shells: what a TAB offers, and how soon."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
from running import BIN, ROOT, environment, prunebench

needs_argcomplete = pytest.mark.skipif(
    importlib.util.find_spec("argcomplete") is None, reason="argcomplete isn't installed: pip install argcomplete"
)


def offered(line: str, **changes: str) -> list[str]:
    """What bash offers at the end of a line, by the function that `prunebench completion bash` defines."""
    script = f"""
        eval "$(prunebench completion bash)"
        COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_WORDS=($COMP_LINE); COMP_CWORD=1
        _python_argcomplete prunebench
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{BIN}:{environment()['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=environment(PATH=path, **changes),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_argcomplete
def test_bash_completes_commands_options_and_names():
    assert {"list", "run", "tables", "doctor"} <= set(offered("prunebench "))
    assert offered("prunebench run --crit") == ["--criterion"]
    assert {"snip", "synflow"} <= set(offered("prunebench run --criterion s"))
    assert "l1" not in offered("prunebench run --criterion s")
    assert {"lenet300", "lenet5"} == set(offered("prunebench sweep --models le"))
    assert {"lenet5,resnet18", "lenet5,resnet50"} <= set(offered("prunebench sweep --models lenet5,resnet"))
    assert {"mnist"} <= set(offered("prunebench tables mn"))
    assert {"github", "csv"} <= set(offered("prunebench tables --format "))
    assert "criteria" in offered("prunebench list ")


@needs_argcomplete
def test_completing_names_imports_no_torch():
    code = (
        "import sys; from prunebench.commands.options import known, saved_runs\n"
        "for group in ('criteria', 'models', 'datasets', 'profiles', 'recipes', 'backends'): assert known(group)\n"
        "assert saved_runs(); assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


@needs_argcomplete
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_lines(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    code = prunebench("completion", shell).stdout
    ready = "autoload -U compinit; compinit -u\n" if shell == "zsh" else ""
    asked = "whence _python_argcomplete" if shell == "zsh" else 'complete -C "prunebench run --criterion sn"'
    done = subprocess.run(
        [shell, "-c", f"{ready}{code}\n{asked}"],
        env=environment(PATH=f"{BIN}:{environment()['PATH']}"), cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("snip" if shell == "fish" else "_python_argcomplete") in done.stdout


@needs_argcomplete
def test_the_document_holds_the_lines_and_an_unknown_shell_is_one_line():
    document = json.loads(prunebench("completion", "fish", "--json").stdout)
    assert "complete" in document["code"]
    assert "config.fish" in document["remedy"]
    wrong = prunebench("completion", "cmd")
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "prunebench: unknown shell 'cmd'; known: bash, fish, zsh; or complete by hand: prunebench list\n"
    )
