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


def makes_the_difference(bare: BareRuns, mode: Mode, watched: Iterable[torch.Tensor]) -> bool:
    """Whether the candidate's logits are those that somebody saw, if only torch takes no native kernel.

    Args:
        bare: how it runs with nobody watching.
        mode: in which its logits were others with somebody watching.
        watched: those logits, with the kernel and without.
    """
    if mode.name != "eval" or not can_switch_fastpath():
        return False
    plain = bare.of("candidate", _without(mode)).output
    return any(torch.equal(plain, seen) for seen in watched)


def fault_of_the_kernel(models: Models, bare: BareRuns, mode: Mode) -> list[str]:
    """Says what the kernel makes of the candidate, if that is another function than the reference; else nothing."""
    own, plain = (bare.of("candidate", used).output for used in (mode, _without(mode)))
    for owner, other in (("candidate", plain), ("reference", bare.of("reference", mode).output)):
        if is_finite(own) and (noise_ratio(other, own, _truth(models, owner, mode)) or 0.0) <= NOISE_BOUND:
            return []
    size = f"off by {compare(plain, own, ulp=False).relative:.2g}" if is_finite(own) else "not finite"
    what = "which hooks keep it from, and to which a mask of numbers is one of true and false"
    return [f"in {mode.name} mode with nobody watching the logits are {size}: torch takes its native kernel, {what}"]


def _without(mode: Mode) -> Mode:
    return MODES["eval-no-fastpath"] if mode.name == "eval" else mode


def _truth(models: Models, owner: str, mode: Mode) -> torch.Tensor:
    """Returns a model's logits in float64, without the kernel."""
    model = models.candidate if owner == "candidate" else models.reference
    output = bare_run(model, models.images, _without(mode), torch.float64, models.seed, owner).output
    assert output is not None
    return output.detach()
