"""Ways of torch's to compute in float32 with fewer digits: which are on, and how it is without them."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

# what torch says where it computes with all digits
_FULL = "none", "ieee", "highest", False
_IN_WORDS = {True: "tf32", "high": "tf32", "medium": "bf16"}


@dataclass(frozen=True)
class Backend:
    """One of torch's backends, and how it is told about float32.

    Attributes:
        name: torch's own, such as `cudnn.conv`.
        told: by which attribute or function of torch's.
        full: what that is, if all digits are wanted.
    """

    name: str
    told: str
    full: Any

    @property
    def value(self) -> Any:
        """What it is told."""
        if self.told.endswith("()"):
            return torch.get_float32_matmul_precision()
        return functools.reduce(getattr, self.told.split(".")[1:], torch)

    def tell(self, value: Any) -> None:
        """Tells it a value that `value` may have."""
        if self.told.endswith("()"):
            torch.set_float32_matmul_precision(value)
        else:
            *owners, name = self.told.split(".")[1:]
            setattr(functools.reduce(getattr, owners, torch), name, value)

    @property
    def reduced_to(self) -> str | None:
        """What float32 is computed in, if in fewer digits."""
        value = self.value
        return None if value in _FULL else _IN_WORDS.get(value, value)


def _known() -> tuple[Backend, ...]:
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9, which refuses to tell of both in the older words
        names = "cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"
        return tuple(Backend(name, f"torch.backends.{name}.fp32_precision", "ieee") for name in names)
    return (
        Backend("cuda.matmul", "torch.backends.cuda.matmul.allow_tf32", full=False),
        Backend("cudnn.conv", "torch.backends.cudnn.allow_tf32", full=False),
        Backend("mkldnn.matmul", "torch.get_float32_matmul_precision()", "highest"),
    )


BACKENDS = _known()


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Has torch compute float32 with all digits for as long as the context lasts."""
    was = {backend: backend.value for backend in BACKENDS if backend.reduced_to}
    try:
        for backend in was:
            backend.tell(backend.full)
        yield
    finally:
        for backend, value in was.items():
            backend.tell(value)
