"""Fuzzing: whatever comes in, out comes a result or one sentence.

`FUZZ_INPUTS` says how many inputs every parser is given, by default as many as take a second; of candidates, whose
check takes longer, there is one for every forty. `FUZZ_INPUTS=200000 pytest tests/fuzz -n 0` takes hours.
`FUZZ_MOMENTS` says at how many moments a command is interrupted by each signal.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings

from parity import ParityError

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = int(os.environ.get("FUZZ_INPUTS", "200"))
MOMENTS = int(os.environ.get("FUZZ_MOMENTS", "1"))


def budget(each: int = 1) -> settings:
    """Returns the settings of a target that is given one for each so many inputs of a parser."""
    return settings(
        max_examples=max(INPUTS // each, 1),
        deadline=None,
        suppress_health_check=[*HealthCheck],
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Lets a ParityError pass whose words are one line that a terminal can show; whatever else is raised is a fault."""
    try:
        yield
    except ParityError as error:
        words = f"{error}"
        assert words.strip()
        assert "a bug in parity itself" not in words
        assert words.isprintable(), words
