"""Faults of weight conversion: what goes wrong on the way from torchvision's state dict to a port's, and what is wrong.

A fault is done to the parts of the original's state dict before they are converted, to the converted state dict of a
port, or by leaving tensors at their initial values, as `strict=False` does where a key is misspelt.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from tests.corpus.originals import original, original_parts, resized, trained_parts
from tests.corpus.ports import GRID, PATCH, PORTS, D, H, L, d, put_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.corpus.ports import Port, State

    Edit = Callable[[State], None]
    Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of conversion.

    Attributes:
        id: a short phrase.
        category: of the table.
        wrong: the causes that are true of the tensors that hold the parts of a pattern, `a|b` where either is right.
        in_port: the same for single ports, instead.
        edit: changes the original's parts.
        moved: changes the converted state dict, by the name of a port.
        in_tensors: changes each tensor of a port that is to be wrong.
        left_out: the parts that are never loaded; their causes follow from the port's initial values.
        ports: the names of those that can have it.
        original: which one is converted.
    """

    id: str
    category: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)
    in_port: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    edit: Edit = lambda _: None
    moved: Mapping[str, Edit] = field(default_factory=dict)
    in_tensors: Change | None = None
    left_out: str = ""
    ports: tuple[str, ...] = tuple(PORTS)
    original: str = "usual"


@dataclass(frozen=True)
class Conversion:
    """A fault in the conversion to one port."""

    fault: Fault
    port: Port

    @property
    def id(self) -> str:
        """How tests and tables name it."""
        return f"{self.fault.id}-{self.port.name}"

    @property
    def original(self) -> nn.Module:
        """The model whose weights are converted."""
        return original(self.fault.original)

    @property
    def expected(self) -> dict[str, frozenset[str]]:
        """The causes that are true of each wrong tensor, by its name in the port."""
        found: dict[str, frozenset[str]] = {}
        for pattern, causes in self.fault.in_port.get(self.port.name, self.fault.wrong).items():
            for name in self.port.tensors(pattern):
                found[name] = found.get(name, frozenset()) | frozenset(causes.split("|"))
        if self.fault.left_out:
            initial = built(self.port).state_dict()
            for name in self.port.tensors(self.fault.left_out):
                found[name] = _causes_of_initial(initial[name])
        return found

    def converted(self) -> nn.Module:
        """Returns the port with the weights that the faulty conversion gives it, in float32."""
        parts = original_parts(self.fault.original)
        self.fault.edit(parts)
        state = self.port.convert(put_together(parts))
        if self.port.name in self.fault.moved:
            self.fault.moved[self.port.name](state)
        if self.fault.in_tensors:
            state |= {name: self.fault.in_tensors(state[name].double()) for name in self.expected}
        if self.fault.left_out:
            state = {name: t for name, t in state.items() if name not in self.port.tensors(self.fault.left_out)}
        module = built(self.port)
        module.load_state_dict(state, strict=False)
        return module


def built(port: Port) -> nn.Module:
    """Builds a port with the same initial values every time, in eval mode."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        module = port.build()
    return module.eval()


def _causes_of_initial(tensor: torch.Tensor) -> frozenset[str]:
    """Returns what is true of a tensor that was never loaded; a few random numbers may be anybody's."""
    if not tensor.any():
        return frozenset({"weights-initial", "weights-zero"})
    if tensor.numel() <= _FEW and tensor.min() != tensor.max():
        return frozenset({"weights-initial", "weights-other"})
    return frozenset({"weights-initial"})


_FEW = 64  # so many random values have no distribution that could be recognised

_MATRICES = "blocks.*.[qkv].weight blocks.*.out.weight blocks.*.fc[12].weight head.weight patches.weight"
_NORMS = "blocks.*.norm_[12].{0} norm.{0}"
_TABLE = "class_position positions"
_WITHOUT_KEY_BIAS = (
    "patches.* class_token class_position positions norm.* head.* blocks.*.norm_* blocks.*.q.* blocks.*.k.weight "
    "blocks.*.v.* blocks.*.out.* blocks.*.fc*"
)


# edits


def _fitting(parts: State, pattern: str) -> list[str]:
    return [part for part in parts if any(fnmatchcase(part, word) for word in pattern.split())]


def _each(pattern: str, change: Change) -> Edit:
    """Changes each part that fits, reckoning in float64."""

    def edit(parts: State) -> None:
        for part in _fitting(parts, pattern):
            parts[part] = change(parts[part].double()).to(parts[part].dtype)

    return edit


