"""Constructors of one known ViT, whose arguments have many names and forms, for `test_binding`."""

import argparse
import enum
import types
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import nn

import vit


def build_vit(
    image: Any, patch: Any, layers: Any, heads: Any, width: Any, mlp: Any, classes: Any, rate: float = 0.0
) -> nn.Module:
    """Builds a ViT; whatever is no whole number is refused."""
    for value in (image, patch, layers, heads, width, mlp, classes):
        if not isinstance(value, int):
            raise TypeError(value)
    return vit.ViT(image, 3, patch, width, mlp, heads, layers, rate, classes)


def positions_last(n_attention_heads, num_encoder_layers, emb_dims, dim_mlp, class_num, patch_dim, input_resolution):
    return build_vit(input_resolution, patch_dim, num_encoder_layers, n_attention_heads, emb_dims, dim_mlp, class_num)


def of_an_encoder(
    img_size=24, patch_side=4, embed_dim=24, layers=3, attention_heads=3, ffn_embed_dim=72, num_classes=5
):
    return build_vit(img_size, patch_side, layers, attention_heads, embed_dim, ffn_embed_dim, num_classes)


def of_channels(image_size, patch_edge, embed_channels, depth, num_heads, ffn_channels, num_classes):
    return build_vit(image_size, patch_edge, depth, num_heads, embed_channels, ffn_channels, num_classes)


def by_letters(i, p, L, h, d, m, c):
    return build_vit(i, p, L, h, d, m, c)


def by_nothing(one, two, three, four, five, six, seven):
    return build_vit(five, one, seven, two, six, three, four)


def camel(imgSize, patchSize, numLayers, numHeads, embedDim, mlpRatio, numClasses):
    return build_vit(imgSize, patchSize, numLayers, numHeads, embedDim, embedDim * mlpRatio, numClasses)


def pairs(image_shape=(224, 224), patch=(16, 16), depth=12, heads=12, dim=768, expansion=4, n_classes=1000):
    return build_vit(image_shape[1], patch[0], depth, heads, dim, dim * expansion, n_classes)


def channels_first(input_shape, patch_size, depth, heads, dim, mlp_dim, n_classes):
    _, height, _ = input_shape
    return build_vit(height, patch_size, depth, heads, dim, mlp_dim, n_classes)


def sides(image_height, image_width, patch_h, patch_w, depth, heads, dim, ff, labels):
    if (image_height, patch_h) != (image_width, patch_w):
        raise ValueError
    return build_vit(image_height, patch_w, depth, heads, dim, ff, labels)


