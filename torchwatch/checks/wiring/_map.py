"""What the checks of the wiring share: the map in force, since when, how often it was looked at, and names.

The map of the wiring is written where it changed and holds until the next one, so between two of them only
the number of sampled steps tells how often the same was seen. Its keys: :mod:`torchwatch.probes.wiring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchwatch.check import NotReady
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torchwatch.history import History
    from torchwatch.records import Layout

_NAMED = 5
_NEW_STEPS = 64


LATER = NotReady("looked at again at the end of the interval")


def in_force(history: History) -> Mapping[str, Any] | None:
    """The latest map under the present layout, None before the first."""
    return history.cached("wiring-map", lambda: _latest(history))


def _latest(history: History) -> Mapping[str, Any] | None:
    last = history.stretches("wiring", 1)
    return last[0].value if last else None


def onset(history: History, holds: Callable[[Mapping[str, Any]], Any]) -> int:
    """The first step of the last maps in a row of which something is so; the latest must be one."""
    since = history.step
    for stretch in reversed(history.stretches("wiring")):
        if not holds(stretch.value):
            break
        since = stretch.first
    return since


def is_due(history: History, since: int) -> bool:
    """Whether to look at what has been so since then: while it is new, and after that at intervals.

    What holds for long says the same at every step, and telling it costs more than finding nothing.
    """
    return history.new_from > history.step or history.new_from - since <= _NEW_STEPS


def looked(history: History) -> npt.NDArray[np.int64]:
    """The sampled steps, oldest first: those that timed the optimizer, or read the weights."""
    timed, read = history.series("optimizer_s").steps, history.columns("weight_norms").steps
    return timed if timed.size >= read.size else read


def looks(history: History, since: int) -> int:
    """Sampled steps from ``since`` on."""
    steps = looked(history)
    return int(steps.size - np.searchsorted(steps, since))


def indices(value: Any, count: int) -> list[int]:
    """Those of a list of the map that can be indices among ``count``: a file can hold anything."""
    return [i for i in value if isinstance(i, int) and 0 <= i < count] if isinstance(value, list) else []


def left_out(state: Mapping[str, Any], key: str) -> int:
    """How many indices a list of the map lacks because it was cut."""
    more = state.get("more")
    count = more.get(key) if isinstance(more, dict) else None
    return count if isinstance(count, int) else 0


def listed(names: Sequence[str], more: int = 0) -> str:
    """Up to five names, and how many there are besides."""
    more += max(0, len(names) - _NAMED)
    shown = ", ".join(printable(name or "the model") for name in names[:_NAMED])
    return f"{shown} and {more} more" if more else shown


def frozen_stages(history: History) -> list[str]:
    """What was declared to be frozen."""
    stages = history.declared.get("frozen_stages")
    return [str(s) for s in stages] if isinstance(stages, (list, tuple)) else []


def is_in(stages: Sequence[str], name: str) -> bool:
    """Whether a parameter belongs to one of the stages."""
    return any(name == s or name.startswith(f"{s}.") for s in stages)


def first_layer(layout: Layout, parameters: Sequence[int]) -> str:
    """The layer of these parameters that is called first; of those never called the first in the model."""

    def place(index: int) -> tuple[bool, int, int]:
        order = layout.layers[layout.parameters[index].layer].order
        return (order is None, order or 0, index)

    return layout.layers[layout.parameters[min(parameters, key=place)].layer].name
