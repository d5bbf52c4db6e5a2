"""`FastViT`, for inference: the function of `ViT` in fewer and faster operations.

What is the same function by algebra, and other bits:

1. Only the class token reaches the logits. The last block needs keys and values of all tokens, and queries, projection
   and MLP of the class token alone.
2. Attention is `scaled_dot_product_attention`, which never holds a (N+1) x (N+1) matrix.
3. On a CPU, in float32, a Linear is oneDNN's kernel on weights that are packed once into the order in which it reads
   them, with GELU in the same kernel. It comes closer to what the processor can do than MKL's, which torch takes.

In train mode, with autograd, under autocast and in a compiled model a block is the plain `AttentionBlock`.
"""

# ruff: noqa: SLF001  (kernels for packed weights, and the counter of writes to a tensor, have no public names)

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vit.model import AttentionBlock, ViT

# those that torch.compile takes for a Linear on a CPU
_KERNELS = torch.ops.mkldnn


class _Packed(NamedTuple):
    """A packed weight, and what it was made of.

    Attributes:
        parameter: the weight.
        values: the memory that it had, which no other tensor can get as long as this is kept.
        version: how often torch had seen it written to.
        packed: its values in the order in which the kernels read them.
    """

    parameter: torch.Tensor
    values: torch.Tensor
    version: int
    packed: torch.Tensor

    def is_of(self, weight: torch.Tensor) -> bool:
        """Returns whether `weight` is still what this was made of."""
        is_same = self.parameter is weight and self.values.data_ptr() == weight.data_ptr()
        return is_same and self.version == weight._version


class PackedLinears:
    """Weights of Linears, packed when they are first used and again when they have changed.

    A change is another tensor, other memory (`model.half()`, `weight.data = ...`), or a write that torch counts (an
    optimizer's step, `load_state_dict`). A write behind torch's back, into `weight.data`, is seen after the next call
    of `train` or `eval` only.
    """

    def __init__(self) -> None:
        self._packed: dict[str, _Packed] = {}

    def __deepcopy__(self, _: object) -> PackedLinears:
        return PackedLinears()

    def __reduce__(self) -> tuple[type[PackedLinears], tuple[()]]:
        return PackedLinears, ()

    def clear(self) -> None:
        """Forgets all packed weights."""
        self._packed.clear()

    def __call__(
        self,
        name: str,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        rows: slice = slice(None),
        *,
        gelu: bool = False,
    ) -> torch.Tensor:
        """Applies a Linear, or some of its outputs, and GELU if it is wanted: (B, N, K) -> (B, N, M).

        Args:
            name: under which the packed weight is kept.
            x: the input.
            weight: (M, K), all rows of it.
            bias: (M).
            rows: the outputs that are wanted.
            gelu: whether to apply GELU to them.
        """
        if not _can_pack(weight, x):
            y = F.linear(x, weight[rows], bias[rows])
            return F.gelu(y) if gelu else y
        known = self._packed.get(name)
        if known is None or not known.is_of(weight):
            values = weight.detach()
            known = _Packed(weight, values, weight._version, _KERNELS._reorder_linear_weight(values[rows]))
            self._packed[name] = known
        return _linear(x, known.packed, bias[rows], gelu=gelu)


class FastBlock(AttentionBlock):
    """An `AttentionBlock` that has taken over another one's modules, and with them its parameters and their names."""

    def __init__(self, block: nn.Module) -> None:
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self._linear = PackedLinears()

    def train(self, mode: bool = True) -> FastBlock:  # noqa: FBT001, FBT002  (torch's signature)
        """Goes into train or eval mode, and forgets packed weights."""
        self._linear.clear()
        return super().train(mode)

    def forward(self, x: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        """Returns the first `tokens` of what `AttentionBlock` returns, all of them by default."""
        if not _is_fast(self):
            return super().forward(x)
        x = x[:, :tokens] + self._attend(self.pre_norm(x), tokens)
        widen, narrow = (module for module in self.MLP if isinstance(module, nn.Linear))
        y = self._linear("widen", self.norm(x), widen.weight, widen.bias, gelu=True)
        return x + self._linear("narrow", y, narrow.weight, narrow.bias)

    def _attend(self, x: torch.Tensor, tokens: int | None) -> torch.Tensor:
        B, N, D = x.shape
        mha = self.attention
        heads, weight, bias = mha.num_heads, mha.in_proj_weight, mha.in_proj_bias
        if tokens is None:
            q, k, v = self._linear("qkv", x, weight, bias).view(B, N, 3, heads, -1).permute(2, 0, 3, 1, 4)
        else:
            q = self._linear("q", x[:, :tokens], weight, bias, slice(D)).view(B, tokens, heads, -1).transpose(1, 2)
            k, v = self._linear("kv", x, weight, bias, slice(D, None)).view(B, N, 2, heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, -1, D)
        return self._linear("out", y, mha.out_proj.weight, mha.out_proj.bias)


class FastBlocks(nn.Sequential):
    """`FastBlock`s of which the last one computes the class token alone: (B, N+1, D) -> (B, 1, D)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the class token, or all tokens where a block is the plain one."""
        *blocks, last = self
        for block in blocks:
            x = block(x)
        x = last(x, 1) if _is_fast(self) else last(x)
        return x


class FastViT(ViT):
    """A `ViT` that takes the fast path where it can, with the same arguments, parameters and initial values."""

    def _initialise(self) -> None:
        """Draws the values that `ViT` draws last, and then has all blocks taken over."""
        super()._initialise()
        self.attn_layers = FastBlocks(*map(FastBlock, self.attn_layers))


def _is_fast(module: nn.Module) -> bool:
    if hasattr(torch, "get_autocast_dtype"):  # since torch 2.4
        is_autocast = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
    else:
        is_autocast = torch.is_autocast_cpu_enabled() or torch.is_autocast_enabled()
    return not (module.training or torch.is_grad_enabled() or is_autocast or _is_compiling())


def _is_compiling() -> bool:
    return hasattr(torch, "compiler") and hasattr(torch.compiler, "is_compiling") and torch.compiler.is_compiling()


def _can_pack(weight: torch.Tensor, x: torch.Tensor) -> bool:
    is_plain = weight.device.type == "cpu" and weight.dtype == x.dtype == torch.float32 and not weight.is_inference()
    return is_plain and _has_kernels()


def _linear(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor, *, gelu: bool) -> torch.Tensor:
    y: torch.Tensor = _KERNELS._linear_pointwise(x, packed, bias, *(("gelu", [], "none") if gelu else ("none", [], "")))
    return y


@functools.cache
def _has_kernels() -> bool:
    """Whether this build of torch packs weights and computes with them, which it does on x86."""
    one = torch.eye(2)
    try:
        y = _linear(one, _KERNELS._reorder_linear_weight(one), one[0], gelu=True)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(y, F.gelu(one + one[0]))
