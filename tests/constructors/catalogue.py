"""How somebody who has read the file calls each constructor, and what is said of those that need more.

A call is given the imported module and a size. `m.ViT(...)` is what its author meant by a model of that size.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[Any, "Size"], Any]


class Size(NamedTuple):
    """A ViT's sizes, in pixels and features."""

    image: int = 224
    patch: int = 16
    width: int = 768
    mlp: int = 3072
    depth: int = 12
    heads: int = 12
    classes: int = 1000
    channels: int = 3

    @property
    def side(self) -> int:
        return self.image // self.patch

    @property
    def patches(self) -> int:
        return self.side**2

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def ratio(self) -> int:
        return self.mlp // self.width

    @property
    def overrides(self) -> dict[str, int]:
        """The size as arguments of torchvision's `VisionTransformer`."""
        return {
            "image_size": self.image,
            "patch_size": self.patch,
            "hidden_dim": self.width,
            "mlp_dim": self.mlp,
            "num_layers": self.depth,
            "num_heads": self.heads,
            "num_classes": self.classes,
        }


BASE = Size()
SMALL = Size(32, 8, 48, 96, 2, 4, 10)
SMALL_FOUR_TIMES = SMALL._replace(mlp=4 * SMALL.width)


def _both(size: int) -> tuple[int, int]:
    return size, size


# in the order image, patch, width, depth, heads, mlp, classes
def _in_turn(s: Size) -> tuple[int, ...]:
    return s.image, s.patch, s.width, s.depth, s.heads, s.mlp, s.classes


def _named(s: Size, names: str, **others: Any) -> dict[str, Any]:
    """Gives `names` the size's numbers in turn; more arguments are added."""
    return dict(zip(names.split(), _in_turn(s), strict=True)) | others


_TIMM = "img_size patch_size embed_dim depth num_heads mlp_ratio num_classes"
_LUCID = "image_size patch_size dim depth heads mlp_dim num_classes"
_TORCHVISION = "image_size patch_size hidden_dim num_layers num_heads mlp_dim num_classes"


def _timm(s: Size, **others: Any) -> dict[str, Any]:
    return _named(s, _TIMM) | {"mlp_ratio": s.ratio} | others


def _lucid(s: Size, **others: Any) -> dict[str, Any]:
    return _named(s, _LUCID, **others)


def _torchvision(s: Size, **others: Any) -> dict[str, Any]:
    return _named(s, _TORCHVISION, **others)


def _layer(s: Size) -> dict[str, int]:
    return {"dim": s.width, "num_heads": s.heads, "mlp_dim": s.mlp}


def _embedding(s: Size) -> dict[str, int]:
    return {"image": s.image, "patch": s.patch, "channels": 3, "width": s.width}


def _attribute_dict(m: Any, s: Size) -> Any:
    config = m.get_b16_config()
    config.patches.size = _both(s.patch)
    config.hidden_size = s.width
    config.transformer.update(mlp_dim=s.mlp, num_heads=s.heads, num_layers=s.depth, dropout_rate=0.0)
    return config


def _class_of(m: Any, s: Size) -> Any:
    return type("Config", (m.Config,), _lucid(s, n_channels=3))


def _with_settings(m: Any, s: Size) -> Any:
    for name, value in _named(s, "image patch width depth heads mlp classes").items():
        setattr(m.Settings, name, value)
    return m


def _with_attributes(kind: type, s: Size) -> type:
    return type(kind.__name__, (kind,), _torchvision(s))


def _with_constants(m: Any, s: Size) -> Any:
    vars(m).update(_named(s, "IMG_SIZE PATCH_SIZE EMBED_DIM DEPTH NUM_HEADS MLP_DIM NUM_CLASSES"))
    return m


def _bare_dataclass(m: Any, s: Size) -> Any:
    config = m.VitConfig()
    vars(config).update(_named(s, "img_size patch_size embd_dim num_layers num_heads mlp_dim num_classes"))
    return config


