"""Coverage-guided fuzzing of a reader, by Atheris (libFuzzer for Python):

    python tests/fuzz/fuzz.py checkpoint|saved_run SECONDS [--seed N] [FOLDER]

FOLDER keeps inputs that reached something new, and is read at the next start; without one they are forgotten. What
fails is written to crash-* in the present folder; replay it by `python tests/fuzz/fuzz.py TARGET FILE`. Once mended,
put it under tests/corpus/TARGET/: the tests run everything there. Exit 0: nothing found.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


def main(target: str, what: str, *rest: str) -> None:
    import atheris

    # Loaded before instrumenting, which they would be slowed by and tell nothing of.
    import jinja2  # noqa: F401
    import pandas  # noqa: F401
    import torch

    with atheris.instrument_imports(include=["prunebench"]):
        import targets
    torch.set_num_threads(1)
    check, mutate = targets.TARGETS[target]
    if Path(what).is_file():
        check(Path(what).read_bytes())
        return

    def custom(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        # One in ten as libFuzzer would, which learns from comparisons what a byte should be.
        return atheris.Mutate(data, most) if chance.random() < 0.1 else mutate(data, chance, most)

    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(targets.seeds(target)):
            (Path(folder) / f"seed-{number}").write_bytes(content)
        words = [sys.argv[0], f"-max_total_time={what}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=65536"]
        if "--seed" in rest:
            words.append(f"-seed={rest[rest.index('--seed') + 1]}")
        kept = [w for w in rest if w != "--seed" and not w.isdigit()]
        atheris.Setup([*words, "-print_final_stats=1", *kept, folder], check, custom_mutator=custom)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
