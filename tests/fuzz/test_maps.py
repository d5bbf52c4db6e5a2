"""Written weight maps: text that is none is refused in a sentence, and a map that is taken moves every value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hypothesis import example, given
from hypothesis import strategies as st

import vit
from parity.models import build_reference, configuration, expand, read_map, synthetic
from parity.models.state import state_shapes
from tests.fuzz import budget, one_sentence
from tests.fuzz.edits import edited

if TYPE_CHECKING:
    import pytest

SIZES = {"image_size": 8, "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12,
         "num_classes": 3}  # fmt: skip
REFERENCE = build_reference(configuration("vit_b_16", SIZES))
CANDIDATE = vit.ViT(8, 3, 4, 8, 12, 2, 2, 0.0, 3)
STATE = synthetic(REFERENCE, 0)
SHAPES = state_shapes(REFERENCE), state_shapes(CANDIDATE)
GOOD = (Path(vit.__file__).parents[1] / "parity" / "maps" / "scratch_vit.toml").read_bytes()

_SLICES = [
    "", "[:]", "[0:4]", "[4:]", "[:, 0:2]", "[0:2 of 4]", "[2:4 of 4]", "[0]", "[,]", "[1:2:3]", "[9:1]", "[0:0]",
    "[-1:2]", "[0:99999999999999999999]", "[0:1 of 0]", "[:,:,:,:,0:1]", "[::]", "[0:2 of 3]", "[5:2 of 4]",
]  # fmt: skip
_LAYOUTS = [
    "identity", "a b -> b a", "o c p q -> o (p q c), c=3, p=4, q=4", "(a b) -> b a, a=2", "a ->", "->", "...", ",",
    "a=1", "a b -> a b, b", "a b -> a b, b=x", "a b c -> c b a", "1 -> 1", "a -> a a", "(a b) -> a b, a=0",
    "a b -> a b, a=-8",
    "a b -> a b c, c=99999999999999999999",
]  # fmt: skip
_SIDES = ["reference", "candidate", "unused", "else", "reference"]


def _names(shapes: dict[str, tuple[int, ...]]) -> st.SearchStrategy[str]:
    patterns = {name.replace("_layer_0", "_layer_{i}").replace("layers.0", "layers.{i}") for name in shapes}
    known = st.sampled_from(sorted({*shapes, *patterns}))
    return st.builds(str.__add__, known | st.text(max_size=6), st.sampled_from(_SLICES))


@st.composite
def _maps(draw: st.DrawFn) -> bytes:
    def text(of: st.SearchStrategy[str]) -> str:
        return '"' + draw(of).replace("\\", "\\\\").replace('"', '\\"') + '"'

    left, right = _names(SHAPES[0]), _names(SHAPES[1])
    lines = [draw(st.sampled_from(["[map]", "[map]", "[[map]]", "map = 1", "[maps]", ""]))]
    for _ in range(draw(st.integers(0, 6))):
        layout = draw(st.sampled_from(["", "layout", "layouts", "candidate"]))
        plain, table = text(right), f"{{ candidate = {text(right)}, {layout} = {text(st.sampled_from(_LAYOUTS))} }}"
        lines.append(f"{text(left)} = {table if layout else plain}")
    if draw(st.booleans()):
        lines.append("[unmapped]")
        sides = draw(st.lists(st.sampled_from(_SIDES), max_size=3))
        names = st.lists(left | right, max_size=3).map(lambda few: ", ".join(text(st.just(name)) for name in few))
        lines += [f"{side} = [{draw(names)}]" for side in sides]
    return "\n".join(lines).encode(errors="surrogatepass")


_PIECES = tuple(piece.encode() for piece in (*_SLICES, *_LAYOUTS, "{i}", "{{", "}}", '"', "\n", "[unmapped]\n"))


@budget()
@given(_maps() | edited(GOOD, _PIECES) | st.binary(max_size=40))
@example(GOOD)
def test_any_text_is_a_map_that_moves_every_value_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_bytes(content)
    with one_sentence():
        found = expand(read_map(file), *SHAPES, "fuzzed")
        back = found.invert().apply(found.apply(STATE))
        for name, tensor in back.items():
            left_out = [part for part in found.unmapped_reference if part.startswith(f"{name}[")]
            assert left_out or torch.equal(tensor, STATE[name])
    assert file.read_bytes() == content
