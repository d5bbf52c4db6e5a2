"""Other people's Vision Transformers, from the packages that ship them, at the full width of ViT-B/16."""

# ruff: noqa: PLC0415  (each of these packages takes seconds to import)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def timm_vit() -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("vit_base_patch16_224")
    return model


def timm_clip(depth: int = 12) -> nn.Module:
    """CLIP's image tower: no bias of the patch projection, a norm before the blocks."""
    import timm

    model: nn.Module = timm.create_model("vit_base_patch16_clip_224", num_classes=1000, depth=depth)
    return model


def timm_dino(depth: int = 12) -> nn.Module:
    """DINOv2's ViT at B/16: a learned scale of every branch."""
    import timm

    model: nn.Module = timm.create_model(
        "vit_base_patch14_dinov2", img_size=224, patch_size=16, num_classes=1000, depth=depth
    )
    return model


def _transformers_vit(eps: float, depth: int = 12) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(layer_norm_eps=eps, num_hidden_layers=depth)
    config.num_labels = 1000
    model: nn.Module = ViTForImageClassification(config)
    return model


def transformers_vit() -> nn.Module:
    return _transformers_vit(1e-6)


def transformers_vit_as_it_comes(depth: int = 12) -> nn.Module:
    """Its default eps is 1e-12."""
    return _transformers_vit(1e-12, depth)


def timm_small() -> nn.Module:
    """The same code in the sizes of `parity.suite.conftest.SMALL`."""
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=48, patch_size=16, depth=3, num_heads=4, embed_dim=64, mlp_ratio=1.5, num_classes=10
    )
    return model


def timm_sized(
    img_size: int, patch_size: int, depth: int, num_heads: int, embed_dim: int, mlp_dim: int, num_classes: int
) -> nn.Module:
    """The same code in any size."""
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"img_size": img_size, "patch_size": patch_size, "depth": depth, "num_heads": num_heads}
    model: nn.Module = VisionTransformer(
        **sizes, embed_dim=embed_dim, mlp_ratio=mlp_dim / embed_dim, num_classes=num_classes
    )
    return model


def transformers_small() -> nn.Module:
    """The same code in the sizes of `parity.suite.conftest.SMALL`."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        layer_norm_eps=1e-6, image_size=48, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96,
    )  # fmt: skip
    config.num_labels = 10
    model: nn.Module = ViTForImageClassification(config)
    return model


def vit_pytorch_vit(depth: int = 12) -> nn.Module:
    """No bias of query, key and value; norms before and after the patch projection."""
    from vit_pytorch import ViT

    model: nn.Module = ViT(
        image_size=224, patch_size=16, num_classes=1000, dim=768, depth=depth, heads=12, mlp_dim=3072
    )
    return model


def torchvision_vit() -> nn.Module:
    from torchvision.models import vit_b_16

    model: nn.Module = vit_b_16()
    return model


def timm_swin(img_size: int, num_classes: int) -> nn.Module:
    """No plain ViT: attention in windows, and patches that are merged from stage to stage."""
    from timm.models.swin_transformer import SwinTransformer

    sizes: dict[str, Any] = {"patch_size": 2, "window_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4)}
    model: nn.Module = SwinTransformer(img_size=img_size, num_classes=num_classes, **sizes)
    return model
