"""The command line's words: commands, options, and what is said of those that are none."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import math
import re
import sys
from typing import TYPE_CHECKING, NoReturn

from parity import matrix, saved_reports
from parity.streams import say, show
from parity.supervising import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence


# what takes one setting, and is given again for the next
_REPEATED = ("--set", "--candidate-arg", "--reference-arg")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence, with the closest word that it knows.

    Attributes:
        given: the command line.
    """

    given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Says it, and exits with 2."""
        unknown = re.search(r"(?:unrecognized arguments: |invalid choice: ')([^\s'=]+)", message)
        choices = re.findall(r"[\w-]+", message.partition("choose from")[2])
        close: list[str] = []
        if unknown:
            close = (
                self._joined(unknown[1])
                or self._repeated(unknown[1])
                or difflib.get_close_matches(unknown[1], choices or self._known(), n=1)
            )
        hint = f"did you mean {close[0]}?" if close else f"{self.prog} --help lists what there is"
        say(f"{message}; {hint}")
        self.exit(FAILED)

    def _joined(self, name: str) -> list[str]:
        """Returns a file and the name in it as one word, if they were given as two."""
        pairs = itertools.pairwise(self.given)
        return [f"{file}:{after}" for file, after in pairs if after == name and file.endswith((".py", ".ipynb"))]

    def _repeated(self, name: str) -> list[str]:
        """Returns a setting with its option, if several were given behind one that takes one at a time."""
        option = ""
        for word in self.given:
            option = word.partition("=")[0] if word.startswith("-") else option
            if option in _REPEATED and word.startswith(f"{name}="):
                return [f"{option} {word}"]
        return []

    def _known(self) -> list[str]:
        """Returns the names of all options, and those of its commands."""
        names = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                names += [*action.choices, *(name for one in action.choices.values() for name in one._known())]  # noqa: SLF001
        return names


class _Version(argparse.Action):
    """Shows the versions of what decides about a result."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  (keeps --help quick)

        found = []
        for package in ("vit-parity", "torch", "torchvision"):
            with contextlib.suppress(PackageNotFoundError):
                found.append(f"{package} {version(package)}")
        show(f"{', '.join(found)}\n")
        parser.exit()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options; one that is given without a value is wrong usage."""
    parser = command_line()
    parser.given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    for key, value in vars(options).items():
        if value == "":
            flag = "CANDIDATE" if key == "candidate" else key.upper() if key in ("first", "second") else f"--{key}"
            say(f"{flag.replace('_', '-')} is empty: give it a value, or leave it out")
            parser.exit(FAILED)
    return options


def command_line() -> _Parser:
    """Returns what reads the command line."""
    parser = _Parser(
        prog="parity", description="Proves that a hand-written ViT is numerically the same model as torchvision's."
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the versions of parity, torch and torchvision"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="compare a candidate with a reference, layer by layer",
        description="Compares CANDIDATE with a torchvision ViT, layer by layer, in float64 and float32, ends with a "
        "verdict. Exit status: 0 identical or equivalent, 1 divergent, 2 wrong usage or input, 3 inconclusive.",
    )
    check.set_defaults(command="check")
    add = check.add_argument
    # fmt: off
    _add_models(check)
    add("--weights", default="synthetic", metavar="WEIGHTS", help=f"synthetic (default), {_WEIGHTS}")
    _add_own_weights(check)
    add("--input", default="random", metavar="INPUT", help="random (default), or a picture or folder of pictures")
    add("--batch", type=int, default=3, metavar="N", help="images in the batch (default: 3)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, random images and dropout (default: 0)")
    add("--dtype", default="float32", metavar="DTYPE",
        help="dtype under test beside float64: float32 (default), bfloat16, float16")
    add("--device", default="cpu", metavar="DEVICE", help="where to run (default: cpu); meta: compare only shapes")
    add("--modes", metavar="LIST", help="only these of eval,eval-no-fastpath,eval-grad,train (default: all)")
    add("--phases", default="forward", metavar="LIST",
        help="some of forward,backward,training,conditions (default: forward)")
    add("--steps", type=int, default=20, metavar="N", help="steps of the trajectories of training (default: 20)")
    add("--follow", action="store_true",
        help="the candidate's own sizes are meant: compare with torchvision's ViT of these sizes")
    add("--require", choices=("equivalent", "identical"), default="equivalent",
        help="identical: exit with 1 also when the candidate is only equivalent")
    add("--json", metavar="PATH", help="write the report as JSON; - for stdout, and nothing else there")
    saved_reports.add_files(check)
    add("-v", "--all-layers", action="store_true", help="show every layer and check, not only those that matter")
    add("--quiet", action="store_true", help="print the verdict only, and no progress")
    # fmt: on
    show_map = commands.add_parser(
        "map",
        help="show or write the weight map of a candidate",
        description="Finds which tensor of a torchvision ViT is which tensor of CANDIDATE, and prints the map as TOML.",
    )
    show_map.set_defaults(command="map", quiet=False)
    _add_models(show_map)
    show_map.add_argument("-o", "--output", metavar="FILE", help="write the map to this file, for --mapping")
    show_map.add_argument("--weights", default="synthetic", metavar="WEIGHTS", help=f"of the reference: {_WEIGHTS}")
    _add_own_weights(show_map)
    show_map.add_argument("--check-weights", action="store_true",
                          help="compare the candidate's own weights with the reference's under this map")  # fmt: skip
    convert = commands.add_parser(
        "convert",
        help="move real weights into the candidate's own state dict, or back",
        description="Proves the weight map, and writes torchvision's weights under the names of CANDIDATE, as "
        "safetensors; or, with --reverse, the candidate's under torchvision's.",
    )
    convert.set_defaults(command="convert", quiet=False)
    _add_models(convert)
    convert.add_argument(
        "--weights", required=True, metavar="WEIGHTS", help=f"{_WEIGHTS}; with --reverse a file of the candidate's own"
    )
    convert.add_argument("-o", "--output", required=True, metavar="OUT.safetensors", help="the file to write")
    convert.add_argument("--reverse", action="store_true", help="from the candidate's names to torchvision's")
    convert.add_argument("--force", action="store_true", help="convert although the map is not proved")
    diff = commands.add_parser(
        "diff",
        help="compare two checkpoints of one architecture, tensor by tensor",
        description="Compares two checkpoints of one architecture: which tensors differ, how, and what it does to the "
        "logits. A and B are files (PATH or PATH#KEY), or package.module:callable or file.py:callable that returns a "
        "model with its weights. Exit status: 0 the same weights, 1 others, 2 wrong usage or input.",
    )
    diff.set_defaults(command="diff", quiet=False)
    add = diff.add_argument
    # fmt: off
    add("first", metavar="A", help="the one that is taken as right")
    add("second", metavar="B", help="the other")
    add("--model", metavar="CANDIDATE", help="what builds the model, where the files' names are not torchvision's")
    add("--model-arg", action="append", default=[], metavar="KEY=VALUE", help="an argument for it; may be repeated")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="what the files of a torchvision ViT don't show, such as num_heads=4; may be repeated")
    add("--json", metavar="PATH", help="write the answer as JSON; - for stdout, and nothing else there")
    # fmt: on
    for command in (
        check,
        show_map,
        convert,
        diff,
        *saved_reports.add_commands(commands),
        matrix.add_command(commands),
    ):
        command.add_argument("--traceback", action="store_true", help="show the traceback of an error")
        command.add_argument(
            "--timeout", type=_positive, metavar="SECONDS", help="end it after that long, with status 2"
        )
        command.add_argument(
            "--memory", type=_positive, metavar="GB", help="let it have that much memory, 1e9 bytes each"
        )
    return parser


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")


_WEIGHTS = (
    "official, a member of torchvision's weights enum, own (those that another reference has when it is built), or a "
    "file: .pth, .safetensors, PATH#KEY"
)


def _add_models(command: argparse.ArgumentParser) -> None:
    """Adds the options that say what is compared with what."""
    add = command.add_argument
    # fmt: off
    add("candidate", nargs="?", default="vit:ViT", metavar="CANDIDATE",
        help="package.module:callable or path/to/file.py:callable that returns an nn.Module (default: vit:ViT)")
    add("--reference", default="vit_b_16", metavar="NAME",
        help="a ViT of torchvision's (default: vit_b_16), timm:NAME, transformers:CLASS, package.module:callable or "
        "path/to/file.py:callable")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change the configuration of a torchvision reference, such as image_size=384; may be repeated")
    add("--reference-arg", action="append", default=[], metavar="KEY=VALUE", dest="reference_args",
        help="an argument for a reference that is not torchvision's, such as img_size=384; may be repeated")
    add("--candidate-arg", action="append", default=[], metavar="KEY=VALUE", dest="candidate_args",
        help="an argument for the candidate that cannot be guessed (KEY.FIELD=VALUE in a config); may be repeated")
    add("--mapping", metavar="FILE", help="a written weight map (TOML)")
    # fmt: on


def _add_own_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument("--candidate-weights", metavar="PATH[#KEY]",
                         help="the candidate's own weights, in its own names: are they the reference's?")  # fmt: skip
