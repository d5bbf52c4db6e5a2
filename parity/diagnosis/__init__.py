"""From measurements to a verdict: in comes who is compared, out go checks, doubts, places of differences, a verdict.

Read `verdict` (what follows from checks), `bare` and `branches` (what both models do with nobody watching), `checks`
(making them), `pictures` and `other_images` (what random images don't have, and both models on it), `other_runs` (what
a module does at one call alone), `mixing` (whether images act on each other), `native_kernel` (what torch does with
nobody watching), `doubts` (what no check shows), `soundness` (whether torch is still itself), `attention_maps` (where
both models look), `shapes` (models without values), `phases` (what the phases beyond the forward pass find).
"""

from parity.diagnosis.attention_maps import AttentionMaps, attention_maps
from parity.diagnosis.bare import BareRuns
from parity.diagnosis.checks import DTYPES, run_checks
from parity.diagnosis.doubts import find_doubts, if_the_map_is_right
from parity.diagnosis.mixing import Mixing, mixing
from parity.diagnosis.phases import (
    OTHER_RECIPE,
    PHASES,
    Beyond,
    Outcome,
    PhaseCheck,
    Row,
    not_compared,
    worst_of,
)
from parity.diagnosis.roundings import causes_of_rounding
from parity.diagnosis.shapes import compare_shapes
from parity.diagnosis.soundness import Surroundings, surroundings
from parity.diagnosis.verdict import (
    Check,
    Doubts,
    Layer,
    Place,
    Verdict,
    decide,
    in_words_of,
    is_another_function,
    layers,
    open_in_train_mode,
    origins,
)

__all__ = [
    "DTYPES",
    "OTHER_RECIPE",
    "PHASES",
    "AttentionMaps",
    "BareRuns",
    "Beyond",
    "Check",
    "Doubts",
    "Layer",
    "Mixing",
    "Outcome",
    "PhaseCheck",
    "Place",
    "Row",
    "Surroundings",
    "Verdict",
    "attention_maps",
    "causes_of_rounding",
    "compare_shapes",
    "decide",
    "find_doubts",
    "if_the_map_is_right",
    "in_words_of",
    "is_another_function",
    "layers",
    "mixing",
    "not_compared",
    "open_in_train_mode",
    "origins",
    "run_checks",
    "surroundings",
    "worst_of",
]
