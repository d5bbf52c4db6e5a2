"""Constructors of many forms get the reference's configuration, by their arguments' names and by their tensors."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import MLPBlock

import vit
from parity.checking import check
from parity.errors import ParityError
from parity.models.candidate import other_sizes, resolve_candidate
from parity.models.constructors.holders import Slot
from parity.models.constructors.options import options
from parity.models.constructors.probing import Tried
from parity.models.constructors.quantities import shown_sizes
from parity.models.constructors.searching import Search
from parity.models.constructors.words import meanings, meanings_at
from parity.models.reference import build_reference, configuration
from parity.report.plain import as_json
from tests import forms_of_arguments as forms
from tests.forms_of_arguments import build_vit
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.models.candidate import Candidate
    from parity.models.constructors.options import Option

CONFIG = configuration("vit_b_16", SMALL)
EVAL: dict[str, Any] = {"overrides": SMALL, "modes": ["eval"]}


def _is_meant(found: Candidate) -> bool:
    """Returns whether what is built has the reference's tensors and heads."""
    module = found.build()
    return shown_sizes(module) == shown_sizes(build_reference(CONFIG)) and _count(module) == _count(
        build_reference(CONFIG)
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


CONSTRUCTORS = [
    forms.positions_last, forms.by_letters, forms.by_nothing, forms.camel, forms.pairs, forms.channels_first,
    forms.sides, forms.counted, forms.sequence, forms.lying, forms.unnamed_with_defaults, forms.choices,
    forms.literal, forms.enumerated, forms.compared, forms.by_position, forms.passed_on, forms.passed_on_in_part,
    forms.picked, forms.Above, forms.Derived, forms.frozen, forms.optional, forms.named_tuple, forms.typed,
    forms.nested, forms.attributes, forms.class_as_default, forms.dict_as_default, forms.namespace_as_default,
    forms.arguments_as_default, forms.tuple_as_default, forms.read, forms.read_by_another,
    forms.read_in_groups, forms.merged, forms.read_by_any_name, forms.rows_of_patches, forms.by_key,
    forms.set_later, forms.read_strictly, forms.rates_of_blocks, forms.numbers_of_tensors, forms.width_again,
    forms.image_again, forms.width_for_nothing, forms.heads_of_every_block, forms.channels_last, forms.switched,
    forms.embedding_of_a_head, forms.of_an_encoder, forms.of_channels,
    forms.heads_again, forms.passed_on_to_a_default, forms.forgotten, forms.may_be_missing,
    forms.norm_without_a_default, forms.compared_elsewhere, forms.heads_that_start_at_zero,
    forms.count_that_is_a_size, forms.sides_by_letters, forms.for_a_batch,
]  # fmt: skip


@pytest.mark.parametrize("build", CONSTRUCTORS, ids=lambda build: build.__name__)
def test_constructor_of_any_form_is_built_with_the_references_sizes(build: Callable[..., Any]) -> None:
    found = resolve_candidate(build, CONFIG)
    assert _is_meant(found), found.bound


def test_reasons_are_told() -> None:
    def build(
        img_size: int, how_often: int, embed_dim: int, heads: int = 12, mlp_dim: int = 3072, verbose: int = 0
    ) -> nn.Module:
        assert verbose == 0
        return build_vit(img_size, 8, how_often, heads, embed_dim, mlp_dim, 10)

    found = resolve_candidate(build, CONFIG, {"heads": 4})
    assert {path: bound.why for path, bound in found.bound.items()} == {
        "img_size": "by name", "how_often": "by shape", "embed_dim": "by name", "heads": "as given",
        "mlp_dim": "by name", "verbose": "left at its default",
    }  # fmt: skip
    report = check(build, **EVAL)
    assert report.candidate["bound"]["how_often"] == {"value": 2, "why": "by shape"}
    assert "bound      by name: img_size" in str(report)
    assert "by shape: how_often" in str(report)


def test_arguments_that_are_given_win() -> None:
    found = resolve_candidate(forms.positions_last, CONFIG, {"num_encoder_layers": 5, "emb_dims": 80})
    assert (found.arguments["num_encoder_layers"], found.arguments["emb_dims"]) == (5, 80)
    assert found.arguments["dim_mlp"] == 96
    found = resolve_candidate(forms.nested, CONFIG, {"cfg.encoder.depth": 5})
    assert found.arguments["cfg"].encoder == forms.Encoder(5, 4, 48, 96)


def test_what_a_dataclass_holds_is_shown_also_where_its_author_forgot_to_annotate_it() -> None:
    assert as_json(resolve_candidate(forms.forgotten, CONFIG).arguments)["cfg"]["n_classes"] == 10


def test_size_that_could_not_be_set_is_told_with_what_to_do() -> None:
    def build(image_size: int = 32, dim: int = 48, depth: int = 2) -> nn.Module:
        return build_vit(image_size, 8, depth, 4, dim, 96, 7)

    report = check(build, **EVAL)
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("your model has 7 classes, the reference has 10: no argument of it")
    assert "--set num_classes=7" in report.reasons[0]
    report = check(build, overrides={**SMALL, "num_classes": 7}, candidate_args={"depth": 3}, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.reasons[0] == (
        "your model has 3 blocks, the reference has 2: `depth` was given as 3; give --candidate-arg depth=2 or "
        "--set num_layers=3"
    )


def test_default_that_is_out_of_reach_is_told() -> None:
    def build(
        image_size: int, patch_size: int, dim: int, mlp_dim: int, n_classes: int, depth: str = "x-x-x"
    ) -> nn.Module:
        return build_vit(image_size, patch_size, len(depth.split("-")), 4, dim, mlp_dim, n_classes)

    found = resolve_candidate(build, CONFIG)
    assert found.defaults == ("depth",)
    (sentence,) = other_sizes(found, shown_sizes(found.build()), CONFIG, can_be_set=True)
    assert sentence.startswith("your model has 3 blocks, the reference has 2: `depth` was left at its default; give ")
    assert sentence.endswith("--candidate-arg depth=2 or --set num_layers=3")


def test_file_of_the_project_that_is_not_in_the_working_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "settings.txt").write_text("2")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "model.py").write_text("def build(image_size):\n    return open('./settings.txt')\n")
    with pytest.raises(ParityError, match=re.escape(f"run parity in {tmp_path}, where there is one")):
        resolve_candidate(f"{tmp_path}/inner/model.py:build", CONFIG).build()


