"""What may be given to a slot: the quantities that its name, annotation and default allow, each in its forms."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.models.constructors.signatures import EMPTY, compared_with
from parity.models.constructors.words import CHANNELS, QUANTITIES, RATES, SIZES, as_in_vit_b, meanings_at, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from parity.models.constructors.holders import Slot

BY_NAME, BY_SHAPE, BY_DEFAULT, AT_DEFAULT, AS_GIVEN = (
    "by name", "by shape", "by its default", "left at its default", "as given"
)  # fmt: skip

SET = "set while it is built (a constant of its module or class)"

_BATCH = 3  # images in a check's batch, unless it is told otherwise
FAR_FETCHED = 6  # the cost of another choice than the default
_ANY = (EMPTY, typing.Any, object)  # annotations that say nothing
CONTRADICTING = 9  # the cost of what a name says otherwise
_BOTH_SIDES = ({"height", "width"}, {"h", "w"}, {"x", "y"})
# what a flag may be about for its tensors to be the reference's
_FLAGS = {
    "bias",
    "cls",
    "class",
    "learn",
    "learned",
    "learnable",
    "norm",
    "affine",
    "token",
    "pos",
    "positional",
    "final",
}


@dataclass(frozen=True)
class Option:
    """One thing to give to a slot.

    Attributes:
        cost: how far-fetched it is; 0 is what the name says.
        quantity: of `QUANTITIES`, or None for a fixed value.
        form: makes the value of the quantity's number.
        value: what is given where there is no quantity; EMPTY: nothing.
        is_last: only for where nothing can be built otherwise, as no tensor would tell whether it is meant.
        is_again: what another argument is, too.
    """

    cost: int
    quantity: str | None = None
    form: Callable[[Any], Any] | None = None
    value: Any = EMPTY
    is_last: bool = False
    is_again: bool = False

    def of(self, config: Mapping[str, Any]) -> Any:
        """Returns the value at a configuration of the reference; EMPTY: the default."""
        if self.quantity is None:
            return self.value
        number = QUANTITIES[self.quantity](config)
        return number if self.form is None else self.form(number)


LEFT = Option(0)
USUAL = 1000  # the cost of what only a default says, and nothing else is tried for

_WIDTHS = ("head_width", "inner_width", "mlp_dim")
# quantities that several numbers may stand for
_IN_LISTS = (
    "image_size",
    "patch_size",
    "patch_stride",
    "patches_per_side",
    "mlp_widths",
    "heads_of_blocks",
    "head_hidden",
)


def options(slot: Slot, *, is_side: bool) -> list[Option]:
    """Returns what may be given to a slot, the likeliest first.

    Args:
        slot: which.
        is_side: one of an image's or a patch's sides, as another argument is the other.
    """
    if inspect.isclass(slot.kind) and issubclass(slot.kind, nn.Module):  # which no value stands for
        return [LEFT] if _has_default(slot) else []
    if "device" in words(slot.name) and _is_absent(slot.default):
        return [Option(0, value=type(slot.default)("cpu"))]
    fixed = _fixed(slot)
    return _numbers(slot, is_side=is_side) if fixed is None else fixed


def _has_default(slot: Slot) -> bool:
    return slot.default is not EMPTY or not slot.is_required


def _fixed(slot: Slot) -> list[Option] | None:
    """Returns what may be given where no number is wanted; None where one is."""
    default, kind, has_default = slot.default, slot.kind, _has_default(slot)
    if isinstance(default, bool) or kind is bool:
        return flags(slot)
    choices = _choices(slot)
    if choices:
        if has_default:
            return [LEFT, *(Option(FAR_FETCHED, value=choice) for choice in choices if choice != default)]
        return [Option(rank, value=choice) for rank, choice in enumerate(choices)]
    if not _is_digits(default) and (isinstance(default, (str, dict)) or (default is not EMPTY and callable(default))):
        return [LEFT]
    if kind is str:
        return [LEFT] if has_default else _named_choices(slot)
    return None


def _is_absent(device: Any) -> bool:
    """Returns whether a default is a GPU, and there is none here."""
    if not isinstance(device, (str, torch.device)):
        return False
    kind = f"{device}".partition(":")[0]
    return (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    )


def _numbers(slot: Slot, *, is_side: bool) -> list[Option]:
    """Returns what may be given where a number is wanted, or nothing is known."""
    default, has_default = slot.default, _has_default(slot)
    allowed = as_in_vit_b(_allowed(slot), default)
    if is_side and "image_size" not in allowed[:1] and "patch_size" not in allowed[:1]:
        allowed = ("image_size", *allowed)
    # `config.get("grid")`: who asks like that builds something else where there is one
    may_be_missing = has_default and default is None and slot.kind is EMPTY and "." in slot.path
    found = []
    for rank, quantity in enumerate(allowed):
        if quantity == "no_rate" or (quantity in ("embedding_dropout", "inner_dropout") and has_default):
            found.append(LEFT if has_default else Option(0, quantity))
            continue
        cost = 2 * rank
        if quantity == "head_width" and default is None and has_default:
            found.append(LEFT)
            cost = 1
        if may_be_missing and quantity not in RATES:
            found += [LEFT] * (LEFT not in found)
            cost += 1
        found += [Option(cost + n, quantity, form) for n, form in enumerate(_forms(quantity, slot))]
    if allowed and allowed[0] in SIZES:
        found.append(Option(6 if has_default else 4, allowed[0], _forms(allowed[0], slot)[0], is_again=True))
    if has_default and LEFT not in found:
        found.append(Option(5 if allowed else 0))
    if not allowed:
        found += _unsaid(slot)
    elif not has_default:  # where other arguments contradict the name
        of_its_kind = _WIDTHS if "hidden_dim" in allowed else ()
        others = sorted(
            {*SIZES} - {*allowed}, key=lambda quantity: (quantity not in of_its_kind, SIZES.index(quantity))
        )
        found += [Option(CONTRADICTING, quantity, _forms(quantity, slot)[0]) for quantity in others]
    return sorted(found, key=lambda option: option.cost)


def _unsaid(slot: Slot) -> list[Option]:
    """Returns what an argument may be whose name says nothing."""
    if slot.default is None and {*words(slot.name)} & {"norm", "act", "activation"}:  # called, whatever it is
        return [dataclasses.replace(option, cost=FAR_FETCHED, is_last=True) for option in _named_choices(slot)[:1]]
    if _has_default(slot):
        return [Option(8, quantity, _forms(quantity, slot)[0]) for quantity in _like_the_default(slot.default)]
    found = _named_choices(slot)
    if "bias" in words(slot.name):  # no number
        return found
    if slot.kind in (int, *_ANY):
        found += [Option(3 + n, quantity, form) for quantity in SIZES for n, form in enumerate(_forms(quantity, slot))]
    if slot.kind in (float, *_ANY):
        found.append(Option(7, "dropout"))
    return found


def _like_the_default(default: Any) -> tuple[str, ...]:
    """Returns the quantities that may have a default of this form."""
    if _is_count(default):
        return ("num_layers", *(q for q in SIZES if q not in ("num_layers", "representation_size")))
    if isinstance(default, float) and default >= 1:
        return ("mlp_ratio",)
    if isinstance(default, (tuple, list)) and len(default) in (2, 3) and all(map(_is_count, default)):
        return ("patch_size", "image_size")
    return ()


def _is_digits(value: Any) -> bool:
    """Returns whether a default is a number as it stands in a file of settings."""
    return isinstance(value, str) and value.isdecimal()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _allowed(slot: Slot) -> tuple[str, ...]:
    """Returns the quantities that the name allows, without those that default or annotation contradict."""
    allowed = meanings_at(slot.path)
    default = slot.default
    if isinstance(default, float) and not default.is_integer():
        allowed = tuple(quantity for quantity in allowed if quantity in (*RATES, "mlp_ratio"))
    if _is_count(default) or slot.kind is int:
        allowed = tuple(
            quantity
            for quantity in allowed
            if quantity != "mlp_widths" and (quantity not in RATES or not _is_count(default))
        )
    if slot.kind is float:
        allowed = tuple(quantity for quantity in allowed if quantity in (*RATES, "mlp_ratio")) or allowed
    if (
        allowed[:2] == ("patch_size", "patch_vector")
        and _is_count(default)
        and default % CHANNELS == 0
        and default > 128
    ):
        allowed = ("patch_vector", "patch_size", *allowed[2:])
    if {"num_patches", "patches_per_side"} <= {*allowed} and _is_count(default) and math.isqrt(default) ** 2 != default:
        allowed = ("patches_per_side", *(quantity for quantity in allowed if quantity != "patches_per_side"))
    if {"mlp_dim", "mlp_ratio"} <= {*allowed} and isinstance(default, (int, float)):
        likely = "mlp_ratio" if default <= 16 else "mlp_dim"
        allowed = (likely, *(quantity for quantity in allowed if quantity != likely))
    return _of_several(slot, allowed)


def _of_several(slot: Slot, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the quantities without those that are several numbers where one is wanted, or the reverse."""
    if _is_list(slot):
        return tuple(quantity for quantity in allowed if quantity in _IN_LISTS) or allowed
    is_plural = {*words(slot.name)} & {"nums", "per", "each"}
    unlikely = () if is_plural and not _has_default(slot) and slot.kind is not int else ("heads_of_blocks",)
    if _has_default(slot):
        unlikely = (*unlikely, "head_hidden")  # it is left as its author has it
    return tuple(quantity for quantity in allowed if quantity not in unlikely)


