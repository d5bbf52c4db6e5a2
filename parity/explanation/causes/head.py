"""Entries for the end of the model: what goes to the head, the head, what becomes of the logits."""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import standardised
from parity.explanation.causes.variants import ADDED, after, no_bias, replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from parity.explanation.causes.variants import Activation

    Tensor = torch.Tensor


def _side_by_side(x: Tensor, parts: tuple[Callable[[Tensor], Tensor], ...]) -> Tensor:
    return torch.cat([part(x) for part in parts], -1)


LAST_TOKEN = "the last token"  # noqa: S105  (no password)

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean of all tokens": lambda x: x.mean(1),
    "the mean of the patches' tokens": lambda x: x[:, 1:].mean(1),
    LAST_TOKEN: lambda x: x[:, -1],
    "the first patch's token": lambda x: x[:, 1],
    "the maximum over all tokens": lambda x: x.amax(1),
    "the maximum over the patches' tokens": lambda x: x[:, 1:].amax(1),
    "the sum of all tokens": lambda x: x.sum(1),
    "the mean of all tokens but the last": lambda x: x[:, :-1].mean(1),
    "the sum of the patches' tokens": lambda x: x[:, 1:].sum(1),
    "the class token plus the mean of the patches' tokens": lambda x: x[:, 0] + x[:, 1:].mean(1),
    "the mean of the class token and the patches' mean": lambda x: (x[:, 0] + x[:, 1:].mean(1)) / 2,
    "log-sum-exp over all tokens": lambda x: x.logsumexp(1),
    "the median of all tokens": lambda x: x.median(1).values,
}

# what tokens are by their number, for a model in which others have joined them or the class token is missing or moved
_BY_NUMBER = {
    "the first patch's token": "the second token", "the patches' tokens": "all tokens but the first",
    "all patches' tokens": "all tokens but the first", "the patches' mean": "the others' mean",
    "the class token": "the first token",
}  # fmt: skip
_MOVING = {"extra-tokens", "class-token-missing", "class-token-place"}

# with more features than a token has
POOLINGS_TO_MORE: dict[str, Callable[[Tensor], Tensor]] = {
    "all tokens laid end to end": lambda x: x.flatten(1),
    "all patches' tokens laid end to end": lambda x: x[:, 1:].flatten(1),
    "all tokens laid end to end, feature by feature": lambda x: x.transpose(1, 2).flatten(1),
    **{
        f"{first} and {last}, side by side": functools.partial(_side_by_side, parts=(one, other))
        for (first, one), (last, other) in itertools.permutations(
            {
                "the class token": lambda x: x[:, 0],
                "the mean of the patches' tokens": lambda x: x[:, 1:].mean(1),
                "the mean of all tokens": lambda x: x.mean(1),
                "the maximum over the patches' tokens": lambda x: x[:, 1:].amax(1),
                "the maximum over all tokens": lambda x: x.amax(1),
            }.items(),
            2,
        )
    },
}


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for the end of the model, the likeliest first."""
    patches = (config["image_size"] // config["patch_size"]) ** 2
    poolings = {**POOLINGS, f"the mean of the last {patches} tokens": lambda x: x[:, -patches:].mean(1)}
    for name, function in poolings.items():
        yield Kind("pooling", {"pooling": replaced_by(function)}, f"{name} goes to the head", "the class token",
                   "self.head(x[:, 0])")
        yield Kind("pooling", {"pooling": replaced_by(function), "end": lambda _, x, norm, pool: norm(pool(x))},
                   f"{name} goes to the final norm and the head", "the class token", "self.head(x[:, 0])")
    for correction in (0, 1):
        yield Kind("extra-norm", {"input": functools.partial(_by_batch, correction=correction)},
                   f"BatchNorm by the batch's {'unbiased ' * correction}statistics before the head, eps {{value}},",
                   "none there", "call model.eval(), and use the running statistics", only="^heads$",
                   start=(1e-5, 1e-6))
    yield Kind("extra-norm", {"end": lambda _, x, norm, pool: pool(norm(norm(x)))}, "the final norm applied twice",
               "once", "self.head(self.norm(x)[:, 0])")
    yield no_bias("head-bias", "no bias of the head", r"heads\.head$")
    yield Kind("head-missing", {"linear": skipped}, "no head", "one", "return self.head(x[:, 0])", only=r"heads\.head$")
    yield no_bias("pre-logits", "no bias of the pre-logits layer", r"heads\.pre_logits$")
    yield Kind("pre-logits", {"tanh": skipped}, "no tanh after the pre-logits layer", "a tanh", "nn.Tanh()")
    for name, function in ADDED.items():
        yield Kind("pre-logits", {"tanh": replaced_by(function)}, f"{name} after the pre-logits layer", "a tanh",
                   "nn.Tanh()")
    outputs: dict[str, Activation] = {
        "softmax": functools.partial(torch.softmax, dim=-1),
        "log-softmax": functools.partial(torch.log_softmax, dim=-1),
        "softmax over the batch": functools.partial(torch.softmax, dim=0),
        **ADDED,
    }
    for name, function in outputs.items():
        yield Kind("output-activation", {"output": after(function)}, f"{name} of the logits", "the logits",
                   "return the logits; the loss takes the softmax", only="^(heads)?$")
        if "softmax" not in name:
            yield Kind("extra-activation", {"input": after(function)}, f"{name} before the head", "none there",
                       "take the activation away", only="^heads$")
    yield Kind("output-scale", {"output": lambda original, x, value: original(x) * value}, "logits times {value}",
               "as they are", "return the logits", only="^(heads)?$", start=(0.1, 0.5, 2.0, 10.0))

# fmt: on


# the entry for a model that returns a row for every token; where only its head is given all of them, it may choose one
EVERY_TOKEN = (
    Kind("pooling", {"pooling": replaced_by(lambda x: x)}, "every token comes out, and none is chosen",
         "the class token", "return self.head(x[:, 0])"),
)  # fmt: skip


def numbered(phrase: str, others: Collection[str]) -> str:
    """Returns what is said of pooling, with tokens by their number where the others' ids say that these have moved."""
    if not _MOVING & {*others}:
        return phrase
    return re.sub("|".join(_BY_NUMBER), lambda match: _BY_NUMBER[match[0]], phrase)


def _by_batch(original: Callable[[Tensor], Tensor], x: Tensor, *, correction: int, value: float) -> Tensor:
    return standardised(original(x), value, axes=(0,), correction=correction)
