"""What a model's tensors and its attention say about its sizes, however they are called and laid out."""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from parity.models.constructors.words import CHANNELS, meanings
from parity.models.state import Shape, Shapes, state_shapes, without_initial_values

if TYPE_CHECKING:
    from collections.abc import Collection

    Kind = tuple[int, ...]
    Content = tuple[tuple[str, Shape], ...]

# a model of so many numbers is run faster with them than without
_SMALL = 10**7


def totals(shapes: Shapes, primes: Collection[int]) -> Counter[Kind]:
    """Returns how many values the tensors of each kind have together.

    A kind is told by how often each of some primes divides a tensor's size. Where every setting of a model has a prime
    of its own, that says which settings a tensor's shape comes from, and the totals are the same whether tensors are
    fused, split, transposed or flattened.

    Args:
        shapes: of a model's tensors.
        primes: one for each setting.
    """
    found: Counter[Kind] = Counter()
    for shape in shapes.values():
        size = math.prod(shape)
        found[tuple(_times(size, prime) for prime in primes)] += size
    return found


def distance(one: Counter[Kind], other: Counter[Kind]) -> float:
    """Returns how far two models' totals are from each other: at most 1 for each kind, 0 where all are the same."""
    return sum(abs(one[kind] - other[kind]) / max(one[kind], other[kind], 1) for kind in one.keys() | other.keys())


def _times(size: int, prime: int) -> int:
    count = 0
    while size and size % prime == 0:
        size //= prime
        count += 1
    return count


class _Softmaxes(TorchFunctionMode):
    """Adds up over how many heads of an image attention is normalised, in all blocks together."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.heads = batch, 0.0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], torch.Tensor):
            shape = args[0].shape
            name = getattr(function, "__name__", "")
            if name == "multi_head_attention_forward":
                self.heads += kwargs.get("num_heads", args[4] if len(args) > 4 else 0)
            elif len(shape) > 2 and (name == "scaled_dot_product_attention" or _is_attention(name, shape)):
                self.heads += math.prod(shape[:-2]) / self.batch
        return function(*args, **kwargs)


def _is_attention(name: str, shape: torch.Size) -> bool:
    return name == "softmax" and shape[-1] == shape[-2]


def heads_in_all(module: nn.Module, image_size: int) -> int:
    """Runs a model without values on two images and returns how many heads all its blocks have together.

    A small one is given zeros first, which takes less time than to run it without values.

    Returns:
        0 where the code of its attention does not show any.

    Raises:
        Exception: whatever the model raises.
    """
    if sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers())) <= _SMALL:
        with contextlib.suppress(Exception):  # of one that holds tensors without values elsewhere, among others
            module.to_empty(device="cpu")
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.detach().zero_()
            return _heads_on("cpu", module, image_size)
        module.to("meta")
    return _heads_on("meta", module, image_size)


def _heads_on(device: str, module: nn.Module, image_size: int) -> int:
    watch = _Softmaxes(batch=2)
    around: Any = without_initial_values() if device == "meta" else torch.device(device)
    was_training = module.training
    module.eval()
    try:
        with around, torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
            module(torch.zeros(2, CHANNELS, image_size, image_size, device=device))
    finally:
        module.train(was_training)
    return round(watch.heads)


def heads_of(module: nn.Module) -> int | None:
    """Returns the number of heads that attributes of a model's modules name, or None if they name none or several."""
    named = {
        value
        for inner in module.modules()
        for name, value in vars(inner).items()
        if isinstance(value, int) and not isinstance(value, bool) and meanings(name)[:1] == ("num_heads",)
    }
    return named.pop() if len(named) == 1 else None


