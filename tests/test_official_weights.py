"""Torchvision's own loading code, run for real against a server on this machine."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import VisionTransformer, ViT_B_32_Weights, get_model
from torchvision.models.vision_transformer import interpolate_embeddings

import vit
from parity.errors import ParityError
from parity.models.reference import build_reference, configuration
from parity.models.weights import official, resolve_weights, synthetic
from parity.suite.conftest import SMALL, small
from tests.conftest import as_published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENTRY = ViT_B_32_Weights.IMAGENET1K_V1


def _name(content: bytes) -> str:
    return f"vit_b_32-{hashlib.sha256(content).hexdigest()[:8]}.pth"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file such as torchvision publishes: the state dict of a full-size ViT-B/32, by the names of that time."""
    file = tmp_path_factory.mktemp("published") / "weights.pth"
    torch.save(as_published(synthetic(build_reference(configuration("vit_b_32")), seed=7)), file)
    return file


@pytest.mark.parametrize("name", vit.PRESETS)
def test_file_with_the_names_of_that_time_is_what_torchvision_makes_of_it(
    name: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Patches and heads of every architecture, with two blocks and heads of eight."""
    sizes = small(name)
    config = configuration(name, sizes)
    state = synthetic(build_reference(config), seed=3)
    theirs, there, back = tmp_path / "published.pth", tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    torch.save(as_published(state), theirs)
    original = VisionTransformer(**config)
    original.load_state_dict(torch.load(theirs, weights_only=True))
    assert all(torch.equal(original.state_dict()[key], tensor) for key, tensor in state.items())

    options = ["vit:ViT", f"--reference={name}", *(f"--set={key}={value}" for key, value in sizes.items())]
    assert run("check", *options, f"--weights={theirs}", "--modes=eval")[0] == 0
    assert run("convert", *options, f"--weights={theirs}", "-o", there)[0] == 0
    assert run("convert", *options, f"--weights={there}", "--reverse", "-o", back)[0] == 0
    again = load_file(back)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_file_with_the_names_of_that_time_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    model = build_reference(configuration("vit_b_16", SMALL))
    state = as_published(synthetic(model, seed=3))
    del state["encoder.ln.weight"]
    torch.save(state | {"extra": torch.ones(1)}, tmp_path / "file.pth")
    with pytest.raises(ParityError, match=r"\(1 missing: encoder.ln.weight; 1 unknown: extra\)"):
        resolve_weights(str(tmp_path / "file.pth"), "vit_b_16").state_dict(model)


def _on_published_weights(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test of weights of true shapes, whose file one worker makes for all of them."""
    marked: Callable[..., None] = pytest.mark.full_size(pytest.mark.xdist_group("published")(test))
    return marked


@_on_published_weights
def test_download_goes_straight_into_the_scratch_model(
    serve: Callable[..., str], cache: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = published.read_bytes()
    name = serve(ENTRY, _name(content), content)
    model, transforms, categories = vit.load("vit_b_32", weights="IMAGENET1K_V1")
    output = capsys.readouterr()
    assert output.out == ""
    assert name in output.err
    assert [file.name for file in cache.iterdir()] == [name]

    original = get_model("vit_b_32", weights=ENTRY).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), original(images))
    assert not model.training
    assert transforms.crop_size == [224]
    assert len(categories) == 1000


