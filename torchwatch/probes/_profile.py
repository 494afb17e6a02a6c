"""What a profiler window says: time per layer forward and backward, operators by kind, longest kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

MARK = "torchwatch::"
"""Prefix of the ranges that the profiler probe puts around layers."""

_BACKWARD = "autograd::engine::evaluate_function: "
_OPTIMIZER = "Optimizer.step#"
_MOST = 12
_KINDS: dict[str, tuple[str, ...]] = {
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention"),
    "convolution": ("conv", "mkldnn_convolution", "cudnn_convolution"),
    "matmul": ("mm", "addmm", "matmul", "bmm", "linear", "dot", "mv", "einsum", "baddbmm"),
    "normalisation": ("norm", "batch_norm", "layer_norm"),
    "softmax and loss": ("softmax", "nll_loss", "cross_entropy", "mse_loss", "binary_cross"),
    "activation": ("relu", "gelu", "silu", "sigmoid", "tanh", "elu", "softplus", "hardtanh", "threshold"),
    "pooling": ("pool", "upsample", "interpolate"),
    "embedding and indexing": ("embedding", "index", "gather", "scatter", "take"),
    "random": ("dropout", "bernoulli", "rand", "normal_", "uniform_"),
    "memory": ("copy_", "to", "_to_copy", "cat", "stack", "contiguous", "clone", "fill_", "zero_", "empty",
               "as_strided", "view", "reshape", "transpose", "permute", "expand", "slice", "select", "t"),
    "reduction": ("sum", "mean", "max", "min", "var", "std", "argmax", "cumsum"),
}  # fmt: skip


def summarise(events: Iterable[Any], *, on_device: bool) -> dict[str, Any]:
    """The window as plain JSON values; times are seconds, of the device where ``on_device``, else of the CPU.

    ``layers``: forward and backward self time per layer name, longest first, with their ``share`` of all
    layers' time. ``operators``: self time per kind. ``top``: the longest operators (kernels on a device).
    ``forward_s`` is the time of the layers, ``backward_s`` that of the backward pass, ``optimizer_s`` that of
    optimizer steps that lie in the window as a whole.
    """
    listed = list(events)
    spans = _Spans(on_device=on_device)
    for event in listed:
        spans.place(event)
    for event in listed:
        spans.add_backward(event)
    backward = sum(spans.whole(e) for e in listed if e.name.startswith(_BACKWARD) and e.cpu_parent is None)
    forward = sum(spans.forward.values())
    total = forward + sum(spans.backward.values())
    layers = [
        {
            "name": name,
            "forward_s": _seconds(spans.forward[name]),
            "backward_s": _seconds(spans.backward[name]),
            "share": round((spans.forward[name] + spans.backward[name]) / total, 5) if total else 0.0,
        }
        for name in sorted(spans.forward, key=lambda n: -(spans.forward[n] + spans.backward[n]))
    ]
    return {
        "device": "cuda" if on_device else "cpu",
        "forward_s": _seconds(forward),
        "backward_s": _seconds(backward),
        "optimizer_s": _seconds(sum(spans.whole(e) for e in listed if e.name.startswith(_OPTIMIZER))),
        "backward_share": round(backward / (forward + backward), 5) if forward + backward else None,
        "layers": layers,
        "operators": {k: _seconds(v) for k, v in sorted(spans.kinds.items(), key=lambda x: -x[1])},
        "top": [{"name": n, "s": _seconds(v)} for n, v in sorted(spans.names.items(), key=lambda x: -x[1])][
            :_MOST
        ],
    }


class _Spans:
    """Adds events up; microseconds."""

    def __init__(self, *, on_device: bool) -> None:
        self._on_device = on_device
        self.forward: dict[str, float] = defaultdict(float)
        self.backward: dict[str, float] = defaultdict(float)
        self.kinds: dict[str, float] = defaultdict(float)
        self.names: dict[str, float] = defaultdict(float)
        self._layer_of_sequence: dict[int, str] = {}

    def own(self, event: Any) -> float:
        return float(event.self_device_time_total if self._on_device else event.self_cpu_time_total)

    def whole(self, event: Any) -> float:
        return float(event.device_time_total if self._on_device else event.cpu_time_total)

    def place(self, event: Any) -> None:
        """Self time of an operator: to its kind, and to the innermost layer that it ran in."""
        layer = _layer(event)
        if layer is not None:
            self.forward[layer] += 0.0 if event.name.startswith(MARK) and self._on_device else self.own(event)
            if event.sequence_nr >= 0:
                self._layer_of_sequence[event.sequence_nr] = layer
        if event.name.startswith("aten::"):
            self.kinds[_kind(event.name)] += self.own(event)
            if not self._on_device:
                self.names[event.name] += self.own(event)
        if self._on_device:
            for kernel in event.kernels:
                self.names[kernel.name] += float(kernel.duration)

    def add_backward(self, event: Any) -> None:
        """A node of the backward pass belongs to the layer whose operator made it."""
        if event.name.startswith(_BACKWARD):
            layer = self._layer_of_sequence.get(event.sequence_nr)
            if layer is not None:
                self.backward[layer] += self.whole(event)


def _layer(event: Any) -> str | None:
    """Name of the innermost layer around a forward event."""
    while event is not None:
        name: str = event.name
        if name.startswith(MARK):
            return name.removeprefix(MARK)
        if name.startswith(_BACKWARD):
            return None
        event = event.cpu_parent
    return None


def _kind(name: str) -> str:
    short = name.removeprefix("aten::")
    for kind, parts in _KINDS.items():
        if any(short == part or (len(part) > 2 and part in short) for part in parts):
            return kind
    return "elementwise and other"


def _seconds(microseconds: float) -> float:
    return round(microseconds * 1e-6, 9)