def test_argument_that_nobody_can_know_is_asked_for_with_all_that_was_found() -> None:
    def build(image_size: int, tokenizer: Any, dim: int = 768) -> nn.Module:
        return build_vit(image_size, 8, 2, 4, dim, 96, tokenizer.classes)

    with pytest.raises(ParityError) as raised:
        resolve_candidate(build, CONFIG)
    said = str(raised.value)
    assert "needs an argument 'tokenizer', for which neither a number nor a word stands; write a function" in said
    assert "(so far image_size=32, tokenizer=?, dim=48; with others" in said


def test_error_that_no_argument_mends_comes_first() -> None:
    class Misspelt(nn.Module):
        def __init__(self, dim: int, act_layer: Any) -> None:
            super().__init__()
            self.patches = nn.Sequential(nn.Linear(dim, dim), act_layer())
            self.positions = self.patchse

    with pytest.raises(ParityError, match=r"cannot be built: AttributeError.*'patchse'.* mend that, or avoid it with"):
        resolve_candidate(Misspelt, CONFIG)


def test_module_is_no_value_of_the_command_line() -> None:
    def build(dim: int, feature_extractor: nn.Module) -> nn.Module:
        return nn.Sequential(feature_extractor, nn.Linear(dim, dim))

    with pytest.raises(
        ParityError, match="'feature_extractor', for which neither a number nor a word stands; write a function"
    ):
        resolve_candidate(build, CONFIG)


def test_gpu_that_is_not_there_is_said() -> None:
    def build() -> nn.Module:
        raise RuntimeError("Found no NVIDIA driver on your system")

    with pytest.raises(ParityError, match=r"line \d+\); it asks for a GPU, and there is none here; leave its tensors"):
        resolve_candidate(build, CONFIG).build()


