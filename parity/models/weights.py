"""The weights that both models are compared with: synthetic, torchvision's official ones, or from a file.

Synthetic weights are the default, because freshly built models prove nothing: torchvision sets the head and the class
token to zero, so that all logits are 0 whatever the rest of the model does. Here every tensor is random, LayerNorm
scales and biases, class token, position embedding and head included.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.transforms._presets import ImageClassification

from parity.errors import ParityError
from parity.models.checkpoint import Checkpoint, fitted, is_path, read
from parity.models.libraries import is_elsewhere
from parity.models.reference import build_reference, configuration, reference_names
from parity.models.state import state_shapes, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from parity.models.checkpoint import State

_CHUNK = 1 << 22  # values drawn at a time: 32 MiB of random words

# Standard deviations that leave every activation of order 1 and every tensor with a visible effect.
_NORM_SPREAD = 0.25
_BIAS_SPREAD = 0.2
_EMBEDDING_SPREAD = 0.5


# of grey pictures: means of torchvision's numbers for the three colours
_GREY_MEAN, _GREY_DEVIATION = (0.449,), (0.226,)


@dataclass(frozen=True)
class Weights:
    """Where the weights of a comparison come from, and what comes with them.

    Attributes:
        source: how the report names them.
        config: settings of the reference that belong to these weights, such as the image size in pixels.
        categories: names of the classes, or none.
        notes: what was done to read them, a sentence each; complete once they were taken.
    """

    source: str
    config: dict[str, Any] = field(default_factory=dict)
    categories: Sequence[str] = ()
    notes: Sequence[str] = ()
    _transforms: Callable[[], Any] | None = None
    _load: Callable[[nn.Module], State] | None = None

    def state_dict(self, model: nn.Module) -> State:
        """Returns values for every tensor of `model`, in float32 where they are floating-point numbers.

        Args:
            model: the reference, on any device; only its names, shapes and layer types are used.

        Raises:
            ParityError: the weights cannot be had, or are another architecture's.
        """
        assert self._load is not None
        return {k: v.float() if v.is_floating_point() else v for k, v in self._load(model).items()}

    def transforms(self, image_shape: tuple[int, int, int]) -> Any:
        """Returns the preprocessing that turns a picture into the model's input (channels, height, width)."""
        if self._transforms:
            return self._transforms()
        channels, height, width = image_shape
        colours = {"mean": _GREY_MEAN, "std": _GREY_DEVIATION} if channels == 1 else {}
        made = ImageClassification(crop_size=height, resize_size=max(256, height, width), **colours)
        made.crop_size = [height, width]
        return made


def resolve_weights(spec: str, reference_name: str, seed: int = 0) -> Weights:
    """Finds out which weights `spec` means.

    Args:
        spec: `synthetic`, `official` (torchvision's default entry), a member of torchvision's weights enum such as
            `IMAGENET1K_V1`, or a file, `PATH` or `PATH#KEY` (`checkpoint.read`).
        reference_name: the reference's name, which the enum belongs to; one that is not torchvision's has none.
        seed: of the synthetic weights.

    Raises:
        ParityError: `spec` is none of these.
    """
    if spec == "synthetic":
        return Weights(f"synthetic:{seed}", _load=lambda model: synthetic(model, seed))
    if is_elsewhere(reference_name):
        if not is_path(spec):
            raise ParityError(
                f"--weights {spec}: expected synthetic, own, or a path to a .pth or .safetensors file; official ones "
                f"are torchvision's, and {reference_name} is no model of its"
            )
        return _of_file(spec)
    members = get_model_weights(reference_name)
    if spec == "official" or spec in members.__members__:
        entry = members.DEFAULT if spec == "official" else members[spec]
        return Weights(
            str(entry),
            config={"image_size": entry.meta["min_size"][0], "num_classes": len(entry.meta["categories"])},
            categories=entry.meta["categories"],
            _transforms=entry.transforms,
            _load=lambda model: fitted(Checkpoint(str(entry), official(entry)), model, "reference", _better_fit),
        )
    if is_path(spec):
        return _of_file(spec, _better_fit)
    raise ParityError(
        f"--weights {spec}: expected synthetic, official, a path to a .pth or .safetensors file, "
        f"or one of {', '.join(members.__members__)}"
    )


def _of_file(spec: str, hint: Callable[[State], str] = lambda _: "") -> Weights:
    checkpoint = read(spec)
    return Weights(spec, notes=checkpoint.notes, _load=lambda model: fitted(checkpoint, model, "reference", hint))


def own_weights(module: nn.Module) -> Weights:
    """Returns the weights that `module` already has, to be used as they are."""
    return Weights("the reference's own", _load=lambda _: {k: v.detach() for k, v in tensors_of(module).items()})


