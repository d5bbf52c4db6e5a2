"""Giving a constructor the reference's configuration: which of its arguments is which setting.

Names say what is likely (`words`, `options`), tensors what is so (`probing`).
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.errors import ParityError, described
from parity.models.constructors.classes import classes_for
from parity.models.constructors.constants import with_constants
from parity.models.constructors.defaults import by_default
from parity.models.constructors.holders import Holder, Slot
from parity.models.constructors.options import (
    AS_GIVEN,
    AT_DEFAULT,
    BY_DEFAULT,
    BY_NAME,
    BY_SHAPE,
    FAR_FETCHED,
    SET,
    USUAL,
    Option,
    flags,
    is_side,
    options,
    strings_in,
)
from parity.models.constructors.probing import Probe, Tried, telling
from parity.models.constructors.searching import Search
from parity.models.constructors.signatures import EMPTY, is_switch, keys_for
from parity.models.constructors.slots import takes
from parity.models.constructors.words import CHANNELS, RATES, SETTINGS, meanings_at
from parity.models.state import without_initial_values
from parity.values import written_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from parity.models.constructors.probing import Assignment

    Slots = dict[str, tuple[Slot, list[Option]]]


_NEEDED = ("image_size", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim", "num_classes")


@dataclass(frozen=True)
class Bound:
    """What an argument was given, why, and which settings of the reference it stands for."""

    value: Any
    why: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Binding:
    """What a constructor is called with.

    Attributes:
        make: calls it.
        arguments: what it is given, by argument; a config is shown as a dictionary.
        bound: every value that it is given or left with, by path, and why.
        defaults: arguments that are left at their defaults.
        settings: the reference's settings that reached it.
        hides_names: it takes any arguments, by position, and nobody knows what they are called.
        notes: what there is to say about it, a sentence each.
    """

    make: Callable[[], Any]
    arguments: dict[str, Any]
    bound: dict[str, Bound]
    defaults: tuple[str, ...]
    settings: frozenset[str]
    hides_names: bool = False
    notes: list[str] = field(default_factory=list)


def bind(name: str, function: Callable[..., Any], config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Binding:
    """Binds the reference's configuration to the arguments of `function`.

    Args:
        name: how messages call it.
        function: a class or function that returns a module.
        config: the reference's configuration; where it is empty, nothing but `arguments` is bound.
        arguments: arguments that go to it as they are, and win over the configuration; `config.depth` is one of a
            config.

    Raises:
        ParityError: it takes no such argument, or has one without a default that nothing is found for.
    """
    try:
        signature, taken = inspect.signature(function), takes(function)
    except (TypeError, ValueError) as error:
        raise ParityError(f"the candidate {name} cannot be built: Python knows no signature of it") from error
    if any(key.partition(".")[0] not in taken.parts for key in arguments):
        taken = with_constants(function, taken) or taken
    _require_known(name, taken, arguments)
    chosen, search, tried = _found(function, taken, config, arguments)
    if _is_torchvisions(config) and (tried is None or tried.distance != 0):
        constants = with_constants(function, taken)
        again = _found(function, constants, config, arguments) if constants else None
        if constants and again and again[2] and again[2].is_clearly_nearer(tried):
            taken, (chosen, search, tried) = constants, again
    open_slots = {slot.path: slot for slot in taken.slots() if slot.path not in arguments}
    values = {path: option.of(config) for path, option in chosen.items()} if config else {}
    unchanged = {
        path for path, value in values.items() if open_slots[path].is_constant and value == open_slots[path].default
    }
    values = {path: value for path, value in values.items() if value is not EMPTY and path not in unchanged}
    values |= dict(arguments)
    missing = [path for path, slot in open_slots.items() if slot.is_required and path not in values]
    if missing:
        raise ParityError(_asking_for(name, signature, taken, missing, values, tried))
    shown = _shown(taken, values)
    return Binding(
        make=lambda: taken.make(taken.filled(values)),
        arguments=shown,
        bound=_bound(open_slots, chosen, values, arguments),
        defaults=tuple(key for key, part in taken.parts.items() if key not in shown and not _is_constant(part)),
        settings=frozenset(
            setting for option in chosen.values() if option.quantity for setting in SETTINGS[option.quantity]
        ),
        hides_names=not taken.parts and any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()),
        notes=_notes(search, chosen, tried) if search else [],
    )


def _shown(taken: Holder, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a constructor is given, by argument; a module that it takes is shown by what that was given."""
    inner = {
        name: {path[len(name) + 1 :]: value for path, value in values.items() if path.startswith(f"{name}.")}
        for name in taken.parts
    }
    try:
        with without_initial_values():
            given = taken.filled(values)
    except (Exception, SystemExit):  # noqa: BLE001  (whoever builds the candidate is told)
        given = {**{name: part for name, part in inner.items() if part}, **values}
    return {name: inner.get(name, value) if isinstance(value, nn.Module) else value for name, value in given.items()}


