"""Where dropout may act in train mode, and entries for each of these spots: another rate, another mask, or one more.

The reference's own dropouts are traits of the model that is bent, so that an entry may take the place of one. A mask
that is shorter along an axis than what it drops is shared along that axis.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Change, Kind
from parity.explanation.causes.places import BLOCK
from parity.explanation.causes.variants import after
from parity.tracing import numbers_of_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    Tensor = torch.Tensor
    Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spot:
    """A place of a ViT where something may be dropped.

    Attributes:
        part: of the model.
        operation: of the bent model, the result of which is dropped, or some of its arguments.
        only: regular expression of the operation's places.
        axes: of what is dropped, by the letters of `sizes`.
        words: what is dropped.
        arguments: numbers of the operation's arguments; none for its result.
        rate: of torchvision's arguments the one that says how much is dropped; empty where torchvision's drops nothing.
        hint: how to write it.
    """

    part: str
    operation: str
    only: str
    axes: str
    words: str
    arguments: tuple[int, ...] = ()
    rate: str = ""
    hint: str = ""


# in the order of execution; a table reads best with its columns side by side
# fmt: off
SPOTS = (
    Spot("tokens", "images", r"^$", "BCSS", "the images"),
    Spot("tokens", "leave", r"^conv_proj$", "BDGG", "the patches' features"),
    Spot("tokens", "output", r"^conv_proj$", "BPD", "the patches' tokens"),
    Spot("tokens", "token", r"^class_token$", "1D", "the class token"),
    Spot("tokens", "place", r"^class_token$", "BND", "the tokens before the positions are added"),
    Spot("tokens", "dropout", r"^encoder\.dropout$", "BND", "the tokens after the positions are added", rate="dropout",
         hint="x = self.dropout(x + self.pos_embedding)"),
    Spot("tokens", "leave", r"^encoder\.dropout$", "BND", "the tokens after the positions are added, once more"),
    Spot("positions", "table", r"pos_embedding$", "ND", "the positions"),
    Spot("attention", "leave", r"\.ln_1$", "BND", "the attention's input"),
    Spot("attention", "in_proj", r"\.self_attention$", "BN3", "the attention's queries, keys and values"),
    Spot("attention", "roles", r"\.self_attention$", "BND", "the attention's queries, keys and values",
         arguments=(0, 1, 2)),
    Spot("attention", "roles", r"\.self_attention$", "BND", "the attention's queries and keys", arguments=(0, 1)),
    Spot("attention", "roles", r"\.self_attention$", "BND", "the attention's queries", arguments=(0,)),
    Spot("attention", "roles", r"\.self_attention$", "BND", "the attention's keys", arguments=(1,)),
    Spot("attention", "roles", r"\.self_attention$", "BND", "the attention's values", arguments=(2,)),
    Spot("attention", "mask", r"\.self_attention$", "BHNN", "the attention's scores"),
    Spot("attention", "weights", r"\.self_attention$", "BHNN", "the attention's weights", rate="attention_dropout",
         hint="nn.MultiheadAttention(dim, heads, dropout=attention_dropout)"),
    Spot("attention", "merge", r"\.self_attention$", "BND", "the attention's heads before their projection"),
    Spot("attention", "dropout", r"layer_\d+\.dropout$", "BND", "the attention's output", rate="dropout",
         hint="x = x + self.dropout(attention(norm(x)))"),
    Spot("attention", "residual_1", BLOCK, "BND", "the stream after the attention"),
    Spot("attention", "residual_1", BLOCK, "BND", "the attention's output", arguments=(2,)),
    Spot("MLP", "leave", r"\.ln_2$", "BND", "the MLP's input"),
    Spot("MLP", "activation", r"\.mlp\.1$", "BNM", "the MLP's hidden features before the activation", arguments=(0,)),
    Spot("MLP", "dropout", r"\.mlp\.2$", "BNM", "the MLP's hidden features after the activation", rate="dropout",
         hint="nn.Sequential(Linear, GELU, Dropout, Linear, Dropout)"),
    Spot("MLP", "dropout", r"\.mlp\.4$", "BND", "the MLP's output", rate="dropout",
         hint="nn.Sequential(Linear, GELU, Dropout, Linear, Dropout)"),
    Spot("MLP", "residual_2", BLOCK, "BND", "the stream after the MLP"),
    Spot("MLP", "residual_2", BLOCK, "BND", "the MLP's output", arguments=(2,)),
    Spot("end", "output", r"^encoder\.layers$", "BND", "the tokens before the final norm"),
    Spot("end", "leave", r"^encoder\.ln$", "BND", "the tokens after the final norm"),
    Spot("end", "input", r"^heads$", "BD", "the head's input"),
    Spot("end", "enter", r"^heads$", "BD", "the head's input"),
    Spot("end", "output", r"^heads$", "BK", "the logits"),
)
# fmt: on

# of what a mask is shared by: the axes that it has, of those of what is dropped
_SHARED = {
    ("B", "BND"): "whole images, which is stochastic depth",
    ("B", "BNM"): "whole images",
    ("BN", "BND"): "whole tokens",
    ("BN", "BNM"): "whole tokens",
    ("BD", "BDGG"): "whole channels",
    ("BD", "BND"): "whole channels, the same in all tokens",
    ("BM", "BNM"): "whole channels, the same in all tokens",
    ("ND", "BND"): "the same elements in all images",
    ("NM", "BNM"): "the same elements in all images",
    ("BH", "BHNN"): "whole heads",
    ("BNN", "BHNN"): "the same weights in all heads",
    ("HNN", "BHNN"): "the same weights in all images",
}


@dataclass(frozen=True)
class Dropping:
    """A dropout at a spot.

    Attributes:
        spot: where it acts.
        rate: the probability to drop.
        shape: of its mask, as it is drawn, without axes of length 1.
        shared: what its mask drops as a whole, in words; empty for single elements.
        blocks: numbers of the blocks where it may be; none for anywhere.
        turned: whether the class token is the last of the tokens that its mask is drawn for, and not the first.
    """

    spot: Spot
    rate: float
    shape: Shape
    shared: str = ""
    blocks: frozenset[int] = frozenset()
    turned: bool = False

    @functools.cached_property
    def kind(self) -> Kind:
        """The entry for it, which takes the place of the reference's dropout at the same operation."""
        spot = self.spot
        tokens = tuple(axis for axis, letter in enumerate(spot.axes) if letter == "N" and self.turned)
        drop = functools.partial(dropped, rate=self.rate, shape=self.shape, turned=tokens)
        variant = functools.partial(_before, drop=drop, numbers=spot.arguments) if spot.arguments else after(drop)
        key = f"{spot.words} {spot.operation} {spot.arguments} {self.rate} {self.shape} {sorted(self.blocks)}"
        only = spot.only
        if self.blocks:
            only = rf"^(?=.*layer_({'|'.join(map(str, self.blocks))})(\.|$)).*{only}"
        return Kind("dropout" if spot.rate else "dropout-extra", {spot.operation: variant}, key, "", "", only=only)


