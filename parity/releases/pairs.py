"""The releases of torch that are supported, each with the torchvision that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from parity.errors import ParityError

# the oldest Python that this project runs on, of which every pair has a build
OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Pair:
    """A release of torch.

    Attributes:
        torch: its version.
        torchvision: the version of torchvision that was built against it.
        newest_python: the newest Python that both have builds for.
        needs: requirements besides.
    """

    torch: str
    torchvision: str
    newest_python: tuple[int, int]
    needs: tuple[str, ...] = ()

    @property
    def release(self) -> tuple[int, ...]:
        """Its number without the last part, to be sorted by."""
        return tuple(map(int, self.torch.split(".")[:2]))

    @property
    def minor(self) -> str:
        """Its number without the last part, as text."""
        return self.torch.rpartition(".")[0]


_NUMPY_1 = ("numpy<2",)  # against which these were built

PAIRS = (
    Pair("2.0.1", "0.15.2", (3, 11), _NUMPY_1),
    Pair("2.1.2", "0.16.2", (3, 11), _NUMPY_1),
    Pair("2.2.2", "0.17.2", (3, 12), _NUMPY_1),
    Pair("2.3.1", "0.18.1", (3, 12)),
    Pair("2.4.1", "0.19.1", (3, 12)),
    Pair("2.5.1", "0.20.1", (3, 12)),
    Pair("2.6.0", "0.21.0", (3, 13)),
    Pair("2.7.1", "0.22.1", (3, 13)),
    Pair("2.8.0", "0.23.0", (3, 13)),
    Pair("2.9.1", "0.24.1", (3, 14)),
    Pair("2.10.0", "0.25.0", (3, 14)),
    Pair("2.11.0", "0.26.0", (3, 14)),
    Pair("2.12.1", "0.27.1", (3, 14)),
    Pair("2.13.0", "0.28.0", (3, 14)),
    Pair("2.14.1", "0.29.1", (3, 14)),
)


def picked(names: str) -> list[Pair]:
    """Returns the pairs of a list such as `2.4,2.8,2.14`, in the order of their releases.

    Raises:
        ParityError: one of them is unknown.
    """
    known = {name: pair for pair in PAIRS for name in (pair.torch, pair.minor)}
    wanted = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in known:
            there = ", ".join(pair.minor for pair in PAIRS)
            raise ParityError(f"--torch {name}: expected some of {there}")
        wanted[known[name].torch] = known[name]
    if not wanted:
        raise ParityError(f"--torch {names}: it names no release")
    return sorted(wanted.values(), key=lambda pair: pair.release)


def newest(number: int) -> list[Pair]:
    """Returns so many of the newest pairs."""
    return [*PAIRS[-number:]]
