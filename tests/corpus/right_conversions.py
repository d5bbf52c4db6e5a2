"""Right conversions, which nobody may flag: the same weights held in another way, or others of the same function."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tests.corpus.conversions import built
from tests.corpus.originals import original, original_parts
from tests.corpus.ports import PORTS, D, H, L, M, d, put_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.corpus.ports import Port, State


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to convert weights, or to hold them.

    Attributes:
        id: a short phrase.
        hold: does something to the port that has the original's weights.
        edit: changes the original's parts, in float64, to others of the same function; the port stays in float64.
        original: which one is converted.
        has_more_tensors: the port has tensors that no written map knows.
        ports: the names of those that can be converted so.
    """

    id: str
    hold: Callable[[nn.Module], nn.Module] = _as_it_is
    edit: Callable[[State], None] | None = None
    original: str = "usual"
    has_more_tensors: bool = False
    ports: tuple[str, ...] = tuple(PORTS)

    @property
    def is_same_tensor_by_tensor(self) -> bool:
        """Whether every tensor has the original's numbers; else only the function is the same."""
        return self.edit is None


@dataclass(frozen=True)
class RightConversion:
    """A way to convert weights to one port."""

    way: Way
    port: Port

    @property
    def id(self) -> str:
        """How tests name it."""
        return f"{self.way.id}-{self.port.name}"

    @property
    def original(self) -> nn.Module:
        """The model whose weights are converted."""
        return original(self.way.original)

    @property
    def mapping(self) -> Path | None:
        """The port's written weight map, or None where the map has to be found."""
        return None if self.way.has_more_tensors else self.port.mapping

    def converted(self) -> nn.Module:
        """Returns the port with the original's weights, or others of the same function."""
        module = built(self.port)
        if self.way.edit is None:
            module.load_state_dict(self.port.convert(self.original.state_dict()))
        else:
            parts = {part: tensor.double() for part, tensor in original_parts(self.way.original).items()}
            self.way.edit(parts)
            module.double().load_state_dict(self.port.convert(put_together(parts)))
        return self.way.hold(module)


# the same weights, held in another way