def _is_list(slot: Slot) -> bool:
    kind = typing.get_origin(slot.kind) or slot.kind
    return isinstance(slot.default, (tuple, list)) or kind in (tuple, list)


def _forms(quantity: str, slot: Slot) -> list[Callable[[Any], Any] | None]:
    """Returns the forms in which a quantity may be wanted, the likeliest first."""
    if _is_digits(slot.default):
        return [_digits]
    if quantity == "mlp_ratio":
        whole = _is_count(slot.default) or slot.kind is int
        plain = (slot.default is EMPTY or slot.default is None) and slot.kind is not float
        return [_whole] if whole else [_whole, float] if plain else [None]
    if quantity in ("mlp_widths", "heads_of_blocks") and isinstance(slot.default, tuple):
        return [tuple]
    if quantity == "head_hidden" and _is_list(slot):
        return [lambda number: [number]]
    if quantity in ("image_size", "patch_size", "patch_stride", "patches_per_side") and not _is_count(slot.default):
        return _side_forms(quantity, slot)
    return [None]


def _side_forms(quantity: str, slot: Slot) -> list[Callable[[Any], Any] | None]:
    """Returns whether the side of an image or patch is wanted as a number, a pair or with the channels."""
    if isinstance(slot.default, (tuple, list)):
        return [functools.partial(_like, slot.default)]
    said, kind = words(slot.name), slot.kind
    of_images: list[Callable[[Any], Any] | None] = [_pair, _channels_first, _channels_last]
    pairs = of_images if quantity == "image_size" else of_images[:1]
    with_channels = [*pairs[1:], *pairs[:1]]
    if typing.get_origin(kind) in (tuple, list) or kind in (tuple, list):
        return with_channels if len(typing.get_args(kind)) == 3 else pairs
    if "chw" in said:
        return with_channels
    return [*pairs, None] if "shape" in said and kind is EMPTY else [None, *pairs]


