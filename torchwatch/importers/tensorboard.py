"""TensorBoard event files: scalars by tag and step. Needs the package ``tensorboard``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchwatch.errors import MissingExtra, NotARunFile
from torchwatch.importers.log import Log
from torchwatch.importers.source import Row, Source
from torchwatch.importers.table import log_of
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "TensorBoard events"

_STEP, _TIME = "step", "wall_time"


def recognises(source: Source) -> bool:
    """Whether the first record says ``brain.Event``, the version of the format."""
    return b"brain.Event:" in source.head[8:64]


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log: every tag with scalars is a column, beside ``step`` and ``wall_time``.

    Raises:
        MissingExtra: the package is not installed.
    """
    rows: list[Row] = []
    for step, time_s, tag, value in _scalars(source):
        if not rows or rows[-1][_STEP] != float(step) or tag in rows[-1]:
            rows.append({_STEP: float(step), _TIME: time_s})
        rows[-1][tag] = value
    if not rows:
        raise NotARunFile(f"{printable(source.path)} is a TensorBoard event file without scalars")
    return log_of(source, NAME, rows, columns)


def _scalars(source: Source) -> Iterator[tuple[int, float, str, float]]:
    """Step, time, tag and value of each scalar, in the order of the file; a torn end is passed over."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise MissingExtra(
            f"{printable(source.path)} is a TensorBoard event file, and reading it needs a package: "
            'pip install "torchwatch-monitor[tensorboard]"'
        ) from error
    events: Any = EventFileLoader(str(source.path)).Load()
    try:
        for event in events:
            for value in event.summary.value:
                number = _scalar(tensor_util.make_ndarray(value.tensor)) if value.HasField("tensor") else None
                if number is not None:
                    yield int(event.step), float(event.wall_time), str(value.tag), number
    except Exception:  # noqa: BLE001 - the file is data: whatever its bytes make the reader raise
        source.torn += 1


def _scalar(array: Any) -> float | None:
    """The only number of an array; None for histograms, images and words."""
    if array.size != 1 or array.dtype.kind not in "fiu":
        return None
    value = float(array.reshape(-1)[0])
    return value if not math.isinf(value) or array.dtype.kind == "f" else None
