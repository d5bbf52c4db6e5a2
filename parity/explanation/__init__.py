"""Which bug it is: in comes a candidate that is another function, out go the causes that make it one, proved.

Read `bending` and `bent_vit` (a ViT whose operations can be replaced), `causes` (the catalogue), `observing`,
`following`, `solving`, `trying` and `search`, `proof`, `facts`, `formulas` and `grafts` (what is in no catalogue),
`own_parts` (what only the candidate has), `composing` and `stand_in` (a reference of another class), `case`,
`block_order`, `depths`, `wording`, `second_proof`, `train_mode` (dropout) and `naming`.
"""

from parity.explanation.bending import Change
from parity.explanation.bent_vit import cut_patches
from parity.explanation.naming import explain
from parity.explanation.proof import GRAFT, Explanation

__all__ = ["GRAFT", "Change", "Explanation", "cut_patches", "explain"]
