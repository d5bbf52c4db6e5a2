"""Both models in step: in come two models, their weight map and images, out goes how far apart they are at every layer.

Read `sources`, `modes`, `masks`, `casting` and `nested` (how a pass is run), `attention`, `run` (a pass that stops at
every module), `operations` (what it has torch do), `crossing` (where images act on each other), `attention_weights`
(what its tokens attend to), `draws` (what it draws at random), `features`, `portions`, `alignment`, `function_calls`,
`layouts` and `putting_together` (which module is which), `measuring`, `spread`, `passes`, `subject` (who is compared).
"""

from parity.tracing.alignment import Alignment, align
from parity.tracing.attention import PARTS
from parity.tracing.attention_weights import AttentionWeights, attention_written_out
from parity.tracing.casting import blocks_of, first_that_runs, held_in, in_float32
from parity.tracing.crossing import Crossing
from parity.tracing.draws import ACTIVATION, Site, fixed_sites, sites_of
from parity.tracing.function_calls import FunctionCalls, Layer, with_functions
from parity.tracing.layouts import in_layout_of, in_layout_of_reference
from parity.tracing.masks import NoDropout, kept_by, numbers_of_size
from parity.tracing.measuring import (
    ELSEWHERE_BOUND,
    IDENTICAL,
    NOISE_BOUND,
    NOT_FINITE,
    SAME_FUNCTION_BOUND,
    Measurement,
    compare,
    is_degenerate,
    is_finite,
    noise_ratio,
    of_shapes,
)
from parity.tracing.modes import (
    MODES,
    Ambient,
    Mode,
    ambient_kept,
    can_switch_fastpath,
    in_mode,
    random_state_of,
    refusal_of_modes,
    switch,
)
from parity.tracing.nested import address_of, first_tensor, leaves
from parity.tracing.operations import Operations
from parity.tracing.passes import OUTPUT, Pass, align_with_portions, fitting, in_step, is_rearranged, steps
from parity.tracing.portions import Portion, are_the_whole
from parity.tracing.precision import BACKENDS, full_float32
from parity.tracing.putting_together import Gathering, portions_of
from parity.tracing.run import Event, Moment, Point, Run, Telling, bare_run, call_order, outer_modules
from parity.tracing.sources import DRAWING, SourceLine, by_file, line_of_source, name_of_operation
from parity.tracing.spread import LETTERS, LEVELS, Places, Sizes, grid_of, pooled
from parity.tracing.subject import Held, Models, Subject

__all__ = [
    "ACTIVATION",
    "BACKENDS",
    "DRAWING",
    "ELSEWHERE_BOUND",
    "IDENTICAL",
    "LETTERS",
    "LEVELS",
    "MODES",
    "NOISE_BOUND",
    "NOT_FINITE",
    "OUTPUT",
    "PARTS",
    "SAME_FUNCTION_BOUND",
    "Alignment",
    "Ambient",
    "AttentionWeights",
    "Crossing",
    "Event",
    "FunctionCalls",
    "Gathering",
    "Held",
    "Layer",
    "Measurement",
    "Mode",
    "Models",
    "Moment",
    "NoDropout",
    "Operations",
    "Pass",
    "Places",
    "Point",
    "Portion",
    "Run",
    "Site",
    "Sizes",
    "SourceLine",
    "Subject",
    "Telling",
    "address_of",
    "align",
    "align_with_portions",
    "ambient_kept",
    "are_the_whole",
    "attention_written_out",
    "bare_run",
    "blocks_of",
    "by_file",
    "call_order",
    "can_switch_fastpath",
    "compare",
    "first_tensor",
    "first_that_runs",
    "fitting",
    "fixed_sites",
    "full_float32",
    "grid_of",
    "held_in",
    "in_float32",
    "in_layout_of",
    "in_layout_of_reference",
    "in_mode",
    "in_step",
    "is_degenerate",
    "is_finite",
    "is_rearranged",
    "kept_by",
    "leaves",
    "line_of_source",
    "name_of_operation",
    "noise_ratio",
    "numbers_of_size",
    "of_shapes",
    "outer_modules",
    "pooled",
    "portions_of",
    "random_state_of",
    "refusal_of_modes",
    "sites_of",
    "steps",
    "switch",
    "with_functions",
]
