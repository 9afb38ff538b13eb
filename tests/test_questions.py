"""The cases of layers and networks: what the profiles span, what the command line changes, what can't be."""

import re
import subprocess
import sys

import pytest

from prunebench import machine, questions
from prunebench.errors import UsageError


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("plan", [questions.layers, questions.networks, questions.claims])
def test_every_profile_has_cases_with_distinct_ids(plan, profile):
    found = plan(profile)
    ids = [case.id for case in found.cases]
    assert len(ids) == len(set(ids)) > 0
    assert all(re.fullmatch(r"[\w-]+", i) for i in ids)
    assert found.timing_seconds > 0
    assert plan(profile) == found


def test_the_default_layers_have_all_sparsities_at_one_image():
    cases = questions.layers().cases
    assert {c.sparsity for c in cases if c.batch_size == 1} == {0.7, 0.8, 0.9, 0.95, 0.98}
    assert {c.batch_size for c in cases} == {1, 16}
    assert 0.9 in {c.sparsity for c in cases if c.batch_size == 16}
    assert {n for c in cases for n in c.networks} == {
        "lenet5",
        "resnet20",
        "resnet18_cifar",
        "resnet50",
        "mobilenet_v1",
    }


def test_the_default_networks_word_by_word():
    batches = {"lenet300": (1, 16, 64), "lenet5": (1, 16, 64), "resnet20": (1, 16, 64), "resnet18_cifar": (1, 16, 64),
               "resnet50": (1, 16)}  # fmt: skip
    expected = [f"{m}-s900-csr-b{b}-t{t}" for m, sizes in batches.items() for b in sizes for t in (1, 2)]
    assert [c.id for c in questions.networks().cases] == expected
    assert {c.peers for c in questions.networks().cases} == {
        ("dense", "torch_compile", "torch_jit", "onnxruntime", "openvino")
    }


def test_lists_override():
    chosen = {"models": "lenet5,resnet50", "sparsities": "0.5, 0.9,0.5", "batch_sizes": "3", "threads": "2"}
    found = questions.networks(None, chosen)
    assert [c.id for c in found.cases] == [f"{m}-s{s}-csr-b3-t2" for m in ("lenet5", "resnet50") for s in (500, 900)]
    layers = questions.layers(None, {**chosen, "models": "lenet5"}).cases
    assert [c.id for c in layers[:2]] == ["conv_1_20_5x5_at_28-s500-csr-b3-t2", "conv_1_20_5x5_at_28-s900-csr-b3-t2"]
    assert len(layers) == 8


def test_threads_are_clamped_to_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert {c.threads for c in questions.networks().cases} == {1}
    assert len(questions.networks().cases) == 14


def test_peers_are_chosen_by_backends_and_eager_stays():
    assert questions.networks(None, {"backends": "csr,openvino"}).cases[0].peers == ("dense", "openvino")


def test_models_are_taken_where_they_apply():
    mixed = {"models": "mobilenet_v1,lenet5,vgg11"}
    assert {c.model for c in questions.networks(None, mixed).cases} == {"lenet5", "vgg11"}
    assert {n for c in questions.layers(None, mixed).cases for n in c.networks} == {"mobilenet_v1", "lenet5"}


def test_inputs_are_those_that_a_network_was_made_for():
    assert questions.input_of("lenet300") == ((1, 28, 28), 10)
    assert questions.input_of("resnet50_cifar") == ((3, 32, 32), 10)
    assert questions.input_of("resnet50") == ((3, 224, 224), 1000)


@pytest.mark.parametrize(
    ("plan", "overrides", "words"),
    [
        (questions.layers, {"models": "lenet6"}, ["'lenet6'", "lenet5"]),
        (questions.layers, {"models": "vgg11"}, ["'vgg11'", "mobilenet_v1"]),
        (questions.networks, {"models": "lenet6"}, ["'lenet6'", "lenet5"]),
        (questions.networks, {"models": "mobilenet_v1"}, ["'mobilenet_v1'", "test_layers.py"]),
        (questions.networks, {"backends": "cuda"}, ["'cuda'", "openvino"]),
        (questions.layers, {"sparsities": "90"}, ["90", "[0, 1)"]),
        (questions.layers, {"batch_sizes": "0"}, ["batch size 0", "at least 1"]),
        (questions.networks, {"threads": "1,zwei"}, ["--threads", "'zwei'"]),
        (questions.networks, {"threads": ""}, ["--threads is empty"]),
    ],
)
def test_what_can_not_be_is_one_line(plan, overrides, words):
    with pytest.raises(UsageError) as error:
        plan(None, overrides)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(UsageError, match=r"'huge'.*paper, quick, smoke"):
        questions.layers("huge")


def test_marks_hold_what_a_marker_expression_can_ask_for():
    case = questions.layers(None, {"models": "lenet5", "sparsities": "0.9", "batch_sizes": "1"}).cases[0]
    marks = case.marks()
    assert (marks["model"], marks["sparsity"], marks["kind"], marks["batch"]) == ("lenet5", 900, "conv", 1)
    assert all(isinstance(value, (str, int)) for value in marks.values())


def test_planning_imports_no_torch():
    code = (
        "import sys; from prunebench import questions as q; "
        "print(len(q.layers('paper').cases) + len(q.networks('paper').cases), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    count, imported = done.stdout.split()
    assert int(count) > 500
    assert imported == "False"


def test_claims_mask_networks_wholly_and_take_layers_through_scipy():
    cases = questions.claims().cases
    masked = [c for c in cases if c.backend == "masked"]
    assert {(c.model, c.sparsity) for c in masked} == {(m, s) for m in ("lenet300", "lenet5") for s in (0.9, 1.0)}
    layers = [c for c in cases if c.backend == "scipy_csr"]
    assert {c.model for c in layers} == {"linear_784_300", "conv_20_50_5x5_at_12", "linear_800_500"}
    assert all(c.layer.layer.id == c.model and c.layer.batch_size == c.batch_size for c in layers)
    assert "lenet5-s1000-masked-b64-t1" in [c.id for c in cases]
    assert "linear_784_300-s900-scipy_csr-b1-t1" in [c.id for c in cases]


def test_a_model_has_its_own_layers_only():
    assert {c.model for c in questions.claims(None, {"models": "lenet300"}).cases} == {"lenet300", "linear_784_300"}
    assert {c.model for c in questions.claims(None, {"models": "resnet20"}).cases} == {"resnet20"}
