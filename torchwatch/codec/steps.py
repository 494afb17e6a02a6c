"""The ``steps`` line: many steps in few bytes.

Beside the three ways to write a field (:mod:`torchwatch.codec.series`) consecutive step numbers are the first
and a count, and end times that follow from the step times are the first alone:
``{"step":4001,"count":250,"same":{"epoch":0,"lr":[0.001]},"time_s":12.5,"step_time_s":[…],"loss":[…]}``.
The older form, every field a list with one entry per step, is read as well.

Scalars are rounded before anything sees them, so that what the checks are fed is what is read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from torchwatch.codec.fields import field_names
from torchwatch.codec.nonfinite import Nonfinite, escaped
from torchwatch.codec.reading import converter
from torchwatch.codec.rounding import Values, decimals, significant
from torchwatch.codec.series import ends, once, series_from_json, series_to_json, starts_only
from torchwatch.codec.writing import to_json

LONGEST = 4096
"""Steps in a line that is written compactly; a longer one has a list entry per step."""

_MOST_ENTRIES = 1 << 24  # that a line may unfold to
_PLACES = {
    "time_s": 6, "step_time_s": 6, "wait_time_s": 6, "forward_s": 6, "backward_s": 6, "optimizer_s": 6,
    "watch_time_s": 7,
}  # fmt: skip
_DIGITS = {"loss": 9, "grad_scale": 9, "grad_norm": 5, "grad_norm_preclip": 5, "update_ratio": 5}
_METRIC_DIGITS = 9
_WHOLE = 2.0**53


def steps_to_json(record: Any, found: Nonfinite) -> dict[str, Any]:
    """The fields of a ``steps`` record as JSON values."""
    count = len(record.step)
    same: dict[str, Any] = {}
    body: dict[str, Any] = {}
    if count <= LONGEST and _consecutive(record.step):
        body |= {"step": record.step[0], "count": count, "same": same}
    else:
        body["step"] = to_json(record.step, found, "step")
    compact = "count" in body
    cls: Any = type(record)
    for name in field_names(cls):
        values = getattr(record, name)
        if values is None or name in ("step", "metrics", "columns"):
            continue
        if name == "time_s" and compact and starts_only(values, record.step_time_s):
            body[name] = values.item(0)
        elif compact and (shared := once(values)) is not None:
            same[name] = to_json(shared, found, f"same.{name}")
        elif compact:
            body[name] = series_to_json(values, found, name)
        else:
            body[name] = _dense(values, found, name)
    if not same:
        body.pop("same", None)
    if record.metrics is not None:
        write = series_to_json if compact else _dense
        body["metrics"] = {k: write(v, found, f"metrics.{escaped(k)}") for k, v in record.metrics.items()}
    if record.columns is not None:
        body["columns"] = to_json(record.columns, found, "columns")
    return body


def _consecutive(numbers: Any) -> bool:
    if type(numbers) is not list or len(numbers) < 2 or type(numbers[0]) is not int:
        return False
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _dense(values: Any, found: Nonfinite, path: str) -> Any:
    return found.series(values, path) if isinstance(values, np.ndarray) else to_json(values, found, path)


def steps_from_json(body: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``steps`` record: floats measured at every step as float64 arrays, all else as lists.

    Args:
        body: the line's JSON object, non-finite numbers restored.
        entries: the type of one step's entry, by field.

    Raises:
        ValueError: a field has a value of another type or length than it should have.
    """
    numbers = _numbers(body.get("step", []), body.get("count"))
    count = len(numbers)
    same, metrics = body.get("same"), body.get("metrics")
    same = {} if same is None else same
    if type(same) is not dict or (metrics is not None and type(metrics) is not dict):
        raise ValueError("not a map")
    if type(body.get("step")) is int and count * (len(body) + len(same) + len(metrics or ())) > _MOST_ENTRIES:
        raise ValueError("too many steps for a line")
    known: dict[str, Any] = {"step": numbers}
    for name, hint in entries.items():
        convert, number = converter(hint), hint is float
        if same.get(name) is not None:
            value = convert(same[name])
            known[name] = np.full(count, value) if number else [value] * count
        elif (values := body.get(name)) is not None and not (
            name == "time_s" and type(values) in (float, int)
        ):
            known[name] = series_from_json(values, count, convert, number=number)
    if "time_s" in body and body["time_s"] is not None and "time_s" not in known:
        known["time_s"] = _times(body["time_s"], known.get("step_time_s"))
    if isinstance(known.get("time_s"), list):
        raise ValueError("a step without a time")  # noqa: TRY004 - a line is unreadable for one reason only
    if metrics is not None:
        floats = converter(float)
        known["metrics"] = {
            k: series_from_json(v, count, floats, number=True) for k, v in metrics.items() if v is not None
        }
    return known


