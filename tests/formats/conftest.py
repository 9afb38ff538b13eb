"""Decoding in C and by NumPy: who uses `decoder` is run with each."""

import pytest

from prunebench.formats import compiled


@pytest.fixture(params=["c", "numpy"])
def decoder(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "decode", None)
    elif compiled.decode is None:
        pytest.skip("the decoder was not built: no C compiler")
    return request.param
