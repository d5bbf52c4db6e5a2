"""Candidates: constructors that ask for anything and outputs of any kind end in a verdict or a sentence."""

from __future__ import annotations

import inspect
import keyword
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import assume, given, note
from hypothesis import strategies as st
from torch import nn

import vit
from parity import check
from parity.models import configuration, resolve_candidate
from tests.fuzz import budget, one_sentence
from tests.fuzz.test_maps import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = configuration("vit_b_16", SIZES | {"num_layers": 1})

# --- constructors

_WORDS = [
    "img_size", "image_size", "patch", "patch_size", "dim", "embed_dim", "depth", "num_layers", "heads", "num_heads",
    "mlp_dim", "mlp_ratio", "num_classes", "config", "cfg", "args", "channels", "dropout", "norm_layer", "activation",
    "pool", "device", "x", "self_", "_", "data", "kwargs", "options", "name", "qkv_bias",
]  # fmt: skip
_PATHS = [*_WORDS, "config.dim", "", "."]
_VALUES: list[Any] = [
    None, 0, 1, -1, 8, 12, 10**30, 0.5, float("nan"), True, "", "cls", (8, 8), (), [], {}, {"dim": 8}, nn.LayerNorm,
    nn.GELU(), SimpleNamespace(dim=8), object(), len, torch.float32, ..., NotImplemented,
]  # fmt: skip
_HINTS: list[Any] = [
    int, float, "int", "Nowhere", str, dict, list, tuple, nn.Module, "int | None", SimpleNamespace, object, 3, None,
]  # fmt: skip
_EMPTY = inspect.Parameter.empty
_SHORT = st.from_regex(r"[a-z]{1,3}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
_KINDS = list(inspect._ParameterKind)  # noqa: SLF001


@st.composite
def _constructors(draw: st.DrawFn) -> Callable[..., Any]:
    """Draws what takes arguments of all kinds, does something with them, and returns something."""
    names = draw(st.lists(st.sampled_from(_WORDS) | _SHORT, max_size=6, unique=True))
    parameters = []
    for name in names:
        kind = draw(st.sampled_from(_KINDS))
        default = _EMPTY if "VAR" in kind.name else draw(st.sampled_from([_EMPTY, *_VALUES]))
        hint = draw(st.sampled_from([_EMPTY, *_HINTS]))
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=hint))
    parameters.sort(key=lambda parameter: parameter.kind)
    does = draw(st.sampled_from(["build", "build", "module", "nothing", "raise", "exit", "asserts", "ask", "sum"]))

    def build(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if does == "raise":
            raise ValueError("one\nline \x1b[31m more")
        if does == "exit":
            raise SystemExit(0)
        if does == "asserts":
            assert all(given)
        if does == "ask":
            return nn.Linear(given[0].width, given[0]["classes"])
        if does == "sum":
            return nn.Linear(sum(given), 3)
        if does == "build":
            numbers = [value for value in given if isinstance(value, int)]
            return vit.ViT(*[*numbers, 8, 3, 4, 8, 12, 2, 1][:7])
        return nn.Identity() if does == "module" else None

    try:
        build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    except ValueError:  # an argument without a default behind one that has one
        assume(False)
    build.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    note(f"build{build.__signature__} {does}")  # type: ignore[attr-defined]
    return build


@budget(10)
@pytest.mark.filterwarnings("ignore")
@given(
    _constructors(),
    st.dictionaries(st.sampled_from(_PATHS), st.sampled_from(_VALUES[1:]), max_size=1),
)
def test_any_constructor_is_called_or_refused(build: Callable[..., Any], arguments: dict[str, Any]) -> None:
    with one_sentence():
        assert isinstance(resolve_candidate(build, CONFIG, arguments).build(), nn.Module)


# --- outputs


def _odd_tensors(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns tensors that are no logits, and logits that are none of the reference's."""
    return {
        "nan": logits * torch.nan, "infinite": logits / 0, "one nan": logits * torch.tensor([torch.nan, 1, 1]),
        "sum": logits.sum(), "empty": logits[:0], "transposed": logits.T, "axis": logits[None],
        "classes": logits[:, :2], "whole": logits.long(), "bool": logits > 0, "complex": logits * 1j,
        "sparse": logits.to_sparse(), "meta": logits.to("meta"), "half": logits.half(), "twice": 2 * logits,
        "rolled": logits.roll(1, 0), "zero": 0 * logits, "tiny": logits * 1e-300, "huge": logits * 1e30,
        "detached": logits.detach() * 1.001,
        "number": torch.tensor([1.5]), "expanded": logits[:1].expand_as(logits),
    }  # fmt: skip


class _Object:
    """Has attributes, as transformers' outputs do."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


_PARTS: list[Any] = ["logits", "logits", *sorted(_odd_tensors(torch.ones(2, 3))), None, 1, "cat", object]
_WRAPS: dict[str, Callable[[Any, Any], Any]] = {
    "alone": lambda a, _: a,
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "inner": lambda a, b: ((a,), b),
    "logits": lambda a, b: {"logits": a, "loss": b},
    "odd keys": lambda a, b: {1: a, None: b},
    "object": lambda a, b: _Object(logits=a, hidden=b),
    "strange": lambda a, b: _Object(output=a, other=b),
    "generator": lambda a, b: (part for part in (a, b)),
    "nothing": lambda *_: (),
}


@budget(40)
@pytest.mark.filterwarnings("ignore")
@given(
    st.sampled_from(sorted(_WRAPS)),
    st.sampled_from(_PARTS),
    st.sampled_from(_PARTS),
    st.sampled_from(["always", "eval", "second"]),
)
def test_any_output_has_a_verdict_or_a_sentence(wrap: str, first: Any, second: Any, when: str) -> None:
    class Candidate(vit.ViT):
        runs = 0

        def forward(self, images: torch.Tensor) -> Any:
            logits = super().forward(images)
            self.runs += 1
            if (when == "eval" and self.training) or (when == "second" and self.runs % 2):
                return logits
            tensors = {"logits": logits, **_odd_tensors(logits)}
            return _WRAPS[wrap](
                *(tensors[part] if isinstance(part, str) and part in tensors else part for part in (first, second))
            )

    with one_sentence():
        report = check(
            lambda: Candidate(8, 3, 4, 8, 12, 2, 1, 0.0, 3), overrides=SIZES | {"num_layers": 1}, modes=["eval"]
        )
        is_right = "logits" in (first, second) or when == "second"
        assert is_right or report.verdict in ("divergent", "inconclusive"), report