def sizes(config: Mapping[str, Any], images: Tensor) -> dict[str, int]:
    """Returns how long each axis of `Spot.axes` is.

    Args:
        config: torchvision's arguments.
        images: (B, C, S, S).
    """
    side, width = config["image_size"] // config["patch_size"], config["hidden_dim"]
    return {
        "B": len(images), "C": images.shape[1], "S": images.shape[-1], "G": side, "P": side**2, "N": side**2 + 1,
        "D": width, "H": config["num_heads"], "M": config["mlp_dim"], "K": config["num_classes"], "3": 3 * width,
        "1": 1,
    }  # fmt: skip


def shapes_at_spots(
    lengths: Mapping[str, int], passing: Mapping[Spot, Shape] = MappingProxyType({})
) -> dict[Spot, Shape]:
    """Returns the shape of what is dropped at each spot.

    Args:
        lengths: of the axes in torchvision's model.
        passing: shapes that are known of another model, which may have other tokens, or images in their place.
    """
    usual = {spot: tuple(lengths[axis] for axis in spot.axes) for spot in SPOTS}
    return usual | {spot: shape for spot, shape in passing.items() if len(shape) == len(usual[spot])}


def fitting(shape: Shape, wholes: Mapping[Spot, Shape]) -> Iterator[tuple[Spot, str]]:
    """Yields the spots where a mask may act, and what it drops there as a whole, in words.

    Args:
        shape: of the mask, without axes of length 1.
        wholes: the shape of what is dropped at each spot.
    """
    for spot, whole in wholes.items():
        axes = _axes_of(shape, whole)
        if math.prod(shape) == math.prod(whole):
            yield spot, ""
        elif axes:
            letters = "".join(spot.axes[axis] for axis in sorted(axes))
            yield spot, _SHARED.get((letters, spot.axes), f"with masks of shape {shape}")


