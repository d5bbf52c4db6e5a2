"""Whose tensor is whose: in come two models, out goes a proved weight map, and both ready to be compared.

Read `uses` (what a model does with its tensors), `qkv`, `norm_order`, `head_widths`, `slices`, `grouped`, `outputs`,
`serving` and `matching` (which of two models' operations correspond), `images` and `own_sizes` (what a model takes and
what it is), `symmetries`, `apart`, `trial`, `effects`, `pieces` and `inferring` (which of the maps is right), `setup`
and `placing` (both models ready), `unlike`.
"""

from parity.mapping.images import fitting_batch, logits_elsewhere
from parity.mapping.inferring import infer_mapping
from parity.mapping.placing import anew, in_place
from parity.mapping.qkv import Reading, readings
from parity.mapping.setup import Setup, at_own_sizes, build_pair, find_map_of, set_up
from parity.mapping.unlike import UNMAPPED, UNSEEN, WHATEVER_RUNS, own_sizes_told, sizes_shown, with_sizes
from parity.mapping.uses.gathering import Uses, trace_uses
from parity.mapping.uses.operations import Operation, Projection, View, is_low_rank

__all__ = [
    "UNMAPPED",
    "UNSEEN",
    "WHATEVER_RUNS",
    "Operation",
    "Projection",
    "Reading",
    "Setup",
    "Uses",
    "View",
    "anew",
    "at_own_sizes",
    "build_pair",
    "find_map_of",
    "fitting_batch",
    "in_place",
    "infer_mapping",
    "is_low_rank",
    "logits_elsewhere",
    "own_sizes_told",
    "readings",
    "set_up",
    "sizes_shown",
    "trace_uses",
    "with_sizes",
]
