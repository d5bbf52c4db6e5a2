"""How much memory there is: what cannot fit is refused by what it would need, before it is tried."""

from __future__ import annotations

import math
import os

from parity.errors import ParityError


def require_room(what: str, size: int) -> None:
    """Raises ParityError if so many bytes are more than this process may have, or the machine has.

    Args:
        what: needs them, as a sentence begins.
        size: in bytes.
    """
    room = _room()
    if size > room:
        raise ParityError(f"{what} would need {size / 1e9:,.0f} GB of memory, and there are {room / 1e9:,.0f} GB")


def _room() -> float:
    try:
        import resource  # noqa: PLC0415  (not everywhere)

        limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, AttributeError, ValueError, OSError):
        return math.inf
    return min(machine, *(limit for limit in limits if limit != resource.RLIM_INFINITY), math.inf)