def _is_constant(part: Slot | Holder) -> bool:
    return isinstance(part, Slot) and part.is_constant


def _require_known(name: str, taken: Holder, arguments: Mapping[str, Any]) -> None:
    """Raises ParityError if an argument is given that the constructor doesn't take."""
    paths = {slot.path for slot in taken.slots()}
    for holder in taken.holders():
        if holder.reads:  # it may ask for anything
            for key in arguments:
                if key.startswith(f"{holder.path}.") and key not in paths:
                    inner = key[len(holder.path) + 1 :]
                    holder.parts.setdefault(inner, Slot(key))
                    paths.add(key)
    unknown = [key for key in arguments if key not in paths and key not in taken.parts]
    if unknown and (not taken.takes_any or "." in unknown[0]):
        known = ", ".join(taken.parts) or "none"
        raise ParityError(f"the candidate {name} takes no argument {unknown[0]!r}; it takes {known}")


def _found(
    function: Callable[..., Any], taken: Holder, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[Assignment, Search | None, Tried | None]:
    """Finds out what goes where."""

    def slots() -> Slots:
        inner = [slot for slot in taken.slots() if not _is_given(slot.path, arguments)]
        return {slot.path: (slot, _options(slot, inner, function)) for slot in inner}

    if not config or not (slots() or any(holder.reads for holder in taken.holders())):
        return {}, None, None

    def probe(sizes: Mapping[str, Any]) -> Probe:
        return Probe(sizes, lambda values: taken.make(taken.filled(values)), arguments)

    if not _is_torchvisions(config):
        return _said(slots(), config), None, None
    small = telling(config) | {
        meant[0]: value
        for key, value in arguments.items()
        if (meant := meanings_at(key)) and meant[0] in config and isinstance(value, int)
    }
    chosen, search, tried = _best_of(small, config, probe, slots)
    if search is None:  # nothing could be built, so what was only tried is worth nothing
        known = slots()
        said = {path: option for path, option in (chosen or {}).items() if _is_said(path, option, known[path][0])}
        return _with_dropouts(said), None, tried
    for path in search.made_up(chosen):
        chosen = search.without(chosen, path)
    if tried.distance:
        chosen = Search(probe(config), slots).with_choices(chosen)
    return _with_dropouts(chosen | by_default(slots(), chosen)), search, tried


def _best_of(
    small: Mapping[str, Any], config: Mapping[str, Any], probe: Callable[..., Probe], slots: Callable[[], Slots]
) -> tuple[Assignment, Search | None, Tried]:
    """Searches at the small sizes that tell, and at the configuration itself if these are refused.

    A constructor may refuse the small sizes for what it asserts of them. What can be built of them then may still be
    what its author never meant, so that the tensors at the configuration decide.
    """
    named = _said(slots(), config)

    def can_be_built(sizes: Mapping[str, Any]) -> bool:
        with contextlib.suppress(ParityError):
            build = probe(sizes)
            return build.shapes(build.values(named)) is not None
        return False

    is_refused = can_be_built(config) and not can_be_built(small)
    found: list[tuple[float, Assignment, Search, Tried]] = []
    chosen, tried = {}, Tried(None)
    for sizes in (config, small) if is_refused else (small, config):
        try:
            search = Search(probe(sizes), slots)
        except ParityError:
            continue  # no such reference
        likeliest, tried = search.run()
        chosen = likeliest or {}
        if tried.distance is not None:
            distance = probe(config).tried(chosen).distance if is_refused else tried.distance
            found.append((math.inf if distance is None else distance, chosen, search, tried))
            if not is_refused or not tried.distance:
                break
    if not found:
        return chosen, None, tried
    _, chosen, chosen_by, became = min(found, key=lambda one: one[0])
    return chosen, chosen_by, became


def _is_torchvisions(config: Mapping[str, Any]) -> bool:
    """Whether torchvision has a ViT of these settings, whose tensors can be compared with the candidate's."""
    sizes = [config.get(setting) for setting in _NEEDED]
    return config.get("in_channels", CHANNELS) == CHANNELS and all(isinstance(size, int) for size in sizes)


def _said(slots: Mapping[str, tuple[Slot, list[Option]]], config: Mapping[str, Any]) -> Assignment:
    """Gives to each slot what its name says, as far as the configuration knows it."""
    chosen: Assignment = {}
    # what has one meaning only comes first: `hidden_dim` is the MLP's width beside an `embed_dim`
    for path in sorted(slots, key=lambda path: len(meanings_at(path))):
        slot, found = slots[path]
        taken = {option.quantity for option in chosen.values() if option.quantity not in RATES} - {None}
        for option in found:
            with contextlib.suppress(KeyError, TypeError):
                option.of(config)
                is_free = option.quantity is None or option.quantity not in taken
                if is_free and (option.cost == 0 or option.quantity in meanings_at(path)):
                    if _is_said(path, option, slot):
                        chosen[path] = option
                    break
    return chosen


def _is_said(path: str, option: Option, slot: Slot) -> bool:
    return not slot.is_required or option.quantity in meanings_at(path)


def _is_given(path: str, arguments: Mapping[str, Any]) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in arguments)