def shown_sizes(module: nn.Module) -> dict[str, int]:
    """Reads a ViT's sizes off its tensors: blocks, width, MLP, classes, patches and images.

    Returns:
        By the reference's names; what the tensors don't show is missing.
    """
    shapes = state_shapes(module)
    blocks, first = _blocks(shapes)
    if not blocks:
        return {}
    found = {"num_layers": blocks}
    inside = list(first.values())
    vectors = Counter(shape[0] for shape in inside if len(shape) == 1)
    if not vectors:
        return found
    pairs = Counter(shape for shape in inside if len(shape) == 2)
    # an MLP has one vector of its width, heads of their own many short ones; where norms are shared, matrices tell
    several = [width for width, count in vectors.items() if count > 1]
    several = several or sorted(vectors, key=lambda width: sum(n for shape, n in pairs.items() if width in shape))[-1:]
    outside = {name: shape for name, shape in shapes.items() if not _is_in_blocks(name, first, blocks)}
    # a token is as wide in a block as before and behind it, and a head is not
    several = [width for width in several if any(width in shape for shape in outside.values())] or several
    width = found["hidden_dim"] = max(several, key=lambda width: width * vectors[width])
    wide = [a for (a, b), n in pairs.items() if b == width != a and n == 1 and pairs.get((b, a)) == 1]
    squares = sum(n * (a // width) for (a, b), n in pairs.items() if b == width and a in (width, 2 * width, 3 * width))
    if wide:
        found["mlp_dim"] = max(wide)
    elif squares == 6:  # four of the attention, and two of an MLP that is as wide
        found["mlp_dim"] = width
    flat = [shape for shape in outside.values() if len(shape) == 2]
    last = next((shape for shape in reversed(flat) if width in shape), (0, 0))
    goes_on = any(shape[1] == last[0] for shape in flat if shape != last)  # it is a hidden layer of the head
    if last[1] == width and (last[0],) in outside.values() and not goes_on:
        found["num_classes"] = last[0]
    found |= _of_images(outside, width)
    heads = heads_of(module)
    return {**found, "num_heads": heads} if heads else found


def _of_images(outside: Shapes, width: int) -> dict[str, int]:
    """Returns the sizes of patches and images, from the patch projection and the table of positions."""
    kernels = [shape for shape in outside.values() if len(shape) == 4 and shape[0] == width and shape[2] == shape[3]]
    sides = {shape[2] for shape in kernels}
    flat = {
        math.isqrt(a // CHANNELS)
        for shape in outside.values()
        if len(shape) == 2 and width in shape
        for a in shape
        if a % CHANNELS == 0 and _is_square(a // CHANNELS) and (a != width or shape == (width, width))
    }
    sides = sides or flat
    if len(sides) != 1:
        return {}
    patch = sides.pop()
    tables = [shape for name, shape in outside.items() if "pos" in name.lower() and width in shape]
    tokens = [math.prod(shape) // width for shape in tables]
    grids = {math.isqrt(n - extra) for n in tokens for extra in (0, 1) if n > extra and _is_square(n - extra)}
    return {"patch_size": patch, **({"image_size": patch * grids.pop()} if len(grids) == 1 else {})}


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _blocks(shapes: Shapes) -> tuple[int, Shapes]:
    """Returns how many blocks there are, and the tensors of one: what is repeated under a number and holds the most."""
    groups: dict[str, dict[str, dict[str, Shape]]] = defaultdict(lambda: defaultdict(dict))
    for name, shape in shapes.items():
        for number in re.finditer(r"\d+", name):
            groups[name[: number.start()]][number[0]][name[number.end() :]] = shape
    best: tuple[int, int, Shapes] = (0, 0, {})
    for prefix, members in groups.items():
        alike = Counter(tuple(sorted(member.items())) for member in members.values())
        content, _ = alike.most_common(1)[0]
        count = sum(number for other, number in alike.items() if _is_such_a_block(other, content))
        size = count * sum(math.prod(shape) for _, shape in content)
        if size > best[0] and len(content) > 4:
            named = {f"{prefix}#{suffix}": shape for suffix, shape in content}
            best = size, count, named
    return best[1], best[2]


def _is_such_a_block(one: Content, other: Content) -> bool:
    """Returns whether two blocks have the same parts, most of the same shapes: an MLP may have a width of its own."""
    return dict(one).keys() == dict(other).keys() and 2 * len({*one} & {*other}) > len(other)


def _is_in_blocks(name: str, first: Shapes, blocks: int) -> bool:
    return blocks > 0 and any(
        f"{name[: number.start()]}#{name[number.end() :]}" in first for number in re.finditer(r"\d+", name)
    )