def _nested_groups(m: Any, s: Size) -> tuple[Any, Any, Any]:
    return (
        m.EmbedConfig(s.image, s.patch, 3, s.width),
        m.EncoderConfig(s.width, s.depth, s.heads, s.mlp),
        m.HeadConfig(s.width, s.classes),
    )


def _upper(s: Size) -> SimpleNamespace:
    model = _named(s, "_ PATCH_SIZE EMBED_DIM DEPTH NUM_HEADS _ NUM_CLASSES", IN_CHANS=3, MLP_RATIO=float(s.ratio))
    return SimpleNamespace(DATA=SimpleNamespace(IMG_SIZE=s.image), MODEL=SimpleNamespace(**model))


def _config_dict(s: Size) -> dict[str, Any]:
    names = "image_size patch_size hidden_size num_hidden_layers num_attention_heads intermediate_size num_classes"
    return _named(s, names, num_channels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, qkv_bias=True)


def _script(s: Size) -> SimpleNamespace:
    names = "image_size patch_size embed_dim n_layers n_attention_heads mlp n_classes"
    return SimpleNamespace(**_named(s, names, n_channels=3, forward_mul=s.ratio))


_COURSE = "img_size patch_size embedding_dim num_transformer_layers num_heads mlp_size num_classes"
_HUB = "image_size patch_size hidden_size num_hidden_layers num_attention_heads intermediate_size num_labels"
_LANGUAGE = "resolution patch n_embd n_layer n_head n_inner n_class"
_MANY = "input_resolution patch_res emb_dims num_encoder_layers n_attention_heads dim_mlp class_num"
_OUT = "im_size p_size width layers nheads ffn_hidden out_features"
_TYPO = "image_size path_size embedd_dim num_encoders nheads dim_feedforward labels"
_HALVES = "image_size patch_size embed_dim num_attn_layers num_attn_heads inner_dim num_classes"
_KEYWORD = "image_size patch_size emb_dim n_blocks n_heads mlp_dim num_classes"
_DATACLASS = "image_size patch_size embed_dim layers num_heads ff_dim num_classes"
_SMALL_DATACLASS = "img_size patch_size n_embd num_layers num_heads mlp_dim num_classes"
_TORCH = "image_size patch_size d_model num_encoder_layers nhead dim_feedforward num_classes"

