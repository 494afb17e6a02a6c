"""Of what kinds a model is, and its layers as checks of its architecture read them.

A model can be of several kinds; only the checks of its kinds run. Kinds are told from what layers are and
hold, not from the model's class: ``cnn`` has convolutions with kernels that overlap or mix channels over an
image (patch embeddings and the depthwise convolutions of state-space models do not make one),
``transformer`` has attention with queries and keys, ``rnn`` has recurrent layers; ``generic`` is all else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.history.attentions import Attention, attentions

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import LayerInfo, Layout

_RECURRENT = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
_NOTHING_DONE = ("Dropout", "Identity", "DropPath")
_LEAST_SERIES_CONVOLUTIONS = 2


def kinds_of(layout: Layout) -> frozenset[str]:
    """The model's kinds: one or several of cnn, transformer and rnn, or generic alone."""
    return _named(layout, attends=bool(attentions(layout)))


def attentions_of(history: History) -> list[Attention]:
    """The attentions of the present layout, found once."""
    layout = history.layout
    return [] if layout is None else history.of_layout("attentions", lambda: attentions(layout))


def kinds_seen(history: History, layout: Layout) -> frozenset[str]:
    """:func:`kinds_of` the present layout of a history, found once."""
    return history.of_layout("kinds", lambda: _named(layout, attends=bool(attentions_of(history))))


def _named(layout: Layout, *, attends: bool) -> frozenset[str]:
    found = set()
    if _is_cnn(convolutions(layout)):
        found.add("cnn")
    if attends:
        found.add("transformer")
    if recurrents(layout):
        found.add("rnn")
    return frozenset(found or {"generic"})


def called(layout: Layout) -> list[LayerInfo]:
    """The layers that ran in the first step, in call order."""
    return sorted((x for x in layout.layers if x.order is not None), key=lambda x: x.order or 0)


def does_nothing(layer: LayerInfo) -> bool:
    """Whether its output is its input, but for dropout."""
    return any(word in layer.type for word in _NOTHING_DONE)


def whole(layer: LayerInfo, name: str) -> int | None:
    """An attribute that is a whole number."""
    value = layer.attributes.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution. ``given`` and ``put_out`` are the shapes of the first step, [] where it did not run."""

    layer: LayerInfo
    channels: int
    filters: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool

    @property
    def given(self) -> list[int]:
        """Shape of its input (batch, channels, sides …)."""
        return self._shape(self.layer.inputs)

    @property
    def put_out(self) -> list[int]:
        """Shape of its output (batch, filters, sides …)."""
        return self._shape(self.layer.outputs)

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has filters of its own."""
        return self.groups > 1 and self.groups == self.channels

    @property
    def is_patching(self) -> bool:
        """Whether it cuts its input into patches that do not overlap."""
        return self.kernel == self.stride and max(self.kernel) > 1

    def _shape(self, shapes: list[list[int]]) -> list[int]:
        """With a batch axis, which an unbatched input lacks."""
        shape = shapes[0] if shapes else []
        return [1, *shape] if len(shape) == len(self.kernel) + 1 else shape


def convolutions(layout: Layout) -> list[Convolution]:
    """All convolutions, those that ran first and in call order."""
    found = (_convolution(layer) for layer in layout.layers)
    return sorted(
        (c for c in found if c is not None), key=lambda c: (c.layer.order is None, c.layer.order or 0)
    )


def _convolution(layer: LayerInfo) -> Convolution | None:
    """By its attributes, so that subclasses count whatever they are called."""
    kernel = _numbers(layer, "kernel_size")
    ones = (1,) * len(kernel)
    channels, filters = whole(layer, "in_channels"), whole(layer, "out_channels")
    if not kernel or channels is None or filters is None:
        return None
    return Convolution(
        layer,
        channels,
        filters,
        kernel,
        stride=_numbers(layer, "stride") or ones,
        dilation=_numbers(layer, "dilation") or ones,
        groups=whole(layer, "groups") or 1,
        transposed=layer.attributes.get("transposed") is True or "Transpose" in layer.type,
    )


def _numbers(layer: LayerInfo, name: str) -> tuple[int, ...]:
    value = layer.attributes.get(name)
    if isinstance(value, int):
        digits = layer.type.rstrip("d")[-1:]
        return (value,) * (int(digits) if digits in ("1", "2", "3") else 2)
    return tuple(value) if isinstance(value, list) and all(isinstance(v, int) for v in value) else ()


def _is_cnn(found: list[Convolution]) -> bool:
    """An image convolution, or several over a series, with a kernel that reaches further than one place."""
    reaching = [c for c in found if max(c.kernel) > 1 and not c.is_patching]
    series = [c for c in reaching if len(c.kernel) == 1 and not c.is_depthwise]
    return len(reaching) > sum(len(c.kernel) == 1 for c in reaching) or (
        len(series) >= _LEAST_SERIES_CONVOLUTIONS
    )


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A recurrent layer; ``depth`` is how many it stacks (a cell is one)."""

    layer: LayerInfo
    inputs: int
    hidden: int
    depth: int
    bidirectional: bool

    @property
    def length(self) -> int | None:
        """Steps of the sequence that it was given, of packed ones their mean; None for a cell or unseen."""
        shape = self.layer.inputs[0] if self.layer.inputs else []
        if self.layer.type.endswith("Cell") or len(shape) not in (2, 3):
            return None
        if len(shape) == 3:
            return shape[1] if self.layer.attributes.get("batch_first") is True else shape[0]
        state = self.layer.outputs[1] if len(self.layer.outputs) > 1 else []
        return shape[0] // max(1, state[1] if len(state) == 3 else 1)  # with a batch of states: packed


def recurrents(layout: Layout) -> list[Recurrent]:
    """Recurrent layers, those that ran first and in call order."""
    found = (_recurrent(layer) for layer in layout.layers)
    return sorted(
        (r for r in found if r is not None), key=lambda r: (r.layer.order is None, r.layer.order or 0)
    )


def _recurrent(layer: LayerInfo) -> Recurrent | None:
    inputs, hidden = whole(layer, "input_size"), whole(layer, "hidden_size")
    mode = layer.attributes.get("mode")
    known = layer.type.endswith(_RECURRENT) or (isinstance(mode, str) and mode.startswith(_RECURRENT))
    if not known or inputs is None or hidden is None:
        return None
    bidirectional = layer.attributes.get("bidirectional") is True
    return Recurrent(layer, inputs, hidden, whole(layer, "num_layers") or 1, bidirectional)


def parameters_of(layout: Layout) -> int:
    """All parameters of the layers."""
    return sum(layer.parameters for layer in layout.layers)