def counted(num_patches, patch_vec, depth, dim_head, latent_size, d_ff, nb_classes):
    patch = round((patch_vec // 3) ** 0.5)
    return build_vit(
        round(num_patches**0.5) * patch, patch, depth, latent_size // dim_head, latent_size, d_ff, nb_classes
    )


def sequence(seq_len, patch_size, depth, heads, dim, mlp_dim, n_classes):
    return build_vit(round((seq_len - 1) ** 0.5) * patch_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


def lying(hidden_dim, embed_dim, depth, heads, image_size, patch_size, n_classes):
    return build_vit(image_size, patch_size, depth, heads, embed_dim, hidden_dim, n_classes)


def unnamed_with_defaults(image_size, patch_size, heads, dim, mlp_dim, n_classes, how_often=7):
    return build_vit(image_size, patch_size, how_often, heads, dim, mlp_dim, n_classes)


def choices(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes, pool, device, act, norm, *, learnable: bool):
    if pool not in ("cls", "mean") or device != "cpu" or not callable(act) or not learnable:
        raise ValueError
    norm(4)
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


def literal(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes, how: Literal["mean", "token"]):
    if how != "token":
        raise ValueError
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


class Pool(enum.Enum):
    MEAN = "mean"
    CLS = "cls"


def enumerated(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes, pooling: Pool):
    if pooling is not Pool.CLS:
        raise ValueError
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


def compared(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes, flavour: str):
    if flavour == "plain":
        return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)
    raise ValueError(flavour)


def by_position(image_size, patch_size, depth, heads, /, dim, *, mlp_dim, n_classes):
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


def passed_on(verbose=False, **kwargs):
    assert verbose is False
    return positions_last(**kwargs)


def passed_on_in_part(image_size, *args):
    return build_vit(image_size, *args)


def picked(**kwargs):
    rest = kwargs.get("depth", 12), kwargs["heads"], kwargs.pop("dim"), kwargs["mlp_dim"], kwargs["n_classes"]
    return build_vit(kwargs["image_size"], kwargs["patch_size"], *rest)


class Above:
    def __new__(cls, image_size=224, patch_size=16, depth=12, heads=12, dim=768, mlp_dim=3072, n_classes=1000):
        return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


class Base(nn.Module):
    def __init__(self, image_size, patch_size, depth, heads, dim, mlp_dim, n_classes):
        super().__init__()
        self.inner = build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)

    def forward(self, images):
        return self.inner(images)


class Derived(Base):
    def __init__(self, *args, tag="x", **kwargs):
        super().__init__(*args, **kwargs)
        self.tag = tag


def _of(c: Any) -> nn.Module:
    return build_vit(c.image_size, c.patch_size, c.depth, c.heads, c.dim, c.mlp_dim, c.n_classes)


PLAIN: dict[str, Any] = {
    "image_size": 224, "patch_size": 16, "depth": 12, "heads": 12, "dim": 768, "mlp_dim": 3072, "n_classes": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Frozen:
    image_size: int
    patch_size: int
    depth: int
    heads: int
    dim: int
    mlp_dim: int
    n_classes: int = 1000


class Tuple(NamedTuple):
    image_size: int
    patch_size: int
    depth: int
    heads: int
    dim: int
    mlp_dim: int
    n_classes: int = 1000


class Typed(TypedDict):
    image_size: int
    patch_size: int
    depth: int
    heads: int
    dim: int
    mlp_dim: int
    n_classes: int


@dataclass
class Encoder:
    depth: int = 12
    heads: int = 12
    dim: int = 768
    mlp_dim: int = 3072


@dataclass
class Nested:
    n_classes: int
    encoder: Encoder = field(default_factory=Encoder)
    sizes: dict[str, int] = field(default_factory=dict)
    image_size: int = 224
    patch_size: int = 16


class Attributes:
    image_size, patch_size, depth, heads, dim, mlp_dim, n_classes = PLAIN.values()


def frozen(cfg: Frozen):
    return _of(cfg)


def optional(cfg: Frozen | None = None):
    return _of(cfg or Frozen(**PLAIN))


def named_tuple(cfg: Tuple):
    return _of(cfg)


def typed(cfg: Typed):
    return _of(types.SimpleNamespace(**cfg))


def nested(cfg: Nested):
    e = cfg.encoder
    return build_vit(cfg.image_size, cfg.patch_size, e.depth, e.heads, e.dim, e.mlp_dim, cfg.n_classes)


def attributes(cfg: Attributes):
    return _of(cfg)


def class_as_default(cfg=Attributes):
    return _of(cfg)


def dict_as_default(sizes=PLAIN):
    return _of(types.SimpleNamespace(**sizes))


def namespace_as_default(o=types.SimpleNamespace(**PLAIN)):  # noqa: B008
    return _of(o)


def arguments_as_default(o=argparse.Namespace(**PLAIN)):  # noqa: B008
    return _of(o)


def tuple_as_default(o=namedtuple("Sizes", PLAIN)(**PLAIN)):  # noqa: B008, PYI024
    return _of(o)


def read(config):
    model = config.model
    rest = config.get("drop_path", 0.0), getattr(config, "nothing", None)
    assert rest == (0.0, None)
    heads = model["num_attention_heads"]
    return build_vit(config.data.img_size, config["patch"], model.n_layer, heads, model.n_embd, model.mlp, config.K)


def read_by_another(params):
    return Base(**params)


def read_in_groups(config):
    sizes, encoder = config["image"], config.get("encoder", {})
    shape = sizes.size, sizes["patch"]["size"]
    return build_vit(*shape, encoder["depth"], encoder["heads"], encoder["dim"], encoder.mlp.dim, config["n_classes"])


def merged(tag="x", **changes):
    chosen = dict({"depth": 12, "heads": 12}, **changes)
    return every_default(tag, **{**chosen, "tag": tag})


def every_default(name, image_size=224, patch_size=16, depth=6, heads=6, dim=768, mlp_dim=3072, classes=1000, tag=""):
    assert name == tag
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, classes)


def read_by_any_name(it):
    return build_vit(it.image_size, it.patch_size, it.depth, it.heads, it.dim, it.mlp_dim, it.n_classes)


def count_that_is_a_size(image_size, n_channel, n_patch, n_dim, n_encoder_blocks, n_heads, mlp_dim, n_classes):
    assert n_channel == 3
    return build_vit(image_size, n_patch, n_encoder_blocks, n_heads, n_dim, mlp_dim, n_classes)


def for_a_batch(image_size, patch_size, channels, batch_size, depth, heads, dim, mlp_dim, n_classes):
    assert channels == batch_size == 3
    return build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)


