"""What torch's native kernel makes of a candidate with nobody watching.

Hooks keep torch from taking it for a whole `nn.TransformerEncoderLayer`, so that no check sees it. It takes every mask
for one of true and false, whatever the numbers in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.tracing import MODES, NOISE_BOUND, bare_run, can_switch_fastpath, compare, is_finite, noise_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from parity.diagnosis.bare import BareRuns
    from parity.tracing import Mode, Models

_EVAL, _PLAIN = MODES["eval"], MODES["eval-no-fastpath"]


def makes_the_difference(bare: BareRuns, mode: Mode, watched: Iterable[torch.Tensor]) -> bool:
    """Whether the candidate's logits are those that somebody saw, if only torch takes no native kernel.

    Args:
        bare: how it runs with nobody watching.
        mode: in which its logits were others with somebody watching.
        watched: those logits, with the kernel and without.
    """
    if mode.name != "eval" or not can_switch_fastpath():
        return False
    plain = bare.of("candidate", _PLAIN).output
    return any(torch.equal(plain, seen) for seen in watched)


def fault_of_the_kernel(models: Models, bare: BareRuns) -> list[str]:
    """Says what the kernel makes of the candidate, if that is another function than the reference; else nothing."""
    own, plain = (bare.of("candidate", mode).output for mode in (_EVAL, _PLAIN))
    for owner, other in (("candidate", plain), ("reference", bare.of("reference", _EVAL).output)):
        if is_finite(own) and (noise_ratio(other, own, _truth(models, owner)) or 0.0) <= NOISE_BOUND:
            return []
    size = f"off by {compare(plain, own, ulp=False).relative:.2g}" if is_finite(own) else "not finite"
    what = "which hooks keep it from, and to which a mask of numbers is one of true and false"
    return [f"in eval mode with nobody watching the logits are {size}: torch takes its native kernel, {what}"]


def _truth(models: Models, owner: str) -> torch.Tensor:
    """Returns a model's logits in float64, without the kernel."""
    model = models.candidate if owner == "candidate" else models.reference
    output = bare_run(model, models.images, _PLAIN, torch.float64, models.seed, owner).output
    assert output is not None
    return output.detach()
