"""Arguments that are classes: what a constructor makes its own parts of, such as the heads of its attention."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.models.constructors.signatures import classes_beside, is_called
from parity.models.constructors.words import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.models.constructors.holders import Slot

# what is said beside the name of the class itself
_KINDS = {"class", "cls", "type", "kind", "module", "fn", "factory"}


def classes_for(function: Callable[..., Any], slot: Slot) -> list[type]:
    """Returns the class that an argument without a default is meant to be; none if that is no class, or not known.

    Its annotation says so, `type[Head]`, or the constructor calls it and one class beside it is called alike.
    """
    if not slot.is_required or "." in slot.path:
        return []
    said = typing.get_args(slot.kind) if typing.get_origin(slot.kind) is type else ()
    meant = [kind for kind in said if inspect.isclass(kind) and kind not in (nn.Module, object)]
    if meant or not is_called(function, slot.name):
        return meant
    wanted = {*words(slot.name)} - _KINDS
    found = [kind for kind in classes_beside(function) if wanted and {*words(kind.__name__)} == wanted]
    return found if len(found) == 1 else []
