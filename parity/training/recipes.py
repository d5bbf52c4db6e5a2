"""What belongs to training and is no part of the function: initial values, and which parameters weight decay spares.

Where these differ, the two models are the same function all the same, and will not train alike. So a difference is
named as a cause and doesn't make the verdict divergent.
"""

from __future__ import annotations

import inspect
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.diagnosis import OTHER_RECIPE, Beyond, PhaseCheck, Row, not_compared
from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.models import cut, split, tensors_of
from parity.tracing import IDENTICAL
from parity.training.gradients import Pairs, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.diagnosis import Outcome
    from parity.models import WeightMap

    State = Mapping[str, torch.Tensor]

# Two sets of initial values come from different distributions if the Kolmogorov-Smirnov test of two samples rejects
# their being from one with this probability of being wrong, for every tensor. A ViT has some 150 to 400 tensors, so a
# false alarm is a matter of one in some thousand seeds; of 4,096 values or more, a standard deviation that is 10 % off
# is rejected.
INITIALISATION_SIGNIFICANCE = 1e-6

# how many values of a tensor the test looks at, at most
_SAMPLE = 1 << 16

# words in the names of parameters that weight decay usually spares, whatever their shape
_SPARED = ("class_token", "cls_token", "cls", "pos_embed", "position", "pos_emb")


@dataclass(frozen=True)
class Drawn:
    """What initial values look like."""

    mean: float
    std: float
    least: float
    most: float

    @classmethod
    def of(cls, values: torch.Tensor) -> Drawn:
        """Sums up a tensor."""
        exact = values.detach().double()
        std = float(exact.std(correction=0)) if exact.numel() else 0.0
        least, most = (float(x) for x in torch.aminmax(exact)) if exact.numel() else (0.0, 0.0)
        return cls(float(exact.mean()), std, least, most)

    def __str__(self) -> str:
        if self.least == self.most:
            return f"all {self.most:g}"
        mean = f"mean {self.mean:.2g}, " if abs(self.mean) > self.std / 10 else ""
        return f"{mean}std {self.std:.2g}, in [{self.least:.2g}, {self.most:.2g}]"


def compare_initialisation(
    found: WeightMap,
    build_reference: Callable[[], nn.Module] | None,
    build_candidate: Callable[[], nn.Module],
    seed: int,
) -> Beyond:
    """Compares the values that both constructors draw under one seed: the same bits? the same distributions?

    Args:
        found: the weight map.
        build_reference: builds the reference with initial values; None for one that is built already.
        build_candidate: builds the candidate.
        seed: of torch's random state.
    """
    name = "training/initialisation"
    if build_reference is None:
        return Beyond([not_compared(name, "the reference is a module that is built already")])
    try:
        torch.manual_seed(seed)
        module = build_candidate()
        if build_candidate() is module:
            return Beyond([not_compared(name, "the candidate is a module that is built already")])
    except ParityError as error:
        return Beyond([not_compared(name, f"{error}")])
    theirs = tensors_of(module)
    torch.manual_seed(seed)
    ours = build_reference().state_dict()
    entries = [(entry, moved(entry, ours), cut(theirs[split(entry.candidate)[0]], split(entry.candidate)[1]))
               for members in Pairs.of(found).entries.values() for entry in members
               if split(entry.candidate)[0] in theirs]  # fmt: skip
    rows: dict[str, list[Row]] = defaultdict(list)
    for entry, expected, own in entries:
        if expected is not None and not torch.equal(expected, own) and not _is_one_distribution(expected, own):
            what = f"{Drawn.of(own)}; the reference {Drawn.of(expected)}"
            rows[_pattern(entry.reference)].append(Row(entry.reference, entry.candidate, what))
    same = all(expected is not None and torch.equal(expected, own) for _, expected, own in entries)
    alike = _alike_blocks(entries)
    causes = list(_causes_of_values(rows)) + ([alike] if alike else [])
    verdict: Outcome = OTHER_RECIPE if causes else "identical" if same else "equivalent"
    why = None if same or causes else "other random numbers of the same distributions"
    worst = IDENTICAL if same else None
    check = PhaseCheck(name, verdict, len(entries), worst, why=why, rows=tuple(r for m in rows.values() for r in m))
    return Beyond([check], causes)


