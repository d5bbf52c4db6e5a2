"""Whose tensor is whose: in come two models, out goes a proved weight map, and both ready to be compared.

Read `operations`, `axes`, `calls`, `noting` and `uses` (what a model does with its tensors), `patterns`, `ways`, `qkv`
and `matching` (which of two models' operations correspond), `images` (what a model takes), `symmetries`, `trial`,
`effects` and `inferring` (which of the maps is right), `setup`.
"""

from parity.mapping.images import fitting_batch, require_same_images
from parity.mapping.inferring import infer_mapping
from parity.mapping.operations import Operation, View, is_low_rank
from parity.mapping.setup import Setup, build_pair, find_map_of, in_place, set_up
from parity.mapping.uses import Uses, trace_uses

__all__ = [
    "Operation",
    "Setup",
    "Uses",
    "View",
    "build_pair",
    "find_map_of",
    "fitting_batch",
    "in_place",
    "infer_mapping",
    "is_low_rank",
    "require_same_images",
    "set_up",
    "trace_uses",
]