def test_number_that_no_tensor_bears_out_is_not_made_up() -> None:
    def build(
        image_size: int, patch_size: int, dim: int, mlp_dim: int, n_classes: int, foo: int, bar: Any
    ) -> nn.Module:
        whole = build_vit(image_size, patch_size, 2, 4, dim, mlp_dim, n_classes)
        whole.more = nn.Embedding(foo, len(bar))
        return whole

    with pytest.raises(ParityError, match=r"n_classes=10, foo=\?, bar=\?; with others") as raised:
        resolve_candidate(build, CONFIG)
    assert "build(image_size, patch_size, dim, mlp_dim, n_classes, foo, bar) needs" in str(raised.value)
    assert "needs arguments 'foo', 'bar'" in str(raised.value)
    assert "give them with --candidate-arg foo=VALUE --candidate-arg bar=VALUE" in str(raised.value)
    assert resolve_candidate(build, CONFIG, {"foo": 3, "bar": "x"}).arguments["dim"] == 48


def test_bias_is_no_number_and_a_ratio_is_a_whole_one() -> None:
    bias, ratio = Slot("config.bias"), Slot("config.mlp_expansion_ratio")
    assert [option.of(CONFIG) for option in options(bias, is_side=False)] == [True, False]
    first = options(ratio, is_side=False)[0].of(CONFIG)
    assert (first, type(first)) == (2, int)


