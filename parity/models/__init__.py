"""What is compared: in come names, files and callables, out go models, weights, images and maps between their tensors.

Read `state` (tensors in and out of a model), `weight_maps`, `definitions`, `projects` and `importing` (how a name
becomes a callable), `constructors` (what binds a configuration to a callable), `computed`, `wrappers`, `candidate` and
`sizes`, `reference` and `libraries`, `checkpoint`, `brought` and `weights`, `inputs`.
"""

from parity.models.brought import Brought, brings_weights, brought_by
from parity.models.candidate import (
    Candidate,
    build_without_values,
    in_words,
    is_cause,
    other_sizes,
    resolve_candidate,
)
from parity.models.checkpoint import Checkpoint, fitted, is_path, read
from parity.models.constructors.quantities import shown_sizes
from parity.models.inputs import Inputs, make_inputs
from parity.models.libraries import build_elsewhere, is_elsewhere, resolve_elsewhere
from parity.models.reference import (
    CHECKED_DROPOUT,
    RATES,
    build_reference,
    build_reference_with_values,
    configuration,
    configuration_of,
    configuration_of_state,
    unverifiable,
)
from parity.models.sizes import possible_images, said_image, said_numbers, said_patch, said_rate
from parity.models.state import (
    BUFFER,
    FROZEN,
    PARAMETER,
    Shapes,
    assigned,
    fingerprint,
    hold,
    lacks_values,
    registration,
    replaced,
    sharing_copy,
    slots,
    state_shapes,
    tensors_of,
    twins,
    unregistered,
    without_initial_values,
    without_values,
)
from parity.models.weight_maps.bijection import require_bijection, require_separate
from parity.models.weight_maps.entries import (
    IDENTITY,
    Bounds,
    Box,
    Entry,
    cut,
    inverted,
    put,
    rearranged,
    split,
    whole,
    with_parts,
)
from parity.models.weight_maps.expansion import by_name, expand
from parity.models.weight_maps.weight_map import UNUSED, WeightMap
from parity.models.weight_maps.written_map import as_pattern, read_map
from parity.models.weights import Weights, own_weights, resolve_weights, synthetic, uniform
from parity.models.wrappers import is_graph

__all__ = [
    "BUFFER",
    "CHECKED_DROPOUT",
    "FROZEN",
    "IDENTITY",
    "PARAMETER",
    "RATES",
    "UNUSED",
    "Bounds",
    "Box",
    "Brought",
    "Candidate",
    "Checkpoint",
    "Entry",
    "Inputs",
    "Shapes",
    "WeightMap",
    "Weights",
    "as_pattern",
    "assigned",
    "brings_weights",
    "brought_by",
    "build_elsewhere",
    "build_reference",
    "build_reference_with_values",
    "build_without_values",
    "by_name",
    "configuration",
    "configuration_of",
    "configuration_of_state",
    "cut",
    "expand",
    "fingerprint",
    "fitted",
    "hold",
    "in_words",
    "inverted",
    "is_cause",
    "is_elsewhere",
    "is_graph",
    "is_path",
    "lacks_values",
    "make_inputs",
    "other_sizes",
    "own_weights",
    "possible_images",
    "put",
    "read",
    "read_map",
    "rearranged",
    "registration",
    "replaced",
    "require_bijection",
    "require_separate",
    "resolve_candidate",
    "resolve_elsewhere",
    "resolve_weights",
    "said_image",
    "said_numbers",
    "said_patch",
    "said_rate",
    "sharing_copy",
    "shown_sizes",
    "slots",
    "split",
    "state_shapes",
    "synthetic",
    "tensors_of",
    "twins",
    "uniform",
    "unregistered",
    "unverifiable",
    "whole",
    "with_parts",
    "without_initial_values",
    "without_values",
]
