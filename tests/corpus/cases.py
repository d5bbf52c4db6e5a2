"""Cases: every bug in every host that can have it, in all blocks and in single ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.corpus.bugs import BUGS
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.corpus.bug import Bug
    from tests.corpus.hosts import Host

# Few parameters, and no two sizes alike: 26 tokens of width 40, in 4 heads of 10.
SIZES = {
    "image_size": 30, "patch_size": 6, "num_layers": 3, "num_heads": 4, "hidden_dim": 40, "mlp_dim": 56,
    "num_classes": 11,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A bug, planted in a host.

    Attributes:
        bug: what is planted.
        host: where.
        block: the only block that has it, or None for all of them.
    """

    bug: Bug
    host: Host
    block: int | None = None

    @property
    def id(self) -> str:
        """How tests and tables name it."""
        block = "" if self.block is None else f"-block-{self.block}"
        return f"{self.bug.id}-{self.host.name}{block}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the reference."""
        return {**SIZES, **self.bug.settings}

    @property
    def mapping(self) -> Path | None:
        """The host's written weight map; None where one is shipped, or has to be found since the tensors are others."""
        return self.host.mapping if self.bug.fits_the_map else None

    @property
    def expected(self) -> tuple[str, ...]:
        """The ids of its causes; `a|b` where either is right."""
        return self.bug.causes

    @property
    def first_places(self) -> set[str]:
        """Names of the reference's modules where the first difference may lie."""
        return {name.replace("{i}", str(self.block or 0)) for name in self.bug.place}

    @property
    def places(self) -> set[str]:
        """Names of the reference's modules where any difference may lie."""
        blocks = range(SIZES["num_layers"]) if self.block is None else [self.block]
        return {name.replace("{i}", str(block)) for name in (*self.bug.place, *self.bug.also) for block in blocks}

    def write(self, folder: Path) -> str:
        """Writes the planted model to `folder` and returns it as a candidate's name."""
        edits = [self.bug.edits_in(self.host, self.block)]
        if self.block is None:
            return write(folder, self.host, edits)
        return write(folder, self.host, in_blocks={self.block: edits})


def case_of(bug_id: str, host: str = "ours", block: int | None = None) -> Case:
    """Returns the case of one bug in one host, in all blocks or in one."""
    return Case(next(bug for bug in BUGS if bug.id == bug_id), HOSTS[host], block)


def cases() -> Iterator[Case]:
    """Yields every bug in all of its hosts, and where it fits one block, in one block of one of them as well.

    Hosts and blocks of the latter take turns.
    """
    turns = itertools.cycle(itertools.product(range(len(HOSTS)), range(SIZES["num_layers"])))
    for bug in BUGS:
        for name in bug.hosts:
            yield Case(bug, HOSTS[name])
        if bug.fits_one_block:
            host, block = next(turns)
            yield Case(bug, HOSTS[bug.hosts[host % len(bug.hosts)]], block)