def _with_values(module: nn.Module, values: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    for parameter in module.parameters():
        parameter.data = values(parameter.detach())
    return module


def _saved_by_torch(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    module.load_state_dict(torch.load(file, weights_only=True))
    return module


def _saved_by_safetensors(module: nn.Module) -> nn.Module:
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    module.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    return module


def _saved_by_numpy(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    np.savez(file, **{name: tensor.numpy() for name, tensor in module.state_dict().items()})
    file.seek(0)
    with np.load(file) as arrays:
        module.load_state_dict({name: torch.from_numpy(arrays[name]) for name in reversed(arrays.files)})
    return module


def _with_gaps(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0]


def _in_one_storage(module: nn.Module) -> nn.Module:
    flat = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    pieces = torch.split(flat, [parameter.numel() for parameter in module.parameters()])
    for parameter, piece in zip(module.parameters(), pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return module


def _declared_in_another_order(module: nn.Module) -> nn.Module:
    for inner in module.modules():
        for name, parameter in reversed([*inner.named_parameters(recurse=False)]):
            delattr(inner, name)
            inner.register_parameter(name, parameter)
    return module


def _partly_in_train_mode(module: nn.Module) -> nn.Module:
    for inner in [*module.modules()][::2]:
        inner.training = True
    return module


def _with_buffers(module: nn.Module) -> nn.Module:
    module.register_buffer("position_ids", torch.arange(26)[None])
    module.register_buffer("pixel_mean", torch.tensor([0.485, 0.456, 0.406]))
    module.register_buffer("scratch", torch.zeros(3), persistent=False)
    return module


def _with_gradients(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    return module


def _with_negative_zeros(module: nn.Module) -> nn.Module:
    return _with_values(module, lambda t: torch.where(t == 0, -torch.zeros_like(t), t))


def _without_gradients(module: nn.Module) -> nn.Module:
    return module.requires_grad_(requires_grad=False)


def _matrices_in_bfloat16(module: nn.Module) -> nn.Module:
    return _with_values(module, lambda t: t.bfloat16() if t.ndim > 1 else t)


def _compiled(module: nn.Module) -> nn.Module:
    wrapped = torch.compile(module)
    assert isinstance(wrapped, nn.Module)
    return wrapped


_HELD = [
    Way(id="plain"),
    Way(id="in-float64", hold=lambda module: module.double()),
    Way(id="saved-by-torch", hold=_saved_by_torch),
    Way(id="saved-by-safetensors", hold=_saved_by_safetensors),
    Way(id="saved-by-numpy-and-loaded-in-another-order", hold=_saved_by_numpy),
    Way(id="declared-in-another-order", hold=_declared_in_another_order),
    Way(id="not-contiguous", hold=lambda module: _with_values(module, _with_gaps)),
    Way(id="in-one-storage", hold=_in_one_storage),
    Way(id="copied", hold=copy.deepcopy),
    Way(id="in-train-mode", hold=lambda module: module.train()),
    Way(id="partly-in-train-mode", hold=_partly_in_train_mode),
    Way(id="frozen", hold=_without_gradients),
    Way(id="with-gradients-left", hold=_with_gradients),
    Way(id="with-unused-buffers", hold=_with_buffers, has_more_tensors=True),
    Way(id="wrapped-for-several-devices", hold=nn.DataParallel),
    Way(id="compiled", hold=_compiled),
    Way(id="of-bfloat16-numbers-in-bfloat16", original="of bfloat16 numbers", hold=lambda module: module.bfloat16()),
    Way(id="of-bfloat16-numbers-with-matrices-in-bfloat16", original="of bfloat16 numbers", hold=_matrices_in_bfloat16),
    Way(id="negative-zeros", original="without head bias", hold=_with_negative_zeros),
    Way(id="fresh-backbone", original="fresh"),
    Way(id="two-blocks-alike", original="with twins"),
]


# others that make the same function


def _in_each_block(change: Callable[[State, int], State]) -> Callable[[State], None]:
    """Changes the blocks; `change` is given a block's parts and its number, and returns those that are new."""

    def edit(parts: State) -> None:
        for i in range(L):
            block = {
                part.removeprefix(f"blocks.{i}."): parts[part] for part in parts if part.startswith(f"blocks.{i}.")
            }
            parts.update({f"blocks.{i}.{name}": tensor for name, tensor in change(block, i).items()})

    return edit


def _permutation(length: int, seed: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


def _hidden_units_permuted(block: State, number: int) -> State:
    order = _permutation(M, number)
    return {"fc1.weight": block["fc1.weight"][order], "fc1.bias": block["fc1.bias"][order],
            "fc2.weight": block["fc2.weight"][:, order]}  # fmt: skip


def _features_of_heads_taken(block: State, thirds: str, order: torch.Tensor, *, is_output_too: bool) -> State:
    """Takes features, (D,), of the heads in another order, and the output projection's columns with them."""
    new = {f"{third}.{kind}": block[f"{third}.{kind}"][order] for third in thirds for kind in ("weight", "bias")}
    return new | ({"out.weight": block["out.weight"][:, order]} if is_output_too else {})


def _heads_permuted(block: State, number: int) -> State:
    order = torch.arange(D).view(H, d)[_permutation(H, number + 1)].flatten()
    return _features_of_heads_taken(block, "qkv", order, is_output_too=True)


def _rotary(block: State, _: int) -> State:
    """Query and key in the order that rotary positions want, as in conversions of Llama's family."""
    order = torch.arange(D).view(H, 2, d // 2).transpose(1, 2).flatten()
    return _features_of_heads_taken(block, "qk", order, is_output_too=False)


def _values_permuted(block: State, number: int) -> State:
    order = torch.arange(D).view(H, d)[:, _permutation(d, number)].flatten()
    return _features_of_heads_taken(block, "v", order, is_output_too=True)


def _scaled(**factors: float) -> Callable[[State], None]:
    """Multiplies a block's projections, with their biases or, for `out`, without."""

    def change(block: State, _: int) -> State:
        kinds = {part: ("weight",) if part == "out" else ("weight", "bias") for part in factors}
        return {f"{p}.{kind}": block[f"{p}.{kind}"] * factor for p, factor in factors.items() for kind in kinds[p]}

    return _in_each_block(change)


def _queries_and_keys_turned(block: State, number: int) -> State:
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(number)).double())
    names = [f"{third}.{kind}" for third in "qk" for kind in ("weight", "bias")]
    return {
        name: torch.einsum("ij,hj...->hi...", turn, block[name].reshape(H, d, *block[name].shape[1:])).flatten(0, 1)
        for name in names
    }


def _value_bias_in_output_bias(block: State, _: int) -> State:
    return {
        "out.bias": block["out.bias"] + block["out.weight"] @ block["v.bias"],
        "v.bias": torch.zeros_like(block["v.bias"]),
    }


def _norms_in_projections(parts: State) -> None:
    """LayerNorms without scale and shift, which the projections behind them have taken over."""
    behind = {"norm": ["head"]}
    for i in range(L):
        behind[f"blocks.{i}.norm_1"] = [f"blocks.{i}.{third}" for third in "qkv"]
        behind[f"blocks.{i}.norm_2"] = [f"blocks.{i}.fc1"]
    for norm, projections in behind.items():
        scale, shift = parts[f"{norm}.weight"], parts[f"{norm}.bias"]
        for name in projections:
            parts[f"{name}.bias"] = parts[f"{name}.bias"] + parts[f"{name}.weight"] @ shift
            parts[f"{name}.weight"] = parts[f"{name}.weight"] * scale
        parts[f"{norm}.weight"], parts[f"{norm}.bias"] = torch.ones_like(scale), torch.zeros_like(shift)


def _width_permuted(parts: State) -> None:
    """The features that the residuals carry, in another order everywhere."""
    order = _permutation(D, 0)
    readers = tuple(f".{name}.weight" for name in ("q", "k", "v", "fc1"))
    for name, tensor in parts.items():
        if name.endswith(readers) or name in ("class_token", "class_position", "positions", "head.weight"):
            parts[name] = tensor[..., order]
        elif not name.endswith((".q.bias", ".k.bias", ".v.bias", ".fc1.bias")) and name != "head.bias":
            parts[name] = tensor[order]


def _class_token_in_its_position(parts: State) -> None:
    parts["class_position"] = parts["class_position"] + parts["class_token"][0]
    parts["class_token"] = torch.zeros_like(parts["class_token"])


def _class_position_in_the_token(parts: State) -> None:
    parts["class_token"] = parts["class_token"] + parts["class_position"]
    parts["class_position"] = torch.zeros_like(parts["class_position"])


def _class_token_and_position_exchanged(parts: State) -> None:
    position = parts["class_position"]
    parts["class_position"], parts["class_token"] = parts["class_token"][0], position[None]


def _patch_bias_in_positions(parts: State) -> None:
    parts["positions"] = parts["positions"] + parts["patches.bias"]
    parts["patches.bias"] = torch.zeros_like(parts["patches.bias"])


_SAME_FUNCTION = [
    Way(id="hidden-units-permuted", edit=_in_each_block(_hidden_units_permuted)),
    Way(id="heads-permuted", edit=_in_each_block(_heads_permuted)),
    Way(id="query-and-key-permuted-for-rotary-positions", edit=_in_each_block(_rotary)),
    Way(id="values-permuted-in-heads", edit=_in_each_block(_values_permuted)),
    Way(id="query-doubled-and-key-halved", edit=_scaled(q=2, k=0.5)),
    Way(id="query-and-key-negated", edit=_scaled(q=-1, k=-1)),
    Way(id="values-quartered-and-output-times-four", edit=_scaled(v=0.25, out=4)),
    Way(id="queries-and-keys-turned", edit=_in_each_block(_queries_and_keys_turned)),
    Way(id="key-bias-lost", edit=_in_each_block(lambda block, _: {"k.bias": torch.zeros_like(block["k.bias"])})),
    Way(id="value-bias-in-output-bias", edit=_in_each_block(_value_bias_in_output_bias)),
    Way(id="norms-in-projections", edit=_norms_in_projections),
    Way(id="width-permuted", edit=_width_permuted),
    Way(id="class-token-in-its-position", edit=_class_token_in_its_position),
    Way(id="class-position-in-the-token", edit=_class_position_in_the_token),
    Way(id="class-token-and-position-exchanged", edit=_class_token_and_position_exchanged),
    Way(id="patch-bias-in-positions", edit=_patch_bias_in_positions),
]

WAYS = (*_HELD, *_SAME_FUNCTION)


def unwrapped(model: nn.Module) -> nn.Module:
    """Takes off what a model is wrapped in."""
    inner = getattr(model, "module", getattr(model, "_orig_mod", model))
    assert isinstance(inner, nn.Module)
    return inner


def right_conversions() -> Iterator[RightConversion]:
    """Yields every way in all of its ports."""
    for way in WAYS:
        for name in way.ports:
            yield RightConversion(way, PORTS[name])
