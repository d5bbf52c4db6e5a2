from __future__ import annotations

import pytest

from parity import check
from parity.tracing.measuring import SAME_FUNCTION_BOUND
from tests.corpus.conversions import FAULTS, Conversion, conversions
from tests.corpus.matrix import CONVERTING, weights_say
from tests.corpus.right_conversions import RightConversion, right_conversions

CONVERSIONS = list(conversions())


# a fault in one of its ports, which take turns, needs no --whole-corpus
_IN_TURN = {(fault.id, fault.ports[number % len(fault.ports)]) for number, fault in enumerate(FAULTS)}


@pytest.mark.parametrize(
    "conversion",
    [
        pytest.param(one, id=one.id, marks=[pytest.mark.whole_corpus] * ((one.fault.id, one.port.name) not in _IN_TURN))
        for one in CONVERSIONS
    ],
)
def test_faulty_conversion_is_divergent_and_what_is_wrong_with_each_tensor_is_named(conversion: Conversion) -> None:
    report = check(conversion.converted(), conversion.original, mapping=conversion.port.mapping, modes=["eval"])
    assert report.verdict == "divergent", report
    assert "with other weights" in report.reasons[0]
    assert report.weights is not None
    assert report.weights.verdict == "different"
    said = report.to_dict()["weights"]
    assert said["as_is"]["relative"] > SAME_FUNCTION_BOUND
    assert {tensor["candidate"] for tensor in said["tensors"]} == {*conversion.expected}
    found = {tensor["candidate"]: tensor["cause"] for tensor in said["tensors"]}
    assert {name: found[name] for name, causes in conversion.expected.items() if found[name] not in causes} == {}
    assert weights_say(conversion, report) == dict.fromkeys(CONVERTING, True)


# in each port a fault of another kind
@pytest.mark.parametrize(
    "id", ["grid-transposed-fused", "key-copied-from-query-separate", "norms-of-blocks-never-loaded-interleaved"]
)
def test_causes_are_grouped_by_what_is_wrong(id: str) -> None:  # noqa: A002
    conversion = next(conversion for conversion in CONVERSIONS if conversion.id == id)
    report = check(conversion.converted(), conversion.original, mapping=conversion.port.mapping, modes=["eval"])
    said = {(tensor["cause"], tensor["candidate"]) for tensor in report.to_dict()["weights"]["tensors"]}
    assert {(cause.id, name) for cause in report.causes for name in cause.where} == said


@pytest.mark.parametrize("name", ["fused", "separate", "interleaved"])
def test_map_that_is_found_shows_the_same(name: str) -> None:
    conversion = next(conversion for conversion in CONVERSIONS if conversion.id == f"value-first-{name}")
    report = check(conversion.converted(), conversion.original, modes=["eval"])
    assert weights_say(conversion, report) == dict.fromkeys(CONVERTING, True)


@pytest.mark.parametrize("conversion", [*right_conversions()], ids=lambda conversion: conversion.id)
def test_right_conversion_is_not_flagged(conversion: RightConversion) -> None:
    report = check(conversion.converted(), conversion.original, mapping=conversion.mapping, modes=["eval"])
    assert report.verdict in ("identical", "equivalent"), report
    assert report.weights is not None
    if conversion.way.is_same_tensor_by_tensor:
        assert report.weights.verdict == "same"
        assert not report.weights.tensors
    else:
        assert report.weights.verdict != "different"
