"""Same weights?: in come a candidate's own tensors and the reference's, out goes which differ, how, and what it does.

Read `finding` (what is known of a tensor), `rearranging`, `altering`, `resampling` and `unrelated` (what turns the
expected one into it), `naming`, `answer`, `comparing`.
"""

from parity.transfer.answer import OwnWeights
from parity.transfer.comparing import compare_as_they_are, compare_states, compare_weights

__all__ = ["OwnWeights", "compare_as_they_are", "compare_states", "compare_weights"]
