"""The candidate: the implementation under test, found by its name and built with the reference's configuration."""

from __future__ import annotations

import copy
import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.errors import ParityError, described, listed
from parity.models.computed import computed_weights, store_computed
from parity.models.constructors.binding import Bound, bind
from parity.models.constructors.options import AS_GIVEN, AT_DEFAULT
from parity.models.importing import imported
from parity.models.state import renamed, without_initial_values
from parity.models.wrappers import plain
from parity.values import written_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


# what torch says where it is asked for a GPU that is not there
_NO_GPU = ("NVIDIA driver", "not compiled with CUDA", "No CUDA GPUs", "No HIP GPUs")


@dataclass(frozen=True)
class Candidate:
    """Something that builds the module under test, as often as it is needed.

    Attributes:
        name: how the report names it.
        arguments: what its constructor was given, by argument name; a config is shown as a dictionary.
        bound: every argument's value and why it was bound, by path.
        defaults: its constructor's arguments that were left alone.
        settings: the reference's settings that reached it.
        notes: what there is to say about what was built, a sentence each.
        limits: which of these make it another function than what is compared.
        hides_names: it takes its arguments by position only, and nobody knows what they are called.
        is_built: it was handed over as a module, with the weights that it has.
        computed: names of weights that it computes of other tensors as it is run, such as by weight normalisation.
    """

    name: str
    arguments: dict[str, Any]
    defaults: tuple[str, ...]
    settings: frozenset[str]
    _build: Callable[[], nn.Module]
    bound: dict[str, Bound] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list, compare=False)
    limits: list[str] = field(default_factory=list, compare=False)
    hides_names: bool = False
    is_built: bool = False
    computed: list[str] = field(default_factory=list, compare=False)

    def build(self) -> nn.Module:
        """Builds the module, on the device and in the dtype that are torch's defaults at the moment.

        Raises:
            ParityError: it raised, or returned something else than a module.
        """
        try:
            module = self._build()
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{key}={written_out(value)}" for key, value in self.arguments.items())
            advice = "give it other arguments with --candidate-arg NAME=VALUE"
            if isinstance(error, (AssertionError, ValueError)):  # it refuses what it was given
                advice += ", or the reference other sizes with --set NAME=VALUE"
            if any(words in described(error) for words in _NO_GPU):
                advice = "it asks for a GPU, and there is none here; leave its tensors where the images are"
            elif folder := _home_of_file(error):
                advice = f"run parity in {folder}, where there is one"
            elif self.hides_names:
                advice = "nobody knows what it calls its *args; write a function with named arguments that builds it"
            raise ParityError(
                f"the candidate {self.name}({given}) cannot be built: {described(error)}; {advice}"
                f"{_before_that(self.notes)}"
            ) from error
        if not isinstance(module, nn.Module):
            raise ParityError(f"the candidate {self.name} returned {type(module).__name__}, expected a torch.nn.Module")
        module, notes, limits = plain(module)
        self.notes.extend(note for note in (*notes, *limits) if note not in self.notes)
        self.limits.extend(limit for limit in limits if limit not in self.limits)
        scripted = [name for name, part in module.named_modules()
                    if isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.parameters())]  # fmt: skip
        if scripted:
            what = f"holds a TorchScript module ({scripted[0]})" if scripted[0] else "is a TorchScript module"
            raise ParityError(
                f"the candidate {self.name} {what}, whose inside nobody can watch; give the module that "
                "it was made from"
            )
        if any(map(nn.parameter.is_lazy, (*module.parameters(), *module.buffers()))):
            raise ParityError(f"the candidate {self.name} has lazy layers without shapes; run it once before the check")
        if others := renamed(module):
            name, other = next(iter(others.items()))
            raise ParityError(
                f"the state_dict() of the candidate {self.name} calls {name} {other}, by a hook or a method of its "
                "own, and a check knows one name of a tensor: check the model without it"
            )
        return self._stored(module)

    def _stored(self, module: nn.Module) -> nn.Module:
        """Makes computed weights plain ones; in a copy, if somebody else holds the module."""
        names = computed_weights(module)
        if not names:
            return module
        note = f"computed by the candidate as it is run: {listed(names)}; what is compared is what comes of it"
        if note not in self.notes:
            self.notes.append(note)
            self.computed.extend(names)
        module = copy.deepcopy(module) if self.is_built else module
        store_computed(module)
        return module


def _before_that(notes: Sequence[str]) -> str:
    """Returns how a file's own import has failed, of which a model may lack something, as the end of a sentence."""
    failed = [note for note in notes if " fails when " in note]
    return f"; before that, {failed[-1]}" if failed else ""