def sides_by_letters(P, C, d_model, H, W, num_classes):
    if (C, H) != (3, W) or d_model % 8:
        raise ValueError
    return build_vit(H, P, 2, 4, d_model, 96, num_classes)


def rows_of_patches(image_size, patch, depth, heads, dim, mlp_dim, n_classes):
    return build_vit(image_size, image_size // patch, depth, heads, dim, mlp_dim, n_classes)


VARIANTS = {"wide": {"dim": 96, "heads": 8}, "usual": {"dim": 48, "heads": 4}}


def by_key(image_size, patch_size, depth, mlp_dim, n_classes, variant="wide"):
    return build_vit(image_size, patch_size, depth, mlp=mlp_dim, classes=n_classes, width=VARIANTS[variant]["dim"],
                     heads=VARIANTS[variant]["heads"])  # fmt: skip


class Counted:
    """Has a number that can only be set once it is made."""

    def __init__(
        self, image_size=224, patch_size=16, depth=12, heads=12, dim=768, mlp_dim=3072, labels: dict | None = None
    ):
        self.sizes = image_size, patch_size, depth, heads, dim, mlp_dim
        self.labels = labels or {0: "yes", 1: "no"}

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @num_labels.setter
    def num_labels(self, number):
        self.labels = dict.fromkeys(range(number), "")


def set_later(config: Counted):
    return build_vit(*config.sizes, config.num_labels)


def read_strictly(config):
    if type(config["depth"]) is not int:
        raise TypeError("depth must be a whole number")
    rest = config["heads"], config["dim"], config["mlp_dim"], config["n_classes"]
    return build_vit(config["image_size"], config["patch_size"], config["depth"], *rest)


def rates_of_blocks(one, two, three, four, five, six, seven, drop_path=0.0):
    """As stochastic depth is written, which cannot be read from tensors without values."""
    rates = [rate.item() for rate in torch.linspace(0, drop_path, seven)]
    return build_vit(five, one, len(rates), two, six, three, four)


def numbers_of_tensors(one, two, three, four, five, six, seven):
    seven, two = torch.tensor([seven, two]).tolist()
    return build_vit(five, one, seven, two, six, three, four)


def width_again(image_size, patch_size, depth, num_heads, d_model, d_hidden, mlp_filters, n_classes, mlp_out=256):
    if not d_model == d_hidden == mlp_out:
        raise ValueError
    return build_vit(image_size, patch_size, depth, num_heads, d_model, mlp_filters, n_classes)


def image_again(img_size, image_size, patch_size, depth, num_heads, d_model, mlp_dim, n_classes, D=768):
    if img_size != image_size or d_model != D:
        raise ValueError
    return build_vit(image_size, patch_size, depth, num_heads, d_model, mlp_dim, n_classes)


def width_for_nothing(image_size, patch_size, depth, num_heads, embed_dim, hidden_dim, n_classes):
    del hidden_dim
    return build_vit(image_size, patch_size, depth, num_heads, embed_dim, 2 * embed_dim, n_classes)


def heads_of_every_block(image_size, patch_size, nums_heads, dim, mlp_dim, n_classes):
    if len({*nums_heads}) != 1:
        raise ValueError
    return build_vit(image_size, patch_size, len(nums_heads), nums_heads[0], dim, mlp_dim, n_classes)


def channels_last(img_size, patch_size, depth, heads, dim, mlp_dim, n_classes):
    height, _, channels = img_size
    if channels != 3:
        raise ValueError
    return build_vit(height, patch_size, depth, heads, dim, mlp_dim, n_classes)


def switched(opts):
    """Has a switch, of which only the use tells that it is one, and a range of initial values."""
    if opts.hybrid_model:
        raise NotImplementedError
    nn.init.normal_(torch.empty(2), std=opts.initializer_range)
    return build_vit(opts.img_size, opts.patch_size, opts.depth, opts.heads, opts.dim, opts.mlp_dim, opts.num_class)


def embedding_of_a_head(FLAGS):
    """Calls the width of a head as others call a model's."""
    if not isinstance(FLAGS.cls_hidden, int):
        raise TypeError
    width = FLAGS.embedding_dim * FLAGS.num_heads
    if width == FLAGS.hidden_size:
        names = "picture_size", "patch_size", "num_layers", "num_heads", "hidden_size", "mlp_hidden_size", "num_classes"
        return build_vit(*(FLAGS[name] for name in names))
    other = build_vit(
        FLAGS.picture_size, FLAGS.patch_size, FLAGS.num_layers, FLAGS.num_heads, width, FLAGS.mlp_hidden_size, 5
    )
    other.heads = nn.Linear(FLAGS.hidden_size, FLAGS.num_classes)
    return other


def heads_again(image_size, patch_size, depth, num_heads, num_kv_heads, head_channels, mlp_dim, n_classes):
    if num_kv_heads != num_heads:
        raise ValueError
    return build_vit(image_size, patch_size, depth, num_heads, num_heads * head_channels, mlp_dim, n_classes)


def _part(dim, depth, heads=8, mlp_dim=512):
    return {"layers": depth, "heads": heads, "width": dim, "mlp": mlp_dim}


def passed_on_to_a_default(image_size=64, patch_size=4, dim=256, depth=6, n_classes=9, encoder=_part, **kwargs):
    return build_vit(image_size, patch_size, **encoder(dim, depth, **kwargs), classes=n_classes)


@dataclass
class Forgotten:
    """Its author forgot one annotation."""

    image_size: int = 224
    patch_size: int = 16
    depth: int = 12
    heads: int = 12
    dim: int = 768
    mlp_dim: int = 3072
    n_classes = 1000


def forgotten(cfg: Forgotten):
    return _of(cfg)


def may_be_missing(config):
    """Builds another model where the config has what it asks for."""
    if config.patches.get("grid") is not None:
        return build_vit(*config.patches.grid, *config.hybrid.num_layers[:5])
    rest = config.encoder.depth, config.encoder.heads, config.dim, config.encoder.mlp_dim, config.n_classes
    return build_vit(config.image_size, config.patches["size"], *rest)


def norm_without_a_default(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes, norm=None, pre_norm=None):
    norm(dim)
    whole = build_vit(image_size, patch_size, depth, heads, dim, mlp_dim, n_classes)
    whole.more = pre_norm(dim) if pre_norm else nn.Identity()
    return whole


def flat_patches(embed_size: int, image_size, patch_size, depth, num_heads, d_model, mlp_dim, n_classes):
    whole = build_vit(image_size, patch_size, depth, num_heads, d_model, mlp_dim, n_classes)
    whole.patches.patch = nn.Linear(embed_size, d_model)
    return whole


def sized_patches(patches=16, depth=12, heads=12, dim=768, mlp_dim=3072, image_size=224, n_classes=1000):
    return build_vit(image_size, patches, depth, heads, dim, mlp_dim, n_classes)


def _cut_by(config):
    if config["patchify_method"] != "convolution":
        raise KeyError(config["patchify_method"])


def compared_elsewhere(config):
    """Asks for a word that another function compares with."""
    _cut_by(config)
    names = "image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"
    return build_vit(*(config[name] for name in names), config["num_classes"])


def heads_that_start_at_zero(img_size, patch_size, depth, zero_head, dim, mlp_dim, heads, n_classes):
    if not isinstance(zero_head, bool):
        raise TypeError
    return build_vit(img_size, patch_size, depth, heads, dim, mlp_dim, n_classes)
