"""How the draws of two models differ: by their sites, in order."""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.tracing import ACTIVATION, Site

if TYPE_CHECKING:
    from collections.abc import Iterator


CAUSES = ("dropout-rate", "dropout-shape", "dropout-missing", "dropout-extra", "dropout-order", "stochastic-depth")


@dataclass(frozen=True)
class Difference:
    """One way in which two models draw differently.

    Attributes:
        cause: the id of the cause.
        statement: what is different.
        reference: the module of the reference where it is, or that is closest.
        candidate: the module of the candidate where it is, or empty.
    """

    cause: str
    statement: str
    reference: str
    candidate: str = ""


def differences(reference: list[Site], candidate: list[Site]) -> list[Difference]:
    """Returns how the candidate's dropout sites differ from the reference's; nothing if they are the same.

    Args:
        reference: draws and activations of the reference, in order.
        candidate: the candidate's.
    """
    ours, theirs = _draws(reference), _draws(candidate)
    if [(s.kind, s.rate, s.size) for s in ours] == [(s.kind, s.rate, s.size) for s in theirs]:
        return _order_among_activations(reference, candidate)
    if _merged(ours) == _merged(theirs):  # head by head, for example
        return []
    if sorted((s.rate, s.size) for s in ours) == sorted((s.rate, s.size) for s in theirs):
        first = next(
            n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if (a.rate, a.size) != (b.rate, b.size)
        )
        statement = (
            f"dropout masks are drawn in another order: the {_ordinal(first)} one is drawn in {_place(theirs[first])} "
            f"with rate {theirs[first].rate:g}, the reference's in {_place(ours[first])} with {ours[first].rate:g}"
        )
        return [Difference("dropout-order", statement, ours[first].module, theirs[first].module)]
    return list(_site_by_site(ours, theirs))


def _site_by_site(ours: list[Site], theirs: list[Site]) -> Iterator[Difference]:
    matcher = difflib.SequenceMatcher(None, [s.size for s in ours], [s.size for s in theirs], autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        paired = list(zip(ours[i:i_end], theirs[j:j_end], strict=False))
        for own, other in paired:
            if _is_of_branches(other) and own.size != other.size:
                yield _stochastic_depth(other, own)
            elif own.rate != other.rate:
                statement = f"the dropout in {_place(other)} has rate {other.rate:g}, the reference's {own.rate:g}"
                yield Difference("dropout-rate", statement, own.module, other.module)
            elif own.size != other.size:
                statement = (
                    f"the dropout in {_place(other)} has masks of shape {other.shape}, the reference's {own.shape}"
                )
                yield Difference("dropout-shape", statement, own.module, other.module)
        for own in ours[i + len(paired) : i_end]:
            statement = f"the candidate lacks the dropout in {_place(own)} with rate {own.rate:g}"
            yield Difference("dropout-missing", statement, own.module)
        for other in theirs[j + len(paired) : j_end]:
            near = ours[max(i - 1, 0)].module if ours else ""
            if _is_of_branches(other):
                yield _stochastic_depth(other, None, near)
            else:
                what = f"{other.kind} of rate {other.rate:g}"
                statement = f"the candidate draws in {_place(other)}, {what}; the reference doesn't"
                yield Difference("dropout-extra", statement, near, other.module)


def _is_of_branches(site: Site) -> bool:
    """Whether a mask is shared by whole tokens or samples, as those of stochastic depth are."""
    return len(site.shape) >= 2 and site.shape[-1] == 1


def _stochastic_depth(site: Site, own: Site | None, near: str = "") -> Difference:
    per_token = len(site.shape) >= 2 and any(length > 1 for length in site.shape[1:-1])
    whole = "per token" if per_token else "per sample"
    instead = f"the reference drops with masks of shape {own.shape}" if own else "the reference has none"
    hint = "; it should drop whole branches of a sample, a mask of shape (batch, 1, 1)" if per_token else ""
    statement = f"stochastic depth in {_place(site)} draws {whole}, masks of shape {site.shape}; {instead}{hint}"
    return Difference("stochastic-depth", statement, own.module if own else near, site.module)


def _order_among_activations(reference: list[Site], candidate: list[Site]) -> list[Difference]:
    """Returns where a dropout stands on the other side of an activation."""
    if [s.kind for s in reference if s.kind == ACTIVATION] != [s.kind for s in candidate if s.kind == ACTIVATION]:
        return []  # activations that are not recognised; the forward pass compares them
    for own, other in zip(reference, candidate, strict=True):
        if own.kind != other.kind:
            mine, theirs = ("after", "before") if own.kind == ACTIVATION else ("before", "after")
            where = _place(own if other.kind == ACTIVATION else other)
            statement = f"the dropout in {where} stands {theirs} the activation, the reference's {mine} it"
            return [Difference("dropout-order", statement, own.module, other.module)]
    return []


def _draws(sites: list[Site]) -> list[Site]:
    return [site for site in sites if site.kind != ACTIVATION]


def _merged(sites: list[Site]) -> list[tuple[float, int]]:
    """Returns rates and sizes, neighbours of one rate as one."""
    return [(rate, sum(s.size for s in group)) for rate, group in itertools.groupby(sites, lambda s: s.rate)]


def _place(site: Site) -> str:
    return site.module or "the model itself"


def _ordinal(position: int) -> str:
    return f"{position + 1}" + {0: "st", 1: "nd", 2: "rd"}.get(position, "th")
