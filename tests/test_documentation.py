"""What README and the pages say can be done: links lead somewhere, commands have the options, code compiles."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import shlex
from pathlib import Path

import pytest

from parity.command_line import parsed
from tests.corpus import catalogue

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)

_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """Returns the blocks of a language that a page shows."""
    found = re.findall(rf"^( *)```{language}\n(.+?)\n\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def _commands() -> list[str]:
    """Returns every line of a shell that the pages show, and every `command` in their text."""
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    texts = [re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL) for page in PAGES]
    spans = [span for text in texts for span in re.findall(r"`([^`]+)`", text)]
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line)]
    return [*dict.fromkeys([*parts, *(" ".join(span.split()) for span in spans)])]


def commands_of(start: str) -> list[str]:
    """Returns every command that the pages show and that begins with this word."""
    return [command for command in _commands() if command.startswith(f"{start} ") and "..." not in command]


@_each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            assert (page.parent / file).exists(), target
            assert not anchor, f"{target}: headings change, files are enough"


@pytest.mark.parametrize("command", [c for c in commands_of("parity") if "." in c or ":" in c])
def test_commands_have_these_options(command: str) -> None:
    assert parsed(shlex.split(command, comments=True)[1:]).command


@pytest.mark.parametrize("command", commands_of("python -m"))
def test_modules_that_are_run_exist(command: str) -> None:
    assert importlib.util.find_spec(shlex.split(command, comments=True)[2])


@pytest.mark.parametrize("command", commands_of("pytest"))
def test_files_that_are_tested_exist(command: str) -> None:
    for word in shlex.split(command, comments=True)[1:]:
        if word.startswith(("tests", "benchmarks")) and "FILE" not in word:
            assert (ROOT / word.partition("::")[0]).exists()


@pytest.mark.parametrize(
    "command", [*(c for c in commands_of("pip install") if "--group" in c), *commands_of("tox -e")]
)
def test_groups_and_environments_that_are_asked_for_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    known = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]\n")[2].partition("\n\n")[0]
    for option, name in itertools.pairwise(words):
        if option == "--group":
            assert f"\n{name} = [" in f"\n{known}"
        if option == "-e" and words[0] == "tox":
            assert re.search(
                rf"^(\[testenv:{name}\]|    {name}: torch==.*)$", (ROOT / "tox.ini").read_text(), re.MULTILINE
            )


def test_every_page_has_its_place_on_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f" {page.name}\n" not in site] == []


def test_catalogue_of_causes_is_that_of_today() -> None:
    assert (ROOT / "docs" / "catalogue.md").read_text() == catalogue.page(), "python -m tests.corpus.catalogue"


def test_sentences_of_the_catalogue_say_things_as_things_and_manners_as_manners() -> None:
    said = re.findall(r"^> .*; (.*)$", catalogue.page(), re.MULTILINE)
    assert {"in the reference over the keys", "the reference has one"} <= {*said}
    lame = re.compile(r"the reference has (as|at|by|before|after|in|over|on|under|with|\w+ed)\b")
    assert [sentence for sentence in said if lame.match(sentence)] == []


@_each_page
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)
