"""References that others build: what a package or a file has, and models of timm's and transformers' by their names."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.errors import ParityError
from parity.models.candidate import Candidate, build_without_values, resolve_candidate
from parity.models.importing import imported
from parity.models.state import lacks_values, sharing_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


def is_elsewhere(reference: str) -> bool:
    """Returns whether `reference` names something else than a model of torchvision's."""
    return ":" in reference


def resolve_elsewhere(reference: str, arguments: Mapping[str, Any] | None = None) -> Candidate:
    """Finds what builds a reference that is not torchvision's.

    Args:
        reference: `package.module:callable`, `path/to/file.py:callable`, `timm:NAME`, which `timm.create_model` builds,
            or `transformers:CLASS`, which is built from its `config_class`. Neither loads weights unless asked to.
        arguments: of the callable or of `create_model`, or values of the configuration.

    Raises:
        ParityError: it cannot be imported, there is no such model, or it takes no such argument.
    """
    arguments = dict(arguments or {})
    library, _, name = reference.partition(":")
    with _said_of_the_reference():
        if library in _LIBRARIES:
            build = _LIBRARIES[library](_library(reference), name, arguments)
            return Candidate(reference, arguments, (), frozenset(), build)
        found = imported(reference)
        if isinstance(found, nn.Module):  # the candidate may be the same, and one module cannot be run twice at a time
            found = sharing_copy(found)
        return dataclasses.replace(resolve_candidate(found, {}, arguments), name=reference)


def build_elsewhere(found: Candidate, *, with_values: bool) -> nn.Module:
    """Builds what `resolve_elsewhere` has found.

    Args:
        found: what builds it.
        with_values: of its parameters; its other tensors, which are part of its function, always have some.

    Raises:
        ParityError: it raised, or returned something else than a module.
    """
    with _said_of_the_reference():
        if with_values:
            return found.build()
        module = build_without_values(found)
        return found.build() if lacks_values(module, besides=dict(module.named_parameters())) else module


@contextlib.contextmanager
def _said_of_the_reference() -> Iterator[None]:
    """Has the messages about what a user names speak of the reference."""
    try:
        yield
    except ParityError as error:
        words = f"{error}"
        for theirs, ours in _OF_THE_CANDIDATE.items():
            words = words.replace(theirs, ours)
        raise ParityError(words) from error.__cause__


_OF_THE_CANDIDATE = {
    "the candidate": "the reference",
    "--candidate-arg": "--reference-arg",
    ", which no setting of the reference goes by": "",
}


def _library(reference: str) -> Any:
    name = reference.partition(":")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ParityError(
            f"{reference} needs {name}, which cannot be imported ({error}); pip install {name}"
        ) from error


def _of_timm(timm: Any, name: str, arguments: dict[str, Any]) -> Callable[[], nn.Module]:
    if not timm.is_model(name):
        raise ParityError(f"timm has no model {name!r}{_close(name, timm.list_models())}")
    return lambda: timm.create_model(name, **{"pretrained": False, **arguments})


def _of_transformers(transformers: Any, name: str, arguments: dict[str, Any]) -> Callable[[], nn.Module]:
    try:
        kind = getattr(transformers, name, None)
    except (ImportError, RuntimeError) as error:
        raise ParityError(f"transformers cannot import {name}: {error}") from error
    if kind is None:
        raise ParityError(f"transformers has no class {name!r}{_close(name, dir(transformers))}")
    settings = getattr(kind, "config_class", None)
    if settings is None:
        raise ParityError(
            f"{name} of transformers has no config_class that it is built from; name a model's class, such as "
            "ViTForImageClassification"
        )
    usual = None
    with contextlib.suppress(TypeError, ValueError):  # a configuration without defaults takes what it is given
        usual = settings()
    unknown = [key for key in arguments if usual is not None and not hasattr(usual, key)]
    if unknown:
        raise ParityError(f"{settings.__name__} has no setting {unknown[0]!r}{_close(unknown[0], vars(usual))}")
    return lambda: kind(settings(**arguments))


_LIBRARIES = {"timm": _of_timm, "transformers": _of_transformers}


def _close(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
