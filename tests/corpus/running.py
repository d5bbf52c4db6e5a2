"""Running planted models bare: no harness, the same values in every tensor that they share with their host."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models import VisionTransformer

from parity.models.candidate import resolve_candidate
from parity.models.reference import CHECKED_DROPOUT, build_reference, configuration
from parity.models.state import state_shapes
from parity.models.weight_maps.expansion import by_name, expand
from parity.models.weight_maps.written_map import read_map
from parity.models.weights import synthetic, uniform
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write

if TYPE_CHECKING:
    from parity.models.checkpoint import State
    from tests.corpus.hosts import Host

_Settings = tuple[tuple[str, Any], ...]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the norm of the difference of two tensors of one shape, relative to the first one's."""
    return float(torch.linalg.vector_norm(other.double() - one.double()) / torch.linalg.vector_norm(one.double()))


def built(spec: str, settings: dict[str, Any]) -> nn.Module:
    """Builds a planted model, with dropout rates that show what they do; it takes what its host takes."""
    return resolve_candidate(spec, {}, _arguments(spec.rpartition(":")[2], tuple(settings.items()))).build()


@functools.cache
def _arguments(model: str, settings: _Settings) -> dict[str, Any]:
    host = next(host for host in HOSTS.values() if host.model == model)
    with tempfile.TemporaryDirectory() as folder:
        config = configuration("vit_b_16", dict(settings)) | CHECKED_DROPOUT
        return resolve_candidate(write(Path(folder), host), config).arguments


def initial(settings: dict[str, Any]) -> State:
    """Returns weights as torchvision draws them, but for the head, which it sets to zero, and which is random here."""
    torch.manual_seed(0)
    model = VisionTransformer(**configuration("vit_b_16", settings))
    nn.init.normal_(model.heads.head.weight, std=settings["hidden_dim"] ** -0.5)
    state: State = model.state_dict()
    return state


@functools.cache
def _reference_state(settings: _Settings, weights: str) -> State:
    """Returns the reference's weights: `synthetic`, or `initial`."""
    if weights == "initial":
        return initial(dict(settings))
    return synthetic(build_reference(configuration("vit_b_16", dict(settings))), 0)


@functools.cache
def _host_state(host_name: str, settings: _Settings, weights: str) -> State:
    """Returns the same weights under the host's names."""
    host = HOSTS[host_name]
    reference, candidate = build_reference(configuration("vit_b_16", dict(settings))), plain(host_name, settings)
    if host.mapping is None:
        mapping = by_name(reference, candidate)
    else:
        mapping = expand(read_map(host.mapping), state_shapes(reference), state_shapes(candidate), host.name)
    return mapping.apply(_reference_state(settings, weights))


@functools.cache
def plain(host_name: str, settings: _Settings) -> nn.Module:
    """Returns the unplanted host."""
    with tempfile.TemporaryDirectory() as folder:
        return built(write(Path(folder), HOSTS[host_name]), dict(settings))


@functools.cache
def host_logits(host_name: str, settings: _Settings, weights: str, mode: str, dtype: str) -> torch.Tensor:
    """Returns what the unplanted host makes of the images."""
    return logits(plain(host_name, settings), HOSTS[host_name], settings, weights, mode, dtype)


def logits(
    model: nn.Module,
    host: Host,
    settings: _Settings,
    weights: str = "synthetic",
    mode: str = "eval",
    dtype: str = "float64",
    batch: int = 3,
) -> torch.Tensor:
    """Runs a model on random images and returns its logits, (batch, classes).

    Args:
        model: the host, or one that was planted in it.
        host: gives the weights of all tensors of its names and shapes; those of others are synthetic.
        settings: of the reference.
        weights: `synthetic`, or `initial`.
        mode: `eval` or `train`; dropout is seeded.
        dtype: name of the dtype.
        batch: number of images.
    """
    state = _host_state(host.name, settings, weights)
    own = model.state_dict()
    extra = {name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape}
    # the values last, since one tensor may have several names
    model.load_state_dict({name: state[name] for name in own.keys() - extra} | synthetic(model, 0, only=extra))
    return _run(model.train(mode == "train"), settings, dtype, batch)


@functools.cache
def reference_logits(settings: _Settings, dtype: str, batch: int) -> torch.Tensor:
    """Returns what torchvision's model makes of the same images, in eval mode with the same synthetic weights."""
    model = VisionTransformer(**configuration("vit_b_16", dict(settings)))
    model.load_state_dict(_reference_state(settings, "synthetic"))
    return _run(model.eval(), settings, dtype, batch)


def _run(model: nn.Module, settings: _Settings, dtype: str, batch: int) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    size = dict(settings)["image_size"]
    model.to(kind)
    torch.manual_seed(0)
    with torch.no_grad():
        result = model(uniform("corpus", (batch, 3, size, size)).to(kind))
    found: torch.Tensor = (
        result["logits"] if isinstance(result, dict) else result[0] if isinstance(result, tuple) else result
    )
    return found