def _pair(number: Any) -> Any:
    return number, number


def _channels_first(number: Any) -> Any:
    return CHANNELS, number, number


def _channels_last(number: Any) -> Any:
    return number, number, CHANNELS


def _whole(number: float) -> Any:
    return int(number) if float(number).is_integer() else number


def _digits(number: float) -> str:
    return str(_whole(number))


def _like(default: Any, number: Any) -> Any:
    """Returns a pair or triple of the default's type and order."""
    if len(default) == 3:
        values = (number, number, CHANNELS) if default[2] in (1, CHANNELS) else (CHANNELS, number, number)
    else:
        values = (number,) * len(default)
    return type(default)(values)


def flags(slot: Slot) -> list[Option]:
    """Returns the choices for a flag."""
    said = set(words(slot.name))
    is_likely = bool(said & _FLAGS) and not said & {"no", "without", "disable", "zero", "scale"}
    if not _has_default(slot):
        return [Option(0, value=is_likely), Option(1, value=not is_likely)]
    return [LEFT, Option(FAR_FETCHED, value=True)] if is_likely and slot.default is False else [LEFT]


def _choices(slot: Slot) -> list[Any]:
    """Returns the values that an annotation lists."""
    if typing.get_origin(slot.kind) is typing.Literal:
        return _reference_first(list(typing.get_args(slot.kind)))
    if inspect.isclass(slot.kind) and issubclass(slot.kind, enum.Enum):
        return _reference_first(list(slot.kind))
    return []