def _taken(moves: Mapping[str, str]) -> Edit:
    """Gives parts the values of others; `{i}` stands for every block, `*` for weight and bias."""
    written = {
        target.replace("*", kind).replace("{i}", str(i)): source.replace("*", kind).replace("{i}", str(i))
        for target, source in moves.items()
        for kind in ("weight", "bias")
        for i in range(L)
    }
    return lambda parts: parts.update({target: parts[source].clone() for target, source in written.items()})


def _from_blocks(order: Sequence[int]) -> Edit:
    """Gives block `i` the weights of block `order[i]`."""

    def edit(parts: State) -> None:
        of = {part: part.split(".", 2) for part in parts if part.startswith("blocks.")}
        parts.update({part: parts[f"blocks.{order[int(i)]}.{rest}"].clone() for part, (_, i, rest) in of.items()})

    return edit


def _of_another(pattern: str) -> Edit:
    """Takes parts from another checkpoint."""

    def edit(parts: State) -> None:
        other = original_parts("another")
        parts.update({part: other[part] for part in _fitting(parts, pattern)})

    return edit


def _table(change: Change) -> Edit:
    """Changes the whole table of positions, (N, D), the class token's row first."""

    def edit(parts: State) -> None:
        table = change(torch.cat([parts["class_position"], parts["positions"]]))
        parts["class_position"], parts["positions"] = table[:1].clone(), table[1:].clone()

    return edit


def _grid(change: Change) -> Edit:
    """Changes the patches' positions, (side, side, D)."""
    return _each("positions", lambda t: change(t.view(GRID, GRID, D)).reshape(-1, D))


