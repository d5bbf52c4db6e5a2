"""Constructors that nobody has thought of get the reference's sizes, or it is said that they don't.

One known ViT is asked for by arguments whose names, order, forms, defaults and places are drawn.
"""

from __future__ import annotations

import linecache
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given, note, settings
from hypothesis import strategies as st

from parity import ParityError
from parity.models import build_reference, configuration, other_sizes, resolve_candidate
from parity.models.constructors.quantities import shown_sizes
from tests.forms_of_arguments import build_vit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


class Form(NamedTuple):
    """A form in which a size is asked for.

    Attributes:
        names: what people call the argument.
        number: the code that makes the size of the argument `{}`, of other sizes too.
        default: what its default is at usual sizes.
    """

    names: str
    number: str
    default: Callable[[Mapping[str, int]], Any]


_CLASSES = "num_classes n_classes classes nb_classes num_labels class_num n_cls out_dim output_dim labels C things"
_WIDTH = (
    "dim embed_dim emb_dim hidden_size d_model n_embd width embedding_dim hidden_dim latent_dim emb_size model_dim "
    "embed_size projection_dim D hidden many"
)
_MLP = "mlp_dim d_ff dim_feedforward intermediate_size mlp_size ffn_dim hidden_dim mlp_hidden_dim ff_dim mlp wide"
_FORMS: dict[str, list[Form]] = {
    "patch": [
        Form("patch_size patch p patch_dim patch_res P tile", "{}", lambda c: c["patch"]),
        Form("patch_size patch patch_shape patch_hw bar", "{}[0]", lambda c: (c["patch"], c["patch"])),
    ],
    "image": [
        Form("image_size img_size input_size resolution imgSize input_resolution size foo", "{}", lambda c: c["image"]),
        Form("image_size img_size input_shape img_hw image_shape", "{}[1]", lambda c: (c["image"], c["image"])),
        Form("chw input_shape img_shape", "{}[1]", lambda c: (3, c["image"], c["image"])),
        Form("num_patches n_patches N patches", "round({} ** 0.5) * patch", lambda c: (c["image"] // c["patch"]) ** 2),
        Form("grid_size patches_per_side num_patch_1d n_patches", "{} * patch", lambda c: c["image"] // c["patch"]),
        Form("seq_len max_tokens num_tokens", "round(({} - 1) ** 0.5) * patch",
             lambda c: (c["image"] // c["patch"]) ** 2 + 1),
    ],
    "layers": [
        Form("depth num_layers n_layers layers num_blocks L num_encoder_layers num_hidden_layers nblocks times", "{}",
             lambda c: c["layers"]),
    ],
    "width": [Form(_WIDTH, "{}", lambda c: c["width"])],
    "heads": [
        Form("num_heads heads n_heads nhead num_attention_heads n_head h msa_heads ways", "{}", lambda c: c["heads"]),
        Form("head_dim dim_head head_size d_head", "width // {}", lambda c: c["width"] // c["heads"]),
    ],
    "mlp": [
        Form(_MLP, "{}", lambda c: c["mlp"]),
        Form("mlp_ratio ff_mult expansion_factor forward_expansion mlp_multiplier more", "int(width * {})",
             lambda c: c["mlp"] / c["width"]),
        Form("mlp_ratio ff_mult expansion_factor forward_expansion", "width * {}", lambda c: c["mlp"] // c["width"]),
    ],
    "classes": [Form(_CLASSES, "{}", lambda c: c["classes"])],
}  # fmt: skip
_USUAL = [
    {"image": 224, "patch": 16, "layers": 12, "heads": 12, "width": 768, "mlp": 3072, "classes": 1000},
    {"image": 28, "patch": 7, "layers": 2, "heads": 2, "width": 8, "mlp": 32, "classes": 10},
    {"image": 32, "patch": 4, "layers": 6, "heads": 8, "width": 512, "mlp": 512, "classes": 10},
]
_PLACES = {
    "arguments": "{name}", "keywords": 'kwargs["{name}"]', "items": 'config["{name}"]', "attributes": "config.{name}",
    "dataclass": "config.{name}", "groups": 'config["{group}"]["{name}"]', "namespaces": "config.{group}.{name}",
}  # fmt: skip
_WITH_DEFAULT = {"keywords": 'kwargs.get("{name}", {default})', "items": 'config.get("{name}", {default})',
                 "attributes": 'getattr(config, "{name}", {default})'}  # fmt: skip
_GROUPS = {"image": "data", "patch": "patches"}
_REFERENCES = [
    {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96},
    {"image_size": 48, "patch_size": 8, "num_layers": 4, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 96},
    {"image_size": 32, "patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
]


@st.composite
def _constructors(draw: st.DrawFn) -> tuple[str, Callable[..., nn.Module]]:
    """Draws a constructor, and its code."""
    place = draw(st.sampled_from(sorted(_PLACES)))
    usual = draw(st.sampled_from(_USUAL))
    with_default = draw(st.sets(st.sampled_from(sorted(_FORMS))))
    used: dict[str, str] = {}
    lines: list[tuple[int, str]] = []
    required: list[str] = []
    defaulted: list[str] = []
    for role in draw(st.permutations(sorted(_FORMS))):
        form = draw(st.sampled_from(_FORMS[role]))
        name = draw(st.sampled_from([name for name in form.names.split() if name not in used]))
        used[name] = role
        default = form.default(usual) if role in with_default else None
        forms = _WITH_DEFAULT if default is not None else {}
        read = forms.get(place, _PLACES[place]).format(name=name, default=default, group=_GROUPS.get(role, "encoder"))
        lines.append((list(_FORMS).index(role), f"    {role} = {form.number.format(read)}\n"))
        hint = f": {type(default).__name__}" if place == "dataclass" and default is not None else ""
        hint = hint or (": object" if place == "dataclass" else "")
        (required if default is None else defaulted).append(f"{name}{hint}{'' if default is None else f'={default}'}")
    names = [*required, *defaulted]
    body = "".join(line for _, line in sorted(lines))
    taken = {"arguments": ", ".join(names), "keywords": "**kwargs", "dataclass": "config: Config"}.get(place, "config")
    code = f"def build({taken}):\n{body}    return make(image, patch, layers, heads, width, mlp, classes)\n"
    if place == "dataclass":
        code = "@dataclass\nclass Config:\n" + "".join(f"    {name}\n" for name in names) + f"\n{code}"
    scope: dict[str, Any] = {"make": build_vit, "dataclass": dataclass, "__name__": __name__}
    file = f"<drawn {zlib.adler32(code.encode())}>"
    linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file  # what is read of it is its source
    exec(compile(code, file, "exec"), scope)  # noqa: S102  (our own)
    return code, scope["build"]


@given(_constructors(), st.sampled_from(_REFERENCES))
@settings(deadline=None, max_examples=max(30, settings().max_examples // 4))
def test_no_size_is_bound_wrongly_in_silence(
    constructor: tuple[str, Callable[..., nn.Module]], overrides: dict[str, int]
) -> None:
    code, build = constructor
    note(code)
    config = configuration("vit_b_16", {**overrides, "num_classes": 10})
    reference = build_reference(config)
    try:
        found = resolve_candidate(build, config)
        module = found.build()
    except ParityError as error:
        is_told = "--candidate-arg" in str(error)
    else:
        note(str(found.bound))
        is_meant = shown_sizes(module) == shown_sizes(reference) and _count(module) == _count(reference)
        is_told = is_meant or bool(other_sizes(found, shown_sizes(module), shown_sizes(reference), can_be_set=True))
    assert is_told


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
