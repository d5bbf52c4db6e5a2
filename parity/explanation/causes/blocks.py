"""Entries for how a block is wired: where its norms stand, what is added to what, which branches it has.

Wirings take what `bent_vit.pre_norm` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import pre_norm
from parity.explanation.causes.places import BLOCK
from parity.explanation.causes.variants import replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    Tensor = torch.Tensor

_BRANCH = {1: "attention", 2: "the MLP"}


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for a block's wiring, the likeliest first."""

    def residual(id: str, number: int, function: Callable[..., Tensor], phrase: str, **others: Any) -> Kind:  # noqa: A002
        hint = "x = x + branch(norm(x)), which is pre-norm; x = norm(x + branch(x)) is post-norm"
        return Kind(id, {f"residual_{number}": replaced_by(function)}, phrase.format(_BRANCH[number], value="{value}"),
                    "the block's stream plus the branch", hint, only=BLOCK, **others)

    for number in (1, 2):
        yield residual("residual-missing", number, lambda _, __, branch, ___: branch, "no residual around {}")
        yield residual("residual-source", number, lambda _, normed, branch, __: normed + branch,
                       "the residual around {} taken after the norm")
        yield residual("residual-operator", number, lambda stream, _, branch, __: stream * branch,
                       "the residual multiplied by {}'s output")
        yield residual("residual-operator", number, lambda stream, _, branch, __: stream - branch,
                       "{}'s output taken from the residual")
        yield residual("branch-missing", number, lambda stream, *_: stream, "the output of {} not used")
        yield residual("residual-doubled", number, lambda stream, _, branch, __: stream + stream + branch,
                       "the residual around {} added twice")
    yield residual("residual-source", 2, lambda _, __, branch, entered: entered + branch,
                   "the residual around {} taken from the block's input")
    wirings: dict[tuple[str, str, str], Callable[..., Any]] = {
        ("post-norm", "norms after the residual additions", "before attention and MLP"): _post_norm,
        ("post-norm", "norms at the ends of the branches", "before attention and MLP"): _norm_after_branch,
        ("parallel-branches", "attention and MLP side by side", "one after the other"): _parallel,
        ("parallel-branches", "attention and MLP side by side after one norm", "one after the other"): _from_one_norm,
        ("norms-swapped", "the two norms exchanged", "the first before attention"): _norms_swapped,
        ("norm-shared", "the first norm used twice", "one before each branch"): _first_norm_twice,
        ("norm-shared", "the second norm used twice", "one before each branch"): _second_norm_twice,
        ("branch-order", "the MLP before attention", "attention first"): _mlp_first,
        ("branch-missing", "no MLP branch", "attention and MLP"): _attention_only,
        ("branch-missing", "no attention branch", "attention and MLP"): _mlp_only,
        ("residual-source", "attention's output alone for the residual around the MLP", "the sum"): _stream_dropped,
        ("residual-source", "one residual around attention and MLP together", "one around each"): _one_residual,
        ("residual-source", "what enters attention for the residual around the MLP", "the sum"): _normed_input,
        ("branch-input", "the MLP given attention's output alone", "the sum of it and the stream"): _mlp_of_branch,
        ("residual-doubled", "one more residual around the whole block", "one around each branch"): _residual_around,
        ("post-norm", "the first norm after attention's residual addition", "before attention"): _post_norm_attention,
        ("post-norm", "the second norm after the MLP's residual addition", "before the MLP"): _post_norm_mlp,
        ("post-norm", "the first norm at the end of attention's branch", "before attention"): _norm_after_attention,
        ("post-norm", "the second norm at the end of the MLP's branch", "before the MLP"): _norm_after_mlp,
        ("branch-order", "norms after the residual additions, and the MLP before attention",
         "before attention and MLP, attention first"): _post_norm_mlp_first,
        ("branch-order", "norms after the residual additions, and the MLP, with the first norm, before attention",
         "before attention and MLP, attention first"): _post_norm_exchanged,
    }
    for (id_, phrase, instead), wiring in wirings.items():
        yield Kind(id_, {"wiring": replaced_by(wiring)}, phrase, instead,
                   "x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))", only=BLOCK)
    layers = config["num_layers"]
    names = {"1 / sqrt(2)": 2**-0.5, f"1 / sqrt({layers} blocks)": layers**-0.5,
             f"1 / sqrt(2 * {layers} blocks)": (2 * layers) ** -0.5}
    names = {name: number for name, number in names.items() if number != round(number, 3)}  # 0.5 is a half anywhere
    for number in (1, 2):
        yield Kind("residual-scale",
                   {f"residual_{number}": lambda _, stream, __, branch, ___, value: stream + value * branch},
                   f"the output of {_BRANCH[number]} times {{value}}", "as it is", "x = x + branch(norm(x))",
                   only=BLOCK, start=(0.1, 0.5, 2.0, config["num_layers"] ** -0.5), named=names)
        yield Kind("residual-scale",
                   {f"residual_{number}": lambda _, stream, __, branch, ___, value: value * stream + branch},
                   f"the residual around {_BRANCH[number]} times {{value}}", "as it is", "x = x + branch(norm(x))",
                   only=BLOCK, start=(0.1, 0.5, 2.0), named=names)
        yield Kind("residual-scale",
                   {f"residual_{number}": lambda original, *parts, value: value * original(*parts)},
                   f"the sum of residual and {_BRANCH[number]} times {{value}}", "as it is", "x = x + branch(norm(x))",
                   only=BLOCK, start=(0.5, 2.0), named=names)
    for operation in ("output", "handed_on"):
        yield Kind("final-norm-everywhere", {operation: lambda original, x, norm: norm(original(x, norm))},
                   "the final norm after the block as well", "after the last one only", "norm once, after all blocks",
                   only=BLOCK)
    yield Kind("block-missing", {"wiring": skipped}, "the block does nothing", "attention and MLP",
               "call every block", only=BLOCK)