def test_which_count_of_patches_is_meant_shows_also_in_another_model() -> None:
    class Model(nn.Module):
        def __init__(self, chw: Any, n_patches: int, n_blocks: int, hidden_d: int, n_heads: int, out_d: int) -> None:
            super().__init__()
            patch = chw[1] / n_patches
            self.patches = nn.Linear(int(chw[0] * patch**2), hidden_d)
            self.mixed = nn.ModuleList([nn.Linear(hidden_d // n_heads, hidden_d) for _ in range(n_blocks)])
            self.wide = nn.ModuleList([nn.Linear(hidden_d, 5 * hidden_d) for _ in range(n_blocks)])
            self.head = nn.Linear(hidden_d, out_d)

    assert resolve_candidate(Model, CONFIG).arguments["n_patches"] == SMALL["image_size"] // SMALL["patch_size"]


def test_width_of_the_projections_is_the_tokens_where_a_heads_does_not_run() -> None:
    class Model(nn.Module):
        def __init__(
                self, image_size: int, patch_size: int, d_dim: int, qkv_dim: int, att_head_num: int, mlp_dim: int,
                n_layers: int, n_classes: int,
            ) -> None:  # fmt: skip
            super().__init__()
            self.patches = nn.Conv2d(3, d_dim, patch_size, patch_size)
            self.mixed = nn.ModuleList([nn.Linear(d_dim, qkv_dim, bias=False) for _ in range(n_layers * att_head_num)])
            self.positions = nn.ParameterList([torch.empty(5 * d_dim, 7 * image_size) for _ in range(n_layers)])
            self.up = nn.ModuleList([nn.Linear(qkv_dim, mlp_dim) for _ in range(n_layers)])
            self.down = nn.ModuleList([nn.Linear(mlp_dim, qkv_dim) for _ in range(n_layers)])
            self.head = nn.Linear(qkv_dim, n_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.patches(images).flatten(2).mT
            for mixed in self.mixed:
                x = x + mixed(x)
            for up, down in zip(self.up, self.down, strict=True):
                x = x + down(up(x))
            logits: torch.Tensor = self.head(x[:, 0])
            return logits

    assert resolve_candidate(Model, CONFIG).arguments["qkv_dim"] == SMALL["hidden_dim"]


@pytest.mark.parametrize(("nearer", "meant"), [(3.2, "hidden_dim"), (1.5, "mlp_dim")])
def test_what_a_name_says_is_given_up_only_where_that_explains_most(nearer: float, meant: str) -> None:
    slot = Slot("hidden_dim", int)
    choices = options(slot, is_side=False)

    class Told:
        builds, is_spent = 0, False

        def tried(self, assignment: dict[str, Option]) -> Tried:
            return Tried({"hidden_dim": 4.0, "mlp_dim": nearer}.get(str(assignment["hidden_dim"].quantity), 5.0))

    found, _ = Search(cast("Any", Told()), lambda: {"hidden_dim": (slot, choices)}).run()
    assert found is not None
    assert found["hidden_dim"].quantity == meant


IMAGE, PATCH, HEADS, DIM, MLP, CLASSES = 224, 16, 12, 768, 3072, 1000


class Constant(nn.Module):
    """Takes its depth only."""

    mlp_dim = MLP

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.inner = build_vit(IMAGE, PATCH, depth, HEADS, DIM, self.mlp_dim, CLASSES)

    def forward(self, images: Any) -> Any:
        return self.inner(images)


def test_constants_are_set_while_a_model_is_built_and_no_longer() -> None:
    found = resolve_candidate(Constant, CONFIG)
    assert _is_meant(found)
    assert {path for path, bound in found.bound.items() if bound.why.startswith("set while it is built")} == {
        "IMAGE", "PATCH", "HEADS", "DIM", "CLASSES", "mlp_dim",
    }  # fmt: skip
    assert (IMAGE, DIM, Constant.mlp_dim) == (224, 768, 3072)
    assert type(found.build()).__qualname__ == "Constant"
    assert shown_sizes(resolve_candidate(Constant, CONFIG, {"CLASSES": 7}).build())["num_classes"] == 7


SIZES = {"image": 224, "patch_size": 16, "depth": 12, "batch": 512}


class Config:
    EMBED_DIM, LR = 768, 3e-4

    def __init__(self) -> None:
        self.heads = 12


settings = Config()


class Widths:
    mlp_dim, n_classes = 3072, 1000


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shape, width = (SIZES["image"], SIZES["patch_size"], SIZES["depth"]), settings.EMBED_DIM
        self.inner = build_vit(*shape, settings.heads, width, Widths.mlp_dim, Widths.n_classes)

    def forward(self, images: Any) -> Any:
        return self.inner(images)


class Cut(Configured):
    def forward(self, images: Any) -> Any:
        return self.inner(images)[:, : Widths.n_classes]


def test_configs_of_a_module_are_read_with_other_values_while_a_model_is_built() -> None:
    found = resolve_candidate(Configured, CONFIG)
    assert _is_meant(found)
    assert {path for path, bound in found.bound.items() if bound.why.startswith("set while it is built")} == {
        "SIZES.image", "SIZES.patch_size", "SIZES.depth", "settings.EMBED_DIM", "settings.heads", "Widths.mlp_dim",
        "Widths.n_classes",
    }  # fmt: skip
    assert (SIZES["depth"], settings.EMBED_DIM, vars(settings), Widths.mlp_dim) == (12, 768, {"heads": 12}, 3072)
    given = resolve_candidate(Configured, CONFIG, {"Widths.n_classes": 7})
    assert shown_sizes(given.build())["num_classes"] == 7
    assert "Widths.n_classes" not in resolve_candidate(Cut, CONFIG).bound  # as it is read again where it is run


def test_block_with_an_mlp_of_its_own_width_is_a_block_still() -> None:
    model: Any = build_reference({**CONFIG, "num_layers": 3})
    model.encoder.layers[2].mlp = MLPBlock(CONFIG["hidden_dim"], 7, 0.0)
    assert shown_sizes(model)["num_layers"] == 3


def test_hidden_layer_of_a_head_is_no_number_of_classes() -> None:
    model = build_reference(CONFIG)
    width = CONFIG["hidden_dim"]
    model.heads = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, 10))
    assert "num_classes" not in shown_sizes(model)
    model.heads = nn.Sequential(nn.Linear(width, width))
    assert shown_sizes(model)["num_classes"] == width


@pytest.mark.parametrize(("kind", "value"), [(int, 48), (list[int], [48])])
def test_hidden_layer_of_a_head_that_has_to_be_is_as_wide_as_the_model(kind: Any, value: Any) -> None:
    def build(
        image_size: int, patch_size: int, dim: int, mlp_dim: int, mlp_head_units: Any, n_classes: int
    ) -> nn.Module:
        whole = build_vit(image_size, patch_size, 3, 4, dim, mlp_dim, n_classes)
        units = mlp_head_units if isinstance(mlp_head_units, int) else mlp_head_units[-1]
        whole.heads = nn.Sequential(nn.Linear(dim, units), nn.GELU(), nn.Linear(units, n_classes))
        return whole

    build.__annotations__["mlp_head_units"] = kind
    assert resolve_candidate(build, CONFIG).bound["mlp_head_units"].value == value


def test_flag_that_makes_the_references_tensors_is_set() -> None:
    class Biased(nn.Module):
        def __init__(self, dim: int, *, qkv_bias: bool = False, scale_bias: bool = False) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(dim, 3 * dim, bias=qkv_bias) for _ in range(2))
            self.scale = nn.Parameter(nn.Linear(1, 1).weight.detach()) if scale_bias else None

    bound = resolve_candidate(Biased, CONFIG).bound
    assert (bound["qkv_bias"].value, bound["qkv_bias"].why) == (True, "by shape")
    assert bound["scale_bias"].value is False


def test_module_that_a_model_takes_is_built_and_shown_by_what_it_was_given() -> None:
    class Whole(nn.Module):
        def __init__(self, backbone: forms.Derived) -> None:
            super().__init__()
            self.backbone = backbone

    found = resolve_candidate(Whole, CONFIG)
    assert _is_meant(found)
    assert found.arguments["backbone"]["dim"] == 48


def test_class_among_the_defaults_is_no_size() -> None:
    def build(image_size: int, attn_layer: Any = nn.MultiheadAttention) -> nn.Module:
        attn_layer(48, 4)
        return build_vit(image_size, 8, 3, 4, 48, 96, 10)

    found = resolve_candidate(build, CONFIG)
    said = other_sizes(found, {"num_layers": 3}, CONFIG, can_be_set=True)
    why = "no argument of it is known to set that; compare with --set num_layers=3"
    assert said == [f"your model has 3 blocks, the reference has 2: {why}"]


def test_features_that_one_matrix_alone_takes_are_a_patchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.models.constructors.probing._MOST_BUILDS", 15)
    assert resolve_candidate(forms.flat_patches, CONFIG).bound["embed_size"].value == 3 * 8**2


def test_first_build_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may import much; what a second one would tell is given up."""
    monkeypatch.setattr("parity.models.constructors.probing._MOST_SECONDS", 0.03)

    def build(
        patches: int = 16, depth: int = 12, heads: int = 12, dim: int = 768, mlp_dim: int = 3072, image_size: int = 224
    ) -> nn.Module:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
        return build_vit(image_size, patches, depth, heads, dim, mlp_dim, CONFIG["num_classes"])

    assert resolve_candidate(build, CONFIG).bound["dim"].value == CONFIG["hidden_dim"]


def test_patches_without_a_number_may_be_their_size() -> None:
    bound = resolve_candidate(forms.sized_patches, CONFIG).bound["patches"]
    assert (bound.value, bound.why) == (CONFIG["patch_size"], "by shape")


@pytest.mark.parametrize("default", ["cuda", "cuda:0", torch.device("cuda")])
def test_a_gpu_by_default_is_none_where_there_is_none(default: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(dim: int, cls_head_dims: list[int], device: object = default) -> nn.Module:
        return nn.Sequential(nn.Linear(dim, cls_head_dims[0], device=device))  # type: ignore[call-overload, arg-type, unused-ignore]

    for is_here, expected in ((False, "cpu"), (True, f"{default}")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_here=is_here: is_here)
        device = resolve_candidate(build, CONFIG).bound["device"]
        assert f"{device.value}" == expected
        assert isinstance(device.value, type(default))
    assert resolve_candidate(build, CONFIG).bound["cls_head_dims"].value == [CONFIG["hidden_dim"]]


class Norm(nn.Module):
    """Reads its eps from a config whenever it is called."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.weight = config, nn.Parameter(torch.ones(config.dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, None, self.config.epsilon)


def test_what_a_config_is_read_for_as_the_model_runs_is_given() -> None:
    def build(config: Any) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, config.dim, config.patch_size, config.patch_size), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            Norm(config), nn.Linear(config.dim, config.num_classes),
        )  # fmt: skip

    assert resolve_candidate(build, CONFIG).bound["config.epsilon"].value == 1e-6


