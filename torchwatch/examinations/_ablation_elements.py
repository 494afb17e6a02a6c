"""What is ablated of an input: elements of an axis, windows along it, patches of an image, named groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torchwatch.errors import UsageError
from torchwatch.examinations.case import Case
from torchwatch.results.ablation import Kind

Piece = tuple[slice, ...]
"""One slice per axis of the main input, without the batch axis."""

WINDOWED = ("time", "token", "position", "frequency", "height", "width", "depth", "step")
"""Axes whose single entries mean little by themselves."""

_FEWEST_WINDOWS = 5
_MOST = 512
"""A longer axis is ablated in at most this many windows: more would take hours and fill no page."""
_GRID = 8


@dataclass(frozen=True)
class Element:
    """Something that is ablated at once: a name, and slices of the input."""

    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Part:
    """Everything that is ablated along an axis; see :class:`~torchwatch.results.ablation.AxisAblation`."""

    axis: str
    kind: Kind
    elements: tuple[Element, ...]
    windows: tuple[tuple[int, int], ...] | None = None
    patches: tuple[tuple[int, int, int, int], ...] | None = None
    grid: tuple[int, int] | None = None
    rate: float | None = None


def parts_of(case: Case) -> list[Part]:
    """The parts of the main input, those of channels or features first.

    An axis of which there is but one element or window is left out, unless there is nothing else.

    Raises:
        UsageError: ``channel_groups`` names a channel that is not there.
    """
    shape = tuple(case.samples.inputs[case.main].shape[1:])
    axes = case.axes
    found, places = [], [i for i, a in enumerate(axes) if not _windowed(a, shape[i])]
    found += [_elements(case, i, shape) for i in places]
    if case.options.channel_groups:
        found.append(_groups(case, case.options.channel_groups, places, shape))
    image = {"height", "width"} <= set(axes)
    if image:
        found.append(_patches(axes.index("height"), axes.index("width"), shape))
    taken = {*places, *(i for i, a in enumerate(axes) if image and a in ("height", "width"))}
    found += [_windows(case, i, shape) for i in range(len(axes)) if i not in taken]
    told = [p for p in found if len(p.elements) > 1 or p.kind == "group"]
    return told or found[:1]


def _windowed(axis: str, length: int) -> bool:
    return axis in WINDOWED or length > _MOST


def _along(place: int, start: int, end: int, shape: Sequence[int]) -> Piece:
    return tuple(slice(start, end) if i == place else slice(0, n) for i, n in enumerate(shape))


def _elements(case: Case, place: int, shape: Sequence[int]) -> Part:
    axis = case.axes[place]
    names = case.names_along(axis, shape[place])
    elements = (Element(n, (_along(place, i, i + 1, shape),)) for i, n in enumerate(names))
    return Part(axis, "element", tuple(elements))


def _windows(case: Case, place: int, shape: Sequence[int]) -> Part:
    """Windows of ``options.window`` bins, narrower where fewer than five of them would fit."""
    axis, length = case.axes[place], shape[place]
    width = max(1, min(case.options.window, length // _FEWEST_WINDOWS), -(-length // _MOST))
    ranges = tuple((lo, min(lo + width, length)) for lo in range(0, length, width))
    rate = case.inputs.sample_rate if axis == "time" else None
    elements = (Element(_named(*r, rate), (_along(place, *r, shape),)) for r in ranges)
    return Part(axis, "window", tuple(elements), windows=ranges, rate=rate)


def _named(start: int, end: int, rate: float | None) -> str:
    if rate:
        return f"{start / rate:.4g}–{end / rate:.4g} s"
    return str(start) if end == start + 1 else f"{start}–{end - 1}"


def _patches(row: int, column: int, shape: Sequence[int]) -> Part:
    """A grid of at most 8 × 8 rectangles that differ by no more than one row or column in size."""
    rows, columns = _cut(shape[row]), _cut(shape[column])
    patches = tuple((r0, r1, c0, c1) for r0, r1 in rows for c0, c1 in columns)

    def piece(r0: int, r1: int, c0: int, c1: int) -> Piece:
        spans = {row: slice(r0, r1), column: slice(c0, c1)}
        return tuple(spans.get(i, slice(0, n)) for i, n in enumerate(shape))

    elements = (
        Element(f"rows {_named(*p[:2], None)}, columns {_named(*p[2:], None)}", (piece(*p),)) for p in patches
    )
    return Part(
        "height×width", "patch", tuple(elements), patches=patches, grid=(len(rows), len(columns))
    )  # fmt: skip


def _cut(length: int) -> list[tuple[int, int]]:
    count = min(_GRID, length)
    bounds = [i * length // count for i in range(count + 1)]
    return list(itertools.pairwise(bounds))


def _groups(
    case: Case, groups: Mapping[str, Iterable[str | int]], places: Sequence[int], shape: Sequence[int]
) -> Part:
    if not places:
        raise UsageError(
            f"channel_groups needs a channel or feature axis; the axes are {', '.join(case.axes)}"
        )
    place = places[0]
    names = case.names_along(case.axes[place], shape[place])
    elements = []
    for name, members in groups.items():
        numbers = sorted({_number(m, names, name) for m in members})
        if not numbers:
            raise UsageError(f"channel_groups: {name!r} names no channels")
        elements.append(Element(str(name), tuple(_along(place, i, i + 1, shape) for i in numbers)))
    return Part(case.axes[place], "group", tuple(elements))


def _number(member: str | int, names: Sequence[str], group: str) -> int:
    if isinstance(member, int) and 0 <= member < len(names):
        return member
    if str(member) in names:
        return names.index(str(member))
    raise UsageError(f"channel_groups: {member!r} of {group!r} is none of the {len(names)} channels")