# what the reference does, in the words that implementations have for it
_AS_THE_REFERENCE = (
    "cls", "class_token", "token", "cls_token", "class", "gelu", "learned", "learnable", "layer_norm", "layernorm",
    "conv", "pre", "prenorm", "linear", "softmax", "zeros", "none",
)  # fmt: skip


def _reference_first(choices: list[Any]) -> list[Any]:
    def rank(choice: Any) -> int:
        said = str(getattr(choice, "value", choice)).lower()
        said_as_name = str(getattr(choice, "name", choice)).lower()
        return min(
            (n for n, known in enumerate(_AS_THE_REFERENCE) if known in (said, said_as_name)),
            default=len(_AS_THE_REFERENCE),
        )

    return sorted(choices, key=rank)


def _named_choices(slot: Slot) -> list[Option]:
    """Returns what goes by a name that stands for no number."""
    said = set(words(slot.name))
    values: list[Any] = []
    if "device" in said:
        values = ["cpu"]
    elif "batch" in said:
        values = [_BATCH]
    elif said & {"pool", "pooling", "classifier", "aggregation"}:
        values = ["cls", "token", "cls_token", "class_token", "class"]
    elif said & {"act", "activation", "nonlinearity", "gelu"}:
        values = ["gelu", nn.GELU, nn.GELU()]
        if slot.kind is not str:
            values = [nn.GELU, "gelu", nn.GELU()]
    elif said & {"eps", "epsilon", "init", "initializer", "initialization"}:
        values = [1e-6 if said & {"eps", "epsilon"} else 0.02]  # of initial values any is right
    elif said & {"norm"}:
        values = [functools.partial(nn.LayerNorm, eps=1e-6), "layernorm", "layer_norm", True, False]
    elif said & {"bias", "zero"} or said & _FLAGS:
        values = [False, True] if "zero" in said else [True, False]
    elif said & {"dtype"}:
        values = [None]
    return [Option(rank, value=value) for rank, value in enumerate(values)]


def strings_in(function: Any, name: str) -> list[str]:
    """Returns the words that a constructor's code compares an argument with."""
    return _reference_first(list(dict.fromkeys(compared_with(function, name))))


def is_side(slot: Slot, siblings: list[Slot]) -> bool:
    """Returns whether an argument is one side of an image or patch, and another one is the other."""
    said = set(words(slot.name))
    for other in siblings:
        theirs = set(words(other.name))
        if (said - theirs) | (theirs - said) in _BOTH_SIDES and len(said) == len(theirs):
            return True
    return False
