"""What a candidate asks torch for in train mode alone, besides dropouts, and how it is without that.

Its calls in both modes are put beside each other like two texts. A call with other numbers is made with those of eval
mode, and one that eval mode does without hands on what it is given, if that has the shape of its result. If the
candidate is the reference then, that is the proof that it is these calls that make it another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from parity.explanation.proof import Group
from parity.tracing import Mode, Run, leaves, line_of_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from parity.explanation.case import Case
    from parity.tracing import SourceLine

# what has a dropout inside, which is compared as such
_DROPPING = ("dropout", "multi_head_attention_forward", "scaled_dot_product_attention")

_MOST_LINES = 4


@dataclass(frozen=True)
class _Call:
    """A call of a torch function: its name, the numbers among its arguments, and where it is asked for."""

    name: str
    numbers: tuple[Any, ...]
    line: SourceLine

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it the same in both modes."""
        return self.name, self.numbers, self.line


class _Noting(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.is_noting = False

    def begin(self, *_: Any) -> None:
        """Is called as the forward pass begins."""
        self.is_noting = True

    def end(self, *_: Any) -> None:
        """Is called as the forward pass ends."""
        self.is_noting = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if self.is_noting and not _only_reads(function, result):
            self.calls.append(_call_of(function, args, kwargs))
        return result


def _only_reads(function: Any, result: Any) -> bool:
    """Whether a call has read an attribute that is no tensor, as `nn.MultiheadAttention` does in one mode alone."""
    return getattr(function, "__name__", "") == "__get__" and not isinstance(result, torch.Tensor)


def _call_of(function: Any, args: Any, kwargs: Any) -> _Call:
    name = getattr(function, "__name__", str(function))
    is_dropping = any(word in name for word in _DROPPING)
    return _Call(name, () if is_dropping else tuple(_numbers_in((args, kwargs))), line_of_source())


def _numbers_in(given: Any) -> Iterator[Any]:
    if isinstance(given, (bool, int, float)):
        yield given
    elif isinstance(given, (tuple, list, dict)):
        for item in given.values() if isinstance(given, dict) else given:
            yield from _numbers_in(item)


@dataclass(frozen=True)
class Alone:
    """What a candidate does in train mode alone.

    Attributes:
        calls: all of train mode.
        instead: for those of them that eval mode has another one of, by number, the numbers that it is given there;
            None where eval mode has none.
    """

    calls: Sequence[_Call]
    instead: Mapping[int, tuple[Any, ...] | None]

    @contextlib.contextmanager
    def undone(self, case: Case) -> Iterator[None]:
        """Lets the candidate's calls be those of eval mode for as long as the context lasts."""
        undoing = _Undoing(self)
        handle = case.subject.models.candidate.register_forward_pre_hook(undoing.restart)
        try:
            with undoing:
                yield
        finally:
            handle.remove()

    def group(self) -> Group:
        """Says what it is, as a cause."""
        by_line: dict[SourceLine, dict[str, None]] = {}
        for number, numbers in self.instead.items():
            call = self.calls[number]
            others = [(a, b) for a, b in zip(call.numbers, numbers or (), strict=True) if a != b] if numbers else []
            said = ", ".join(f"{a} in place of {b}" for a, b in others) or call.name
            by_line.setdefault(call.line, {})[said] = None
        shown = list(by_line)[:_MOST_LINES]
        phrases = [f"`{line.text}` ({line}: {', '.join(by_line[line])})" for line in shown]
        verb = "does" if len(phrases) == 1 else "do"
        phrase = f"{' and '.join(phrases)} {verb} something else than in eval mode"
        hint = "do the same in both modes, dropout left out"
        return Group((), "train-mode-alone", phrase, "the same in both modes", hint, (), shown[0])


class _Undoing(TorchFunctionMode):
    def __init__(self, alone: Alone) -> None:
        super().__init__()
        self._alone = alone
        self._lines = {call.line for call in alone.calls}
        self._next = 0

    def restart(self, *_: Any) -> None:
        """Begins at the first call."""
        self._next = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        number, calls = self._next, self._alone.calls
        if number >= len(calls) or _call_of(function, args, kwargs).key != calls[number].key:
            return function(*args, **kwargs)  # nobody's call of the candidate's
        if calls[number].name == "__get__" and _only_reads(function, read := function(*args, **kwargs)):
            return read  # in a line that asks for another attribute, too
        self._next += 1
        if number not in self._alone.instead:
            return function(*args, **kwargs)
        numbers = self._alone.instead[number]
        if numbers is None:
            result = function(*args, **kwargs)
            like = getattr(result, "shape", None)
            return next((x for x in leaves((args, kwargs), torch.Tensor) if x.shape == like), result)
        given = iter(numbers)
        args, kwargs = _with_numbers(args, given), _with_numbers(kwargs, given)
        return function(*args, **kwargs)


def _with_numbers(given: Any, numbers: Iterator[Any]) -> Any:
    if isinstance(given, (bool, int, float)):
        return next(numbers)
    if isinstance(given, (tuple, list)):
        return type(given)(_with_numbers(item, numbers) for item in given)
    if isinstance(given, dict):
        return {key: _with_numbers(item, numbers) for key, item in given.items()}
    return given


def done_alone(case: Case, attempt: int) -> Alone | None:
    """Returns what the candidate does in train mode alone; None if that is nothing, or can't be taken back.

    Args:
        case: what is to be explained.
        attempt: of the ways to hold the candidate in float64.

    Raises:
        ParityError: the candidate cannot be run in one of the modes.
    """
    eval_mode = Mode("eval", grad=True, fastpath=False, by_size=True)
    usual, training = (_calls(case, dataclasses.replace(eval_mode, train=train), attempt) for train in (False, True))
    instead: dict[int, tuple[Any, ...] | None] = {}
    matcher = difflib.SequenceMatcher(None, [c.key for c in usual], [c.key for c in training], autojunk=False)
    for what, i, i_end, j, j_end in matcher.get_opcodes():
        if what == "insert":
            instead |= dict.fromkeys(range(j, j_end))
        elif what == "replace":
            pairs = list(zip(usual[i:i_end], training[j:j_end], strict=False))
            is_alike = i_end - i == j_end - j and all(
                (a.name, len(a.numbers), a.line) == (b.name, len(b.numbers), b.line) for a, b in pairs
            )
            if not is_alike:
                return None
            instead |= {j + number: call.numbers for number, (call, _) in enumerate(pairs)}
        elif what == "delete":
            return None
    return Alone(training, instead) if instead else None


def _calls(case: Case, mode: Mode, attempt: int) -> list[_Call]:
    models, noting = case.subject.models, _Noting()
    handles = (
        models.candidate.register_forward_pre_hook(noting.begin),
        models.candidate.register_forward_hook(noting.end),
    )
    try:
        with case.candidate_in(mode, attempt), noting:
            Run(models.candidate, models.images.double(), set(), models.seed, "candidate").finish()
    finally:
        for handle in handles:
            handle.remove()
    return noting.calls
