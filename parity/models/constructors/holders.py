"""Configs and what they hold, also those of which only what is read from them tells what they hold."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from parity.models.constructors.signatures import EMPTY
from parity.models.constructors.unpacking import call_with_entries
from parity.models.constructors.words import meanings_at, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from parity.models.constructors.unpacking import Call

# what people call a config within a config
_GROUPS = {
    "model", "encoder", "data", "dataset", "vit", "transformer", "arch", "architecture", "backbone", "embeddings",
    "train", "training", "vision", "network", "net", "general", "attention",
}  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """A place where a value can be given.

    Attributes:
        path: as `--candidate-arg` says it: an argument's name, or `config.encoder.depth`.
        kind: its annotation.
        default: what it is if nothing is given.
        is_required: nothing can be built without a value.
        is_constant: it is no argument, and is set while the constructor runs.
    """

    path: str
    kind: Any = EMPTY
    default: Any = EMPTY
    is_required: bool = True
    is_constant: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass
class Holder:
    """Something that is made of several values: the module itself, or a config that it takes.

    Attributes:
        path: as of a slot; empty for the module.
        parts: slots and configs, by the name that `make` knows them by.
        make: makes it of the parts' values.
        is_required: it has no default.
        reads: whether its parts are only known from what is read from it.
        takes_any: whether it takes values under other names.
    """

    path: str
    parts: dict[str, Slot | Holder]
    make: Callable[[dict[str, Any]], Any]
    is_required: bool = True
    reads: bool = False
    takes_any: bool = False

    def slots(self) -> Iterator[Slot]:
        """Yields every slot, those of inner configs among them."""
        for part in self.parts.values():
            if isinstance(part, Slot):
                yield part
            else:
                yield from part.slots()

    def holders(self) -> Iterator[Holder]:
        """Yields itself and every config inside."""
        yield self
        for part in self.parts.values():
            if isinstance(part, Holder):
                yield from part.holders()

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns its parts' values by name, from values by path; those left at their defaults are left out."""
        result: dict[str, Any] = {}
        for name, part in self.parts.items():
            if isinstance(part, Slot):
                if part.path in values:
                    result[name] = values[part.path]
            elif part.is_required or any(path.startswith(f"{part.path}.") for path in values):
                result[name] = part.make(part.filled(values))
        if self.takes_any:
            prefix = f"{self.path}." if self.path else ""
            own = {path[len(prefix) :]: value for path, value in values.items() if path.startswith(prefix)}
            result |= {name: value for name, value in own.items() if "." not in name and name not in result}
        return result


def read_from(path: str) -> Holder:
    """Returns a config of which only what is read from it tells what it holds."""
    holder = Holder(path, {}, lambda values: values, reads=True)
    holder.make = lambda values: Settings(holder, values)
    return holder


class MissingError(AttributeError, KeyError):
    """A config was asked for something that it has no value for."""

    def __init__(self, holder: Holder, name: str) -> None:
        super().__init__(f"{holder.path}.{name}")
        self.holder, self.key = holder, name


@dataclass
class _Reads:
    """What was read from configs while something was built.

    Attributes:
        wanted: what had no value: the config, the name, and the default that was read instead.
        groups: what was given a number and is a config itself: the config that it is in, and its name.
        made: objects that were made of settings and may hold others, each with its config.
        unpacked: configs whose entries were handed on, and to whom, if that is known.
        is_watched: whether any of this is noted.
        has_plain_numbers: whether numbers are given as such, instead of in a form that shows what is read from them.
    """

    wanted: list[tuple[Holder, str, Any]] = field(default_factory=list)
    groups: list[tuple[Holder, str]] = field(default_factory=list)
    made: list[tuple[Holder, Any]] = field(default_factory=list)
    unpacked: list[tuple[Holder, Call | None]] = field(default_factory=list)
    is_watched: bool = False
    has_plain_numbers: bool = False


_reads = _Reads()


@contextlib.contextmanager
def watched(*, has_plain_numbers: bool) -> Iterator[None]:
    """Notes for `learn` what is read from configs while the context lasts.

    Args:
        has_plain_numbers: don't note what is read from the numbers in them, which somebody may want to be plain ones.
    """
    _reads.is_watched, _reads.has_plain_numbers = True, has_plain_numbers
    try:
        yield
    finally:
        _reads.is_watched = False


def noted(holder: Holder, made: Any) -> Any:
    """Notes that an object was made of the settings in `holder`, and returns it."""
    if _reads.is_watched:
        _reads.made.append((holder, made))
    return made


class _Number(int):
    """A number that was given for what may be a config itself, which shows when something is read from it."""

    holder: Holder
    name: str

    def __getattr__(self, key: str) -> Any:
        who = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001  (nothing else tells who asks)
        if not (key.startswith("_") or who.partition(".")[0] == "numpy"):  # numpy asks whatever it sums or multiplies
            _reads.groups.append((self.holder, self.name))
        raise AttributeError(key)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            _reads.groups.append((self.holder, self.name))
        raise TypeError(f"{self.name} is a number")