def synthetic(model: nn.Module, seed: int, only: Collection[str] | None = None) -> State:
    """Draws non-degenerate values for every tensor of `model`.

    Each tensor has its own stream, keyed by the seed and its name, of numpy's Philox generator, whose bits are
    the same on every platform and release; they are turned into uniform float32 numbers with exactly rounded
    operations alone. So the values depend on nothing but seed, name, shape and layer type. A buffer
    that has values keeps them: a table of numbers is part of a function, not of its weights.

    Args:
        model: any module, on any device.
        seed: any integer.
        only: names of the tensors to draw; by default all.

    Returns:
        The values by state-dict name, on the CPU, those that are drawn in float32. Norm scales lie around 1, biases
        around 0, the inputs of a Linear, convolution or attention projection are weighted so that their sum keeps its
        variance.
    """
    owners = {f"{prefix}.{key}" if prefix else key: (module, key) for prefix, module in model.named_modules()
              for key in (*module._parameters, *module._buffers)}  # noqa: SLF001  # fmt: skip
    state = {}
    for name, tensor in tensors_of(model).items():
        if only is not None and name not in only:
            continue
        owner, key = owners[name]
        if key in owner._buffers and not tensor.is_meta:  # noqa: SLF001
            state[name] = tensor.detach().cpu()
            continue
        if not tensor.is_floating_point():
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
            continue
        centre, deviation = _distribution(owner, key, tensor)
        state[name] = torch.from_numpy(_uniform(f"{seed}/{name}", tensor.numel(), centre, deviation)).view(tensor.shape)
    return state


def uniform(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Draws reproducible float32 numbers of the given shape, of mean 0 and variance 1, from the stream `key`."""
    return torch.from_numpy(_uniform(key, math.prod(shape), 0.0, 1.0)).view(shape)


def _uniform(key: str, count: int, centre: float, deviation: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    stream = np.random.Philox(
        key=int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest(), "little")
    )
    values = np.empty(count, dtype=np.float32)
    scale, shift = np.float32(deviation * math.sqrt(12) / 2**24), np.float32(2**23)
    for start in range(0, count, _CHUNK):
        part = values[start : start + _CHUNK]
        words = stream.random_raw((len(part) + 1) // 2).view("<u4")[: len(part)]
        words >>= np.uint32(8)
        part[:] = words  # 24 bits are exact in float32
        part -= shift
        part *= scale
        part += np.float32(centre)
    return values


def _distribution(owner: nn.Module, key: str, tensor: torch.Tensor) -> tuple[float, float]:
    """Returns mean and standard deviation for the tensor that `owner` registers under `key`."""
    if tensor.ndim < 2:
        is_scale = "bias" not in key and key != "running_mean"
        return (1.0, _NORM_SPREAD) if is_scale else (0.0, _BIAS_SPREAD)
    if isinstance(owner, (nn.Linear, nn.MultiheadAttention, nn.modules.conv._ConvNd)):  # noqa: SLF001
        return 0.0, 1 / math.sqrt(tensor[0].numel())
    return 0.0, _EMBEDDING_SPREAD


def official(entry: WeightsEnum) -> State:
    """Downloads torchvision's weights, or takes them from its cache, and checks their hash in both cases.

    Source: `WeightsEnum.get_state_dict` and `torch.hub.load_state_dict_from_url`, which check the hash of a download
    only, and write to a temporary file first. Progress goes to stderr.

    Raises:
        ParityError: no network, a download that broke off, or a file whose hash is another one.
    """
    cached = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/", 1)[-1])
    advice = f"put the file into {cached.parent}, or use --weights synthetic or --weights PATH"
    if cached.exists():
        _require_hash(cached)
    known = inspect.signature(torch.hub.load_state_dict_from_url).parameters
    options: dict[str, Any] = {"progress": True, "check_hash": True}
    if "weights_only" in known:  # since torch 2.1
        options["weights_only"] = True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if "args" in inspect.signature(entry.get_state_dict).parameters:  # since torchvision 0.16
                state = entry.get_state_dict(**options)
            else:
                state = torch.hub.load_state_dict_from_url(entry.url, **options)
    except OSError as error:  # every failure of urllib, sockets and time-outs
        raise ParityError(f"cannot download {entry.url}: {getattr(error, 'reason', error)}; {advice}") from error
    except RuntimeError as error:
        raise ParityError(f"the download of {entry.url} was refused, {error}; try again, or {advice}") from error
    return dict(state)


def _require_hash(file: Path) -> None:
    """Checks that `file` has the hash that stands in its name, torch.hub's convention `name-<sha256 prefix>.ext`."""
    match = re.search(r"-([a-f0-9]{8,})\.", file.name)
    if match is None:
        return
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(match.group(1)):
        raise ParityError(
            f"{file} is damaged: its name promises a SHA-256 that begins with {match.group(1)}, it has "
            f"{digest.hexdigest()[:8]}; delete it, and it is downloaded again"
        )


def _better_fit(state: State) -> str:
    """Names the torchvision ViT that tensors of these shapes belong to, if there is one."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in reference_names():
        config = configuration(name)
        tokens = shapes.get("encoder.pos_embedding", (1, 0, 0))[1]
        image_size = math.isqrt(max(tokens - 1, 0)) * config["patch_size"]
        if image_size and state_shapes(build_reference(config | {"image_size": image_size})) == shapes:
            return f"; they are {name}'s: use --reference {name} --set image_size={image_size}"
    return ""