@_on_published_weights
def test_official_weights_at_another_size_are_torchvisions_interpolated(
    cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = published.read_bytes()
    cache.mkdir(parents=True)
    (cache / _name(content)).write_bytes(content)
    monkeypatch.setattr(ENTRY.value, "url", f"http://127.0.0.1:1/{_name(content)}")
    model, transforms, _ = vit.load("vit_b_32", img_size=320)

    original = get_model("vit_b_32", image_size=320).eval()
    original.load_state_dict(interpolate_embeddings(320, 32, OrderedDict(official(ENTRY))))
    images = torch.randn(2, 3, 320, 320)
    with torch.no_grad():
        assert torch.equal(model(images), original(images))
    assert (transforms.crop_size, transforms.resize_size) == ([320], [366])
    assert transforms(Image.new("RGB", (500, 400))).shape == (3, 320, 320)


@_on_published_weights
def test_official_weights_in_the_fast_model(cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = published.read_bytes()
    cache.mkdir(parents=True)
    (cache / _name(content)).write_bytes(content)
    monkeypatch.setattr(ENTRY.value, "url", f"http://127.0.0.1:1/{_name(content)}")
    plain, fast = (vit.load("vit_b_32", fast=fast).model for fast in (False, True))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), plain(images))
        assert not torch.equal(fast(images), plain(images)), "the fast path was not taken"


@_on_published_weights
def test_filled_cache_needs_no_server(
    cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = published.read_bytes()
    cache.mkdir(parents=True)
    (cache / _name(content)).write_bytes(content)
    monkeypatch.setattr(ENTRY.value, "url", f"http://127.0.0.1:1/{_name(content)}")
    assert official(ENTRY)["class_token"].shape == (1, 1, 768)
    assert capsys.readouterr().out == ""


def test_wrong_hash_is_refused_and_leaves_nothing(serve: Callable[..., str], cache: Path) -> None:
    serve(ENTRY, "vit_b_32-0123abcd.pth", b"something else")
    with pytest.raises(ParityError, match=r"was refused, invalid hash value .*try again, or put the file into"):
        official(ENTRY)
    assert list(cache.iterdir()) == []


def test_cut_off_download_is_refused_and_leaves_nothing(serve: Callable[..., str], cache: Path) -> None:
    content = bytes(range(256)) * 4096
    serve(ENTRY, _name(content), content, cut_off=True)
    with pytest.raises(ParityError, match=r"download .*(invalid hash value|IncompleteRead|retrieval incomplete)"):
        official(ENTRY)
    assert list(cache.iterdir()) == []


def test_missing_file_on_the_server_is_one_sentence(
    serve: Callable[..., str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(ENTRY, "vit_b_32-0123abcd.pth", b"")
    monkeypatch.setattr(ENTRY.value, "url", ENTRY.url.replace("0123abcd", "4567abcd"))
    with pytest.raises(ParityError, match=r"cannot download http.*4567abcd.pth: .*--weights synthetic"):
        official(ENTRY)
    assert list(cache.iterdir()) == []


def test_no_network_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENTRY.value, "url", "http://127.0.0.1:1/vit_b_32-0123abcd.pth")
    with pytest.raises(ParityError, match=r"cannot download .*refused.*put the file into .*checkpoints"):
        official(ENTRY)
    assert list(cache.iterdir()) == []


def test_damaged_file_in_the_cache_is_refused_by_its_hash(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENTRY.value, "url", "http://127.0.0.1:1/vit_b_32-0123abcd.pth")
    cache.mkdir(parents=True)
    (cache / "vit_b_32-0123abcd.pth").write_bytes(b"half a file")
    with pytest.raises(ParityError, match=r"is damaged: its name promises a SHA-256 that begins with 0123abcd"):
        official(ENTRY)


@_on_published_weights
def test_check_with_official_weights_brings_the_image_size(
    cache: Path, run: Callable[..., tuple[int, str, str]], published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = published.read_bytes()
    cache.mkdir(parents=True)
    (cache / _name(content)).write_bytes(content)
    monkeypatch.setattr(ENTRY.value, "url", f"http://127.0.0.1:1/{_name(content)}")
    status, out, _ = run("check", "--reference", "vit_b_32", "--weights", "official", "--modes", "eval", "--batch", 2)
    assert status == 0, out
    assert "weights    ViT_B_32_Weights.IMAGENET1K_V1" in out
    assert "image_size=224" in out
    assert out.splitlines()[-1].startswith("identical: ")
