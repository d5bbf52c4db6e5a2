"""The installed pytest plugin, run by pytest in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from parity.suite.conftest import SMALL

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

TEST = f"""
import vit

SMALL = {SMALL!r}

def broken(**sizes):
    model = vit.ViT(img_size=48, patch_size=16, embed_dim=64, hidden_dim=96, num_heads=4, num_layers=3, num_classes=10)
    model.ln.eps = 1e-5
    return model

def test_port(assert_parity):
    report = assert_parity("vit:ViT", overrides=SMALL, require="identical", modes=["eval"])
    print("weights", report.reference["weights"], "of", report.reference["name"])

def test_bug(assert_parity):
    assert_parity(broken, overrides=SMALL, modes=["eval"])
"""


def test_fixture_passes_and_fails_with_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest("-s", "--parity-seed=4")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*weights synthetic:4 of vit_b_16*", "*it begins in encoder.ln*"])


def test_settings_can_stand_in_the_ini_file_and_the_option_wins(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\nparity_seed = 5\nparity_reference = vit_b_32\n")
    assert "weights synthetic:5 of vit_b_32" in pytester.runpytest("-s", "-k", "port").stdout.str()
    output = pytester.runpytest("-s", "-k", "port", "--parity-seed=6", "--parity-reference=vit_b_16").stdout.str()
    assert "weights synthetic:6 of vit_b_16" in output


def test_options_are_explained(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--help")
    names = ("candidate", "reference", "weights", "seed", "batch", "dtype", "require")
    for name in names:
        result.stdout.fnmatch_lines([f"*--parity-{name}=*"])
        result.stdout.fnmatch_lines([f"*parity_{name} (string):*"])
    assert "@pytest.mark.parity(" in pytester.runpytest("--markers").stdout.str()


def test_thorough_profile_is_known_from_anywhere(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--pyargs", "parity.suite.test_fuzz", "--hypothesis-profile=thorough", "--co", "-q"
    )
    result.stdout.fnmatch_lines(["*test_any_configuration_is_identical*"])


OTHER_OPTIONS = """
def pytest_addoption(parser):
    parser.addoption("--candidate", default="ours")
    parser.addoption("--reference", default="ours")
    parser.addini("candidate", "a candidate", default="ini")
"""


def test_project_has_options_of_the_same_short_names(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OTHER_OPTIONS)
    pytester.makepyfile("def test_it(request):\n    assert request.config.getoption('--candidate') == 'theirs'\n")
    pytester.runpytest_subprocess("--candidate=theirs", "--parity-candidate=vit:ViT").assert_outcomes(passed=1)


def test_short_names_are_the_repositorys_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n")
    assert "unrecognized arguments: --candidate=vit:ViT" in pytester.runpytest("--candidate=vit:ViT").stderr.str()
    result = pytester.runpytest_subprocess(
        f"--rootdir={ROOT}", f"{ROOT}/parity/suite/test_weight_map.py", "--candidate=nowhere:ViT",
        "--reference=vit_b_32", "-x", "-n0", "-p", "no:cacheprovider",
    )  # fmt: skip
    output = result.stdout.str()
    assert "there is no module nowhere" in output
    assert "[vit_b_32-224]" in output


def test_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_light():\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_suite_runs_on_another_candidate(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine="import vit\nclass Mine(vit.ViT):\n    pass\n")
    result = pytester.runpytest_subprocess(
        "--pyargs",
        "parity.suite.test_weight_map",
        "--parity-candidate=mine.py:Mine",
        "--parity-reference=vit_b_16",
        "-q",
    )
    result.assert_outcomes(passed=8)


MARKED = f"""
import pytest, vit

SMALL = {SMALL!r}

def broken():
    model = vit.ViT(48, 3, 16, 64, 96, 4, 3, num_classes=10)
    model.ln.eps = 1e-5
    return model

pytestmark = pytest.mark.parity(candidate="vit:ViT", overrides=SMALL, modes=["eval"], require="identical")

def test_module_mark(assert_parity):
    report = assert_parity()
    assert report.candidate["name"] == "vit:ViT"
    assert [check.name for check in report.checks] == ["forward/eval/float64", "forward/eval/float32"]
    assert report.reference["config"]["image_size"] == 48

@pytest.mark.parity(candidate=broken, seed=7)
def test_closer_mark_wins(assert_parity):
    with pytest.raises(AssertionError, match="it begins in encoder.ln"):
        assert_parity()

