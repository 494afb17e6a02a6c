"""Steps on their way into one ``steps`` line: blocks of plain steps, and single steps between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchwatch.codec import Values, significant
from torchwatch.intervals import tidy
from torchwatch.probe import Block
from torchwatch.recorder.items import keeps_columns, without_columns
from torchwatch.records import STEP_SCALARS, Step, StepColumns, Steps, as_list, batch, rounded_line

_DIGITS = 9
_LISTED = tuple(n for n in STEP_SCALARS if n not in ("step", "metrics"))


def line_of(block: Block) -> Steps:
    """The line of a block: times, learning rates and what was logged; values of one name are averaged."""
    count = len(block.ends)
    ends = np.round(np.asarray(block.ends), 6)
    durations = np.diff(ends, prepend=round(block.started_s, 6))
    for at, time_s in block.restarts:
        durations[at] = ends[at] - time_s
    fields: dict[str, Any] = {
        "epoch": [block.epoch] * count,
        "time_s": ends,
        "step_time_s": np.round(durations, 6),
        "watch_time_s": np.full(count, round(block.watch_s / count, 7)),
        "lr": _rates(block, count),
    }
    logged = _logged(block, count)
    loss = logged.pop("loss", None)
    if loss is not None:
        fields["loss"] = loss
        whole = isinstance(loss, np.ndarray)
        fields["loss_source"] = ["log"] * count if whole else [None if v is None else "log" for v in loss]
    if logged:
        fields["metrics"] = logged
    if block.fetched:
        waits: list[float | None] = [None] * count
        samples: list[int | None] = [None] * count
        for at, wait_s, size in block.fetched:
            waits[at] = waits[at] if wait_s is None else round(wait_s, 6)
            samples[at] = samples[at] if size is None else size
        fields |= {"wait_time_s": waits, "samples": samples}
    return Steps(step=list(range(block.first, block.first + count)), **fields)


def length(pieces: list[Step | Steps]) -> int:
    """How many steps."""
    return sum(len(p.step) if isinstance(p, Steps) else 1 for p in pieces)


def line_of_pieces(pieces: list[Step | Steps]) -> Steps:
    """One line of all pieces; columns stay where they are worth their bytes."""
    lines: list[Steps] = []
    singles: list[Step] = []
    for piece in pieces:
        if isinstance(piece, Step):
            keeps = keeps_columns(piece, is_last=piece is pieces[-1])
            singles.append(piece if keeps else without_columns(piece))
        else:
            lines += [batch(singles)] if singles else []
            lines.append(piece)
            singles = []
    return rounded_line(joined([*lines, batch(singles)] if singles else lines))


def cut(line: Steps, room: int) -> tuple[Steps, Steps | None]:
    """The first ``room`` steps of a line without columns, and the rest if there is one."""
    if len(line.step) <= room:
        return line, None
    return _part(line, slice(0, room)), _part(line, slice(room, None))


def _part(line: Steps, where: slice) -> Steps:
    fields = {n: v[where] for n in _LISTED if (v := getattr(line, n)) is not None}
    metrics = None if line.metrics is None else {n: v[where] for n, v in line.metrics.items()}
    return Steps(step=line.step[where], metrics=metrics, **fields)


def joined(lines: list[Steps]) -> Steps:
    """Consecutive lines as one; what one of them did not measure is None there."""
    if len(lines) == 1:
        return lines[0]
    fields: dict[str, Any] = {"step": [number for line in lines for number in line.step]}
    for name in _LISTED:
        parts = [getattr(line, name) for line in lines]
        if any(part is not None for part in parts):
            fields[name] = _together(parts, lines)
    names = dict.fromkeys(name for line in lines for name in line.metrics or ())
    if names:
        fields["metrics"] = {n: _together([(x.metrics or {}).get(n) for x in lines], lines) for n in names}
    columns: dict[str, StepColumns] = {}
    before = 0
    for line in lines:
        columns |= {str(before + int(at)): part for at, part in (line.columns or {}).items()}
        before += len(line.step)
    return Steps(**fields, columns=columns or None)


def _together(parts: list[Any], lines: list[Steps]) -> list[Any]:
    values: list[Any] = []
    for part, line in zip(parts, lines, strict=True):
        values += [None] * len(line.step) if part is None else as_list(part)
    return values


def _rates(block: Block, count: int) -> list[list[float] | None]:
    rates: list[list[float] | None] = []
    for (at, rate), following in zip(block.rates, [*block.rates[1:], (count, [])], strict=True):
        rates += [[tidy(float(r)) or 0.0 for r in rate]] * (following[0] - at)
    return rates


def _logged(block: Block, count: int) -> dict[str, Values | list[float | None]]:
    """By name an entry per step, the mean of what was logged in it; an array where each step has one."""
    places: dict[str, list[int]] = {}
    numbers: dict[str, list[float]] = {}
    for (at, name, _), value in zip(block.logged, block.values(), strict=True):
        if name not in places:
            places[name], numbers[name] = [], []
        places[name].append(at)
        numbers[name].append(value)
    return {name: _means(places[name], np.array(numbers[name]), count) for name in places}


def _means(places: list[int], values: Values, count: int) -> Values | list[float | None]:
    if len(places) == count and places[0] == 0 and places == list(range(count)):
        return significant(values, _DIGITS)
    times = np.bincount(places, minlength=count)
    with np.errstate(invalid="ignore"):
        means = significant(np.bincount(places, values, count) / times, _DIGITS)
    if times.all():
        return means
    return [mean if n else None for mean, n in zip(means.tolist(), times.tolist(), strict=True)]
