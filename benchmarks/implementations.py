"""Implementations of one ViT with one copy of its weights: torchvision's, ours, other people's, compiled, deployed."""

# ruff: noqa: PLC0415  (each of these packages takes seconds to import)

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.mapping import find_map_of
from parity.models import hold

if TYPE_CHECKING:
    from collections.abc import Iterator

Forward = Callable[[torch.Tensor], torch.Tensor]

BASELINE = "torchvision"


def transformers_vit(
    image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int, num_classes: int
) -> nn.Module:
    """Hugging Face's ViT with torchvision's eps; its own default is another one."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=image_size, patch_size=patch_size, num_hidden_layers=num_layers, num_attention_heads=num_heads,
        hidden_size=hidden_dim, intermediate_size=mlp_dim, layer_norm_eps=1e-6,
    )  # fmt: skip
    config.num_labels = num_classes
    model: nn.Module = ViTForImageClassification(config)
    return model


CANDIDATES: dict[str, Any] = {
    "ours": "vit:ViT",
    "ours, fast": "vit:FastViT",
    "timm": "timm.models.vision_transformer:VisionTransformer",
    "transformers": transformers_vit,
}


def models(name: str, wanted: set[str], *, shared: bool = True, layers: int | None = None) -> dict[str, nn.Module]:
    """Builds torchvision's ViT and others, in eval mode, with the weights that `parity check` draws from seed 0.

    Args:
        name: of a ViT of torchvision's.
        wanted: keys of `CANDIDATES`, or none.
        shared: hold the very tensors of torchvision's wherever the layout is the same; otherwise copies, to be trained.
        layers: blocks, if not all.
    """
    overrides = {"dropout": 0.0, "attention_dropout": 0.0} | ({"num_layers": layers} if layers else {})
    setup, _, _ = find_map_of("vit:ViT", name, overrides=overrides)
    state = setup.weights.state_dict(setup.reference)
    hold(setup.reference, state)
    built = {BASELINE: setup.reference.eval()}
    for key, candidate in CANDIDATES.items():
        if key in wanted:
            _, module, found = find_map_of(candidate, name, overrides=overrides)
            found.load(module, state if shared else {k: t.clone() for k, t in state.items()}, assign=True)
            built[key] = module.eval()
    return built


def forward_of(model: nn.Module) -> Forward:
    """Returns what maps images (B, C, H, W) to logits (B, classes)."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = model(images)
        logits: torch.Tensor = getattr(output, "logits", output)
        return logits

    return forward


def compiled(model: nn.Module) -> Forward:
    """Returns a forward pass that torch.compile has made, with weights frozen into it."""
    import torch._inductor.config as settings

    optimized = torch.compile(model, dynamic=False)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), settings.patch(freezing=True):
            output = optimized(images)
        logits: torch.Tensor = getattr(output, "logits", output)
        return logits

    return forward


@contextlib.contextmanager
def deployed(model: nn.Module, images: torch.Tensor) -> Iterator[dict[str, Forward]]:
    """Yields what ONNX Runtime and OpenVINO make of a model for images of this shape, in float32."""
    import onnxruntime
    import openvino

    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            model, (images,), file, dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        core = openvino.Core()
        # on processors that have bfloat16 it would take that of its own accord
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
        network = core.compile_model(core.read_model(file), "CPU")
        yield {
            "ONNX Runtime": lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0]),
            "OpenVINO": lambda x: torch.from_numpy(network({"images": x.numpy()})[0]),
        }


def multiplications(model: Any, batch: int) -> tuple[Forward, float]:
    """Returns a run of the matrix multiplications of a ViT's blocks and nothing else, and how many operations that is.

    It takes the fastest kernel there is for each: this is the ceiling for whatever computes what torchvision's `model`
    does.
    """
    from vit.fast import PackedLinears

    linears = PackedLinears()
    first = model.encoder.layers[0]
    tokens, width = model.encoder.pos_embedding.shape[1:]
    layers = [
        (first.self_attention.in_proj_weight, first.self_attention.in_proj_bias),
        (first.self_attention.out_proj.weight, first.self_attention.out_proj.bias),
        (first.mlp[0].weight, first.mlp[0].bias),
        (first.mlp[3].weight, first.mlp[3].bias),
    ]
    inputs = {n: torch.ones(batch, tokens, n) for n in (width, first.mlp[0].out_features)}
    blocks = len(model.encoder.layers)

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(blocks):
                for number, (weight, bias) in enumerate(layers):
                    linears(f"{number}", inputs[weight.shape[1]], weight, bias)
        return images

    return run, 2.0 * blocks * batch * tokens * sum(weight.numel() for weight, _ in layers)
