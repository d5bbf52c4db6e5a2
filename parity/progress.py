"""What is being done, told to whoever waits for it, and how long it took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Progress:
    """Passes on what is being done and keeps the time of every step.

    Args:
        tell: told what is being done, how many points are done, and of how many (0: not known).

    Attributes:
        found: given what a step has found, such as a check, as soon as it is found.
        seconds: by step, in the order in which the steps were finished.
    """

    def __init__(self, tell: Callable[[str, int, int], None] = lambda *_: None) -> None:
        self.tell = tell
        self.found: Callable[[Any], None] = lambda _: None
        self.seconds: dict[str, float] = {}

    def say(self, what: str) -> None:
        """Tells what is being done, where nobody knows how far it has come."""
        self.tell(what, 0, 0)

    @contextlib.contextmanager
    def step(self, name: str, what: str = "") -> Iterator[None]:
        """Keeps the time of a step, and tells `what` is being done if that is worth telling."""
        if what:
            self.say(what)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
