"""Builds the native engine and the decoder of files; without a C compiler it installs all the same and says why not."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = "prunebench/engine/native"
OFF = Path("prunebench/engine/native_off.txt")


class BuildNative(build_ext):
    """build_ext whose failure is written down beside the engine instead of stopping the install."""

    def run(self) -> None:
        root = Path(".") if self.inplace or getattr(self, "editable_mode", False) else Path(self.build_lib)
        note = root / OFF
        note.unlink(missing_ok=True)
        why = self.missing_compiler()
        if why is None:
            try:
                super().run()
            except Exception as error:  # any toolchain failure means: no engine, but an install
                why = f"the C extension did not compile: {' '.join(str(error).split())[:200]}"
        if why is not None:
            self.extensions = []  # nothing to copy
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(why + "\n")
            print(f"prunebench: the native engine is off: {why}")

    def missing_compiler(self) -> str | None:
        """The reason there is no compiler, or None."""
        if os.name == "nt":
            return None  # setuptools looks for MSVC itself
        command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
        words = [w for w in shlex.split(command) if "=" not in w or not w.split("=")[0].isidentifier()]
        name = words[0] if words else "cc"
        return None if shutil.which(name) else f"no C compiler found: '{name}' is not on the PATH"


sources = sorted(Path(NATIVE).glob("*.[ch]"))
build = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:12]
flags = shlex.split(os.environ.get("PRUNEBENCH_CFLAGS", ""))
native = Extension(
    "prunebench.engine._native",
    sources=sorted(str(p) for p in Path(NATIVE).glob("*.c")),
    depends=sorted(str(p) for p in Path(NATIVE).glob("*.h")),
    define_macros=[("PB_BUILD", f'"{build}"')],  # timings of different kernels are told apart by it
    extra_compile_args=["-O3", "-std=gnu11", "-pthread", "-fvisibility=hidden", *flags],
    extra_link_args=["-pthread", *flags],
)

# An extension of its own: timings are told apart by the engine's build alone.
decode = Extension(
    "prunebench.formats._decode",
    sources=["prunebench/formats/native/decode.c"],
    depends=["prunebench/formats/native/checks.h"],
    extra_compile_args=["-O3", "-std=gnu11", "-fvisibility=hidden", *flags],
    extra_link_args=flags,
)

setup(ext_modules=[native, decode], cmdclass={"build_ext": BuildNative})