def _home_of_file(error: BaseException) -> Path | None:
    """Returns the folder of the candidate's project that has the file that its code misses in the working folder."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return None
    files = (Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((folder for file in files for folder in file.parents if (folder / error.filename).is_file()), None)


def resolve_candidate(
    candidate: str | nn.Module | Callable[..., Any],
    config: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> Candidate:
    """Finds the candidate and binds the reference's configuration to its constructor's arguments.

    Args:
        candidate: `package.module:callable`, `path/to/file.py:callable`, a class or function that returns a module, or
            a module, which is taken as it is.
        config: the reference's configuration.
        arguments: arguments that go to the constructor as they are, and win over the configuration.

    Raises:
        ParityError: it cannot be imported, or has an argument without a default that the configuration doesn't know.
    """
    arguments = dict(arguments or {})
    if isinstance(candidate, nn.Module):
        if arguments:
            raise ParityError(
                "--candidate-arg needs a class or function as candidate, not a module that is built already"
            )
        module = candidate
        return Candidate(type(module).__name__, {}, (), frozenset(), lambda: module, is_built=True)
    notes: list[str] = []
    if isinstance(candidate, str):
        name, function = candidate, imported(candidate, notes)
    else:
        name, function = getattr(candidate, "__qualname__", written_out(candidate)), candidate
    if isinstance(function, nn.Module):
        found = resolve_candidate(function, config, arguments)
        found.notes.extend(notes)
        return found
    if not callable(function):
        raise ParityError(f"the candidate {name} is a {type(function).__name__}, expected a class or function")
    try:
        bound = bind(name, function, config, arguments)
    except ParityError as error:
        raise ParityError(f"{error}{_before_that(notes)}") from error
    notes += bound.notes
    return Candidate(
        name, bound.arguments, bound.defaults, bound.settings, bound.make, bound.bound, notes,
        hides_names=bound.hides_names,
    )  # fmt: skip


def build_without_values(candidate: Candidate) -> nn.Module:
    """Builds the candidate on the meta device, where initial values cost nothing; for real where it refuses that."""
    try:
        with without_initial_values():
            return candidate.build()
    except ParityError:
        return candidate.build()


# how a size is said: what the candidate has, and the reference
_SAID = {
    "num_layers": ("{} blocks", "your model has {} blocks, the reference has {}"),
    "hidden_dim": ("width {}", "your model is {} wide, the reference is {}"),
    "mlp_dim": ("MLP width {}", "your model's MLP is {} wide, the reference's {}"),
    "num_heads": ("{} heads", "your model has {} heads, the reference has {}"),
    "patch_size": ("patches of {} pixels", "your model's patches are {} pixels wide, the reference's {}"),
    "image_size": ("images of {} pixels", "your model is for images of {} pixels, the reference for {}"),
    "num_classes": ("{} classes", "your model has {} classes, the reference has {}"),
}

# sizes that are causes like any other in a model that was given the reference's and doesn't heed it
_CAUSES = ("num_layers", "mlp_dim", "num_heads")


def in_words(sizes: Mapping[str, Any]) -> str:
    """Says sizes, by the reference's names, as a phrase."""
    return _counted(", ".join(said.format(sizes[setting]) for setting, (said, _) in _SAID.items() if setting in sizes))


def _counted(sentence: str) -> str:
    return re.sub(r"\b1 (block|head|class|pixel)e?s\b", r"1 \1", sentence)


def other_sizes(
    candidate: Candidate, theirs: Mapping[str, Any], wanted: Mapping[str, Any], *, can_be_set: bool
) -> list[str]:
    """Says which sizes of the candidate are not the reference's, and how that is mended, a sentence each.

    Args:
        candidate: what was built.
        theirs: its sizes, by the reference's names.
        wanted: the reference's.
        can_be_set: the reference is one of torchvision's by name, whose sizes `--set` changes.
    """
    return [
        f"{_counted(said.format(theirs[setting], wanted[setting]))}: "
        + _why_other(
            candidate, setting, theirs[setting], wanted[setting], f"--set {setting}={theirs[setting]}" * can_be_set
        )
        for setting, (_, said) in _SAID.items()
        if setting in theirs and setting in wanted and theirs[setting] != wanted[setting]
    ]


def is_cause(candidate: Candidate, setting: str, size: Any, usual: Any) -> bool:
    """Whether a size that is not the reference's is a cause like any other: an argument was to set it, and hasn't.

    More blocks than the reference has are none: there is nothing of it that would correspond to them.
    """
    found = _argument_for(candidate, setting)
    if setting == "num_layers" and size > usual:
        return False
    return setting in _CAUSES and found is not None and not _heeds(found[1], setting, size)


def _heeds(bound: Bound, setting: str, size: Any) -> bool:
    """Whether an argument may have set the candidate's size, and this size is not the reference's."""
    if bound.why not in (AT_DEFAULT, AS_GIVEN):
        return False
    return bound.settings != (setting,) or not isinstance(bound.value, int) or bound.value == size


def _argument_for(candidate: Candidate, setting: str) -> tuple[str, Bound] | None:
    """Returns the argument that sets a size, and what it was given."""
    return next((found for found in candidate.bound.items() if setting in found[1].settings), None)


def _why_other(candidate: Candidate, setting: str, size: Any, wanted: Any, to_set: str) -> str:
    """Says why a size is not the reference's, and what to do."""
    compared = to_set or "a reference of that size"
    found = _argument_for(candidate, setting)
    if found is None:
        why = "no argument of it is known to set that" if candidate.bound else "it takes no arguments"
        return f"{'it is built already' if candidate.is_built else why}; compare with {compared}"
    path, bound = found
    if not _heeds(bound, setting, size):
        left = "left at its default" if bound.why == AT_DEFAULT else "given as"
        return f"`{path}` was {left} {written_out(bound.value)}, and the model doesn't heed it; compare with {compared}"
    what = "was left at its default" if bound.why == AT_DEFAULT else f"was given as {written_out(bound.value)}"
    value = f"{path}={wanted}" if bound.settings == (setting,) else f"another {path}"
    return f"`{path}` {what}; give --candidate-arg {value} or {compared}"
