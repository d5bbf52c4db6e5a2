"""The pytest plugin: options and ini settings of the equivalence suite, and the fixture `assert_parity`.

It is registered by the installed package, and imports nothing heavy: torch comes with the first comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report


@dataclass(frozen=True)
class _Setting:
    """One setting, on the command line as `flag` and in the ini file as `ini`."""

    flag: str
    ini: str
    default: str
    help: str


_SETTINGS = (
    _Setting("--candidate", "parity_candidate", "vit:ViT", "the model under test, module:callable or file.py:callable"),
    _Setting("--reference", "parity_reference", "", "the one torchvision ViT to compare with (default: all five)"),
    _Setting("--parity-weights", "parity_weights", "synthetic", "weights of the comparisons, as for `parity check`"),
    _Setting("--parity-seed", "parity_seed", "0", "seed of synthetic weights and random images"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds every setting as an option and as an ini value."""
    group = parser.getgroup("parity", "numerical parity with a reference model")
    for setting in _SETTINGS:
        group.addoption(setting.flag, dest=setting.ini, default=None, help=setting.help)
        parser.addini(setting.ini, setting.help, default=setting.default)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Makes the profile known before Hypothesis looks for it, if it is the one that was asked for."""
    if config.getoption("hypothesis_profile", None) == "thorough":
        register_profiles()


def register_profiles() -> None:
    """Registers the Hypothesis profiles of the suite: `parity`, its default, and `thorough`."""
    from hypothesis import HealthCheck, Phase, settings  # noqa: PLC0415  (only the suite needs it)

    unhurried = settings(
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        # the report explains a failure; Hypothesis would run it many times more to tell which sizes matter
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )
    settings.register_profile("parity", unhurried, max_examples=100, derandomize=True)
    settings.register_profile("thorough", unhurried, max_examples=2000)


def setting(config: pytest.Config, name: str) -> str:
    """Returns the value of a setting by its ini name: the option if given, else the ini file's, else the default."""
    value = config.getoption(name)
    return str(config.getini(name) if value is None else value)


@pytest.fixture
def assert_parity(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function that fails the test, with the whole report, unless a candidate is the reference.

    `assert_parity(candidate, reference="vit_b_16", require="equivalent", **options)`; weights and seed come from the
    options and ini settings unless they are given.
    """

    def run(candidate: Any, reference: Any = None, **options: Any) -> Report:
        from parity.checking import assert_parity as run_and_assert  # noqa: PLC0415  (torch takes seconds to import)

        chosen = setting(request.config, "parity_reference") or "vit_b_16" if reference is None else reference
        if isinstance(chosen, str):
            options.setdefault("weights", setting(request.config, "parity_weights"))
        options.setdefault("seed", int(setting(request.config, "parity_seed")))
        return run_and_assert(candidate, chosen, **options)

    return run
