"""Moving weights where the map alone is not enough: in come two models and their map, out goes a plan that is proved.

A *fold* says what becomes of a tensor that only one of two models has. On the source's side its effect goes into other
tensors, or it has none; on the target's side it gets values under which it does nothing, or those of another tensor. A
fold counts only if both models, run as they are, give the same logits in float64, with the weights that are to be moved
and with others.

Read `drafts` and `sides` (tensors and models), `folds`, `fillings` and `undoing` (proposals), `planning` (the proof).
"""

from parity.folding.planning import Plan, plan_folds
from parity.folding.sides import Side, in_float64
from parity.folding.undoing import effects_of, fixed_tables

__all__ = ["Plan", "Side", "effects_of", "fixed_tables", "in_float64", "plan_folds"]
