"""The pytest plugin: options and ini settings, the marker `parity`, the fixture `assert_parity`, and a summary.

It is registered by the installed package, and imports nothing heavy: torch comes with the first comparison.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from parity.errors import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.report import Report


@dataclass(frozen=True)
class _Setting:
    """One setting, on the command line as `flag` and in the ini file as `ini`."""

    flag: str
    ini: str
    default: str
    help: str


_SETTINGS = (
    _Setting("--parity-candidate", "parity_candidate", "", "the model under test, module:callable or file.py:callable"),
    _Setting(
        "--parity-reference",
        "parity_reference",
        "",
        "the torchvision ViT to compare with (default: vit_b_16; the suite: all five)",
    ),
    _Setting("--parity-weights", "parity_weights", "synthetic", "weights of the comparisons, as for `parity check`"),
    _Setting("--parity-seed", "parity_seed", "0", "seed of synthetic weights and random images"),
    _Setting("--parity-batch", "parity_batch", "3", "images in a batch"),
    _Setting("--parity-dtype", "parity_dtype", "float32", "dtype under test beside float64"),
    _Setting("--parity-require", "parity_require", "equivalent", "equivalent, or identical: the same bits as well"),
)
_NUMBERS = ("parity_seed", "parity_batch")
_FOLLOW = "the candidate's own sizes are meant: compare with torchvision's ViT of these sizes"

_MARKER = (
    "parity(candidate=None, reference=None, **options): what the fixture assert_parity compares where a call doesn't "
    "say it; the options are those of parity.check, and require"
)

# verdicts that pass a test, by what is required
_ACCEPTED = {"equivalent": ("identical", "equivalent"), "identical": ("identical",)}

# from good to bad, in the order in which the summary lists them; `error` is a comparison that could not be made
_VERDICTS = ("identical", "equivalent", "divergent", "inconclusive", "error")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds every setting as an option and as an ini value."""
    group = parser.getgroup("parity", "numerical parity with a reference model")
    for setting in _SETTINGS:
        group.addoption(setting.flag, dest=setting.ini, default=None, help=setting.help)
        parser.addini(setting.ini, setting.help, default=setting.default)
    group.addoption("--parity-follow", dest="parity_follow", action="store_true", default=None, help=_FOLLOW)
    parser.addini("parity_follow", _FOLLOW, type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker and, if it was asked for, the profile known before Hypothesis looks for it."""
    config.addinivalue_line("markers", _MARKER)
    for name in _NUMBERS:
        if not setting(config, name).isdecimal():
            raise pytest.UsageError(f"{name} = {setting(config, name)}: expected a whole number")
    if setting(config, "parity_require") not in _ACCEPTED:
        raise pytest.UsageError(
            f"parity_require = {setting(config, 'parity_require')}: expected {' or '.join(_ACCEPTED)}"
        )
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
def assert_parity(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[..., Report]:
    """A function that fails the test, with the whole report, unless a candidate is the reference.

    `assert_parity(candidate=None, reference=None, require=None, **options)`; what a call doesn't say comes from the
    marker `parity` (the closest one wins), then from the command line, the ini file, and the default. Every comparison
    is noted in the test's properties, which the summary and JUnit XML show.
    """
    marked = _marked(request.node)

    def run(candidate: Any = None, reference: Any = None, **options: Any) -> Report:
        __tracebackhide__ = True  # what failed is the line that has called it
        from parity.checking import check  # noqa: PLC0415  (torch takes seconds to import)

        given = {"candidate": candidate, "reference": reference}
        options = marked | {key: value for key, value in given.items() if value is not None} | options
        options = _defaults(request.config, options) | options
        if "candidate" not in options:
            where = "a call's first argument, the marker parity, --parity-candidate or parity_candidate in the ini file"
            raise pytest.UsageError(f"assert_parity has no candidate; name it in {where}")
        require = options.pop("require")
        if require not in _ACCEPTED:
            raise pytest.UsageError(f"require={require!r}: expected {' or '.join(map(repr, _ACCEPTED))}")
        names = [_name(options[key]) for key in ("candidate", "reference")]
        try:
            report = check(**options)
        except Exception as error:
            _record(record_property, *names, require, "error", described(error))
            raise
        _record(record_property, *names, require, report.verdict, next(iter(report.reasons), ""))
        if report.verdict not in _ACCEPTED[require]:
            raise AssertionError(f"{report}")
        return report

    return run


def _marked(node: pytest.Item) -> dict[str, Any]:
    """Returns what the test's markers say; of two, the one that is closer to the test."""
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("parity"))):
        if marker.args:
            raise pytest.UsageError(f"{node.nodeid}: the marker parity takes keywords only, such as candidate=...")
        options |= marker.kwargs
    return options


def _defaults(config: pytest.Config, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that command line and ini file say, as far as they fit the reference of these options."""
    options: dict[str, Any] = {
        key: int(value) if f"parity_{key}" in _NUMBERS else value
        for key in ("candidate", "reference", "seed", "batch", "dtype", "require")
        if (value := setting(config, f"parity_{key}"))
    }
    reference = given.get("reference", options.get("reference", "vit_b_16"))
    by_name = isinstance(reference, str)
    weights = {"weights": setting(config, "parity_weights")} if by_name else {}
    follow = by_name and ":" not in reference and setting(config, "parity_follow") == "True"  # torchvision's alone
    return {"reference": reference, "follow": follow} | options | weights


def _name(model: Any) -> str:
    return model if isinstance(model, str) else getattr(model, "__qualname__", type(model).__name__)


_PROPERTIES = ("parity.candidate", "parity.reference", "parity.require", "parity.verdict", "parity.reason")


def _record(record_property: Callable[[str, object], None], *values: str) -> None:
    """Notes one comparison in the test's properties, under `_PROPERTIES`."""
    for name, value in zip(_PROPERTIES, values, strict=True):
        record_property(name, value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Lists the verdicts of every candidate that was compared, and where one was not passed."""
    verdicts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    failures: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in _reports(terminalreporter):
        for candidate, reference, require, verdict, reason in _recorded(report):
            verdicts[candidate, reference][verdict] += 1
            if report.failed and verdict not in _ACCEPTED[require]:
                failures[candidate, reference].append(f"{verdict} in {report.nodeid}: {reason}")
    if not verdicts:
        return
    terminalreporter.section("parity")
    for (candidate, reference), counts in verdicts.items():
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _VERDICTS if counts[verdict])
        terminalreporter.line(f"{candidate} and {reference}: {said}")
        for failure in failures[candidate, reference]:
            terminalreporter.line(f"  {failure.splitlines()[0]}")


def _reports(terminalreporter: Any) -> Iterator[pytest.TestReport]:
    """Yields one report of every test: that of its call, or of the setup that failed before it."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and (
                report.when == "call" or (report.when == "setup" and report.failed)
            ):
                yield report


def _recorded(report: pytest.TestReport) -> Iterator[tuple[str, ...]]:
    """Yields the comparisons that were noted in a test's properties, as `_record` has written them."""
    values = [str(value) for name, value in report.user_properties if name in _PROPERTIES]
    return zip(*[iter(values)] * len(_PROPERTIES), strict=False)
