"""The installed pytest plugin, run by pytest in a folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.conftest import SMALL

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

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
    output = pytester.runpytest("-s", "-k", "port", "--parity-seed=6", "--reference=vit_b_16").stdout.str()
    assert "weights synthetic:6 of vit_b_16" in output


def test_options_are_explained(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--help")
    result.stdout.fnmatch_lines(["*--candidate=*", "*--reference=*", "*--parity-weights=*", "*--parity-seed=*"])
    result.stdout.fnmatch_lines(["*parity_candidate (string):*"])


def test_thorough_profile_is_known_from_anywhere(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--pyargs", "parity.test_fuzz", "--hypothesis-profile=thorough", "--co", "-q"
    )
    result.stdout.fnmatch_lines(["*test_any_configuration_is_identical*"])


def test_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_light():\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_suite_runs_on_another_candidate(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine="import vit\nclass Mine(vit.ViT):\n    pass\n")
    result = pytester.runpytest_subprocess(
        "--pyargs", "parity.test_weight_map", "--candidate", "mine.py:Mine", "--reference", "vit_b_16", "-q"
    )
    result.assert_outcomes(passed=8)
