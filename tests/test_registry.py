"""Plugins by name: built-ins, file-local ones, clashes, parameters, and that names cost no import."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import prunebench as pb
from prunebench import registry
from prunebench.errors import PluginError, UsageError


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_contract_names_are_registered():
    assert {"random", "l1", "l2", "linf", "lp"} <= set(registry.names("criteria"))
    assert {"weight", "filter"} <= set(registry.names("granularities"))
    assert {"global", "layerwise", "erk", "lamp"} <= set(registry.names("scopes"))
    assert {"one_shot", "linear", "agp", "polynomial", "cosine", "geometric"} <= set(registry.names("schedules"))
    assert {"lenet300", "lenet5", "resnet20", "resnet56", "resnet18_cifar", "resnet50_cifar"} <= set(
        registry.names("models")
    )
    assert {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "cifar10_jpeg", "imagefolder"} <= set(
        registry.names("datasets")
    )
    assert {"dense", "masked", "scipy_csr", "csr"} <= set(registry.names("backends"))


@pytest.mark.parametrize("group", registry.GROUPS)
def test_an_unknown_name_lists_the_known_ones(group):
    for call in (registry.get, registry.check):
        with pytest.raises(UsageError) as error:
            call(group, "nonsense")
        text = one_line(error)
        assert "'nonsense'" in text
        assert registry.GROUPS[group] in text
        for name in registry.names(group):
            assert name in text


def test_names_import_neither_plugins_nor_torch():
    code = (
        "import sys; from prunebench import registry; "
        "found = [n for g in registry.GROUPS for n in registry.names(g)]; "
        "registry.check('criteria', 'l1'); "
        "print(len(found) > 20, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_a_local_plugin_is_found_with_what_it_declared(registry_sandbox):
    @pb.criterion("mine", needs=("gradients",), reduce="max")
    def mine(layer):
        return layer.weight

    plugin, spec = registry.get("criteria", "mine")
    assert "mine" in registry.names("criteria")
    assert plugin.function is mine
    assert spec.text == "mine"
    assert plugin.declared == {"needs": ("gradients",), "rounds": 1, "reduce": "max", "compare": "layer"}
    assert not plugin.builtin


@pytest.mark.parametrize(
    "decorator", [pb.criterion, pb.scope, pb.schedule, pb.granularity, pb.model, pb.dataset, pb.backend]
)
@pytest.mark.parametrize("name", ["Bad", "a-b", "", "x" * 33, "../x", "ok\n", None])
def test_a_bad_name_is_refused(decorator, name, registry_sandbox):
    with pytest.raises(UsageError, match="can't be used") as error:
        decorator(name)
    one_line(error)


def test_two_local_plugins_of_one_name_clash(registry_sandbox):
    @pb.schedule("twice")
    def first(t):
        return t

    with pytest.raises(UsageError, match="defined twice") as error:

        @pb.schedule("twice")
        def second(t):
            return 1.0

    assert "first" in one_line(error)
    assert "second" in one_line(error)


def test_a_local_plugin_can_not_take_a_built_in_name(registry_sandbox):
    registry.get("criteria", "l1")  # loaded
    registry._local.pop(("criteria", "l1"), None)

    @pb.criterion("l1")
    def impostor(layer):
        return layer.weight

    with pytest.raises(UsageError, match="defined twice") as error:
        registry.get("criteria", "l1")
    assert "impostor" in one_line(error)


def test_an_unknown_parameter_lists_the_known_ones():
    with pytest.raises(UsageError) as error:
        registry.check("criteria", "lp:q=3")
    text = one_line(error)
    assert "'q'" in text
    assert "known: p" in text


@pytest.mark.parametrize(
    ("group", "text"),
    [("criteria", "l1:abc"), ("schedules", "agp:3"), ("backends", "dense:fast"), ("datasets", "mnist:x")],
)
def test_a_value_that_the_plugin_does_not_take_is_refused(group, text):
    with pytest.raises(UsageError) as error:
        registry.get(group, text)[0].bind(registry.get(group, text)[1])
    assert text.partition(":")[2] in one_line(error)


def test_parameters_are_bound(registry_sandbox):
    @pb.schedule("power")
    def power(t, exponent=2):
        return t**exponent

    plugin, spec = registry.get("schedules", "power:exponent=3")
    assert plugin.bind(spec)(0.5) == 0.125


@pytest.mark.parametrize(
    ("group", "text", "remedy"),
    [
        ("criteria", "lp:p=-1", "p > 0"),
        ("criteria", "lp:p=0", "p > 0"),
        ("criteria", "lp:p=true", "a number"),
        ("schedules", "polynomial:power=0", "a power above 0"),
        ("schedules", "polynomial:power=-1", "a power above 0"),
        ("schedules", "polynomial:power=inf", "a power above 0"),
        ("schedules", "geometric:sparsity=1", "[0, 1)"),
        ("backends", "dense:layout=rows", "channels_last"),
        ("datasets", "digits:size=2", "from 4 to 1024"),
    ],
)
def test_a_value_that_can_not_be_is_refused_when_the_string_is_read(group, text, remedy):
    with pytest.raises(UsageError) as error:
        registry.check(group, text)
    said = one_line(error)
    assert remedy in said
    assert text.partition(":")[0] in said
    assert text.rpartition("=")[2] in said


@pytest.mark.parametrize(
    ("raises", "kind", "words"),
    [
        (ValueError("give an even k"), UsageError, "criterion 'picky': 'picky:k=3' can't be used; give an even k"),
        (UsageError("k is odd; take 4"), UsageError, "k is odd; take 4"),
        (KeyError("k"), PluginError, "criterion 'picky': checking 'picky:k=3' raised KeyError: 'k'"),
    ],
)
def test_a_plugin_checks_its_own_parameters(raises, kind, words, registry_sandbox):
    seen = []

    def check(**params):
        seen.append(params)
        raise raises

    @pb.criterion("picky", check=check)
    def picky(layer, k=2, rest=1.5):
        return layer.weight

    assert registry.check("criteria", "picky") == "picky"  # the defaults are the plugin's own affair
    with pytest.raises(kind) as error:
        registry.check("criteria", "picky:k=3")
    assert one_line(error) == words
    assert seen == [{"k": 3, "rest": 1.5}]


def test_check_gives_the_canonical_text():
    assert registry.check("criteria", "lp:p=3.0") == "lp:p=3"


def entry_points(monkeypatch, name, value):
    point = EntryPoint(name, value, "prunebench.criteria")
    before = registry._entry_points
    monkeypatch.setattr(
        registry,
        "_entry_points",
        lambda group: {**before(group), name: point} if group == "criteria" else before(group),
    )
    registry._load.cache_clear()


def test_an_installed_plugin_that_can_not_be_imported_is_named(monkeypatch, registry_sandbox):
    entry_points(monkeypatch, "broken", "no_such_module_anywhere:f")
    assert "broken" in registry.names("criteria")
    with pytest.raises(PluginError, match=r"'broken'.*no_such_module_anywhere") as error:
        registry.get("criteria", "broken")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_an_installed_function_without_the_decorator_gets_the_defaults(monkeypatch, registry_sandbox):
    entry_points(monkeypatch, "plain", "math:fabs")
    plugin, _ = registry.get("criteria", "plain")
    assert plugin.declared["needs"] == ()
    assert plugin.declared["reduce"] == "sum"
    assert not plugin.builtin


def test_an_entry_point_that_is_no_function_is_refused(monkeypatch, registry_sandbox):
    entry_points(monkeypatch, "number", "math:pi")
    with pytest.raises(PluginError, match="not callable"):
        registry.get("criteria", "number")


def test_built_ins_have_no_fingerprint_and_others_follow_their_source(tmp_path, monkeypatch, registry_sandbox):
    assert registry.fingerprint("criteria", "l1") is None
    assert registry.fingerprint("models", "resnet18") is None  # torchvision's own
    monkeypatch.syspath_prepend(tmp_path)
    prints = []
    for number in (1, 1, 2):
        module = f"plugin_source_{len(prints)}"
        (tmp_path / f"{module}.py").write_text(f"def f(layer):\n    return layer.weight * {number}\n")
        registry._local.clear()
        pb.criterion("edited")(__import__(module).f)
        prints.append(registry.fingerprint("criteria", "edited"))
    assert prints[0] == prints[1] != prints[2]