@pytest.mark.parity(candidate=broken, reference="vit_b_32")
def test_call_wins(assert_parity):
    report = assert_parity("vit:ViT", seed=8, dtype="float64")
    assert report.reference["name"] == "vit_b_32"
    assert report.reference["weights"] == "synthetic:8"
    assert len(report.checks) == 1
"""


def test_marker_gives_defaults_to_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKED)
    pytester.runpytest("--strict-markers", "--parity-candidate=nowhere:ViT").assert_outcomes(passed=3)


def test_fixture_takes_candidate_and_requirement_from_the_settings(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"def test_it(assert_parity):\n    assert_parity(overrides={SMALL!r}, modes=['eval'])\n")
    pytester.makepyfile(mine="import vit\ndef build():\n    return vit.ViT(48, 3, 16, 64, 96, 4, 3, num_classes=10)\n")
    pytester.makeini("[pytest]\nparity_candidate = mine.py:build\nparity_batch = 2\nparity_dtype = bfloat16\n")
    result = pytester.runpytest("--parity-require=identical")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["mine.py:build and vit_b_16: 1 identical"])
    assert "no file nowhere.py" in pytester.runpytest("--parity-candidate=nowhere.py:ViT").stdout.str()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            [],
            "assert_parity()",
            "assert_parity has no candidate; name it in a call's first argument, the marker parity",
        ),
        ([], "assert_parity('vit:ViT', require='same')", "require='same': expected 'equivalent' or 'identical'"),
        (["--parity-seed=one"], "pass", "parity_seed = one: expected a whole number"),
        (["--parity-batch=-1"], "pass", "parity_batch = -1: expected a whole number"),
        (["--parity-require=same"], "pass", "parity_require = same: expected equivalent or identical"),
    ],
)
def test_wrong_usage_is_told(pytester: pytest.Pytester, arguments: list[str], code: str, message: str) -> None:
    pytester.makepyfile(f"def test_it(assert_parity):\n    {code}\n")
    result = pytester.runpytest(*arguments)
    assert result.ret != 0
    assert message in result.stdout.str() + result.stderr.str()


def test_marker_takes_keywords_only(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.parity('vit:ViT')\ndef test_it(assert_parity):\n    pass\n")
    assert "the marker parity takes keywords only" in pytester.runpytest().stdout.str()


SEVERAL = (
    TEST
    + """
import pytest

def test_expected(assert_parity):
    with pytest.raises(AssertionError):
        assert_parity(broken, overrides=SMALL, modes=["eval"])

def test_nowhere(assert_parity):
    assert_parity("nowhere:ViT")
"""
)


@pytest.mark.parametrize("arguments", [[], ["-n1"]], ids=["alone", "xdist"])
def test_summary_and_junit_name_every_candidate_that_was_compared(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    if arguments:
        pytest.importorskip("xdist")
    pytester.makepyfile(test_several=SEVERAL)
    result = pytester.runpytest_subprocess(*arguments, "--junitxml=junit.xml")
    result.assert_outcomes(passed=2, failed=2)
    lines = result.outlines
    section = lines[next(i for i, line in enumerate(lines) if line.strip("= ") == "parity") :]
    assert "vit:ViT and vit_b_16: 1 identical" in section
    assert "broken and vit_b_16: 2 divergent" in section
    assert "nowhere:ViT and vit_b_16: 1 error" in section
    begins = "  divergent in test_several.py::test_bug: it begins in encoder.ln"
    assert sum(line.startswith(begins) for line in section) == 1
    assert not any("test_expected" in line for line in section)
    assert any(line.startswith("  error in test_several.py::test_nowhere: ParityError: ") for line in section)

    cases = {case.get("name"): case for case in ET.parse(pytester.path / "junit.xml").iter("testcase")}  # noqa: S314
    properties = [(p.get("name"), p.get("value")) for p in cases["test_bug"].iter("property")]
    assert properties[:4] == [
        ("parity.candidate", "broken"),
        ("parity.reference", "vit_b_16"),
        ("parity.require", "equivalent"),
        ("parity.verdict", "divergent"),
    ]
    assert properties[4][0] == "parity.reason"


def test_run_without_comparisons_has_no_summary(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n")
    assert not any(line.strip("= ") == "parity" for line in pytester.runpytest().outlines)


@pytest.mark.full_size
def test_suite_runs_under_xdist(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = pytester.runpytest_subprocess(
        "--pyargs", "parity.suite.test_weight_map", "--parity-reference=vit_b_16", "-n2"
    )
    result.assert_outcomes(passed=8)
