"""Ports and faults of their conversion, run without the harness."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import pytest
import torch

from parity import infer_mapping
from parity.models.state import state_shapes
from parity.models.weight_maps.expansion import expand
from parity.models.weight_maps.written_map import read_map
from parity.models.weights import uniform
from parity.tracing.measuring import SAME_FUNCTION_BOUND
from tests.corpus.cases import SIZES
from tests.corpus.conversions import FAULTS, Conversion, conversions
from tests.corpus.originals import original, original_parts
from tests.corpus.ports import PORTS, Port, put_together, taken_apart
from tests.corpus.right_conversions import WAYS, RightConversion, right_conversions, unwrapped
from tests.corpus.running import difference

if TYPE_CHECKING:
    from torch import nn

    from tests.corpus.ports import State

CONVERSIONS = list(conversions())
RIGHT = list(right_conversions())


def test_there_are_as_many_faults_and_right_conversions_as_promised() -> None:
    assert len(FAULTS) >= 110
    assert len(CONVERSIONS) >= 330
    assert {conversion.port.name for conversion in CONVERSIONS} == {*PORTS}
    assert sum(way.is_same_tensor_by_tensor for way in WAYS) >= 18
    assert sum(not way.is_same_tensor_by_tensor for way in WAYS) >= 15


def test_ids_are_unique() -> None:
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    assert len({way.id for way in WAYS}) == len(WAYS)


def test_every_fault_says_which_tensors_are_wrong_and_why() -> None:
    for conversion in CONVERSIONS:
        assert conversion.expected, conversion.id
        assert all(cause.startswith("weights-") for causes in conversion.expected.values() for cause in causes)


def test_weights_taken_apart_and_put_together_are_the_same() -> None:
    state = original().state_dict()
    again = put_together(taken_apart(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_every_part_has_a_tensor_and_every_tensor_a_part(port: Port) -> None:
    for part in original_parts():
        assert len(port.tensors(part)) == 1, part
    assert port.tensors("*") == port.build().state_dict().keys()


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_map_that_is_found_is_the_conversion(port: Port) -> None:
    candidate, state = port.build(), original().state_dict()
    written = expand(read_map(port.mapping), state_shapes(original()), state_shapes(candidate), port.name)
    expected = port.convert(state)
    for mapping in (written, infer_mapping(original(), candidate)):
        moved = mapping.apply(state)
        assert moved.keys() == expected.keys()
        assert all(torch.equal(moved[name], tensor) for name, tensor in expected.items())


def _logits(model: nn.Module) -> torch.Tensor:
    """Runs a copy of a model as it is, but for its dtype: in float64."""
    model = copy.deepcopy(unwrapped(model)).double().eval()
    with torch.no_grad():
        found: torch.Tensor = model(uniform("ports", (3, 3, SIZES["image_size"], SIZES["image_size"])).double())
    return found


@functools.cache
def _original_logits(name: str) -> torch.Tensor:
    return _logits(original(name))


def _differing(found: State, expected: State) -> set[str]:
    return {name for name, tensor in expected.items() if not torch.equal(found[name], tensor.to(found[name]))}


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda conversion: conversion.id)
def test_fault_changes_the_function_and_just_the_tensors_that_it_says(conversion: Conversion) -> None:
    found = conversion.converted()
    right = conversion.port.convert(conversion.original.state_dict())
    assert _differing(found.state_dict(), right) == {*conversion.expected}
    assert difference(_original_logits(conversion.fault.original), _logits(found)) > 1e6 * SAME_FUNCTION_BOUND


@pytest.mark.parametrize("conversion", RIGHT, ids=lambda conversion: conversion.id)
def test_right_conversion_is_the_same_function_and_has_the_same_numbers_if_it_says_so(
    conversion: RightConversion,
) -> None:
    found = conversion.converted()
    assert difference(_original_logits(conversion.way.original), _logits(found)) < SAME_FUNCTION_BOUND
    state = {name: tensor.double() for name, tensor in unwrapped(found).state_dict().items()}
    differing = _differing(state, conversion.port.convert(conversion.original.state_dict()))
    assert bool(differing) != conversion.way.is_same_tensor_by_tensor


def test_converting_leaves_the_original_alone() -> None:
    before = copy.deepcopy(original().state_dict())
    for convert in [conversion.converted for conversion in CONVERSIONS[::7]] + [
        right.converted for right in RIGHT[::7]
    ]:
        convert()
    assert not _differing(original().state_dict(), before)