# fmt: on


def _post_norm(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = norm_1(add_1(x, x, attention(x), x))
    return norm_2(add_2(middle, middle, mlp(middle), x))


def _norm_after_branch(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = add_1(x, x, norm_1(attention(x)), x)
    return add_2(middle, middle, norm_2(mlp(middle)), x)


def _parallel(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    middle = add_1(x, y, attention(y), x)
    z = norm_2(x)  # not before attention, so that what else is otherwise in a norm is the next thing to be found
    return add_2(middle, z, mlp(z), x)


def _from_one_norm(x: Tensor, norm_1: Any, attention: Any, add_1: Any, _: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    return add_2(add_1(x, y, attention(y), x), y, mlp(y), x)


def _post_norm_mlp_first(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = norm_2(add_2(x, x, mlp(x), x))
    return norm_1(add_1(middle, middle, attention(middle), x))


def _post_norm_exchanged(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    return _post_norm_mlp_first(x, norm_2, attention, add_1, norm_1, mlp, add_2)


def _post_norm_attention(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = norm_1(add_1(x, x, attention(x), x))
    y = norm_2(middle)
    return add_2(middle, y, mlp(y), x)


def _post_norm_mlp(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    middle = add_1(x, y, attention(y), x)
    return norm_2(add_2(middle, middle, mlp(middle), x))


def _norm_after_attention(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = add_1(x, x, norm_1(attention(x)), x)
    y = norm_2(middle)
    return add_2(middle, y, mlp(y), x)


def _norm_after_mlp(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    middle = add_1(x, y, attention(y), x)
    return add_2(middle, middle, norm_2(mlp(middle)), x)


def _stream_dropped(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    branch = attention(y)
    z = norm_2(add_1(x, y, branch, x))
    return add_2(branch, z, mlp(z), x)


def _one_residual(x: Tensor, norm_1: Any, attention: Any, _: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(attention(norm_1(x)))
    return add_2(x, y, mlp(y), x)


def _mlp_of_branch(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    branch = attention(y)
    z = norm_2(branch)
    return add_2(add_1(x, y, branch, x), z, mlp(z), x)


def _normed_input(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    z = norm_2(add_1(x, y, attention(y), x))
    return add_2(y, z, mlp(z), x)


def _residual_around(x: Tensor, *parts: Any) -> Any:
    return x + pre_norm(x, *parts)


def _norms_swapped(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    middle = add_1(x, y, attention(y), x)
    y = norm_1(middle)
    return add_2(middle, y, mlp(y), x)


def _first_norm_twice(x: Tensor, norm_1: Any, attention: Any, add_1: Any, _: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    middle = add_1(x, y, attention(y), x)
    y = norm_1(middle)
    return add_2(middle, y, mlp(y), x)


def _second_norm_twice(x: Tensor, _: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    return _first_norm_twice(x, norm_2, attention, add_1, None, mlp, add_2)


def _mlp_first(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    middle = add_2(x, y, mlp(y), x)
    y = norm_1(middle)
    return add_1(middle, y, attention(y), x)


def _attention_only(x: Tensor, norm_1: Any, attention: Any, add_1: Any, *_: Any) -> Any:
    y = norm_1(x)
    return add_1(x, y, attention(y), x)


def _mlp_only(x: Tensor, _: Any, __: Any, ___: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    return add_2(x, y, mlp(y), x)