def _causes_of_values(rows: Mapping[str, list[Row]]) -> Iterator[Cause]:
    if not rows:
        return
    shown = [f"{pattern}: {members[0].what}" for pattern, members in rows.items()]
    statement = f"initial values are drawn otherwise in {len(rows)} kinds of tensors: {'; '.join(shown[:2])}"
    where = tuple(row.reference for members in rows.values() for row in members)
    yield Cause("initialisation", statement, where, hint="draw initial values as the reference does, or load weights")


def _alike_blocks(entries: list[tuple[Any, torch.Tensor | None, torch.Tensor]]) -> Cause | None:
    """Returns the cause that blocks have equal initial values, where the reference's have not."""
    kinds: dict[str, list[tuple[str, torch.Tensor, torch.Tensor]]] = defaultdict(list)
    for entry, expected, own in entries:
        if expected is not None and _pattern(entry.reference) != entry.reference:
            kinds[_pattern(entry.reference)].append((entry.reference, expected, own))
    alike = []
    for members in kinds.values():
        (_, first_expected, first), *others = members
        same = [name for name, expected, own in others if _is_drawn(own) and torch.equal(own, first)
                and not torch.equal(expected, first_expected)]  # fmt: skip
        alike += [members[0][0], *same] if same else []
    if not alike:
        return None
    statement = (
        f"blocks begin with equal values, as copies of one block do: {len(alike)} tensors such as {alike[0]} and "
        f"{alike[1]} are the same to the bit"
    )
    return Cause(
        "block-initialised-alike", statement, tuple(alike), hint="build every block anew; deepcopy copies values"
    )


def _is_drawn(values: torch.Tensor) -> bool:
    return values.numel() > 1 and bool((values != values.flatten()[0]).any())


def _pattern(name: str) -> str:
    return re.sub(r"\d+(?=\.|$)", "{i}", split(name)[0], count=1) + name[len(split(name)[0]) :]


