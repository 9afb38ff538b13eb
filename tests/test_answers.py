"""Facts of layers and networks: complete, plain JSON, and refused where they can't be."""

import json

import pytest

from prunebench.answers import ARM_FIELDS, CLAIM_FIELDS, LAYER_FIELDS, NETWORK_FIELDS, answer, arm, check_answer
from prunebench.errors import UsageError
from prunebench.facts import FIELDS
from prunebench.questions import ClaimCase, LayerCase, NetworkCase
from prunebench.shapes import conv

LAYER = LayerCase(conv(16, 32, 3, 8), ("resnet20",), 0.9, 4)
NETWORK = NetworkCase("lenet5", 0.9, 16, 2)


def layer_facts(**values):
    return answer("layers", LAYER, layer=LAYER.layer.as_dict(), networks=["resnet20"], **values)


def network_facts(**values):
    return answer("networks", NETWORK, arms={"dense": arm(seconds=0.5, blocks=9)}, **values)


def claim_facts(**values):
    return answer("claims", ClaimCase("lenet5", "masked", 1.0, 64), **values)


def test_every_field_is_there_and_missing_ones_are_null():
    kinds = ((layer_facts(), LAYER_FIELDS), (network_facts(), NETWORK_FIELDS), (claim_facts(), CLAIM_FIELDS))
    for facts, extra in kinds:
        assert {*FIELDS, *extra} <= set(facts)
        assert (facts["schema"], facts["status"], facts["accuracy"]) == (1, "ok", None)
        assert facts["cell"]["dataset"] is None
        assert (facts["cell"]["criterion"], facts["cell"]["scope"]) == ("l1", "layerwise")
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
        check_answer({**facts, "status": "failed"})
    assert set(network_facts()["arms"]["dense"]) == set(ARM_FIELDS)


def test_a_number_that_json_lacks_becomes_null():
    assert layer_facts(speedup=float("nan"))["speedup"] is None
    assert arm(seconds=float("inf"))["seconds"] is None


@pytest.mark.parametrize("values", [{"colour": "red"}, {"arms": {}}])
def test_a_strange_fact_is_refused(values):
    with pytest.raises(ValueError, match="not facts"):
        layer_facts(**values)


def test_a_strange_status_and_arm_are_refused():
    with pytest.raises(ValueError, match="not facts"):
        answer("layers", LAYER, "fine")
    with pytest.raises(ValueError, match="not facts of an arm"):
        arm(colour="red")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": 2}, "schema 2"),
        ({"question": "colours"}, "'colours'"),
        ({"speedup": -1}, "speedup"),
        ({"useful_gflops": "many"}, "useful_gflops"),
        ({"threads": 0}, "threads"),
        ({"status": "fine"}, "status"),
        ({"layer": {"id": "<script>"}}, "name"),
        ({"layer": None}, "layer is None"),
        ({"networks": ["a | b"]}, "name"),
        ({"status": "ok", "speedup": None}, "is None"),
        ({"speedup": 1e400}, "speedup"),
        ({"blocks": 10**30}, "blocks"),
        ({"kernel": ["csr"]}, "kernel"),
        ({"cell": {"model": "x", "sparsity": 1.5}}, "sparsity"),
        ({"cell": {"sparsity": 0.5}}, "model"),
    ],
)
def test_a_hostile_file_is_refused(change, word):
    with pytest.raises(UsageError, match=word) as error:
        check_answer({**layer_facts(), **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arms", [{"a|b": arm()}, {"dense": {}}, {"dense": arm(seconds=-1.0)}, {"dense": 3}, [1]])
def test_a_hostile_arm_is_refused(arms):
    with pytest.raises(UsageError):
        check_answer({**network_facts(), "arms": arms})


def test_only_a_claim_is_about_a_network_without_a_weight():
    check_answer(claim_facts(dense_resident_bytes=3))
    for sparsity in (1.01, -0.1):
        with pytest.raises(UsageError, match="sparsity"):
            check_answer({**claim_facts(), "cell": {"model": "lenet5", "sparsity": sparsity}})
    with pytest.raises(UsageError, match="sparsity"):
        check_answer({**layer_facts(), "cell": {"model": "lenet5", "sparsity": 1}})
    with pytest.raises(UsageError, match="dense_resident_bytes"):
        check_answer({**claim_facts(), "dense_resident_bytes": "many"})
