"""Entries for the scores of attention: what is done to query and key, masks, positions, caps, and the softmax."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import softmax
from parity.explanation.causes.variants import after, found, given, replaced_by, skipped, whatever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Tensor = torch.Tensor
    Pattern = Callable[[int], Tensor]  # from the number of tokens to what is hidden, (queries, keys)

_ROTARY_BASES = (10000, 100)

# so many tokens at the end, or so far apart, are hidden at most
_MOST_HIDDEN = 8


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for scores, the likeliest first."""
    width, head_width = config["hidden_dim"], config["hidden_dim"] // config["num_heads"]
    grid = config["image_size"] // config["patch_size"]
    names = {
        f"1 / sqrt(head width {head_width})": head_width**-0.5,
        f"1 / sqrt(width {width})": width**-0.5,
        f"sqrt(head width {head_width})": head_width**0.5,
    }
    yield Kind(
        "scale-after-softmax",
        {"scale": given(1.0), "mix": lambda original, weights, value: original(weights, value) * head_width**-0.5},
        "attention scaled after the softmax", "before it", "(q @ k.transpose(-2, -1) * scale).softmax(-1) @ v",
    )
    for before, words in (({"scale": whatever(given(1.0))}, ", not before it"), ({}, " as well")):
        yield Kind("scale-after-softmax", {**before, "weights": _times},
                   f"attention scaled by {{value}} after the softmax{words}", "scaled before the softmax alone",
                   "(q @ k.transpose(-2, -1) * scale).softmax(-1) @ v", start=(0.1, 1.0, 4.0), named=names)
    for axes, name in _AXES.items():
        yield Kind("softmax-axis", {"softmax": replaced_by(functools.partial(_softmax_over, axes=axes))},
                   f"softmax over the {name}", "over the keys", "scores.softmax(dim=-1)")
    yield Kind("softmax-missing", {"softmax": skipped}, "no softmax", "one over the keys", "scores.softmax(dim=-1)")
    for name, function in _INSTEAD_OF_SOFTMAX.items():
        yield Kind("softmax-missing", {"softmax": replaced_by(function)}, f"{name} for the softmax",
                   "a softmax over the keys", "scores.softmax(dim=-1)")
    yield Kind("softmax-missing", {"scores": replaced_by(_of_softmaxes), "softmax": skipped},
               "a softmax of the query and one of the key", "one of the scores", "(q @ k.mT * scale).softmax(dim=-1)")
    yield Kind("softmax-doubled", {"softmax": after(softmax)}, "the softmax twice", "once", "scores.softmax(dim=-1)")
    patterns = _patterns(grid**2 + 1)
    yield from _masks(patterns)
    if head_width % 2 == 0:
        yield from _rotations(grid)
    yield Kind("cosine-attention", {"query_key": whatever(after(_of_length_1)), "scale": found},
               "query and key of length 1, their products times {value},", f"as they are, times 1 / sqrt({head_width})",
               "(q @ k.mT) * head_dim ** -0.5", start=(0.3, 1.0, 10.0, 30.0), named=names)
    yield from _biases(grid)
    for name, hidden in itertools.islice(patterns.items(), _BROAD):
        yield Kind("attention-mask", {"mask": functools.partial(_lower, hidden=hidden)},
                   f"scores lowered by {{value}} by a mask: {name}", "none", "take the mask away", start=(1.0, 10.0))


def _masks(patterns: Mapping[str, Pattern]) -> Iterator[Kind]:
    """Yields the entries for masks, in every way in which a mask is applied."""
    for name, hidden in patterns.items():
        for variants, words in (
            ({"mask": functools.partial(_hide, hidden=hidden)}, "a mask: {}"),
            ({"mask": functools.partial(_add, hidden=hidden, visible=1.0)},
             "a mask of ones and zeros added to the scores as numbers, with zeros where {}"),
            ({"mask": functools.partial(_add, hidden=hidden, visible=-1.0)},
             "a mask of ones and zeros added to the scores as numbers, with ones where {}"),
            ({"mask": functools.partial(_clear, hidden=hidden)}, "scores set to 0, not to -inf, by a mask: {}"),
            ({"weights": functools.partial(_clear, hidden=hidden)},
             "attention weights set to 0 after the softmax, so that they don't add up to 1, by a mask: {}"),
        ):
            yield Kind("attention-mask", variants, words.format(name), "none", "take the mask away")


