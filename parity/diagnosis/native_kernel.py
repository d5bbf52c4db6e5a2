"""What torch's native kernel makes of a candidate with nobody watching.

Hooks keep torch from taking it for a whole `nn.TransformerEncoderLayer`, so that no check sees it. It takes every mask
for one of true and false, whatever the numbers in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.tracing import (
    MODES,
    NOISE_BOUND,
    Run,
    bare_run,
    can_switch_fastpath,
    compare,
    first_that_runs,
    held_in,
    is_finite,
    noise_ratio,
)

if TYPE_CHECKING:
    from parity.diagnosis.bare import BareRuns
    from parity.tracing import Mode, Models

_EVAL, _PLAIN = MODES["eval"], MODES["eval-no-fastpath"]


def makes_the_difference(bare: BareRuns, models: Models, dtype: torch.dtype, mode: Mode) -> bool:
    """Whether watching changes nothing in the candidate's logits, if only torch takes no native kernel.

    Args:
        bare: how it runs with nobody watching.
        models: with weights in place.
        dtype: the dtype under test.
        mode: in which its logits were others with somebody watching.
    """
    if mode.name != "eval" or not can_switch_fastpath():
        return False
    watched = {name for name, _ in models.candidate.named_modules() if name}

    def run(attempt: int) -> torch.Tensor:
        with _PLAIN.active(models.candidate), held_in(models.candidate, dtype, attempt):
            return Run(models.candidate, models.images.to(dtype), watched, models.seed, "candidate").finish()

    return torch.equal(bare.of("candidate", _PLAIN).output, first_that_runs(run, dtype))


def fault_of_the_kernel(models: Models, bare: BareRuns) -> list[str]:
    """Says what the kernel makes of the candidate, if that is another function than the reference; else nothing."""
    own, plain = (bare.of("candidate", mode).output for mode in (_EVAL, _PLAIN))
    for owner, other in (("candidate", plain), ("reference", bare.of("reference", _EVAL).output)):
        if is_finite(own) and (noise_ratio(other, own, _truth(models, owner)) or 0.0) <= NOISE_BOUND:
            return []
    size = f"off by {compare(plain, own, ulp=False).relative:.2g}" if is_finite(own) else "not finite"
    what = "which hooks keep it from; to that a mask of numbers, for one, is one of true and false"
    return [f"in eval mode with nobody watching the logits are {size}: torch takes its native kernel, {what}"]


def _truth(models: Models, owner: str) -> torch.Tensor:
    """Returns a model's logits in float64, without the kernel."""
    model = models.candidate if owner == "candidate" else models.reference
    output = bare_run(model, models.images, _PLAIN, torch.float64, models.seed, owner).output
    assert output is not None
    return output.detach()
