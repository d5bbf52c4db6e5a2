"""Planting: changes to the source of a host, in all of its blocks or in one, written to a file as a candidate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.corpus.hosts import HOSTS, IN_BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.corpus.hosts import Host

    Edits = Mapping[str, str]


class OverlapError(ValueError):
    """Two changes to the same piece of a source."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change that can be planted.

    Attributes:
        id: a short phrase.
        edits: the new text of each part that changes, a format string over the part's words.
        per_host: edits of single hosts, instead of the general ones.
        hosts: the names of the hosts that can have it.
    """

    id: str
    edits: Edits = field(default_factory=dict)
    per_host: Mapping[str, Edits] = field(default_factory=dict)
    hosts: tuple[str, ...] = tuple(HOSTS)

    def edits_in(self, host: Host, block: int | None = None) -> Edits:
        """Returns the edits of one host; for one block, those of the block and of what stands beside it."""
        edits = self.per_host.get(host.name, self.edits)
        if block is None:
            return edits
        return {part: new for part, new in edits.items() if part == "top" or part.partition(".")[0] in IN_BLOCK}


def plant(host: Host, changes: Sequence[Edits]) -> str:
    """Returns the host's source with all changes in it.

    Raises:
        OverlapError: two of them change the same piece of the source.
    """
    source = host.source([part for edits in changes for part in edits])
    pieces = sorted(
        (host.parts[part].edit(source, new) for edits in changes for part, new in edits.items()),
        key=lambda piece: piece[:2],
    )
    for (_, end, _), (start, _, _) in itertools.pairwise(pieces):
        if start < end:
            raise OverlapError(source[start:end])
    for start, end, new in reversed(pieces):
        source = source[:start] + new + source[end:]
    return source


_SINGLE_BLOCKS = '''"""{model} with single blocks taken from changed copies of its source."""

import importlib.util
import inspect
from pathlib import Path


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.{model}


Plain = _load("{plain}")


class {model}(Plain):
    __signature__ = inspect.signature(Plain)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for block, name in {names}.items():
            self.{blocks}[block] = _load(name)(*args, **kwargs).{blocks}[block]
'''


def write(
    folder: Path,
    host: Host,
    everywhere: Sequence[Edits] = (),
    in_blocks: Mapping[int, Sequence[Edits]] | None = None,
    name: str = "planted",
) -> str:
    """Writes a changed host to `folder` and returns it as a candidate's name.

    Args:
        folder: is there already.
        host: what the changes are planted in.
        everywhere: changes to the whole model, all of its blocks included.
        in_blocks: by number of a block, changes to that one alone.
        name: of the file.

    Raises:
        OverlapError: two changes that go to one place change the same piece of the source.
    """
    sources = {name: plant(host, everywhere)}
    if in_blocks:
        names = {block: f"{name}_block_{block}" for block in in_blocks}
        sources = {names[block]: plant(host, [*everywhere, *changes]) for block, changes in in_blocks.items()}
        sources[f"{name}_plain"] = plant(host, everywhere)
        sources[name] = _SINGLE_BLOCKS.format(model=host.model, plain=f"{name}_plain", names=names, blocks=host.blocks)
    for stem, source in sources.items():
        (folder / f"{stem}.py").write_text(source, encoding="utf-8")
    return f"{folder / name}.py:{host.model}"
