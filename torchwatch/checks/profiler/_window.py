"""What the checks of profiler windows share: the latest window, joined with the layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torchwatch.history import History
    from torchwatch.records import LayerInfo

_REMEMBERED = 8


class LayerTime(NamedTuple):
    """A layer in a window: its share of all layers' time, and of the model's parameters."""

    layer: LayerInfo
    compute: float
    parameters: float


class Window(NamedTuple):
    """The latest window: its first step, the leaf layers that ran in it, longest first, and all it says."""

    step: int
    leaves: list[LayerTime]
    data: Mapping[str, Any]


def latest(history: History) -> Window:
    """The latest window. Names that are not in the layout, and layers around others, are left out."""
    return history.cached("profile-window", lambda: _latest(history))


def _latest(history: History) -> Window:
    profile = history.profiles[-1]
    known = {x.name: x for x in history.layout.layers} if history.layout is not None else {}
    total = sum(x.parameters for x in known.values())
    around = {name[:i] for name in known for i, char in enumerate(name) if char == "."} | {""}
    leaves = []
    rows = profile.data.get("layers")
    for row in rows if isinstance(rows, list) else []:
        name, share = (row.get("name"), row.get("share")) if isinstance(row, dict) else (None, None)
        layer = known.get(str(name))
        if layer is not None and layer.name not in around and isinstance(share, (int, float)):
            leaves.append(LayerTime(layer, float(share), layer.parameters / total if total else 0.0))
    return Window(profile.step, sorted(leaves, key=lambda x: -x.compute), profile.data)


class Passes(NamedTuple):
    """Forward and backward pass, in the same unit of time."""

    forward: float
    backward: float


def passes(history: History) -> list[Passes]:
    """Estimates of the two passes: from the window, and from the clock of sampled steps where there is one.

    The window's forward time is that of layers only. What runs between them (functional attention, the loss)
    is in its backward time all the same, so that it tells too little of the forward pass; the clock's forward
    pass is all of the model's, but without the loss.
    """
    data = latest(history).data
    found = [(data.get("forward_s"), data.get("backward_s"))]
    timed = [
        i for i in history.intervals[-_REMEMBERED:]
        if i.forward_share is not None and i.backward_share is not None
    ]  # fmt: skip
    found += [(i.forward_share, i.backward_share) for i in timed[-1:]]
    return [
        Passes(float(f), float(b))
        for f, b in found
        if isinstance(f, (int, float)) and isinstance(b, (int, float)) and f > 0 and b > 0
    ]
