"""A report on a terminal: first the answer, then its causes, the model by depth, and the rows that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from parity.errors import listed
from parity.report import answer
from parity.report.wording import is_number, number, shortened, size, ulps, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

COLOURS = {"identical": "green", "equivalent": "green", "divergent": "red", "inconclusive": "yellow",
           "clean": "green", "origin": "bold red", "propagated": "red", "not compared": "yellow",
           "other recipe": "yellow"}  # fmt: skip
_WORST, _BAD, _ROUNDING = 9, 4, 1

_LEAST, _MOST = 40, 200
_LEAST_NAME = 12
_INDENT = 11
_MOST_ORIGINS, _MOST_ROWS, _MOST_REASONS, _MOST_LINES = 10, 12, 12, 3

Cell = str | Text


def drawn(report: dict[str, Any], console: Console, *, all_layers: bool = False) -> str:
    """Returns what `console` makes of a report; nothing is printed.

    Args:
        report: its JSON types, complete as `saved.complete` makes it.
        console: of rich.
        all_layers: show every layer and every check, not only those that matter.
    """
    return printed(lines(report, console.width, all_layers=all_layers), console)


def printed(texts: Iterable[Text], console: Console) -> str:
    """Returns what `console` makes of lines that fit its width."""
    with console.capture() as capture:
        for line in texts:
            console.print(line, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)
    return capture.get()


def lines(report: dict[str, Any], width: int, *, all_layers: bool = False) -> Iterator[Text]:
    """Yields a report line by line, none of them wider than `width`; the verdict is the first and the last.

    Args:
        report: its JSON types, complete as `saved.complete` makes it.
        width: in columns, at least 40; what is over 200 stays empty.
        all_layers: show every layer and every check, not only those that matter.
    """
    width = max(_LEAST, min(width, _MOST))
    colour = COLOURS[report["verdict"]]
    yield Text(answer.headline(report, width), style=f"bold {colour}")
    meaning, reasons = answer.meaning(report)
    yield from sentence(meaning, width)
    yield from _causes(report, width)
    yield from _strip(report, width)
    yield from _origins(report, width)
    yield from _reasons(reasons, width, all_reasons=all_layers)
    yield from _checks(report, width, every=all_layers)
    yield from _tops(report, width)
    if all_layers:
        yield from _layers(report, width)
    yield from _about(report, width, every=all_layers)
    yield from _last(report, width)


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], width: int, names: int = 1) -> Iterator[Text]:
    """Yields a table, each row a line; where it is too wide its first columns are shortened, from the left of a cell.

    Args:
        head: a title for each column.
        rows: a cell for each column; what the last one has no room for is cut off.
        width: of a line.
        names: how many columns, the first ones, hold names that may be shortened.
    """
    cells = [[Text(title, style="bold") for title in head]]
    cells += [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    wide = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    over = sum(wide) + 2 * (len(wide) - 1) - width
    if over > 0 and wide[-1] > 2 * _LEAST_NAME:  # words, of which the beginning says most
        taken = min(over, wide[-1] - 2 * _LEAST_NAME)
        wide[-1], over = wide[-1] - taken, over - taken
    while over > 0 and max(wide[:names]) > _LEAST_NAME:
        widest = wide.index(max(wide[:names]))
        wide[widest], over = wide[widest] - 1, over - 1
    for row in cells:
        line = Text()
        for place, (cell, columns) in enumerate(zip(row, wide, strict=True)):
            kept = Text(shortened(cell.plain, columns), style=cell.style) if place < names else cell.copy()
            if place < len(wide) - 1:
                kept.pad_right(columns - kept.cell_len)
                kept.append("  ", style="default")
            line.append_text(kept)
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
        yield line


def sentence(text: str, width: int, title: str = "", *, style: str = "") -> Iterator[Text]:
    """Yields a text behind a title, its further lines under its first; nothing where there is no text."""
    for line in wrapped(text, width, title) if text else ():
        yield Text(line, style=style)


def _causes(report: dict[str, Any], width: int) -> Iterator[Text]:
    for place, cause in enumerate(answer.causes(report), start=1):
        yield Text()
        yield from sentence(cause.statement, width, f"{place}. ", style="bold")
        where = cause.where + (f" (yours: {cause.candidate})" if cause.candidate else "")
        if not cause.statement.startswith(f"{cause.where}:"):
            yield from sentence(where, width, "   where   ")
        yield from sentence(cause.size, width, "   much    ")
        yield from sentence(cause.hint, width, "   mend    ")
        yield from _code(cause, width)
        yield from sentence(cause.id, width, "   cause   ")


def _code(cause: answer.CauseShown, width: int) -> Iterator[Text]:
    """Yields the candidate's lines that a cause comes from, the first few as they are written."""
    lines = [line for owner, named in cause.code if owner == answer.CANDIDATE for line in named]
    title = "   at      "
    if not lines and cause.source not in cause.statement:
        yield from sentence(cause.source, width, title)
    for at, text in lines[:_MOST_LINES]:
        yield from sentence(f"{at}: {text}", width, title)
        title = " " * len(title)
    if len(lines) > _MOST_LINES:
        yield from sentence(f"and {len(lines) - _MOST_LINES} more", width, title)


