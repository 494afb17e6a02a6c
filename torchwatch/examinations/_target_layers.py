"""Which layers are looked into: the first, a middle and the last one, or those that the user names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchwatch.errors import ConfigError

if TYPE_CHECKING:
    from torchwatch.examinations._explained import Subject

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST_DIMENSIONS = 5
_WITH_UNITS = (*CONVOLUTIONS, nn.Linear)


class Executed:
    """Layers in the order in which a forward pass of one sample runs them, with the shapes they see.

    Args:
        subject: whose first sample is run.
        model: a copy of the model, free to change.

    Attributes:
        shapes: by name: input shape and output shape of the layer's first call; only calls with one tensor.
        calls: by name: how often the layer ran.
    """

    def __init__(self, subject: Subject, model: nn.Module) -> None:
        self.model = model
        self.shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self.calls: dict[str, int] = {}
        handles = []
        for name, module in model.named_modules():

            def note(_: nn.Module, args: tuple[Any, ...], output: Any, name: str = name) -> None:
                self.calls[name] = self.calls.get(name, 0) + 1
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    self.shapes.setdefault(name, (tuple(args[0].shape), tuple(output.shape)))

            handles.append(module.register_forward_hook(note))
        try:
            with torch.enable_grad():  # without it, fused transformer layers do not call their parts
                main, extra = subject.rows(slice(0, 1))
                subject.model(model)(main.requires_grad_(), *extra)
        finally:
            for handle in handles:
                handle.remove()

    def convolutions(self, named: Sequence[str]) -> list[str]:
        """First, middle and last convolution, or those of the user's layers that have places."""
        if named:
            self._assert_known(named)
            convolutes = any(isinstance(self.model.get_submodule(n), nn.Conv1d) for n in self.shapes)
            least = 3 if convolutes else 4  # (n, tokens, width) is no map
            return [n for n in named if least <= len(self.shapes[n][1]) <= _MOST_DIMENSIONS]
        return _three(self._of(CONVOLUTIONS))

    def with_units(self, named: Sequence[str]) -> list[str]:
        """First, middle and last layer with weights before the output layer, or the user's."""
        if named:
            self._assert_known(named)
            return list(named)
        return _three(self._of(_WITH_UNITS)[:-1])

    def _of(self, kinds: tuple[type[nn.Module], ...]) -> list[str]:
        """Layers of some kinds that run once: what flows through one that runs again is not well defined."""
        return [
            n for n in self.shapes if isinstance(self.model.get_submodule(n), kinds) and self.calls[n] == 1
        ]

    def _assert_known(self, named: Sequence[str]) -> None:
        known = list(self.shapes)
        for name in named:
            if name not in self.shapes:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known[:20])}"
                raise ConfigError(f"target_layers: no layer {name!r} runs in a forward pass; {hint}")


def _three(names: list[str]) -> list[str]:
    places = sorted({0, len(names) // 2, len(names) - 1}) if len(names) > 2 else range(len(names))
    return [names[i] for i in places]


def axes_of_map(executed: Executed, layer: str, lengths: dict[str, int]) -> tuple[str, ...] | None:
    """Names of the input's axes that a layer's map is over; None where they cannot be told.

    They are told from the input of the first convolution with as many places: its sizes are those of the
    input's axes, in whatever order.

    Args:
        executed: layers and their shapes.
        layer: the layer.
        lengths: of the input's axes by name.
    """
    places = len(executed.shapes[layer][1]) - 2
    first = next(s for s, out in executed.shapes.values() if len(s) == len(out) == places + 2)
    names: list[str] = []
    for size in first[2:]:
        fits = [a for a, n in lengths.items() if n == size and a not in names]
        fits.sort(key=lambda a: a in ("channel", "feature"))
        if not fits:
            break
        names.append(fits[0])
    if len(names) == places:
        return tuple(names)
    spatial = [a for a in lengths if a not in ("channel", "feature")]
    return tuple(spatial) if len(spatial) == places else None