# meant for both sizes
AT_BOTH: dict[str, Call] = {
    "base_defaults.py:TimmNames": lambda m, s: m.TimmNames(**_timm(s)),
    "base_defaults.py:CourseNames": lambda m, s: m.CourseNames(**_named(s, _COURSE, mlp_dropout=0.0)),
    "base_defaults.py:HubNames": lambda m, s: m.HubNames(**_named(s, _HUB)),
    "base_defaults.py:FromLanguageModels": lambda m, s: m.FromLanguageModels(**_named(s, _LANGUAGE)),
    "base_defaults.py:ManyHeadsOfManyNames": lambda m, s: m.ManyHeadsOfManyNames(**_named(s, _MANY, drop_p=0.0)),
    "base_defaults.py:OutFeatures": lambda m, s: m.OutFeatures(**_named(s, _OUT)),
    "base_defaults.py:WithATypo": lambda m, s: m.WithATypo(**_named(s, _TYPO)),
    "small_defaults.py:Mnist": lambda m, s: m.Mnist(**_lucid(s, channels=3)),
    "small_defaults.py:Cifar": lambda m, s: m.Cifar(
        3, s.width, s.depth, s.heads, s.ratio, s.image, s.patch, s.classes, dropout=0.0
    ),
    "small_defaults.py:Features": lambda m, s: m.Features(**_timm(s, img_size=[s.image])),
    "small_defaults.py:Halves": lambda m, s: m.Halves(**_named(s, _HALVES, dropout=0.0, device="meta")),
    "no_defaults.py:KeywordOnly": lambda m, s: m.KeywordOnly(**_named(s, _KEYWORD, dropout=0.0)),
    "no_defaults.py:PositionalOnly": lambda m, s: m.PositionalOnly(
        s.classes, s.heads, s.depth, s.width, s.patch, s.image, s.mlp
    ),
    "no_defaults.py:Mixed": lambda m, s: m.Mixed(
        s.image, s.patch, s.width, s.depth, num_heads=s.heads, ff_dim=s.mlp, in_channels=3, n_classes=s.classes
    ),
    "no_defaults.py:HiddenIsTheMlp": lambda m, s: m.HiddenIsTheMlp(
        s.width, s.mlp, 3, s.heads, s.depth, s.classes, s.patch, s.image
    ),
    "no_defaults.py:HiddenIsTheWidth": lambda m, s: m.HiddenIsTheWidth(**_torchvision(s)),
    "no_defaults.py:LatentSize": lambda m, s: m.LatentSize(
        s.image, 3, s.patch, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "no_defaults.py:EncoderPrefix": lambda m, s: m.EncoderPrefix(
        s.image, 3, s.classes, s.patch, s.depth, s.width, s.heads, s.mlp
    ),
    "no_defaults.py:OrdinaryExtras": lambda m, s: m.OrdinaryExtras(
        **_lucid(s, qkv_bias=True, dropout=0.0, emb_dropout=0.0, attn_dropout=0.0, layer_norm_eps=1e-6, device="meta")
    ),
    "no_defaults.py:Pooling": lambda m, s: m.Pooling(**_lucid(s, pool="cls")),
    "shapes.py:Pairs": lambda m, s: m.Pairs(
        _both(s.image), _both(s.patch), 3, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "shapes.py:PairsByDefault": lambda m, s: m.PairsByDefault(
        _both(s.image), _both(s.patch), s.classes, s.width, s.depth, s.heads, s.mlp
    ),
    "shapes.py:PairOrInt": lambda m, s: m.PairOrInt(*_in_turn(s)),
    "shapes.py:Sides": lambda m, s: m.Sides(
        s.image, s.image, s.patch, s.patch, 3, s.width, s.mlp, s.heads, s.depth, s.classes
    ),
    "shapes.py:SidesByDefault": lambda m, s: m.SidesByDefault(
        s.image, s.image, s.patch, s.patch, 3, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "shapes.py:ChannelsFirst": lambda m, s: m.ChannelsFirst(
        (3, s.image, s.image), s.patch, s.width, s.mlp, s.depth, s.heads, s.classes
    ),
    "shapes.py:ImageShape": lambda m, s: m.ImageShape(
        (3, s.image, s.image), s.patch, s.width, s.depth, s.heads, s.ratio, s.classes
    ),
    "shapes.py:ChannelsLast": lambda m, s: m.ChannelsLast(
        (s.image, s.image, 3), s.patch, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "patch_counts.py:PatchIsACount": lambda m, s: m.PatchIsACount(
        3, s.classes, s.image, s.side, 0.0, s.depth, s.width, s.mlp, s.heads
    ),
    "patch_counts.py:PatchesInARow": lambda m, s: m.PatchesInARow(
        s.image, s.side, s.width, s.mlp, s.depth, s.heads, s.classes
    ),
    "patch_counts.py:Grid": lambda m, s: m.Grid(s.side, s.patch, s.width, s.depth, s.heads, s.mlp, s.classes),
    "patch_counts.py:AllPatches": lambda m, s: m.AllPatches(
        s.width, s.mlp, 3, s.heads, s.depth, s.classes, s.patch, s.patches
    ),
    "patch_counts.py:Sequence": lambda m, s: m.Sequence(
        s.patches, 3 * s.patch**2, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "patch_counts.py:LongestSequence": lambda m, s: m.LongestSequence(
        s.patch, s.patches + 1, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "patch_counts.py:Projected": lambda m, s: m.Projected(
        s.patch, s.patches, s.width, s.heads, [s.mlp, s.width], s.depth, s.classes
    ),
    "head_widths.py:BesideBoth": lambda m, s: m.BesideBoth(**_lucid(s, dim_head=s.head)),
    "head_widths.py:InsteadOfTheWidth": lambda m, s: m.InsteadOfTheWidth(
        s.image, s.patch, s.heads, s.head, s.depth, s.mlp, s.classes
    ),
    "head_widths.py:InsteadOfTheHeads": lambda m, s: m.InsteadOfTheHeads(
        s.image, s.patch, s.width, s.head, s.depth, s.mlp, s.classes
    ),
    "head_widths.py:KeysAndValues": lambda m, s: m.KeysAndValues(
        s.image, s.patch, s.width, s.head, s.head, s.heads, s.depth, s.mlp, s.classes
    ),
    "head_widths.py:KeysOfAllHeads": lambda m, s: m.KeysOfAllHeads(
        s.image, s.patch, s.width, s.width, s.width, s.heads, s.depth, s.mlp, s.classes
    ),
    "head_widths.py:HeadsUnlessSaid": lambda m, s: m.HeadsUnlessSaid(*_in_turn(s)),
    "mlp_widths.py:Expansion": lambda m, s: m.Expansion(
        3, s.patch, s.width, s.image, s.depth, s.heads, s.ratio, s.classes
    ),
    "mlp_widths.py:MlpExpansion": lambda m, s: m.MlpExpansion(
        s.image, s.patch, s.width, s.depth, s.heads, s.ratio, s.classes
    ),
    "mlp_widths.py:Multiplier": lambda m, s: m.Multiplier(
        s.image, s.patch, s.width, s.depth, s.heads, s.ratio, s.classes
    ),
    "mlp_widths.py:WideningFactor": lambda m, s: m.WideningFactor(
        s.image, s.patch, s.width, s.depth, s.heads, float(s.ratio), s.classes
    ),
    "mlp_widths.py:InAndOut": lambda m, s: m.InAndOut(
        s.image, s.patch, s.width, s.depth, s.heads, s.width, s.ratio, s.width, s.classes
    ),
    "letters.py:Paper": lambda m, s: m.Paper(s.image, s.image, 3, s.patch, s.width, s.depth, s.heads, s.mlp, s.classes),
    "letters.py:Foreign": lambda m, s: m.Foreign(*_in_turn(s)),
    "letters.py:Lower": lambda m, s: m.Lower(s.patch, s.width, s.heads, s.depth, s.mlp, s.classes, s.image),
    "letters.py:WithTheNumberOfPatches": lambda m, s: m.WithTheNumberOfPatches(
        s.patches, s.patch, 3, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "switches.py:Truths": lambda m, s: m.Truths(**_torchvision(s)),
    "switches.py:BiasOnRequest": lambda m, s: m.BiasOnRequest(**_timm(s, qkv_bias=True)),
    "switches.py:Words": lambda m, s: m.Words(**_lucid(s)),
    "switches.py:NormAndActivation": lambda m, s: m.NormAndActivation(**_timm(s)),
    "switches.py:NoneForTheUsual": lambda m, s: m.NoneForTheUsual(**_timm(s)),
    "switches.py:PartsAsClasses": lambda m, s: m.PartsAsClasses(
        embed_dim=s.width, n_blocks=s.depth, n_heads=s.heads, img_size=s.image, in_channels=3, patch_size=s.patch,
        mlp_dim=s.mlp, n_classes=s.classes,
    ),
    "switches.py:AttentionAsClass": lambda m, s: m.AttentionAsClass(*_in_turn(s)),
    "switches.py:DeviceAndDtype": lambda m, s: m.DeviceAndDtype(**_named(s, _TORCH, dropout=0.0)),
    "passed_on.py:Everything": lambda m, s: m.Everything(*_in_turn(s)),
    "passed_on.py:Inherited": lambda m, s: m.Inherited(*_in_turn(s)),
    "passed_on.py:SomeOfIt": lambda m, s: m.SomeOfIt(
        **_named(s, "image_size patch_size embed_dim depth num_heads mlp_dim num_classes")
    ),
    "passed_on.py:ToTheEncoder": lambda m, s: m.ToTheEncoder(
        3, s.patch, s.width, s.image, s.depth, s.classes, num_heads=s.heads, forward_expansion=s.ratio
    ),
    "passed_on.py:Popped": lambda m, s: m.Popped(**_lucid(s)),
    "passed_on.py:Decorated": lambda m, s: m.Decorated(*_in_turn(s)),
    "passed_on.py:AsDataclass": lambda m, s: m.AsDataclass(
        s.width, s.mlp, s.classes, s.depth, s.heads, s.image, s.patch
    ),
    "passed_on.py:Lit": lambda m, s: m.Lit(
        _named(s, "image_size patch_size embed_dim depth num_heads mlp_dim num_classes")
    ),
    "passed_on.py:Chain": lambda m, s: m.Chain(3, s.patch, s.width, s.image, s.depth, s.heads, s.mlp, s.classes),
    "passed_on.py:Converted": lambda m, s: m.Converted(*map(str, _in_turn(s))),
    "factories.py:VisionTransformer": lambda m, s: m.VisionTransformer(**_timm(s)),
    "factories.py:VisionTransformer.from_config": lambda m, s: m.VisionTransformer.from_config(_timm(s)),
    "factories.py:VisionTransformer.from_sizes": lambda m, s: m.VisionTransformer.from_sizes(
        s.image, s.patch, s.width, s.depth, s.heads, s.mlp, s.classes
    ),
    "factories.py:vit": lambda m, s: m.vit(**_timm(s)),
    "factories.py:vit_base_patch16_224": lambda m, s: m.vit_base_patch16_224(**_timm(s)),
    "factories.py:vit_with_positions": lambda m, s: m.vit_with_positions(
        s.image, s.patch, 3, s.classes, s.width, s.depth, s.heads, s.ratio
    ),
    "factories.py:tiny": lambda m, s: m.tiny(**_timm(s)),
    "factories.py:with_base_sizes": lambda m, s: m.with_base_sizes(**_timm(s)),
    "factories.py:from_lambda": lambda m, s: m.from_lambda(*_in_turn(s)),
    "factories.py:builder": lambda m, s: m.builder(s.image, s.patch, s.width, s.depth, s.heads, s.ratio, s.classes),
    "factories.py:by_variant_and_more": lambda m, s: m.by_variant_and_more(**_timm(s)),
    "class_attributes.py:ViT": lambda m, s: _with_attributes(m.ViT, s)(),
    "class_attributes.py:ViTBase": lambda m, s: _with_attributes(m.ViTBase, s)(),
    "class_attributes.py:Tiny": lambda m, s: _with_attributes(m.Tiny, s)(),
    "constants.py:ViT": lambda m, s: _with_constants(m, s).ViT(),
    "constants.py:OnlyTheClasses": lambda m, s: _with_constants(m, s).OnlyTheClasses(s.classes),
    "constants.py:ByDefault": lambda m, s: m.ByDefault(*_in_turn(s)),
    "script.py:ViT": lambda m, s: m.ViT(_script(s)),
    "parsed_on_import.py:ViT": lambda m, s: m.ViT(s.image, s.patch, s.width, s.depth, s.heads, s.ratio, s.classes),
    "config_dataclass.py:ViT": lambda m, s: m.ViT(m.ViTConfig(**_named(s, _DATACLASS))),
    "config_dataclass.py:Optional": lambda m, s: m.Optional(m.ViTConfig(**_named(s, _DATACLASS))),
    "config_dataclass.py:WithArguments": lambda m, s: m.WithArguments(
        m.ViTConfig(**_named(s, _DATACLASS)), s.image, s.classes
    ),
    "config_dataclass.py:build_model": lambda m, s: m.build_model(m.ViTConfig(**_named(s, _DATACLASS))),
    "config_dataclass_small.py:ViT": lambda m, s: m.ViT(m.ViTConfig(**_named(s, _SMALL_DATACLASS, dropout=0.0))),
    "config_dataclass_required.py:ViT": lambda m, s: m.ViT(
        m.Hyperparameters(s.image, s.patch, 3, s.width, s.depth, s.heads, s.mlp, s.classes)
    ),
    "config_dataclass_required.py:ByDefault": lambda m, s: m.ByDefault(
        m.Sizes(
            image_size=s.image, patch_size=s.patch, hidden_size=s.width, mlp_ratio=float(s.ratio), n_layers=s.depth,
            n_heads=s.heads, n_classes=s.classes,
        )
    ),
    "config_dataclass_derived.py:ViT": lambda m, s: m.ViT(
        m.AfterTheOthers(
            num_heads=s.heads, dim_per_head=s.head, num_layers=s.depth, mlp_factor=s.ratio, img_size=s.image,
            patch_size=s.patch, channels=3, num_classes=s.classes,
        )
    ),
    "config_dataclass_derived.py:Stale": lambda m, s: m.Stale(
        m.FromTheDefaults(
            s.image, s.patch, s.patches, s.patches + 1, s.depth, s.heads, s.width, s.mlp, s.classes
        )
    ),
    "config_dataclass_nested.py:Grouped": lambda m, s: m.Grouped(*_nested_groups(m, s)),
    "config_dataclass_nested.py:ViT": lambda m, s: m.ViT(m.ModelConfig("vit", *_nested_groups(m, s))),
    "config_dataclass_bare.py:ViT": lambda m, s: m.ViT(_bare_dataclass(m, s)),
    "config_class.py:ViT": lambda m, s: m.ViT(_class_of(m, s)),
    "config_class.py:FromObject": lambda m, s: m.FromObject(
        m.ViTConfig(s.width, s.depth, s.heads, s.image, s.patch, 3, s.classes, s.ratio)
    ),
    "config_class.py:FromHub": lambda m, s: m.FromHub(m.HubConfig(**_named(s, _HUB))),
    "config_class.py:OfParts": lambda m, s: _with_settings(m, s).OfParts(),
    "config_dict.py:ViT": lambda m, s: m.ViT(_config_dict(s)),
    "config_dict.py:AskedFor": lambda m, s: m.AskedFor(
        _named(s, "image_height patch_height emb_dim n_layers n_heads ff_dim num_classes", im_channels=3)
    ),
    "config_dict.py:WithDefaults": lambda m, s: m.WithDefaults(
        _named(s, "image_size patch_size d_model n_layers n_heads d_ff n_classes", channels=3)
    ),
    "config_dict.py:Nested": lambda m, s: m.Nested({
        "image": {"size": s.image, "patch_size": s.patch, "channels": 3},
        "encoder": {"hidden_dim": s.width, "num_layers": s.depth, "num_heads": s.heads, "mlp_dim": s.mlp},
        "head": {"num_classes": s.classes},
    }),
    "config_dict.py:Groups": lambda m, s: m.Groups(
        {"img_size": s.image, "patch_size": s.patch, "in_chans": 3},
        {"embed_dim": s.width, "depth": s.depth, "num_heads": s.heads, "mlp_ratio": s.ratio},
        {"num_classes": s.classes},
    ),
    "classes_given.py:Called": lambda m, s: m.Called(
        m.Head, **_named(s, "image_size patch_size dim depth num_heads mlp_dim num_classes")
    ),
    "classes_given.py:Annotated": lambda m, s: m.Annotated(
        **_named(s, "image_size patch_size dim depth num_heads mlp_dim num_classes"), made_of=m.Head
    ),
    "config_unpacked.py:Entries": lambda m, s: m.Entries({
        "image_size": s.image, "patch_size": s.patch, "in_channels": 3, "depth": s.depth, "num_classes": s.classes,
        "layer": _layer(s),
    }),
    "config_unpacked.py:Attributes": lambda m, s: m.Attributes(SimpleNamespace(
        embedding=_embedding(s), encoder=SimpleNamespace(depth=s.depth, **_layer(s)), num_classes=s.classes,
    )),
    "config_unpacked.py:Copies": lambda m, s: m.Copies({
        "embedding": {"image": s.image, "patch": s.patch, "channels": 3}, "depth": s.depth, "dim": s.width,
        "block": {"num_heads": s.heads, "mlp_dim": s.mlp}, "head": {"classes": s.classes},
    }),
    "config_unpacked.py:Elsewhere": lambda m, s: m.Elsewhere({
        "embedding": _embedding(s), "encoder": {"depth": s.depth, **_layer(s)},
        "head": {"width": s.width, "classes": s.classes},
    }),
    "config_dict.py:AsKeywords": lambda m, s: m.AsKeywords(**_lucid(s, channels=3)),
    "config_dict.py:WithClasses": lambda m, s: m.WithClasses(
        _named(s, "resolution patch width layers heads mlp_width num_classes"), s.classes
    ),
    "config_dict_default.py:ViT": lambda m, s: m.ViT(_torchvision(s)),
    "config_dict_default.py:TinyViT": lambda m, s: m.TinyViT(_torchvision(s)),
    "config_dict_default.py:Keywords": lambda m, s: m.Keywords(**(m.CONFIG | _torchvision(s))),
    "config_namespace.py:ViT": lambda m, s: m.ViT(
        SimpleNamespace(**_named(s, "img_size patch_size dim depth heads mlp_dim num_classes", in_chans=3))
    ),
    "config_namespace.py:Simple": lambda m, s: m.Simple(
        SimpleNamespace(**_named(s, "image_size patch_size n_embd n_layer n_head mlp n_classes", mlp_ratio=s.ratio))
    ),
    "config_namespace.py:Parsed": lambda m, s: m.Parsed(
        SimpleNamespace(**_named(s, "img_size patch hidden num_layers head mlp_hidden num_classes"))
    ),
    "config_namespace.py:Nested": lambda m, s: m.Nested(
        SimpleNamespace(
            vit=SimpleNamespace(
                embed=SimpleNamespace(img_size=s.image, patch_size=s.patch, in_channels=3, out_channels=s.width),
                encoder=SimpleNamespace(depth=s.depth, num_heads=s.heads, ff_dim=s.mlp),
            ),
            num_classes=s.classes,
        )
    ),
    "config_namespace.py:Upper": lambda m, s: m.Upper(_upper(s)),
    "config_namespace.py:build_model": lambda m, s: m.build_model(_upper(s)),
    "config_namespace.py:Enumerated": lambda m, s: m.Enumerated(
        SimpleNamespace(
            model=SimpleNamespace(
                embedding_dim=s.width, patch_side_length=s.patch, stride=s.patch, nb_layers=s.depth, nb_heads=s.heads,
                mlp_expansion=s.ratio, task="classification",
            ),
            data=SimpleNamespace(image_height=s.image, image_width=s.image, nb_classes=s.classes),
        )
    ),
    "config_attribute_dict.py:VisionTransformer": lambda m, s: m.VisionTransformer(
        _attribute_dict(m, s), s.image, s.classes
    ),
    "config_named_tuple.py:ViT": lambda m, s: m.ViT(m.Architecture(*_in_turn(s))),
    "config_named_tuple.py:Typed": lambda m, s: m.Typed(_timm(s)),
    "packages/course/models/vit.py:ViT": lambda m, s: m.ViT(
        s.image, s.patch, 3, s.width, s.mlp, s.depth, s.heads, s.classes
    ),
    "packages/course/models/__init__.py:ViT": lambda m, s: m.ViT(
        s.image, s.patch, 3, s.width, s.mlp, s.depth, s.heads, s.classes
    ),
    "packages/project/vit/modeling.py:ViTForImageClassification": lambda m, s: m.ViTForImageClassification(
        m.ViTConfig(**_named(s, _HUB))
    ),
    "packages/flat/src/model.py:ViT": lambda m, s: m.ViT(*_in_turn(s)),
    "packages/whole/vision/__init__.py:ViT": lambda m, s: m.ViT(
        **_named(s, "image_size patch_size width layers heads mlp_dim num_classes")
    ),
    "notebook.ipynb:ViT": lambda m, s: m.ViT(*_in_turn(s)),
}  # fmt: skip

# their MLP is always four times as wide as the model
AT_FOUR_TIMES: dict[str, Call] = {
    "small_defaults.py:Pets": lambda m, s: m.Pets(
        3, s.image, s.patch, s.width, s.depth, s.classes, dropout=0.0, heads=s.heads
    ),
    "patch_counts.py:PatchesPerSide": lambda m, s: m.PatchesPerSide(
        (3, s.image, s.image), s.side, s.depth, s.width, s.heads, s.classes
    ),
    "patch_counts.py:Extent": lambda m, s: m.Extent(s.patch, s.image, s.width, s.depth, s.heads, s.classes),
    "mlp_widths.py:FourTimes": lambda m, s: m.FourTimes(
        s.width, s.classes, _both(s.image), _both(s.patch), 3, s.heads, s.depth
    ),
}

# they are ViT-B/16, or a part of its sizes stands in the code
AT_BASE: dict[str, Call] = {
    "factories.py:VisionTransformer.base": lambda m, _: m.VisionTransformer.base(),
    "factories.py:b16": lambda m, _: m.b16(),
    "factories.py:by_variant": lambda m, _: m.by_variant("B/16"),
    "factories.py:by_literal": lambda m, _: m.by_literal("B"),
    "config_dict_default.py:Read": lambda m, _: m.Read(),
    "config_file.py:ViT": lambda m, _: m.ViT(),
}

# they are the small model
AT_SMALL: dict[str, Call] = {
    "instances.py:model": lambda m, _: m.model,
    "instances.py:get_model": lambda m, _: m.get_model(),
}

MEANT: dict[tuple[str, Size], Call] = {
    (spec, size): call
    for calls, sizes in (
        (AT_BOTH, (BASE, SMALL)),
        (AT_FOUR_TIMES, (BASE, SMALL_FOUR_TIMES)),
        (AT_BASE, (BASE,)),
        (AT_SMALL, (SMALL,)),
    )
    for spec, call in calls.items()
    for size in sizes
}

# what a check at the small size has to say; the case of letters doesn't matter
REFUSED: dict[str, tuple[str, ...]] = {
    "refused.py:Vocabulary": ("vocab_size", "--candidate-arg"),
    "refused.py:Backbone": ("backbone", "--candidate-arg|function"),
    "refused.py:Parts": ("patch_embedding", "transformer_encoder", "classification_head"),
    "refused.py:Tokenizer": ("tokenizer", "--candidate-arg|function"),
    "refused.py:Checkpoint": ("checkpoint_path", "--candidate-arg"),
    "refused.py:MissingFile": ("vit_base_p16.pth",),
    "refused.py:Nameless": (r"\*args", "function|name"),
    "refused.py:Patch14": ("patches of 14",),
    "refused.py:SevenHeads": ("divisible by the number of heads",),
    "refused.py:Mistaken": ("hiden", "refused.py"),
    "refused.py:TooEarly": (r"__init__\(\)",),
    "refused.py:NeedsCuda": ("no CUDA GPUs",),
    "refused.py:Abstract": ("abstract", "make_encoder|subclass"),
    "refused.py:NoModule": (r"nn\.Module", "NoModule"),
    "refused.py:UnknownKey": ("adapter_rank", "--candidate-arg"),
    "refused.py:UnknownAttribute": ("prompt_length", "--candidate-arg"),
    "refused.py:forgets_to_return": ("None", "forgets_to_return"),
    "refused.py:with_optimizer": ("tuple", "with_optimizer"),
    "refused.py:train": ("train_loader", "optimizer"),
    "refused.py:by_registered_name": ("name", "--candidate-arg"),
    "refused.py:SIZES": ("dict", "SIZES"),
    "refused.py:Fixd": ("Fixd", r"\bFixed\b"),
    "missing_library.py:ViT": ("flash_attention_nobody_has",),
}  # fmt: skip

# what a check at the small size gives as its first reason for `divergent`, of those that can only be what they are
DIVERGENT: dict[str, tuple[str, ...]] = {
    "refused.py:Depth6": (r"\b6\b", "layers|blocks|depth"),
    "refused.py:Fixed": (r"\b6 blocks", "takes no arguments", "--set num_layers=6"),
    "constants.py:Runs": (r"\b1000 classes", "no argument", "--set num_classes=1000"),
}