def _numbers(step: Any, count: Any) -> list[int]:
    convert = converter(int)
    if type(step) is list:
        return [convert(number) for number in step]
    first, count = convert(step), convert(count)
    if not 0 <= count <= LONGEST:
        raise ValueError("not a number of steps")
    return list(range(first, first + count))


def _times(first: Any, durations: Any) -> Values:
    if not isinstance(durations, np.ndarray) or not len(durations):
        raise ValueError("a first time without step times")
    with np.errstate(over="ignore", invalid="ignore"):
        return ends(float(first), durations)


def rounded_steps(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars of a ``steps`` record, rounded: those of ``fields`` that change.

    Times to microseconds (watching to a tenth of one), gradient norms and update ratios to 5 significant
    digits, the loss and what was logged to 9. Where each step began when the one before ended, step times are
    the differences of the end times, at most a microsecond from what they were. Floats measured at every step
    become float64 arrays; rounding again changes nothing.
    """
    work = _Work()
    for name, values in fields.items():
        if values is not None and name in _PLACES:
            work.add((name,), values, -_PLACES[name])
        elif values is not None and name in _DIGITS:
            work.add((name,), values, _DIGITS[name])
    for name, values in (fields.get("metrics") or {}).items():
        work.add(("metrics", name), values, _METRIC_DIGITS)
    result: dict[str, Any] = {}
    for (name, *metric), values in work.done():
        if metric:
            result.setdefault(name, {})[metric[0]] = values
        else:
            result[name] = values
    _align(result)
    return result


class _Work:
    """Lists and arrays to be rounded in one go: for so few numbers numpy's time is that of its calls."""

    def __init__(self) -> None:
        self._what: list[tuple[tuple[str, ...], list[Any] | None, int]] = []
        self._parts: list[Values] = []

    def add(self, key: tuple[str, ...], values: Any, how: int) -> None:
        """Values to be rounded to ``how`` significant digits, or to ``-how`` decimal places."""
        gaps = None if isinstance(values, np.ndarray) or None not in values else values
        known = values if gaps is None else [v for v in values if v is not None]
        self._what.append((key, gaps, how))
        self._parts.append(np.asarray(known, np.float64))

    def done(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Each of them rounded: an array, or a list with None where there was None."""
        if not self._parts:
            return
        lengths = [len(part) for part in self._parts]
        how = np.repeat([h for *_, h in self._what], lengths)
        values = np.concatenate(self._parts)
        for which, rounding in ((how > 0, significant), (how < 0, decimals)):
            values[which] = rounding(values[which], np.abs(how[which]))
        for (key, gaps, _), part in zip(self._what, np.split(values, np.cumsum(lengths)[:-1]), strict=True):
            if gaps is None:
                yield key, part
            else:
                short = iter(part.tolist())
                yield key, [None if v is None else next(short) for v in gaps]


def _align(fields: dict[str, Any]) -> None:
    """Let the step times be the differences of the end times where they are, but for rounding."""
    times, durations = fields.get("time_s"), fields.get("step_time_s")
    if not (isinstance(times, np.ndarray) and isinstance(durations, np.ndarray)) or len(times) < 2:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        ended, took = np.rint(times * 1e6), np.rint(durations * 1e6)
        apart = np.diff(ended)
        near = np.abs(apart - took[1:]) <= 1
    if near.all() and max(ended.max(), took.max(), -ended.min(), -took.min()) < _WHOLE:
        took[1:] = apart
        fields["step_time_s"] = took / 1e6
