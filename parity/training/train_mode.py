"""Train mode itself: does every module follow it, and does dropout drop alike?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from parity.diagnosis import Beyond, PhaseCheck, Row, not_compared
from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.tracing import ACTIVATION, Measurement, Mode, bare_run, compare, sites_of, switch
from parity.training.backward import written_to_input
from parity.training.draws import differences

if TYPE_CHECKING:
    from parity.diagnosis import Outcome
    from parity.tracing import Subject

TRAIN = Mode("train", train=True, grad=True, backward=True)
# ways to run it, of which the first one in which the logits agree is taken
WAYS = (
    TRAIN,
    dataclasses.replace(TRAIN, same_masks=True),
    dataclasses.replace(TRAIN, no_dropout=True),
)
# what is said of a comparison that is made in another way than the first
HOW = {
    WAYS[1]: "dropout masks drawn in logical order, since the two models lay out memory differently",
    WAYS[2]: "without dropout, since the masks of the two models cannot be aligned",
}


def compare_modes(subject: Subject) -> Beyond:
    """Checks that every module of the candidate follows `train()` and `eval()`, and that eval mode draws nothing."""
    model, models = subject.models.candidate, subject.models
    modules = dict(model.named_modules())
    before = [(module, module.training) for module in modules.values()]
    rows, causes = [], []
    try:
        for train in (True, False):
            switch(model, train=train)
            left = [name for name, module in modules.items() if module.training != train]
            if left:
                name, other = ("train", "eval") if train else ("eval", "train")
                statement = f"{listed(left)} does not follow {name}() and stays in {other} mode"
                where = _in_reference(subject, left)
                causes.append(Cause("submodule-mode", statement, where, hint="override train() in no module"))
                rows += [Row(r, c, f"does not follow {name}()") for r, c in zip(where, left, strict=True)]
    finally:
        for module, training in before:
            module.training = training
    check = PhaseCheck("training/modes", "divergent" if rows else "identical", 2 * len(modules), rows=tuple(rows))
    drawn = [s for s in sites_of(model, models.images, Mode("eval"), models.seed, "candidate") if s.kind != ACTIVATION]
    if drawn and not causes:
        names = list(dict.fromkeys(site.module for site in drawn))
        statement = (
            f"numbers are drawn at random in eval mode, in {listed([name or 'the model itself' for name in names])}"
        )
        hint = "nn.functional.dropout(x, p, self.training)"
        causes.append(Cause("dropout-in-eval", statement, _in_reference(subject, names), hint=hint))
        rows = [Row(r, c, "draws in eval mode") for r, c in zip(_in_reference(subject, names), names, strict=True)]
        check = dataclasses.replace(check, verdict="divergent", rows=tuple(rows))
    return Beyond([check], causes)


def _in_reference(subject: Subject, names: list[str]) -> tuple[str, ...]:
    """Returns the reference's name of every module of the candidate; its own where it has no partner."""
    return tuple(subject.alignment.pairs.get(name, name) for name in names)


def compare_dropout(subject: Subject) -> tuple[Mode | None, str, Beyond]:
    """Compares dropout, by its effect where the masks can be aligned, and by its sites and rates.

    Returns:
        The way to run train mode in which the logits agree in float64, or None; why there is none; what was found.
    """
    models = subject.models
    try:
        way, measured, input_changed = _way_that_agrees(subject)
    except ParityError as error:
        why = f"the candidate cannot be run in train mode in float64: {error}"
        return None, why, Beyond([not_compared("training/dropout", why)])
    ours, theirs = (
        sites_of(model, models.images, TRAIN, models.seed, owner)
        for model, owner in ((models.reference, "reference"), (models.candidate, "candidate"))
    )
    count = sum(site.kind != ACTIVATION for site in ours)
    by_effect = way in WAYS[:2]
    found = [] if by_effect else differences(ours, theirs)
    causes = [written_to_input()] if input_changed else []
    for identifier in dict.fromkeys(difference.cause for difference in found):
        members = [difference for difference in found if difference.cause == identifier]
        more = f" (and {len(members) - 1} more)" if len(members) > 1 else ""
        pairs = subject.alignment.pairs
        where = tuple(dict.fromkeys(pairs.get(m.candidate, m.reference) for m in members))
        causes.append(Cause(identifier, f"{members[0].statement}{more}", where))
    rows = tuple(Row(d.reference, d.candidate, d.statement) for d in found)
    if found:
        check = PhaseCheck("training/dropout", "divergent", count, measured, rows=rows)
    elif way is None:
        check = not_compared("training/dropout", "the logits differ already without it")
    elif by_effect:
        verdict: Outcome = "identical" if measured.identical and way == TRAIN else "equivalent"
        check = PhaseCheck("training/dropout", verdict, count, measured, why=HOW.get(way))
    else:
        why = "the same rates at the same sites, over another layout, so that masks cannot be aligned"
        check = PhaseCheck("training/dropout", "equivalent", count, why=why)
    return way, "in train mode the logits differ already", Beyond([check], causes)


def _way_that_agrees(subject: Subject) -> tuple[Mode | None, Measurement, bool]:
    """Returns the first way to run train mode in which the float64 logits agree, and their distance."""
    models, dtype = subject.models, torch.float64
    first: Measurement | None = None
    changed = False
    for way in WAYS:
        mode = dataclasses.replace(way, backward=False)
        ours = bare_run(models.reference, models.images, mode, dtype, models.seed, "reference")
        theirs = bare_run(models.candidate, models.images, mode, dtype, models.seed, "candidate")
        assert ours.output is not None
        assert theirs.output is not None
        measured = compare(ours.output, theirs.output)
        changed |= theirs.has_changed_its_input
        first = first or measured
        if measured.same_function:
            return way, measured, changed
    assert first is not None
    return None, first, changed
