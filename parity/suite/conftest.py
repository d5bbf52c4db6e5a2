"""What the equivalence suite shares: who is compared with whom, and how hard Hypothesis looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import settings

from parity.models import configuration
from parity.plugin import register_profiles, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report

register_profiles()


def pytest_configure(config: pytest.Config) -> None:
    """Makes Hypothesis look as hard as this suite wants, unless the user has named a profile."""
    config.addinivalue_line("markers", "full_size: a published ViT at its full width")
    if not config.getoption("hypothesis_profile", None):
        settings.load_profile("parity")


class Architecture(NamedTuple):
    """A published ViT: its name, and its number of parameters at an image size in pixels."""

    name: str
    image_size: int
    parameters: int


# parameter counts as torchvision states them with its weights (`weights.meta["num_params"]`)
ARCHITECTURES = [
    Architecture("vit_b_16", 224, 86_567_656),
    Architecture("vit_b_32", 224, 88_224_232),
    Architecture("vit_l_16", 224, 304_326_632),
    Architecture("vit_l_32", 224, 306_535_400),
    Architecture("vit_h_14", 224, 632_045_800),
]
SWAG = [
    Architecture("vit_b_16", 384, 86_859_496),
    Architecture("vit_l_16", 512, 305_174_504),
    Architecture("vit_h_14", 518, 633_470_440),
]

# small enough for every mode in a moment, and large enough to have a middle block and several heads
SMALL = {
    "image_size": 48, "patch_size": 16, "num_layers": 3, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip


def small(name: str) -> dict[str, int]:
    """Returns settings for patches and heads of a published ViT, with two blocks, heads of eight and ten classes."""
    config = configuration(name)
    width = 8 * config["num_heads"]
    return {
        "image_size": 3 * config["patch_size"], "num_layers": 2, "hidden_dim": width, "mlp_dim": 2 * width,
        "num_classes": 10,
    }  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for an `architecture` (or a `swag` one) on all, or on `--parity-reference` alone."""
    only = setting(metafunc.config, "parity_reference")
    for fixture, choices in (("architecture", ARCHITECTURES), ("swag", SWAG)):
        if fixture in metafunc.fixturenames:
            chosen = [choice for choice in choices if only in ("", choice.name)]
            metafunc.parametrize(fixture, chosen, ids=[f"{choice.name}-{choice.image_size}" for choice in chosen])


@pytest.fixture(scope="session")
def candidate(request: pytest.FixtureRequest) -> str:
    """The model under test: our own, or `--parity-candidate`."""
    return setting(request.config, "parity_candidate") or "vit:ViT"


@pytest.fixture(scope="session")
def reference(request: pytest.FixtureRequest) -> str:
    """The reference of tests that need only one: `--parity-reference`, or ViT-B/16."""
    return setting(request.config, "parity_reference") or "vit_b_16"


@pytest.fixture
def assert_identical(assert_parity: Callable[..., Report]) -> Callable[..., Report]:
    """Fails unless candidate and reference have the same bits, and every aligned layer was compared."""

    def run(candidate: str, reference: str, **options: object) -> Report:
        report = assert_parity(candidate, reference, require="identical", **options)
        for layer in report.layers:
            assert layer.status == "clean" or (layer.status == "not compared" and layer.why), layer
        return report

    return run
