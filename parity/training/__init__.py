"""Beyond the forward pass: in comes who is compared, out goes what differs in gradients, training and conditions.

Read `gradients`, `blame` and `backward`; `draws`, `train_mode`, `recipes`, `trajectories` and `learning`; `resizing`
and `conditions`; `beyond` leads through them.
"""

from parity.training.beyond import look_beyond, modes_of, require_known
from parity.training.draws import CAUSES as DRAWING_CAUSES
from parity.training.learning import Classroom
from parity.training.resizing import RULES

__all__ = ["DRAWING_CAUSES", "RULES", "Classroom", "look_beyond", "modes_of", "require_known"]
