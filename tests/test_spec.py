"""A plugin's name with parameters: one canonical text, one id, one-line errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebench.errors import UsageError
from prunebench.spec import Spec


@pytest.mark.parametrize(
    ("text", "name", "args", "params"),
    [
        ("l1", "l1", (), ()),
        ("lp:p=3", "lp", (), (("p", 3),)),
        ("lp:p=2.5", "lp", (), (("p", 2.5),)),
        ("n_m:n=2:m=4", "n_m", (), (("m", 4), ("n", 2))),
        ("imagefolder:some/photos:size=64", "imagefolder", ("some/photos",), (("size", 64),)),
        ("x:flag=true:other=false:word=abc", "x", (), (("flag", True), ("other", False), ("word", "abc"))),
    ],
)
def test_parse(text, name, args, params):
    spec = Spec.parse(text)
    assert (spec.name, spec.args, spec.params) == (name, args, params)


def test_parameters_in_any_order_are_the_same_spec():
    assert Spec.parse("n_m:n=2:m=4") == Spec.parse("n_m:m=4:n=2")
    assert Spec.parse("n_m:n=2:m=4").text == "n_m:m=4:n=2"


@pytest.mark.parametrize(
    ("text", "canonical", "slug"),
    [
        ("l1", "l1", "l1"),
        ("lp:p=3", "lp:p=3", "lp_p3"),
        ("lp:p=3.0", "lp:p=3", "lp_p3"),
        ("lp:p=2.5", "lp:p=2.5", "lp_p2_5"),
        ("x:flag=true", "x:flag=true", "x_flagtrue"),
        ("x:k=-1", "x:k=-1", "x_km1"),
        ("imagefolder:/data/my-photos.tar", "imagefolder:/data/my-photos.tar", "imagefolder_mymphotos_tar"),
    ],
)
def test_canonical_text_and_id(text, canonical, slug):
    assert Spec.parse(text).text == canonical
    assert Spec.parse(text).slug == slug


@pytest.mark.parametrize(
    "text",
    [
        "",
        "L1",
        "1l",
        "l-1",
        "l1\n",
        " l1",
        "a" * 33,
        "lp:",
        "lp:p=",
        "lp:=3",
        "lp:P=3",
        "lp:p=3:p=4",
        "lp:p=3:q",
        "../x",
    ],
)
def test_what_is_no_spec_is_refused_in_one_line(text):
    with pytest.raises(UsageError) as error:
        Spec.parse(text, "criterion")
    assert "criterion" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 3, ["l1"]])
def test_what_is_no_string_is_refused(value):
    with pytest.raises(UsageError, match="named by a string"):
        Spec.parse(value)


def test_a_spec_passes_through():
    spec = Spec.parse("lp:p=3")
    assert Spec.parse(spec) is spec


VALUES = st.one_of(
    st.integers(-(10**6), 10**6),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True),
)


@given(
    st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), VALUES, max_size=4),
)
def test_the_canonical_text_parses_to_itself(name, params):
    text = ":".join([name, *(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in params.items())])
    spec = Spec.parse(text)
    assert Spec.parse(spec.text) == spec
    assert Spec.parse(spec.text).text == spec.text
    assert set(spec.slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