def _biases(grid: int) -> Iterator[Kind]:
    """Yields the entries for scores with a cap or with a bias by distance, which have numbers."""
    caps: tuple[tuple[Callable[..., Tensor], str, tuple[float, ...]], ...] = (
        (_capped, "scores softly capped, {value} * tanh(scores / {value}),", (1.0, 5.0, 20.0, 50.0)),
        (lambda scores, value: scores.clamp(-value, value), "scores clamped to +-{value}", (0.3, 1.0, 5.0)),
        (lambda scores, value: scores.clamp(max=value), "scores capped at {value}", (0.3, 1.0, 5.0)),
        (lambda scores, value: scores.clamp(min=value), "scores raised to {value} at least", (0.0, -0.3, -1.0, -5.0)),
    )
    for function, phrase, start in caps:
        yield Kind("score-cap", {"scores": functools.partial(_then, function=function)}, phrase, "as they are",
                   "take the cap away", start=start)
    for function, phrase in ((_geometric, "{value} ** head, heads from 1,"), (_alike, "{value}")):
        for name, distance in _distances(grid).items():
            yield Kind("distance-bias", {"mask": functools.partial(_lowered, distance=distance, slopes=function)},
                       f"scores lowered by {name} times {phrase}", "no bias of the scores",
                       "take the bias away", start=(0.25, 0.5, 0.8), named={"1": 1.0})


# fmt: on


# --- the softmax


def _times(original: Callable[..., Tensor], *arguments: Any, value: float) -> Tensor:
    return original(*arguments) * value


_AXES = {(-2,): "queries", (1,): "heads", (0,): "images", (-2, -1): "queries and keys", (1, -1): "heads and keys",
    (1, -2, -1): "heads, queries and keys", (0, 1, -2, -1): "whole batch"}  # fmt: skip