def _strip(report: dict[str, Any], width: int) -> Iterator[Text]:
    stages = answer.stages(report)
    if not any(stage.isolated is not None or stage.accumulated is not None or stage.is_broken for stage in stages):
        return
    yield Text()
    wide = max(len(stage.label) for stage in stages)
    room = max(1, (width - _INDENT) // (wide + 1))
    for start in range(0, len(stages), room):
        part = stages[start : start + room]
        yield Text(f"{'depth':<{_INDENT}}{' '.join(f'{stage.label:>{wide}}' for stage in part)}", style="bold")
        for title, attribute in (("own error", "isolated"), ("summed up", "accumulated")):
            line = Text(f"{title:<{_INDENT}}")
            for place, stage in enumerate(part):
                cell = stage.cell(getattr(stage, attribute))
                line.append(f"{' ' * (place > 0)}{cell:>{wide}}", style=_colour_of(cell))
            yield line
    legend = "· rounding; 2 to F: so many powers of ten above it (A is 10, F is 15)"
    more = {"?": "; ? not compared", "!": "; ! values that cannot be compared"}
    shown = {stage.cell(value) for stage in stages for value in (stage.isolated, stage.accumulated)}
    yield from sentence(legend + "".join(text for sign, text in more.items() if sign in shown), width, style="dim")


def _colour_of(cell: str) -> str:
    if cell in "·?":
        return "green" if cell == "·" else "yellow"
    above = 16 if cell == "!" else int(cell, 16)
    return "bold red" if above >= _WORST else "red" if above >= _BAD else "yellow"


def _origins(report: dict[str, Any], width: int) -> Iterator[Text]:
    if (report["explanation"] or {}).get("of_train_mode"):
        return
    found = answer.origins(report)
    if not found:
        return
    rows = [
        (
            f"between {place.between[0]}" if place.between else place.where,
            f"and {place.between[1]}" if place.between else place.candidate,
            Text(place.much, style="bold red"),
            "" if place.between else ulps(place.max_ulp),
        )
        for place in found[:_MOST_ORIGINS]
    ]
    yield Text()
    yield from table(("an error of its own", "of the candidate", "relative", "max ulp"), rows, width, names=2)
    if len(found) > len(rows):
        yield from sentence(f"and {len(found) - len(rows)} more places; --all-layers shows every layer", width)


def _reasons(reasons: list[str], width: int, *, all_reasons: bool) -> Iterator[Text]:
    shown = reasons if all_reasons else reasons[:_MOST_REASONS]
    if shown:
        yield Text()
    for reason in shown:
        yield from sentence(reason, width, "- ")
    if len(reasons) > len(shown):
        yield from sentence(f"and {len(reasons) - len(shown)} more, which --all-layers shows", width, "- ")


def _checks(report: dict[str, Any], width: int, *, every: bool) -> Iterator[Text]:
    checks = report["checks"]
    if not checks:
        return
    yield Text()
    forward = [check for check in checks if f"{check.get('name')}".startswith("forward/")]
    if every:
        yield from table(("check", "verdict", "relative", "max abs", "max ulp", "noise", "points", ""),
                         map(_check_row, checks), width)  # fmt: skip
    else:
        yield from _matrix(forward, width)
        for why, modes in _not_compared(forward).items():
            if not any(why in reason for reason in report["reasons"]):
                yield from sentence(f"{listed(modes)}: not compared, since {why}", width, style="dim")
        wrong = [
            check
            for check in checks
            if check not in forward and check.get("verdict") not in ("identical", "equivalent")
        ]
        if wrong:
            yield from table(("check", "verdict", "relative", "max abs", "max ulp", "noise", "points", ""),
                             map(_check_row, wrong), width)  # fmt: skip
    for check in checks:
        yield from _phase_rows(check, width)


def _check_row(check: dict[str, Any]) -> list[Cell]:
    verdict = f"{check.get('verdict')}"
    numbers = [number(check.get("relative")), number(check.get("max_abs")), ulps(check.get("max_ulp"))]
    return [f"{check.get('name')}", Text(verdict, style=COLOURS.get(verdict, "")), *numbers,
            number(check.get("noise_ratio")), number(check.get("points")), f"{check.get('why') or ''}"]  # fmt: skip


def _matrix(checks: list[dict[str, Any]], width: int) -> Iterator[Text]:
    """Yields how far the logits of both models are apart, lines for each dtype and a column per mode."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for check in checks:
        mode, dtype = [*check["name"].split("/"), "", ""][1:3]
        cells.setdefault(dtype, {})[mode] = check
    modes = list(dict.fromkeys(mode for made in cells.values() for mode in made))
    rows: list[list[Cell]] = []
    for dtype, made in cells.items():
        rows.append([dtype, *(_cell(made[mode]) if mode in made else "" for mode in modes)])
        noises = [_noise(made.get(mode, {})) for mode in modes]
        if any(noises):
            rows.append(["  noise", *noises])
    if rows:
        yield from table(("logits", *modes), rows, width, names=len(modes) + 1)
    if any(row[0] == "  noise" for row in rows):
        yield from sentence(
            "noise: so many times the reference's own rounding, both against float64", width, style="dim"
        )
    for like, alike in _alike(checks).items():
        said = f"{listed(alike)}: the same operations as in {like}, so that these are its results"
        yield from sentence(said, width, style="dim")


def _alike(checks: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns the modes that were not run, since both models do there what they do in an earlier one, by that mode."""
    found: dict[str, list[str]] = {}
    for check in checks:
        how, _, like = f"{check['why']}".partition("as in ")
        mode = [*check["name"].split("/"), ""][1]
        if like and not how and mode not in found.setdefault(like, []):
            found[like].append(mode)
    return found


def _not_compared(checks: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns the modes that could not be compared, by the reason."""
    found: dict[str, list[str]] = {}
    for check in checks:
        mode = [*check["name"].split("/"), ""][1]
        if check.get("verdict") == "not compared" and check.get("why") and mode not in found.get(check["why"], []):
            found.setdefault(check["why"], []).append(mode)
    return found


def _cell(check: dict[str, Any]) -> Text:
    verdict = check["verdict"]
    error = f"off by {number(check['relative'])}" if verdict in ("equivalent", "divergent") else verdict
    return Text({"identical": "same bits"}.get(verdict, error), style=COLOURS.get(verdict, ""))


def _noise(check: dict[str, Any]) -> str:
    is_wanted = check.get("verdict") in ("equivalent", "divergent") and is_number(check.get("noise_ratio"))
    return f"{number(check['noise_ratio'])} times" if is_wanted else ""


def _phase_rows(check: dict[str, Any], width: int) -> Iterator[Text]:
    rows = check.get("rows") or []
    if not rows:
        return
    yield Text()
    head = f"{check.get('name')}: {len(rows)} differ", "of the candidate", "relative", "noise", ""
    cells = ([f"{row.get('reference')}", f"{row.get('candidate') or '-'}", number(row.get("relative")),
              number(row.get("noise")), f"{row.get('what') or ''}"] for row in rows[:_MOST_ROWS])  # fmt: skip
    yield from table(head, cells, width, names=2)
    if len(rows) > _MOST_ROWS:
        yield from sentence(f"and {len(rows) - _MOST_ROWS} more, which the JSON report lists", width)


def _tops(report: dict[str, Any], width: int) -> Iterator[Text]:
    for picture, ranks in answer.tops(report):
        rows = [(f"{rank}", *both) for rank, both in enumerate(ranks, 1)]
        yield Text()
        yield from sentence(f"top 5 of {picture}", width, style="bold")
        yield from table(("", "reference", "candidate"), rows, width, names=3)


def _layers(report: dict[str, Any], width: int) -> Iterator[Text]:
    if not report["layers"]:
        return
    yield Text()
    head = ("layer of the reference", "of the candidate", "same bits", "max ulp", "noise", "isolated", "summed up",
            "status")  # fmt: skip
    yield from table(head, map(_layer_row, report["layers"]), width, names=2)


def _layer_row(layer: dict[str, Any]) -> list[Cell]:
    same, status = layer.get("identical"), f"{layer.get('status')}"
    said = Text(status, style=COLOURS.get(status, ""))
    if layer.get("why"):
        said.append(f" ({layer['why']})", style="default")
    bits = "-" if same is None else "yes" if same else "no"
    return [f"{layer.get('reference')}", f"{layer.get('candidate') or '-'}", bits, ulps(layer.get("max_ulp")),
            *(number(layer.get(key)) for key in ("noise_ratio", "isolated", "accumulated")), said]  # fmt: skip


def _about(report: dict[str, Any], width: int, *, every: bool) -> Iterator[Text]:
    yield Text()
    for title, text in answer.about(report, every=every):
        yield from sentence(text, width, f"{title:<{_INDENT}}")


def _last(report: dict[str, Any], width: int) -> Iterator[Text]:
    seconds, memory = report["timings"].get("total"), report["peak_memory"]
    if is_number(seconds):
        peak = f", peak memory {memory / 2**30:.1f} GiB" if is_number(memory) else ""
        yield Text(f"took {seconds:.1f} s{peak}")
    names = f"{answer.name_of(report, 'candidate')} and {answer.name_of(report, 'reference')}"
    rest = f", {answer.compared(report)} layers compared"
    room = width - size(f"{report['verdict']}: {rest}")
    last = Text(report["verdict"], style=COLOURS[report["verdict"]])
    yield last.append(f": {shortened(names, room)}{rest}", style="default")