def _split(t: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Splits the first axis."""
    return t.reshape(*sizes, *t.shape[1:])


def _in_blocks(names: str, change: Change) -> Edit:
    """Changes tensors of the converted state dict, one in each block."""

    def edit(state: State) -> None:
        for name in (name.format(i=i) for name in names.split() for i in range(L)):
            state[name] = change(state[name]).reshape(state[name].shape)

    return edit


def _read_as_transposed(t: torch.Tensor) -> torch.Tensor:
    """The (in, out) kernel, reshaped to (out, in) where it should be transposed."""
    return t.T.reshape(t.shape)


# quantising


def _to_whole_numbers(t: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    step = largest / 127
    return (t / step).round() * step


def _int8_per_tensor(t: torch.Tensor) -> torch.Tensor:
    return _to_whole_numbers(t, t.abs().max())


def _int8_per_row(t: torch.Tensor) -> torch.Tensor:
    return _to_whole_numbers(t.flatten(1), t.flatten(1).abs().amax(1, keepdim=True)).view(t.shape)


def _uint8_with_zero_point(t: torch.Tensor) -> torch.Tensor:
    step = (t.max() - t.min()) / 255
    zero = (-t.min() / step).round()
    return ((t / step).round() + zero).clamp(0, 255).sub(zero) * step


def _truncated(t: torch.Tensor) -> torch.Tensor:
    """The upper half of the bits, as a view of 16-bit words gives it: bfloat16 without rounding."""
    bits = t.float().view(torch.int32)
    return (bits >> 16 << 16).view(torch.float32)


# query, key, value and heads

_THIRDS = "blocks.*.[qkv].{}"


def _thirds(id: str, order: str) -> Fault:  # noqa: A002
    moves = {f"blocks.{{i}}.{to}.*": f"blocks.{{i}}.{source}.*" for to, source in zip("qkv", order, strict=True)}
    wrong = f"blocks.*.[{''.join(to for to, source in zip('qkv', order, strict=True) if to != source)}].*"
    apart = {wrong: "weights-qkv-order|weights-of-another-tensor"}
    return Fault(id=id, edit=_taken(moves), wrong={wrong: "weights-qkv-order"}, in_port={"separate": apart})


def _qkv(change_fused: Change, change_interleaved: Change) -> dict[str, Edit]:
    """Changes the fused tensors of both ports that have them; they are given (out, ...) in the port's own order."""

    def inwards(t: torch.Tensor) -> torch.Tensor:
        return change_interleaved(t.movedim(-1, 0)).flatten(0, 2).movedim(0, -1)

    return {
        "fused": _in_blocks("blocks.{i}.attn.qkv.weight blocks.{i}.attn.qkv.bias", change_fused),
        "interleaved": _in_blocks("blocks.{i}.w_qkv blocks.{i}.b_qkv", inwards),
    }


_OUT_COLUMNS = "blocks.*.out.weight"

_HEADS = [
    _thirds("query-and-key-exchanged", "kqv"),
    _thirds("key-and-value-exchanged", "qvk"),
    _thirds("value-first", "vqk"),
    _thirds("key-first-and-query-last", "kvq"),
    Fault(id="biases-of-query-and-key-exchanged", wrong={"blocks.*.[qk].bias": "weights-qkv-order"},
          in_port={"separate": {"blocks.*.[qk].bias": "weights-qkv-order|weights-of-another-tensor"}},
          edit=_taken({"blocks.{i}.q.bias": "blocks.{i}.k.bias", "blocks.{i}.k.bias": "blocks.{i}.q.bias"})),
    Fault(id="key-copied-from-query", edit=_taken({"blocks.{i}.k.*": "blocks.{i}.q.*"}),
          wrong={"blocks.*.k.*": "weights-of-another-tensor"},
          in_port={name: {"blocks.*.k.*": "weights-of-another-tensor|weights-qkv-order"}
                   for name in ("fused", "interleaved")}),
    Fault(id="fused-in-the-other-order-of-heads-and-thirds", ports=("fused", "interleaved"),
          wrong={_THIRDS.format("*"): "weights-heads-interleaved"},
          moved=_qkv(lambda t: _split(t, 3, H, d).transpose(0, 1),
                     lambda t: _split(t, H, 3, d).transpose(0, 1))),
    Fault(id="fused-with-thirds-innermost", ports=("fused", "interleaved"),
          wrong={_THIRDS.format("*"): "weights-heads-interleaved"},
          moved=_qkv(lambda t: _split(t, 3, H, d).movedim(0, 2),
                     lambda t: _split(t, H, 3, d).transpose(1, 2))),
    Fault(id="heads-innermost", wrong={_THIRDS.format("*"): "weights-heads-interleaved"},
          edit=_each(_THIRDS.format("*"), lambda t: _split(t, H, d).transpose(0, 1).flatten(0, 1))),
    Fault(id="heads-innermost-in-output-projection", wrong={_OUT_COLUMNS: "weights-heads-interleaved"},
          edit=_each(_OUT_COLUMNS, lambda t: t.view(-1, H, d).transpose(1, 2).flatten(1))),
    Fault(id="heads-in-another-order", wrong={_THIRDS.format("*"): "weights-rearranged"},
          edit=_each(_THIRDS.format("*"), lambda t: _split(t, H, d)[[2, 0, 3, 1]].flatten(0, 1))),
    Fault(id="query-permuted-for-rotary-positions",
          wrong={"blocks.*.q.*": "weights-heads-interleaved|weights-rearranged"},
          edit=_each("blocks.*.q.*", lambda t: _split(t, H, 2, d // 2).transpose(1, 2).flatten(0, 2))),
    Fault(id="heads-averaged-in-pairs", wrong={"blocks.*.[kv].*": "weights-other"},
          edit=_each("blocks.*.[kv].*", lambda t: _split(t, H // 2, 2, d).mean(1, keepdim=True)
                     .expand(-1, 2, *(-1,) * t.ndim).flatten(0, 2))),
    Fault(id="query-key-and-value-transposed", edit=_each(_THIRDS.format("weight"), lambda t: t.T),
          wrong={_THIRDS.format("weight"): "weights-transposed"}),
    Fault(id="output-projection-transposed", edit=_each("blocks.*.out.weight", lambda t: t.T),
          wrong={"blocks.*.out.weight": "weights-transposed"}),
    Fault(id="output-projection-transposed-in-one-block", edit=_each("blocks.1.out.weight", lambda t: t.T),
          wrong={"blocks.1.out.weight": "weights-transposed"}),
    Fault(id="fused-projection-reshaped-for-transposed", ports=("fused", "interleaved"),
          wrong={_THIRDS.format("weight"): "weights-rearranged|weights-transposed"},
          moved={"fused": _in_blocks("blocks.{i}.attn.qkv.weight", lambda t: t.T),
                 "interleaved": _in_blocks("blocks.{i}.w_qkv", lambda t: t.T)}),
    Fault(id="attention-scale-in-query", edit=_each("blocks.*.q.*", lambda t: t * d**-0.5),
          wrong={"blocks.*.q.*": "weights-factor"}),
    Fault(id="attention-scale-in-query-and-key", edit=_each("blocks.*.[qk].*", lambda t: t * d**-0.25),
          wrong={"blocks.*.[qk].*": "weights-factor"}),
    Fault(id="attention-scale-in-weight-and-not-in-bias", edit=_each("blocks.*.q.weight", lambda t: t * d**-0.5),
          wrong={"blocks.*.q.weight": "weights-factor"}),
    Fault(id="query-bias-lost", edit=_each("blocks.*.q.bias", torch.zeros_like),
          wrong={"blocks.*.q.bias": "weights-zero"},
          in_port={"separate": {"blocks.*.q.bias": "weights-zero|weights-initial"}}),
    Fault(id="query-key-and-value-biases-masked", edit=_each(_THIRDS.format("bias"), torch.zeros_like),
          wrong={_THIRDS.format("bias"): "weights-zero|weights-initial"}),
    Fault(id="query-key-and-value-biases-never-loaded", left_out=_THIRDS.format("bias")),
]  # fmt: skip


# class token and positions


def _resampled(size: int, mode: str) -> Change:
    """Resamples (h, w, D) to another side and back."""

    def change(grid: torch.Tensor) -> torch.Tensor:
        other = resized(grid, size, mode)
        return resized(other, len(grid), mode)

    return change


def _as_sequence(table: torch.Tensor) -> torch.Tensor:
    rows = table.T[None]
    return F.interpolate(F.interpolate(rows, 31, mode="linear"), len(table), mode="linear")[0].T


def _sinusoids(table: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(len(table))[:, None] / 10000 ** (torch.arange(0, D, 2) / D)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


_SINGLE_TABLE = ("fused", "separate")


def _class_position_added(parts: State) -> None:
    parts["class_token"] += parts["class_position"]


def _class_position_instead(parts: State) -> None:
    parts["class_token"] = parts["class_position"].view_as(parts["class_token"]).clone()


_POSITIONS = [
    Fault(id="table-rolled-by-one", edit=_table(lambda t: t.roll(1, 0)), wrong={_TABLE: "weights-rolled"},
          ports=_SINGLE_TABLE),
    Fault(id="class-row-last", edit=_table(lambda t: torch.cat([t[1:], t[:1]])), wrong={_TABLE: "weights-rolled"},
          ports=_SINGLE_TABLE),
    Fault(id="patch-positions-rolled-by-one", edit=_each("positions", lambda t: t.roll(1, 0)),
          wrong={"positions": "weights-rolled"},
          in_port={name: {"positions": "weights-rolled|weights-rearranged"} for name in _SINGLE_TABLE}),
    Fault(id="patch-positions-cut-one-row-late", edit=_each("positions", lambda t: torch.cat([t[1:], t[-1:]])),
          wrong={"positions": "weights-rolled|weights-rearranged|weights-other"}),
    Fault(id="grid-transposed", edit=_grid(lambda t: t.transpose(0, 1)),
          wrong={"positions": "weights-grid-transposed"}),
    Fault(id="grid-mirrored-left-right", edit=_grid(lambda t: t.flip(1)), wrong={"positions": "weights-mirrored"}),
    Fault(id="grid-mirrored-up-down", edit=_grid(lambda t: t.flip(0)), wrong={"positions": "weights-mirrored"}),
    Fault(id="grid-turned-around", edit=_grid(lambda t: t.flip(0, 1)),
          wrong={"positions": "weights-mirrored|weights-reversed|weights-rearranged"}),
    Fault(id="grid-turned-by-a-quarter", edit=_grid(lambda t: t.rot90()),
          wrong={"positions": "weights-mirrored|weights-grid-transposed|weights-rearranged"}),
    Fault(id="grid-resized-and-back-bilinear", edit=_grid(_resampled(7, "bilinear")),
          wrong={"positions": "weights-resampled"}),
    Fault(id="grid-resized-and-back-bicubic", edit=_grid(_resampled(14, "bicubic")),
          wrong={"positions": "weights-resampled"}),
    Fault(id="grid-made-smaller-and-back", edit=_grid(_resampled(3, "bicubic")),
          wrong={"positions": "weights-resampled"}),
    Fault(id="grid-resized-by-another-rule", original="resized",
          edit=lambda parts: parts.update(positions=original_parts("resized-bilinear")["positions"]),
          wrong={"positions": "weights-resampled|weights-trained|weights-other"}),
    Fault(id="table-resized-as-a-sequence-and-back", edit=_table(_as_sequence), wrong={_TABLE: "weights-resampled"},
          ports=_SINGLE_TABLE),
    Fault(id="positions-twice", edit=_table(lambda t: t * 2), wrong={_TABLE: "weights-factor"}),
    Fault(id="positions-times-root-of-width", edit=_each("positions", lambda t: t * math.sqrt(D)),
          wrong={"positions": "weights-factor"}),
    Fault(id="positions-sinusoidal", edit=_table(_sinusoids), wrong={_TABLE: "weights-other|weights-initial"}),
    Fault(id="positions-never-loaded", left_out=_TABLE),
    Fault(id="class-position-zero", edit=_each("class_position", torch.zeros_like),
          wrong={"class_position": "weights-zero|weights-initial"},
          in_port={name: {"class_position": "weights-zero|weights-factor"} for name in _SINGLE_TABLE}),
    Fault(id="class-position-in-class-token-as-well", edit=_class_position_added,
          wrong={"class_token": "weights-class-position-folded"}),
    Fault(id="class-position-for-class-token", edit=_class_position_instead,
          wrong={"class_token": "weights-class-position-folded|weights-of-another-tensor"}),
    Fault(id="distillation-token-for-class-token", edit=_of_another("class_token"),
          wrong={"class_token": "weights-other|weights-initial"}),
    Fault(id="class-token-never-loaded", left_out="class_token"),
]  # fmt: skip


# patches


def _kernel(change: Change) -> Edit:
    """Changes the patch kernel, (D, channels, row, column)."""
    return _each("patches.weight", change)


def _pixels_in_another_order(parts: State) -> None:
    """The kernel's pixels ordered (row, column, channel), and not brought into (channel, row, column)."""
    kernel = parts["patches.weight"]
    parts["patches.weight"] = kernel.permute(0, 2, 3, 1).reshape(kernel.shape)


def _pixels_left_in_order(parts: State) -> None:
    """The other way round, for a port whose pixels are ordered (row, column, channel)."""
    kernel = parts["patches.weight"]
    parts["patches.weight"] = kernel.reshape(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2).contiguous()


_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def _kernel_resized(t: torch.Tensor) -> torch.Tensor:
    return (
        resized(resized(t.permute(2, 3, 0, 1).flatten(2), 8, "bicubic"), PATCH, "bicubic").permute(2, 0, 1).view_as(t)
    )


_REARRANGED = {"patches.weight": "weights-rearranged|weights-transposed"}
_PATCHES = [
    Fault(id="channels-reversed", edit=_kernel(lambda t: t.flip(1)),
          wrong={"patches.weight": "weights-channels-reversed"}),
    Fault(id="rows-and-columns-of-kernel-exchanged", edit=_kernel(lambda t: t.transpose(2, 3)),
          wrong={"patches.weight": "weights-grid-transposed"}),
    Fault(id="kernel-mirrored-left-right", edit=_kernel(lambda t: t.flip(3)),
          wrong={"patches.weight": "weights-mirrored"}),
    Fault(id="kernel-mirrored-up-down", edit=_kernel(lambda t: t.flip(2)),
          wrong={"patches.weight": "weights-mirrored"}),
    Fault(id="kernel-of-a-true-convolution", edit=_kernel(lambda t: t.flip(2, 3)),
          wrong={"patches.weight": "weights-mirrored|weights-reversed|weights-rearranged"}),
    Fault(id="pixels-of-a-patch-channels-last", edit=_pixels_in_another_order, wrong=_REARRANGED,
          ports=("fused", "interleaved")),
    Fault(id="pixels-of-a-patch-channels-first", edit=_pixels_left_in_order, wrong=_REARRANGED, ports=("separate",)),
    Fault(id="kernel-divided-by-std", edit=_kernel(lambda t: t / _STD), wrong={"patches.weight": "weights-factor"}),
    Fault(id="kernel-divided-by-255", edit=_kernel(lambda t: t / 255), wrong={"patches.weight": "weights-factor"}),
    Fault(id="kernel-averaged-over-channels", edit=_kernel(lambda t: t.mean(1, keepdim=True).expand_as(t)),
          wrong={"patches.weight": "weights-other"}),
    Fault(id="kernel-resized-and-back", edit=_kernel(_kernel_resized),
          wrong={"patches.weight": "weights-resampled|weights-trained|weights-other"}),
    Fault(id="patch-bias-never-loaded", left_out="patches.bias"),
    Fault(id="patch-projection-never-loaded", left_out="patches.*"),
]  # fmt: skip


# MLP, norms, head


def _exchanged(one: str, other: str) -> Edit:
    return _taken({one: other, other: one})


def _row_lost(t: torch.Tensor) -> torch.Tensor:
    return t.index_fill(0, torch.tensor([5]), 0)


def _norms_exchanged_inside(parts: State) -> None:
    for weight in _fitting(parts, _NORMS.format("weight")):
        bias = weight.replace("weight", "bias")
        parts[weight], parts[bias] = parts[bias], parts[weight]


_MLP_NORMS_HEAD = [
    Fault(id="mlp-reshaped-for-transposed", edit=_each("blocks.*.fc[12].weight", _read_as_transposed),
          wrong={"blocks.*.fc[12].weight": "weights-rearranged|weights-transposed"}),
    Fault(id="mlp-never-loaded", left_out="blocks.*.fc[12].*"),
    Fault(id="row-of-first-mlp-layer-lost", edit=_each("blocks.1.fc1.weight", _row_lost),
          wrong={"blocks.1.fc1.weight": "weights-zero|weights-factor"}),
    Fault(id="output-bias-never-loaded", left_out="blocks.*.out.bias"),
    Fault(id="norms-of-a-block-exchanged", wrong={"blocks.*.norm_[12].*": "weights-of-another-tensor"},
          edit=_exchanged("blocks.{i}.norm_1.*", "blocks.{i}.norm_2.*")),
    Fault(id="second-norm-copied-from-first", wrong={"blocks.*.norm_2.*": "weights-of-another-tensor"},
          edit=_taken({"blocks.{i}.norm_2.*": "blocks.{i}.norm_1.*"})),
    Fault(id="final-norm-from-last-block", wrong={"norm.*": "weights-of-another-tensor"},
          edit=_taken({"norm.*": "blocks.2.norm_2.*"})),
    Fault(id="scale-and-shift-of-norms-exchanged", edit=_norms_exchanged_inside,
          wrong={_NORMS.format("*"): "weights-of-another-tensor"}),
    Fault(id="norm-scales-less-one", edit=_each(_NORMS.format("weight"), lambda t: t - 1),
          wrong={_NORMS.format("weight"): "weights-offset"}),
    Fault(id="norm-scales-plus-one", edit=_each(_NORMS.format("weight"), lambda t: t + 1),
          wrong={_NORMS.format("weight"): "weights-offset"}),
    Fault(id="norm-shifts-lost", edit=_each(_NORMS.format("bias"), torch.zeros_like),
          wrong={_NORMS.format("bias"): "weights-zero|weights-initial"}),
    Fault(id="norms-of-blocks-never-loaded", left_out="blocks.*.norm_[12].*"),
    Fault(id="final-norm-never-loaded", left_out="norm.*"),
    Fault(id="branches-scaled-twice", wrong={"blocks.*.out.* blocks.*.fc2.*": "weights-factor"},
          edit=_each("blocks.*.out.* blocks.*.fc2.*", lambda t: t * 0.1)),
    Fault(id="branches-scaled-per-channel-twice",
          wrong={"blocks.*.out.weight blocks.*.fc2.weight": "weights-factor",
                 "blocks.*.out.bias blocks.*.fc2.bias": "weights-factor|weights-other"},
          edit=_each("blocks.*.out.* blocks.*.fc2.*",
                     lambda t: t * torch.linspace(0.2, 1.4, D).double().view(-1, *(1,) * (t.ndim - 1)))),
    Fault(id="classes-rolled-by-one", edit=_each("head.*", lambda t: t.roll(1, 0)), wrong={"head.*": "weights-rolled"}),
    Fault(id="classes-back-to-front", edit=_each("head.*", lambda t: t.flip(0)), wrong={"head.*": "weights-reversed"}),
    Fault(id="classes-in-alphabetical-order", wrong={"head.*": "weights-rearranged"},
          edit=_each("head.*", lambda t: t[[3, 0, 7, 9, 1, 10, 4, 2, 8, 6, 5]])),
    Fault(id="two-classes-exchanged", wrong={"head.*": "weights-rearranged"},
          edit=_each("head.*", lambda t: t[[0, 1, 6, 3, 4, 5, 2, 7, 8, 9, 10]])),
    Fault(id="classes-rolled-in-weight-and-not-in-bias", edit=_each("head.weight", lambda t: t.roll(1, 0)),
          wrong={"head.weight": "weights-rolled"}),
    Fault(id="head-reshaped-for-transposed", edit=_each("head.weight", _read_as_transposed),
          wrong={"head.weight": "weights-rearranged|weights-transposed"}),
    Fault(id="head-rows-normalised", edit=_each("head.weight", lambda t: t / t.norm(dim=1, keepdim=True)),
          wrong={"head.weight": "weights-factor"}),
    Fault(id="temperature-in-head", edit=_each("head.*", lambda t: t * 100), wrong={"head.*": "weights-factor"}),
    Fault(id="head-bias-shifted", edit=_each("head.bias", lambda t: t - 4.6), wrong={"head.bias": "weights-offset"}),
    Fault(id="head-bias-never-loaded", left_out="head.bias"),
    Fault(id="head-never-loaded", left_out="head.*"),
    Fault(id="head-of-another-checkpoint", edit=_of_another("head.*"),
          wrong={"head.weight": "weights-other", "head.bias": "weights-other|weights-initial"}),
]  # fmt: skip


# blocks


def _stack_read_across(parts: State) -> None:
    """Biases of all blocks, stacked, and read as if the axis of the blocks were the last one."""
    names = [f"blocks.{i}.fc1.bias" for i in range(L)]
    parts.update(zip(names, torch.stack([parts[name] for name in names]).flatten().view(-1, L).T.clone(), strict=True))


_OTHER_BLOCKS = [
    Fault(id="blocks-off-by-one", edit=_from_blocks([0, 0, 1]), wrong={"blocks.[12].*": "weights-of-another-tensor"}),
    Fault(id="first-block-in-all", edit=_from_blocks([0, 0, 0]), wrong={"blocks.[12].*": "weights-of-another-tensor"}),
    Fault(id="block-twice", edit=_from_blocks([0, 1, 1]), wrong={"blocks.2.*": "weights-of-another-tensor"}),
    Fault(id="blocks-back-to-front", edit=_from_blocks([2, 1, 0]),
          wrong={"blocks.[02].*": "weights-of-another-tensor"}),
    Fault(id="blocks-rolled", edit=_from_blocks([1, 2, 0]), wrong={"blocks.*": "weights-of-another-tensor"}),
    Fault(id="one-projection-of-another-block", edit=_taken({"blocks.1.out.weight": "blocks.0.out.weight"}),
          wrong={"blocks.1.out.weight": "weights-of-another-tensor"}),
    Fault(id="stack-of-biases-read-across-blocks", edit=_stack_read_across,
          wrong={"blocks.*.fc1.bias": "weights-rearranged|weights-of-another-tensor|weights-other"}),
    Fault(id="last-block-never-loaded", left_out="blocks.2.*"),
    Fault(id="all-but-the-head-never-loaded",
          left_out="patches.* class_token class_position positions norm.* blocks.*"),
    Fault(id="nothing-loaded", left_out="*"),
]  # fmt: skip


# numbers


def _clipped(t: torch.Tensor) -> torch.Tensor:
    return t.clamp(-2 * t.std(), 2 * t.std())


def _pruned(t: torch.Tensor) -> torch.Tensor:
    return t.where(t.abs() > t.abs().flatten().quantile(0.1), torch.zeros_like(t))


def _one_changed(parts: State) -> None:
    parts["head.weight"][3, 7] += 0.5


_BIASES = "*.bias"
_NUMBERS = [
    Fault(id="in-bfloat16", in_tensors=lambda t: t.bfloat16(), wrong={"*": "weights-rounded"}),
    Fault(id="in-float16", in_tensors=lambda t: t.half(), wrong={"*": "weights-rounded"}),
    Fault(id="in-bfloat16-in-one-block", in_tensors=lambda t: t.bfloat16(), wrong={"blocks.1.*": "weights-rounded"}),
    Fault(id="in-bfloat16-truncated", in_tensors=_truncated, wrong={"*": "weights-rounded"}),
    Fault(id="matrices-in-int8-per-tensor", in_tensors=_int8_per_tensor, wrong={_MATRICES: "weights-rounded"}),
    Fault(id="matrices-in-int8-per-row", in_tensors=_int8_per_row, wrong={_MATRICES: "weights-rounded"}),
    Fault(id="head-in-uint8-with-zero-point", in_tensors=_uint8_with_zero_point,
          wrong={"head.weight": "weights-rounded"}),
    Fault(id="three-decimals", in_tensors=lambda t: t.round(decimals=3),
          wrong={"*": "weights-rounded|weights-trained"}),
    Fault(id="matrices-clipped", in_tensors=_clipped, wrong={_MATRICES: "weights-clipped"}),
    Fault(id="decayed", in_tensors=lambda t: t * 0.999, wrong={"*": "weights-factor"}),
    Fault(id="matrices-decayed", in_tensors=lambda t: t * 0.99, wrong={_MATRICES: "weights-factor"}),
    Fault(id="biases-lost", in_tensors=torch.zeros_like, wrong={_BIASES: "weights-zero|weights-initial"}),
    Fault(id="biases-twice", in_tensors=lambda t: t * 2, wrong={_BIASES: "weights-factor"}),
    Fault(id="signs-lost", in_tensors=torch.abs, wrong={"blocks.*.fc2.weight": "weights-other"}),
    Fault(id="smallest-pruned", in_tensors=_pruned,
          wrong={"blocks.*.fc[12].weight": "weights-zero|weights-trained|weights-other"}),
    Fault(id="one-number-changed", edit=_one_changed, wrong={"head.weight": "weights-trained|weights-other"}),
]  # fmt: skip


# other checkpoints


def _blended(share: float, other: Callable[[], State]) -> Edit:
    """Moves every part a share of the way to another checkpoint's."""

    def edit(parts: State) -> None:
        for part, tensor in other().items():
            parts[part] = torch.lerp(parts[part].double(), tensor.double(), share).float()

    return edit


def _adapted(t: torch.Tensor) -> torch.Tensor:
    """Adds a product of rank 2, a twentieth of the whole."""
    generator = torch.Generator().manual_seed(len(t))
    update = torch.randn(len(t), 2, generator=generator) @ torch.randn(2, t.shape[1], generator=generator)
    return t + update.double() * float(0.05 * t.norm() / update.norm())


def _disturbed(t: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(t.shape, generator=torch.Generator().manual_seed(t.numel()))
    return t + noise.double() * float(1e-3 * t.norm() / noise.norm())


def _head_trained(parts: State) -> None:
    parts.update({part: t for part, t in trained_parts().items() if part.startswith("head.")})


_OTHER_CHECKPOINTS = [
    Fault(id="one-step-further", edit=_blended(1, trained_parts), wrong={_WITHOUT_KEY_BIAS: "weights-trained"}),
    Fault(id="averaged-over-steps", edit=_blended(0.5, trained_parts), wrong={_WITHOUT_KEY_BIAS: "weights-trained"}),
    Fault(id="head-trained-further", edit=_head_trained, wrong={"head.*": "weights-trained"}),
    Fault(id="another-checkpoint", edit=_of_another("*"),
          wrong={"*": "weights-other", "*norm*.weight": "weights-trained", "*.bias class_*": "weights-initial"}),
    Fault(id="averaged-with-another-checkpoint", edit=_blended(0.5, lambda: original_parts("another")),
          wrong={"*": "weights-other|weights-trained"}),
    Fault(id="block-of-another-checkpoint", edit=_of_another("blocks.1.*"),
          wrong={"blocks.1.*": "weights-other", "blocks.1.norm*.weight": "weights-trained",
                 "blocks.1.*.bias": "weights-initial"}),
    Fault(id="adapter-merged", edit=_each("blocks.*.[qv].weight", _adapted),
          wrong={"blocks.*.[qv].weight": "weights-trained|weights-other"}),
    Fault(id="noise", edit=_each("*", _disturbed), wrong={"*": "weights-trained"}),
]  # fmt: skip

_BY_CATEGORY = {
    "query, key, value and heads": _HEADS,
    "class token and positions": _POSITIONS,
    "patches": _PATCHES,
    "MLP, norms, head": _MLP_NORMS_HEAD,
    "blocks": _OTHER_BLOCKS,
    "numbers": _NUMBERS,
    "other checkpoints": _OTHER_CHECKPOINTS,
}
FAULTS = tuple(
    dataclasses.replace(fault, category=category) for category, faults in _BY_CATEGORY.items() for fault in faults
)


def conversions() -> Iterator[Conversion]:
    """Yields every fault in all of its ports."""
    for fault in FAULTS:
        for name in fault.ports:
            yield Conversion(fault, PORTS[name])