def test_number_that_numpy_multiplies_is_no_config() -> None:
    class TwiceAsWide(vit.ViT):
        def __init__(self, settings: dict[str, Any]) -> None:
            device, width, side = settings["device"], settings["embedding_size"], settings["patch_size"]
            patches = int(np.prod(settings["input_shape"])) // side**2
            super().__init__(
                img_size=round(patches**0.5) * side, patch_size=side, embed_dim=width, hidden_dim=2 * width,
                num_layers=settings["layers"], num_heads=settings["attention_heads"], num_classes=10,
            )  # fmt: skip
            self.to(device)

    built = resolve_candidate(TwiceAsWide, CONFIG).build()
    assert built.pos_embedding.shape == (1, 17, 48)


def test_rates_of_other_things_are_left_alone() -> None:
    def build(dim: int, emb_dropout: float, dropout: float, attn_drop: float, drop_path_rate: float) -> nn.Module:
        return nn.Linear(dim, int(dropout + attn_drop + emb_dropout + drop_path_rate))

    config = {**CONFIG, "dropout": 0.13, "attention_dropout": 0.21}
    assert resolve_candidate(build, config).arguments == {
        "dim": 48, "emb_dropout": 0.13, "dropout": 0.13, "attn_drop": 0.21, "drop_path_rate": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("n_attention_heads", "num_heads"), ("numHeads", "num_heads"), ("nhead", "num_heads"),
        ("dim_head", "head_width"), ("num_encoder_layers", "num_layers"), ("nblocks", "num_layers"),
        ("L", "num_layers"), ("emb_dims", "hidden_dim"), ("n_embd", "hidden_dim"), ("latent_size", "hidden_dim"),
        ("dim_mlp", "mlp_dim"), ("dim_feedforward", "mlp_dim"), ("forward_mul", "mlp_ratio"),
        ("input_resolution", "image_size"), ("image_height", "image_size"), ("class_num", "num_classes"),
        ("nb_classes", "num_classes"), ("drop_p", "dropout"), ("attn_p", "attention_dropout"),
        ("seq_len", "num_tokens"), ("num_patches", "num_patches"), ("patch_size", "patch_size"),
        ("in_chans", "in_channels"), ("inchannels", "in_channels"), ("n_repeat", "num_layers"),
        ("d_model", "hidden_dim"), ("cls_hidden", "representation_size"), ("patches_per_side", "patches_per_side"),
        ("stochastic_depth_prob", "no_rate"), ("num_patch_1d", "patches_per_side"), ("transformer_units", "mlp_widths"),
        ("MLP_HIDDEN_LAYER_NODES", "mlp_dim"), ("linear_dim", "mlp_dim"), ("mlp_out", "inner_width"),
        ("head_channel", "head_width"), ("n_kv_heads", "key_heads"), ("qkv_heads", "num_heads"),
        ("patch_drop_rate", "no_rate"), ("patch_emb_drop", "embedding_dropout"), ("W", "image_size"),
        ("p_size", "patch_size"), ("mlp_p", "inner_dropout"), ("proj_p", "inner_dropout"),
        ("emb_p", "embedding_dropout"), ("atten_drop", "attention_dropout"), ("head_p", "no_rate"),
    ],
)  # fmt: skip
def test_words_of_a_name_say_what_it_means(name: str, meant: str) -> None:
    assert meanings(name)[0] == meant