def layouts(drawn: Mapping[Shape, int], wholes: Mapping[Spot, Shape], layers: int) -> dict[Spot, Shape]:
    """Returns in which shapes a candidate draws the masks of single elements, by the spots where they act.

    Args:
        drawn: how often a mask of each shape is drawn, axes of length 1 left out.
        wholes: the shape of what is dropped at each spot.
        layers: number of blocks.
    """
    found: dict[Spot, Shape] = {}
    for spot, whole in wholes.items():
        found[spot] = next((shape for shape in drawn if sorted(shape) == sorted(whole)), whole)
        if spot.axes == "BHNN":
            images, heads, *tokens = whole
            if drawn.get((images, *tokens), 0) >= layers * heads > layers:  # one head after the other
                found[spot] = images, *tokens
    return found


def is_known_layout(shape: Shape, wholes: Mapping[Spot, Shape]) -> bool:
    """Returns whether it is known which number of a mask belongs to which element of what it drops."""
    merged = [(whole[0] * whole[1], *whole[2:]) for whole in wholes.values()]
    of_a_head = [(whole[0], *whole[2:]) for spot, whole in wholes.items() if spot.axes == "BHNN"]
    return shape in of_a_head or sorted(shape) in map(sorted, [*wholes.values(), *merged])


def own_dropouts(
    config: Mapping[str, Any], layout: Mapping[Spot, Shape], *, turned: bool = False
) -> dict[Change, Dropping]:
    """Returns the dropouts of torchvision's model as changes of one that drops nothing.

    Args:
        config: torchvision's arguments.
        layout: in which shapes masks are drawn at each spot.
        turned: whether the class token is the last one of those that they are drawn for.
    """
    blocks = [f"encoder.layers.encoder_layer_{n}" for n in range(config["num_layers"])]
    inside = ("self_attention", "dropout", "mlp.2", "mlp.4")
    places = ["encoder.dropout", *(f"{block}.{name}" for block in blocks for name in inside)]
    found: dict[Change, Dropping] = {}
    for spot in SPOTS:
        if spot.rate and config[spot.rate]:
            dropping = Dropping(spot, config[spot.rate], layout[spot], turned=turned)
            found |= {Change(dropping.kind, place): dropping for place in places if re.search(spot.only, place)}
    return found


def laid_out(
    dropouts: Mapping[Change, Dropping], layout: Mapping[Spot, Shape], *, turned: bool = False
) -> dict[Change, Dropping]:
    """Returns a model's dropouts with masks that are drawn as another one draws them.

    Args:
        dropouts: of the one model.
        layout: of the other one's masks at each spot.
        turned: whether the class token is the last one of those that the other one draws them for.
    """
    found = {}
    for change, dropping in dropouts.items():
        shape = dropping.shape if dropping.shared else layout[dropping.spot]
        new = dataclasses.replace(dropping, shape=shape, blocks=frozenset(), turned=turned)
        found[Change(new.kind, change.place)] = new
    return found


def dropped(x: Tensor, *, rate: float, shape: Shape, turned: Shape = ()) -> Tensor:
    """Drops elements of `x` as a candidate does whose masks are drawn by size (`tracing.MasksBySize`).

    Args:
        x: any tensor.
        rate: the probability to drop.
        shape: of the mask, as it is drawn, without axes of length 1.
        turned: axes of tokens, of which the first of `x` is the last that the mask is drawn for.

    Raises:
        ValueError: such a mask doesn't fit.
    """
    axes = _axes_of(shape, x.shape)
    if axes is None:
        if math.prod(shape) != x.numel():
            raise ValueError(f"a mask of shape {shape} for {tuple(x.shape)}")
        numbers = numbers_of_size(x)  # such as heads and images in one axis
    else:
        in_order = numbers_of_size(x.new_empty(shape)).permute(sorted(range(len(axes)), key=axes.__getitem__))
        numbers = in_order.reshape([length if axis in axes else 1 for axis, length in enumerate(x.shape)])
    if turned:
        numbers = numbers.roll([1] * len(turned), turned)
    return x * (numbers >= rate) / (1 - rate)


def _axes_of(shape: Shape, whole: Shape) -> tuple[int, ...] | None:
    """Returns to which axis of `whole` each axis of a mask belongs, in the usual order if that is possible."""
    ways = itertools.permutations(range(len(whole)), len(shape))
    return next((axes for axes in ways if all(whole[a] == n for a, n in zip(axes, shape, strict=True))), None)


def _before(original: Callable[..., Any], *arguments: Any, drop: Callable[[Tensor], Tensor], numbers: Shape) -> Any:
    return original(*(drop(x) if n in numbers else x for n, x in enumerate(arguments)))
