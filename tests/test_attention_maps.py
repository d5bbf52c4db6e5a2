"""Where both models look: the maps of attention that a report keeps, whoever computes the attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

import parity
import vit
from parity.models import build_reference, configuration, synthetic, uniform
from tests.small import OURS, SMALL
from vit.attention import attention_weights, rollout

if TYPE_CHECKING:
    from pathlib import Path

    from parity.diagnosis import AttentionMaps

THREE = "tests/candidates/eps_bias_pool.py:SmallViT"


def _maps(candidate: Any, **options: Any) -> AttentionMaps:
    return parity.check(candidate, overrides=SMALL, modes=["eval"], **options).attention[0]


def _apart(maps: AttentionMaps) -> list[float]:
    """Returns how far both models are apart, block by block, and last in the rollout."""
    looks = [*maps.blocks, maps.rollout]
    assert all(look.difference for look in looks), maps.why
    return [look.difference.largest for look in looks if look.difference]


def test_maps_are_those_of_the_model_itself() -> None:
    model = vit.ViT(**OURS)
    report = parity.check(model, overrides=SMALL, modes=["eval"])
    assert report.mapping is not None
    state = synthetic(build_reference(configuration("vit_b_16", SMALL)), 0)
    model.load_state_dict(report.mapping.apply(state))
    image = uniform("0/image 0", (3, 32, 32))[None]
    weights = attention_weights(model, image)
    expected = [*weights[:, 0].mean(1), rollout(weights)[0]]
    maps = report.attention[0]
    for look, tokens in zip([*maps.blocks, maps.rollout], expected, strict=True):
        assert look.reference is not None
        patches = tokens[0, 1:]
        assert look.reference.largest == pytest.approx(float(patches.max()), rel=1e-2)
        assert "".join(look.reference.patches).index("Z") == int(patches.argmax())


@pytest.mark.parametrize(
    "name",
    [
        "sdpa.py:FlashViT",
        "class_token_last.py:SuffixViT",
        "sequence_first.py:VisualTransformer",
        "interleaved_h3d.py:VisionLM",
    ],
)
def test_right_models_look_where_the_reference_does(name: str) -> None:
    assert max(_apart(_maps(f"tests/candidates/{name}"))) < 1e-6


def test_softmax_that_is_written_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
        powers = (scores - scores.amax(dim, keepdim=True)).exp()
        return powers / powers.sum(dim, keepdim=True)

    plain = _apart(_maps(THREE))
    monkeypatch.setattr(torch.Tensor, "softmax", softmax)
    assert _apart(_maps(THREE)) == pytest.approx(plain, abs=1e-6)
    assert min(plain) > 1e-3


def test_attention_in_parts_has_no_maps() -> None:
    maps = _maps("tests/candidates/chunked_attention.py:FrugalViT")
    assert maps.why == "no softmax of it is over as many keys as there are tokens"
    assert all(look.reference and not look.candidate and not look.difference for look in maps.blocks)


class _OfThree(vit.ViT):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 3, "three images, please"
        return super().forward(x)


def test_model_that_takes_no_image_alone_has_no_maps() -> None:
    maps = _maps(_OfThree(**OURS))
    assert "three images, please" in maps.why
    assert maps.rollout.reference
    assert not maps.rollout.candidate
    report = parity.check(vit.ViT(**OURS), _OfThree(**OURS), modes=["eval"], weights="synthetic")
    assert report.attention == []
    assert not any("look" in reason for reason in report.reasons)


def test_each_picture_is_looked_at(tmp_path: Path) -> None:
    for number in range(6):
        Image.effect_noise((40, 40), 10 + number).save(tmp_path / f"{number}.png")
    report = parity.check("vit:ViT", overrides=SMALL, modes=["eval"], input=tmp_path)
    assert [maps.picture for maps in report.attention] == ["0.png", "1.png", "2.png", "3.png"]
    assert report.attention[0].rollout != report.attention[1].rollout
    assert _maps("vit:ViT").picture == "a random image"


def test_torch_is_left_as_it_was() -> None:
    def switches() -> list[bool]:
        backends: Any = torch.backends.cuda
        return [backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled()]

    before = switches()
    assert all(before)
    _maps("vit:ViT")
    assert switches() == before


def test_values_that_are_not_finite_are_no_map() -> None:
    model = build_reference(configuration("vit_b_16", SMALL))
    block = model.get_submodule("encoder.layers.encoder_layer_1")
    block.register_forward_pre_hook(lambda _, args: (args[0] * math.nan,))
    look = _maps(model).blocks[1].candidate
    assert look is not None
    assert look.patches == ()