class Settings(dict[str, Any]):
    """A config that can be read as items or as attributes, and that notes what is read and not there."""

    __slots__ = ("_holder",)  # so that `vars(config)` may be its entries
    _holder: Holder

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return self

    def __init__(self, holder: Holder, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        object.__setattr__(self, "_holder", holder)
        for name, value in values.items():
            if type(value) is int and _reads.is_watched and not _reads.has_plain_numbers:
                self[name] = number = _Number(value)
                number.holder, number.name = holder, name

    def __missing__(self, name: str) -> Any:
        holder: Holder = object.__getattribute__(self, "_holder")
        if isinstance(name, str) and not name.startswith("__"):
            if name not in holder.parts and set(words(name)) <= _GROUPS:
                holder.parts[name] = read_from(f"{holder.path}.{name}")
            part = holder.parts.get(name)
            if isinstance(part, Holder):
                return part.make({})
            _reads.wanted.append((holder, name, EMPTY))
        raise MissingError(holder, name)

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a setting; who asks does without, and may take one."""
        holder: Holder = object.__getattribute__(self, "_holder")
        is_there = super().__contains__(name) or isinstance(holder.parts.get(str(name)), Holder)
        if not is_there and isinstance(name, str):
            _reads.wanted.append((holder, name, None))
        return is_there

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:  # with an own one, `**config` asks for the keys
        return super().__iter__()

    def keys(self) -> Any:
        """Returns the names of its entries, and notes who is given them."""
        self._hand_on(sys._getframe(1))  # noqa: SLF001
        return super().keys()

    def items(self) -> Any:
        """Returns its entries, and notes who is given them."""
        self._hand_on(sys._getframe(1))  # noqa: SLF001
        return super().items()

    def _hand_on(self, frame: FrameType) -> None:
        if _reads.is_watched:
            holder: Holder = object.__getattribute__(self, "_holder")
            _reads.unpacked.append((holder, call_with_entries(frame, holder.path.rpartition(".")[2])))

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a setting, or `default` if there is none."""
        holder: Holder = object.__getattribute__(self, "_holder")
        if isinstance(default, dict) and name not in holder.parts:
            holder.parts[name] = read_from(f"{holder.path}.{name}")
        if super().__contains__(name) or isinstance(holder.parts.get(name), Holder):
            return self[name]
        _reads.wanted.append((holder, name, default))
        return default


def learn(error: BaseException | None, parts_of: Callable[[Call, str], Mapping[str, Slot | Holder]]) -> bool:
    """Adds slots for what was read from configs since the last call; returns whether there were new ones.

    Args:
        error: what the building ended with: what could not be read then is required.
        parts_of: returns what is taken by who is called with the entries of the config that has this path.
    """
    needed, cause = None, error
    while cause is not None and needed is None:
        needed = _needed(cause)
        cause = cause.__cause__ or cause.__context__
    wanted = [*_reads.wanted, (*needed, EMPTY)] if needed else _reads.wanted
    is_new = False
    for holder, name, default in wanted:
        is_required = needed is not None and needed[0] is holder and needed[1] == name
        slot = Slot(f"{holder.path}.{name}", EMPTY, default, is_required=is_required)
        is_count = type(default) is int and default > 0
        if name not in holder.parts and (is_required or is_count or meanings_at(slot.path)):
            holder.parts[name] = slot
            is_new = True
    for holder, name in _reads.groups:
        if isinstance(holder.parts.get(name), Slot):
            holder.parts[name] = read_from(f"{holder.path}.{name}")
            is_new = True
    for holder, call in _reads.unpacked:
        parts = parts_of(call, holder.path) if call else _missing(error, holder.path)
        new = {name: part for name, part in parts.items() if name not in holder.parts}
        holder.parts |= new
        is_new |= bool(new)
    for notes in (_reads.wanted, _reads.groups, _reads.made, _reads.unpacked):
        notes.clear()
    return is_new


def _missing(error: BaseException | None, path: str) -> dict[str, Slot | Holder]:
    """Returns slots for the arguments that a call lacked, by what Python says of it."""
    text = str(error) if isinstance(error, TypeError) and "required" in str(error) else ""
    return {name: Slot(f"{path}.{name}") for name in re.findall(r"'(\w+)'", text)}


def _needed(error: BaseException) -> tuple[Holder, str] | None:
    """Returns the config that was asked in vain for something, and for what."""
    if isinstance(error, MissingError):
        return error.holder, error.key
    if isinstance(error, AttributeError) and error.name:
        name = error.name
        return next(((holder, name) for holder, made in _reads.made if made is error.obj), None)
    return None
