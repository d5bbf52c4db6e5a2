"""What is said of a candidate whose sizes are not the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.errors import ParityError
from parity.mapping.images import require_same_images
from parity.models import other_sizes, shown_sizes

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from parity.mapping.setup import Setup

# sizes that may differ from those of somebody's reference: where every tensor has its counterpart, where some have none
UNSEEN = ("num_heads",)
UNMAPPED = ("num_layers", "mlp_dim", "num_heads", "num_classes")
# of a candidate that takes the reference's images, where nobody knows which tensor is which, and of any
WHATEVER_RUNS = ("hidden_dim", "patch_size", *UNMAPPED)
_ALL = ("image_size", *WHATEVER_RUNS)


def own_sizes_told(setup: Setup) -> list[str]:
    """Says in which sizes the candidate is not the ViT of torchvision's that was asked for, a sentence each."""
    return other_sizes(setup.candidate, setup.own_sizes, setup.config | setup.asked, can_be_set=True)


def sizes_shown(setup: Setup, module: nn.Module, settings: Collection[str]) -> list[str]:
    """Says which of some sizes differ, as far as tensors show, where the reference is none of torchvision's by name."""
    if setup.is_torchvisions:
        return []
    theirs = {key: size for key, size in shown_sizes(module).items() if key in settings}
    return other_sizes(setup.candidate, theirs, shown_sizes(setup.reference), can_be_set=False)


def with_sizes(error: ParityError, setup: Setup, module: nn.Module) -> ParityError:
    """Returns the error of a comparison that could not be made, with what is known of the candidate's sizes."""
    try:
        require_same_images(module, setup.image_shape)
    except ParityError as images:
        error = images
    other = "; ".join(own_sizes_told(setup) or sizes_shown(setup, module, _ALL))
    if not other:
        return error
    is_candidates_own = error.__cause__ is not None and not isinstance(error.__cause__, ParityError)
    return ParityError(f"{error}; beside that, {other}" if is_candidates_own else f"{other} ({error})")
