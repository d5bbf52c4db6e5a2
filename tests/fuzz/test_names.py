"""Names of modules and parameters: whatever they are made of, they are shown, written to a map, and read back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import vit
from parity import ParityError, check
from parity.models import read_map
from parity.models.state import state_shapes
from parity.models.weight_maps.expansion import expand
from tests.fuzz import budget
from tests.fuzz.test_maps import REFERENCE, SIZES

_ODD = "\x1b\x7f\x9b\x00\n\r\t[]{}:,0123i\\\"'#%/ \u202e\U0001f600\ud800"
_PIECES = [
    "{i}",
    "{{",
    "}}",
    "[0:5]",
    "[:]",
    "[,]",
    "[0:1 of 2]",
    "[red]",
    "\x1b[31m",
    "0",
    "layers",
    "{0}",
    "%s",
    "\\n",
]
NAMES = st.builds(
    lambda pieces: "".join(pieces).replace(".", ""),
    st.lists(st.sampled_from(_PIECES) | st.text(st.sampled_from(_ODD) | st.characters(), max_size=3), max_size=4),
) | st.sampled_from(["x" * 10_000, "{" * 10_000])


class _Head(nn.Module):
    def __init__(self, linear: nn.Linear, weight: str, bias: str) -> None:
        super().__init__()
        self.names = weight, bias
        self.register_parameter(weight, linear.weight)  # type: ignore[arg-type]
        self.register_parameter(bias, linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (self._parameters[name] for name in self.names)
        assert weight is not None
        return nn.functional.linear(x, weight, bias)


class _Named(nn.Module):
    """Our ViT, in which a module and two parameters have other names."""

    def __init__(self, module: str, weight: str, bias: str) -> None:
        super().__init__()
        self.model = vit.ViT(8, 3, 4, 8, 12, 2, 2, 0.0, 3)
        self.model.head = nn.Identity()  # type: ignore[assignment]
        self.name = module
        self.add_module(module, _Head(vit.ViT(8, 3, 4, 8, 12, 2, 2, 0.0, 3).head, weight, bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._modules[self.name](self.model(x))  # type: ignore[misc]
        return logits


@budget(20)
@given(NAMES, NAMES, NAMES)
@example("head\x1b[31m", "{i}", "[,]")
@example("\U0001f600\x7f\x9b", "b[0]", "b[0:5]")
def test_any_name_is_shown_written_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, module: str, weight: str, bias: str
) -> None:
    names = {module, weight, bias, "model", "names", "name"}
    if len(names) < 6 or "" in names or any(hasattr(nn.Module(), name) for name in (module, weight, bias)):
        return
    candidate = _Named(module, weight, bias)
    report = check(candidate, overrides=SIZES, modes=["eval"])
    assert report.verdict == "identical", report
    assert report.mapping is not None
    assert _is_shown(str(report))
    if any(
        "\ud800" <= letter <= "\udfff" for letter in module + weight + bias
    ):  # half a letter, which no TOML can hold
        with pytest.raises(ParityError, match="no file can hold the name"):
            report.mapping.to_toml()
        return
    written = report.mapping.to_toml()
    assert _is_shown(written)
    file = tmp_path_factory.getbasetemp() / "named.toml"
    file.write_text(written, encoding="utf-8")
    again = expand(read_map(file), state_shapes(REFERENCE), state_shapes(candidate), "written")
    assert {*again.entries} == {*report.mapping.entries}


def _is_shown(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)