def _options(slot: Slot, siblings: list[Slot], function: Callable[..., Any]) -> list[Option]:
    if classes := classes_for(function, slot):
        return [Option(0, value=kind) for kind in classes]
    found = options(slot, is_side=is_side(slot, siblings))
    if slot.is_required and (slot.kind is str or not meanings_at(slot.path)):
        written = [Option(rank, value=value) for rank, value in enumerate(strings_in(function, slot.name))]
        if not written and slot.kind is EMPTY and is_switch(function, slot.name):
            written = flags(slot)
        found = [*written, *found]
    elif isinstance(slot.default, str):
        keys = keys_for(function, slot.name)
        others = [Option(FAR_FETCHED, value=key) for key in keys if slot.default in keys and key != slot.default]
        found += [option for option in others if option not in found]
    return found


def _with_dropouts(chosen: Assignment) -> Assignment:
    """Gives the rate of dropout to the embedding and to the branches, unless the branches have a general one alone."""
    named = {path: meanings_at(path)[:1] for path in chosen}
    kinds = {meant[0] for meant in named.values() if meant}
    if "dropout" in kinds and "embedding_dropout" not in kinds:
        return chosen
    places = {"embedding_dropout", "inner_dropout"}
    more = {path: Option(0, meant[0]) for path, meant in named.items() if meant and meant[0] in places}
    if "dropout" not in kinds:
        more = {path: Option(0, "dropout") for path in more}
    return chosen | more