def _softmax_over(scores: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return (scores - scores.logsumexp(axes, keepdim=True)).exp()


_INSTEAD_OF_SOFTMAX: dict[str, Callable[[Tensor], Tensor]] = {
    "a sigmoid": torch.sigmoid,
    "equal weights of all keys": lambda scores: torch.full_like(scores, 1 / scores.shape[-1]),
    "ReLU": F.relu,
    "ReLU divided by the number of keys": lambda scores: F.relu(scores) / scores.shape[-1],
    "a division by the number of keys": lambda scores: scores / scores.shape[-1],
    "a division by the sum of the scores": lambda scores: scores / scores.sum(-1, keepdim=True),
    "exp, not divided by its sum,": torch.exp,
    "log-softmax": functools.partial(torch.log_softmax, dim=-1),
    "squared ReLU": lambda scores: F.relu(scores).square(),
}


def _of_softmaxes(query: Tensor, key: Tensor, _: float) -> Tensor:
    return query.softmax(-1) @ key.softmax(-2).transpose(-2, -1)


_of_length_1 = functools.partial(F.normalize, dim=-1)


# --- masks

# how many of the patterns are no rows of one sort
_BROAD = 8


def _patterns(tokens: int) -> dict[str, Pattern]:
    """Returns what a mask may hide, in words; `_BROAD` of them, then those that end or begin at a number of tokens."""

    def ones(n: int) -> Tensor:
        return torch.ones(n, n, dtype=torch.bool)

    def class_token(n: int, rows: slice, columns: slice) -> Tensor:
        hidden = torch.zeros(n, n, dtype=torch.bool)
        hidden[rows, columns] = True
        return hidden

    first, others, every = slice(1), slice(1, None), slice(None)
    patterns: dict[str, Pattern] = {
        "causal, no token sees later ones": lambda n: ones(n).triu(1),
        "diagonal, no token sees itself": lambda n: torch.eye(n, dtype=torch.bool),
        "no token sees earlier ones": lambda n: ones(n).tril(-1),
        "no patch sees the class token": functools.partial(class_token, rows=others, columns=first),
        "no token sees the class token": functools.partial(class_token, rows=every, columns=first),
        "the class token sees no patch": functools.partial(class_token, rows=first, columns=others),
        "the class token does not see itself": functools.partial(class_token, rows=first, columns=first),
        "patches and class token do not see each other": lambda n: (
            class_token(n, first, others) | class_token(n, others, first)
        ),
    }
    counts = sorted({*range(1, min(_MOST_HIDDEN, tokens - 1) + 1), tokens // 4, tokens // 2})
    for count in filter(None, counts):
        words = f"last {count} tokens" if count > 1 else "last token"
        patterns[f"no token sees the {words}"] = functools.partial(class_token, rows=every, columns=slice(-count, None))
    for count in range(1, min(4, tokens - 1)):
        words = f"{count} place{'s' * (count > 1)} away"
        patterns[f"no token sees others more than {words}"] = functools.partial(
            lambda n, far: ones(n).triu(far + 1) | ones(n).tril(-far - 1), far=count
        )
    return patterns


def _hide(original: Callable[[Tensor], Tensor], scores: Tensor, *, hidden: Pattern) -> Tensor:
    return original(scores).masked_fill(hidden(scores.shape[-1]).to(scores.device), -math.inf)


def _add(original: Callable[[Tensor], Tensor], scores: Tensor, *, hidden: Pattern, visible: float) -> Tensor:
    return original(scores) - visible * hidden(scores.shape[-1]).to(scores)  # one number more for all changes nothing


def _lower(original: Callable[[Tensor], Tensor], scores: Tensor, *, hidden: Pattern, value: float) -> Tensor:
    return original(scores) - value * hidden(scores.shape[-1]).to(scores)


def _clear(original: Callable[[Tensor], Tensor], scores: Tensor, *, hidden: Pattern) -> Tensor:
    return original(scores) * ~hidden(scores.shape[-1]).to(scores.device)


# --- caps and positions


def _then(original: Callable[..., Tensor], *arguments: Any, function: Callable[..., Tensor], value: float) -> Tensor:
    return function(original(*arguments), value)


def _capped(scores: Tensor, value: float) -> Tensor:
    return value * torch.tanh(scores / value)


def _geometric(heads: Tensor, value: float) -> Tensor:
    return value**heads


def _alike(heads: Tensor, value: float) -> Tensor:
    return value * torch.ones_like(heads)


def _distances(grid: int) -> dict[str, Pattern]:
    """Returns how far tokens are apart, (queries, keys), in words."""

    def in_sequence(n: int) -> Tensor:
        places = torch.arange(n)
        return places[:, None] - places

    def on_grid(n: int, norm: float) -> Tensor:
        places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).double()
        distances = torch.zeros(n, n, dtype=torch.float64)
        distances[-len(places) :, -len(places) :] = torch.cdist(places, places, p=norm)
        return distances

    return {
        "the distance of two tokens": lambda n: in_sequence(n).abs(),
        "how far the key is before the query": in_sequence,
        "the distance of two patches on the grid": functools.partial(on_grid, norm=2.0),
        "the distance of two patches along rows and columns": functools.partial(on_grid, norm=1.0),
    }


def _lowered(
    original: Callable[[Tensor], Tensor],
    scores: Tensor,
    *,
    distance: Pattern,
    slopes: Callable[[Tensor, float], Tensor],
    value: float,
) -> Tensor:
    heads = torch.arange(1, scores.shape[1] + 1).to(scores)
    return original(scores) - slopes(heads, value)[:, None, None] * distance(scores.shape[-1]).to(scores)


def _rotations(grid: int) -> Iterator[Kind]:
    """Yields the entries for rotary positions: along the sequence, or along rows and columns of the grid."""
    for base, (pairs, of_pairs) in itertools.product(_ROTARY_BASES, ((False, "halves"), (True, "neighbours"))):
        for places, words in (
            (lambda n: torch.arange(n)[:, None], "by place in the sequence"),
            (lambda n: torch.arange(n - 1)[:, None], "by place among the patches, no class token"),
            (
                lambda _: torch.cartesian_prod(torch.arange(grid), torch.arange(grid)),
                "by row and column, no class token",
            ),
        ):
            turn = functools.partial(_turned, places=places, base=base, pairs=pairs)
            yield Kind("rotary-positions", {"query_key": after(turn)},
                       f"query and key turned {words} (rotary positions, base {base}, {of_pairs} paired)",
                       "as they are", "take the rotary positions away")  # fmt: skip


def _turned(x: Tensor, *, places: Callable[[int], Tensor], base: float, pairs: bool) -> Tensor:
    """Turns features of tokens (B, H, N, d) two by two; as many at the end as there are places, each by its place.

    Places are numbers, or several numbers, each of which turns a share of the features; a rest is left as it is.
    """
    at = places(x.shape[-2]).to(x)
    width = x.shape[-1] // at.shape[1] // 2 * 2
    rates = base ** (-torch.arange(0, width, 2).to(x) / width)
    angles = (at[:, :, None] * rates).flatten(1)  # (N, d / 2)
    first, last, rest = x[..., : -len(at), :], *x[..., -len(at) :, :].tensor_split([width * at.shape[1]], -1)
    real, imaginary = (last[..., ::2], last[..., 1::2]) if pairs else last.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    both = real * cos - imaginary * sin, imaginary * cos + real * sin
    turned = torch.stack(both, -1).flatten(-2) if pairs else torch.cat(both, -1)
    return torch.cat([first, torch.cat([turned, rest], -1)], -2)