def _is_one_distribution(expected: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether nothing speaks against both being drawn from one distribution; constants have to be equal."""
    if not (_is_drawn(expected) and _is_drawn(own)):
        return bool(torch.equal(expected.flatten()[:1], own.flatten()[:1])) and _is_drawn(expected) == _is_drawn(own)
    return kolmogorov_smirnov(expected, own) > INITIALISATION_SIGNIFICANCE


def kolmogorov_smirnov(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the probability that two samples of one distribution are as different as these (asymptotically).

    Source: Smirnov's theorem; the series is that of Kolmogorov's distribution.
    """
    a, b = (_sample(values) for values in (one, other))
    both = torch.cat([a, b])
    steps = [torch.searchsorted(values, both, right=True).double() / len(values) for values in (a, b)]
    distance = float((steps[0] - steps[1]).abs().max())
    scaled = distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    if scaled < 0.2:  # where the series converges slowly, to 1
        return 1.0
    series = (math.exp(-2 * (k * scaled) ** 2) * (1 if k % 2 else -1) for k in range(1, 101))
    return min(1.0, 2 * sum(series))


def _sample(values: torch.Tensor) -> torch.Tensor:
    flat = values.detach().flatten().double()
    return flat[:: math.ceil(len(flat) / _SAMPLE)].sort().values


def is_decayed(name: str, tensor: torch.Tensor) -> bool:
    """Whether weight decay usually applies: not to norms, biases, class token and position embedding."""
    return tensor.ndim >= 2 and not any(word in name.lower() for word in _SPARED)


def decayed(reference: nn.Module, found: WeightMap) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the parameters of both models that a usual recipe decays: the reference's, and their counterparts.

    A tensor of the candidate that holds both kinds is not decayed, nor is what it is made of.
    """
    usual = {name for name, tensor in reference.named_parameters() if is_decayed(name, tensor)}
    members = Pairs.of(found).entries
    sources = {name: {split(entry.reference)[0] for entry in entries} for name, entries in members.items()}
    mixed = {source for own in sources.values() if own - usual for source in own}
    theirs = frozenset(name for name, own in sources.items() if own <= usual - mixed)
    return frozenset(usual - mixed), theirs


def compare_weight_decay(found: WeightMap, reference: nn.Module, candidate: nn.Module) -> Beyond:
    """Compares what the rules by which weight decay spares parameters match in both models.

    The usual rule, that it spares what has less than two axes, is applied to both. Names that the candidate itself
    wants to be spared (`no_weight_decay`) have to match its parameters, and groups of its own (`parameter_groups`,
    `param_groups`, `configure_optimizers`) have to hold each of them once.
    """
    causes = [*_by_shape(found, reference, candidate), *_by_key(found, candidate), *_by_group(candidate)]
    verdict: Outcome = OTHER_RECIPE if causes else "identical"
    rows = tuple(Row(name, "", cause.id) for cause in causes for name in cause.where)
    return Beyond([PhaseCheck("training/weight-decay", verdict, len(found.entries), rows=rows)], causes)


def _by_shape(found: WeightMap, reference: nn.Module, candidate: nn.Module) -> Iterator[Cause]:
    ours, theirs = dict(reference.named_parameters()), dict(candidate.named_parameters())
    odd = []
    for entry in found.entries:
        source, target = split(entry.reference)[0], split(entry.candidate)[0]
        if source in ours and target in theirs and ours[source].ndim < 2 <= theirs[target].ndim:
            odd.append((source, target, tuple(theirs[target].shape)))
    if odd:
        shown = listed([f"{target} {shape}" for _, target, shape in dict.fromkeys(odd)], 3)
        statement = f"a rule that spares what has less than two axes decays {shown}, which are biases or of norms"
        yield Cause("weight-decay-shape", statement, tuple(dict.fromkeys(source for source, *_ in odd)))


def _by_key(found: WeightMap, candidate: nn.Module) -> Iterator[Cause]:
    """Yields the cause that a name to be spared matches nothing, while what it should spare is decayed."""
    function = getattr(candidate, "no_weight_decay", None)
    if not callable(function):
        return
    try:
        keys = sorted(str(key) for key in function())
    except Exception:  # noqa: BLE001  (somebody else's method of that name)
        return
    names = [name for name, _ in candidate.named_parameters()]
    idle = [key for key in keys if not any(name == key or name.endswith(f".{key}") for name in names)]
    spared = {name for name in names if any(name == key or name.endswith(f".{key}") for key in keys)}
    lost = {split(e.candidate)[0]: split(e.reference)[0] for e in found.entries
            if any(word in e.reference for word in _SPARED) and split(e.candidate)[0] not in spared}  # fmt: skip
    if idle and lost:
        statement = (
            f"no_weight_decay() names {listed(idle)}, which matches no parameter, so {listed(list(lost))} is decayed"
        )
        hint = f"name it {listed(list(lost))}"
        yield Cause("weight-decay-key", statement, tuple(lost.values()), hint=hint)


_GROUPS = ("parameter_groups", "param_groups", "get_parameter_groups", "get_param_groups", "configure_optimizers")


def _by_group(candidate: nn.Module) -> Iterator[Cause]:
    """Yields the causes that groups of the candidate's own leave parameters out, or hold them twice."""
    function = next((f for name in _GROUPS if callable(f := getattr(candidate, name, None))), None)
    groups = _groups_of(function) if function else None
    if groups is None:
        return
    counts: dict[int, int] = defaultdict(int)
    for group in groups:
        for parameter in group["params"]:
            counts[id(parameter)] += 1
    trained = [(name, p) for name, p in candidate.named_parameters() if p.requires_grad]
    for identifier, what, names in (
        ("optimizer-parameter-missing", "leaves out", [name for name, p in trained if counts[id(p)] == 0]),
        ("optimizer-parameter-twice", "holds twice", [name for name, p in trained if counts[id(p)] > 1]),
    ):
        if names:
            statement = f"{getattr(function, '__name__', 'its groups')}() {what} {listed(names)}"
            yield Cause(identifier, statement, tuple(names))


def _groups_of(function: Callable[..., Any]) -> list[dict[str, Any]] | None:
    """Calls a method that makes parameter groups or an optimizer, with usual arguments; None if it asks for others."""
    usual = {"weight_decay": 0.05, "wd": 0.05, "lr": 1e-3, "learning_rate": 1e-3, "betas": (0.9, 0.999),
             "device_type": "cpu", "device": "cpu"}  # fmt: skip
    try:
        needed = [name for name, p in inspect.signature(function).parameters.items() if p.default is p.empty]
        made = function(**{name: usual[name] for name in needed})
    except Exception:  # noqa: BLE001  (somebody else's method of that name)
        return None
    made = getattr(made, "param_groups", made)
    if not isinstance(made, (list, tuple)) or not all(isinstance(group, dict) and "params" in group for group in made):
        return None
    return [{**group, "params": list(group["params"])} for group in made]