def _bound(
    slots: Mapping[str, Slot], chosen: Assignment, values: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Bound]:
    """Says of every argument what it was given, and why."""
    found = {path: Bound(value, AS_GIVEN, _settings(path)) for path, value in arguments.items()}
    set_by_others = {s for path in values if path in chosen for s in SETTINGS.get(chosen[path].quantity or "", ())}
    for path, slot in slots.items():
        if path in values:
            option = chosen[path]
            named = option.cost == 0 or option.quantity in RATES
            settings = SETTINGS[option.quantity] if option.quantity else _settings(path)
            found_by = BY_NAME if named else BY_DEFAULT if option.cost == USUAL else BY_SHAPE
            found[path] = Bound(values[path], SET if slot.is_constant else found_by, settings)
        elif not (slot.is_required or slot.is_constant):
            value = None if slot.default is EMPTY else slot.default
            settings = () if callable(value) else _settings(path, set_by_others)  # `attn_layer=Attention`
            found[path] = Bound(value, AT_DEFAULT, settings)
    return found


def _settings(path: str, set_by_others: Collection[str] = ()) -> tuple[str, ...]:
    """Returns the settings that an argument stands for by its name, as far as no other argument sets them."""
    meant = (SETTINGS[quantity] for quantity in meanings_at(path))
    return next((settings for settings in meant if not {*settings} & {*set_by_others}), ())


def _notes(search: Search, chosen: Assignment, tried: Tried | None) -> list[str]:
    """Says what the tensors leave open."""
    if tried is None or tried.distance is None:
        return []
    notes = []
    for path, others in search.equals(chosen, tried.distance).items():
        quantity = chosen[path].quantity
        if quantity and quantity not in RATES and path in search.open:
            notes.append(
                f"{path} was taken for {quantity}, but no tensor tells it from {others[0]}; "
                f"say which with --candidate-arg {path}=VALUE"
            )
    return notes


def _asking_for(
    name: str,
    signature: inspect.Signature,
    taken: Holder,
    missing: list[str],
    values: Mapping[str, Any],
    tried: Tried | None,
) -> str:
    """Returns the sentence that asks for an argument, with everything that was found for the others."""
    known = ", ".join(
        f"{slot.path}={written_out(values[slot.path])}"
        if slot.path in values
        else f"{slot.path}=?"
        if slot.is_required
        else f"{slot.path} at its default"
        for slot in taken.slots()
    )
    error = tried.error if tried else None
    bare = [parameter.replace(annotation=EMPTY) for parameter in signature.parameters.values()]
    called = f"the candidate {name}{inspect.Signature(bare)}"
    what = f"an argument {missing[0]!r}" if len(missing) == 1 else f"arguments {', '.join(map(repr, missing))}"
    give = " ".join(f"--candidate-arg {path}=VALUE" for path in missing)
    if error and _is_of_its_own(error):
        return f"{called} cannot be built: {described(error)}; mend that, or avoid it with {give} (so far {known})"
    raised = f"; with others it ends in {described(error)}" if error else ""
    if any(slot.path in missing and _is_module(slot.kind) for slot in taken.slots()) or _asks_for_an_object(error):
        return (
            f"{called} needs {what}, for which neither a number nor a word stands; write a function that builds the "
            f"whole model, and give that as FILE.py:FUNCTION (so far {known}{raised})"
        )
    return (
        f"{called} needs {what}, which no setting of the reference goes by; "
        f"give {'it' if len(missing) == 1 else 'them'} with {give}, or write a function that builds the whole model, "
        f"and give that as FILE.py:FUNCTION (so far {known}{raised})"
    )


def _is_of_its_own(error: BaseException) -> bool:
    """Returns whether an error comes from a name or an attribute that a module's code gives no value."""
    if isinstance(error, NameError):
        return not isinstance(error, UnboundLocalError)
    is_of_a_module = isinstance(error, AttributeError) and isinstance(error.obj, nn.Module)
    return is_of_a_module or (isinstance(error, AttributeError) and "before Module.__init__()" in f"{error}")


def _is_module(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, nn.Module)


def _asks_for_an_object(error: BaseException | None) -> bool:
    """Returns whether an error says that a number or word was given where something else is wanted."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, (int, float, str, tuple))
    wants_it = re.compile(r"'int' object is not callable|is not a Module subclass")
    return isinstance(error, TypeError) and wants_it.search(f"{error}") is not None