def test_group_of_a_config_says_what_a_number_is_of() -> None:
    assert meanings_at("config.patches.size")[0] == "patch_size"
    assert meanings_at("config.mlp.dim")[0] == "mlp_dim"
    assert meanings_at("config.encoder.dim")[0] == "hidden_dim"
    assert meanings_at("config.vit.embed.img_size") == ("image_size",)


@pytest.mark.parametrize(
    "name", ["batch_size", "norm_layer", "qkv_bias", "verbose", "lr", "class_token", "pos_embed_type"]
)
def test_other_words_mean_no_size(name: str) -> None:
    assert meanings(name) in ((), ("no_rate",))


@pytest.mark.parametrize(
    ("default", "quantity"), [(7, "patches_per_side"), (196, "num_patches"), (14, "patches_per_side")]
)
def test_number_of_patches_that_is_no_square_is_that_of_a_side(default: int, quantity: str) -> None:
    slot = Slot("n_patches", default=default, is_required=False)
    assert options(slot, is_side=False)[0].quantity == quantity


@pytest.mark.parametrize("name", ["start_dim", "end_dim", "softmax_dim", "axis"])
def test_number_of_an_axis_is_no_width(name: str) -> None:
    assert meanings(name) == ()


def test_error_of_the_constructor_that_has_no_words_is_told_by_its_name() -> None:
    class WordlessError(RuntimeError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    def build(image_size: int) -> nn.Module:
        raise WordlessError(image_size)

    with pytest.raises(ParityError, match="WordlessError"):
        resolve_candidate(build, CONFIG).build()


def test_module_that_goes_into_kwargs_is_shown_as_it_is() -> None:
    def build(image_size: int, /, **rest: Any) -> nn.Module:
        return nn.Linear(image_size, len(rest))

    activation = nn.GELU()
    assert resolve_candidate(build, CONFIG, {"activation": activation}).arguments["activation"] is activation


def test_features_of_a_head_are_no_width() -> None:
    model: Any = build_reference(CONFIG)
    for block in model.encoder.layers:
        del block.self_attention
        block.heads = nn.ModuleList(nn.Linear(CONFIG["hidden_dim"], 64) for _ in range(9))
    assert shown_sizes(model)["hidden_dim"] == CONFIG["hidden_dim"]


def test_what_is_said_of_an_mlp_or_a_patch_goes_before_the_rest() -> None:
    of_mlp = ("ffn_embed_dim", "encoder_ffn_embed_dim", "mlp_embedding_size", "ffn_channels", "mlp_channels")
    assert {meanings(name)[0] for name in of_mlp} == {"mlp_dim"}
    assert [meanings(name)[0] for name in ("patch_side", "patches_per_side", "patch_per_side")] == [
        "patch_size", "patches_per_side", "patches_per_side",
    ]  # fmt: skip
    assert [meanings(name)[0] for name in ("embed_dim", "in_channels")] == ["hidden_dim", "in_channels"]


class _Counting(nn.Module):
    """Attention with heads that no tensor, no word and no softmax shows."""

    def __init__(self, width: int, koepfe: int) -> None:
        super().__init__()
        self.inward, self.outward, self.koepfe = nn.Linear(width, 3 * width), nn.Linear(width, width), koepfe

    def forward(self, x: torch.Tensor, *_: torch.Tensor, **__: bool) -> tuple[torch.Tensor, None]:
        q, k, v = self.inward(x).unflatten(-1, (3, self.koepfe, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).exp()
        return self.outward((weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2)), None


class _Around(nn.Module):
    model: nn.Module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits


class _Unsaid(_Around):
    """Has names in a language of its own for what is inside."""

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        schichten: int = 12,
        koepfe: int = 12,
        breite: int = 768,
        innen: int = 3072,
        klassen: int = 1000,
    ) -> None:
        super().__init__()
        self.model = vit.ViT(image_size, 3, patch_size, breite, innen, 1, schichten, num_classes=klassen)
        for block in self.model.attn_layers:
            block.attention = _Counting(breite, koepfe)


def test_argument_that_is_left_with_a_size_for_its_default_is_that() -> None:
    report = check(_Unsaid, overrides=SMALL, modes=["eval"])
    assert report.verdict == "equivalent"
    assert report.candidate["bound"]["koepfe"] == {"value": SMALL["num_heads"], "why": "by its default"}


class _Maps(_Around):
    """Says channels for a token's features, and for an MLP's."""

    def __init__(
        self,
        image: int = 224,
        patch: int = 16,
        channels: int = 768,
        stages: int = 12,
        groups: int = 12,
        hidden_channels: int = 3072,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.model = vit.ViT(image, 3, patch, channels, hidden_channels, groups, stages, num_classes=classes)


def test_default_tells_which_of_the_things_that_a_name_may_say_is_meant() -> None:
    report = check(_Maps, overrides=SMALL, modes=["eval"])
    assert report.verdict == "identical"
    given = report.candidate["config"]
    assert (given["channels"], given["hidden_channels"]) == (SMALL["hidden_dim"], SMALL["mlp_dim"])
    assert (given["stages"], given["groups"]) == (SMALL["num_layers"], SMALL["num_heads"])
