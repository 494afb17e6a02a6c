"""Sees the outputs of layers while the model runs and keeps nothing of them but sums and a few features."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch.patient import clean_name
from torchwatch.probes._kernels import Kernels
from torchwatch.probes._moments import Bounds
from torchwatch.probes._readable import first_tensor, tensors
from torchwatch.probes._roles import role_of, unit_axis

_UNCHANGED = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.Identity, nn.Flatten, nn.Unflatten,
)  # fmt: skip
"""In evaluation mode these put out what they get."""
_FEEDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTIVATES = ("relu", "gelu", "silu", "swish", "mish", "tanh", "sigmoid", "activation")
_REMEMBERED = 8
_UNIT_BOUNDS: Bounds = (-1.0, 1.0)

Key = tuple[str, str]
"""Name of a layer and ``output`` or ``input``."""


@dataclass
class Seen:
    """What one pass saw of a row, pooled over calls.

    Attributes:
        kind: class of the layer.
        shape: of a sample at the first call.
        judged: whether its units are judged.
        parts: of each call the number of entries and the eight moments.
        peaks: largest magnitude of each unit; None without units.
        activity: sum of the magnitudes of each unit.
        places: entries that each unit's sum is over.
        features: of the first call, (n, F) on the CPU; None where samples cannot be told apart.
    """

    kind: str
    shape: tuple[int, ...]
    judged: bool
    parts: list[tuple[int, list[float]]] = field(default_factory=list)
    peaks: Tensor | None = None
    activity: Tensor | None = None
    places: int = 0
    features: Tensor | None = None

    def join(self, other: Seen, *, described: bool) -> None:
        """Take in what another pass saw of the same row; its features only where they are wanted."""
        self.parts += other.parts
        if other.peaks is not None and other.activity is not None:
            self.add_units(other.peaks, other.activity, other.places)
        if described and self.features is not None:
            more = other.features
            alike = more is not None and more.shape[1] == self.features.shape[1]
            self.features = torch.cat([self.features, more]) if alike and more is not None else None

    def add_units(self, peaks: Tensor, activity: Tensor, places: int) -> None:
        """Add units of a call; calls of another width than the first are left out."""
        if self.peaks is None or self.activity is None:
            self.peaks, self.activity, self.places = peaks, activity, places
        elif self.peaks.shape == peaks.shape:
            self.peaks = torch.maximum(self.peaks, peaks)
            self.activity, self.places = self.activity + activity, self.places + places


class Watch:
    """One pass of a model over ``count`` samples; ``seen`` holds its rows in the order of the calls.

    Args:
        count: samples in the pass.
        described: how many of its first samples features are kept of.
        features: how many features, at most.
    """

    def __init__(self, count: int, described: int, features: int) -> None:
        self.count, self._described, self._most = count, described, features
        self.seen: dict[Key, Seen] = {}
        self._kernels = Kernels()
        self._recent: deque[tuple[Tensor, int]] = deque(maxlen=_REMEMBERED)
        self._given: list[Tensor] = []
        self._channels_first: bool | None = None

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Watch the layers of a model inside the body; attention runs the way that calls its layers."""
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
            handle = model.register_forward_pre_hook(self._starts, with_kwargs=True)
            stack.callback(handle.remove)
            for raw_name, module in model.named_modules():
                name = clean_name(raw_name) or "model"
                if isinstance(module, _FEEDS):
                    stack.callback(module.register_forward_pre_hook(self._reads(name)).remove)
                own = any(p is not None for p in module._parameters.values())
                if (own or not module._modules) and not isinstance(module, _UNCHANGED):
                    stack.callback(module.register_forward_hook(self._puts_out(name)).remove)
            yield
        self._recent.clear()
        self._given.clear()

    def _starts(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        self._given = [*tensors(args), *tensors(kwargs)]

    def _reads(self, name: str) -> Any:
        """Hook before a Linear or convolution: what it reads that no layer put out."""

        def hook(module: nn.Module, args: Any) -> None:
            tensor = first_tensor(args)
            if tensor is not None and not self._is_known(tensor):
                first = not isinstance(module, nn.Linear)
                self._take((name, "input"), module, tensor, judged=True, channels_first=first, bounds=None)

        return hook

    def _puts_out(self, name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None:
                return
            role = role_of(module)
            if role.channels_first is not None:
                self._channels_first = role.channels_first
            kind, recurrent = type(module).__name__.lower(), isinstance(module, nn.RNNBase)
            judged = role.activates or recurrent or any(word in kind for word in _ACTIVATES)
            bounds = _UNIT_BOUNDS if recurrent and getattr(module, "mode", "") != "RNN_RELU" else role.bounds
            first = False if recurrent else self._channels_first
            self._take((name, "output"), module, tensor, judged=judged, channels_first=first, bounds=bounds)
            self._recent.append((tensor, tensor._version))

        return hook

    def _is_known(self, tensor: Tensor) -> bool:
        """Whether a layer put this out, or the model was given it, and nothing has written to it since."""
        place = tensor.untyped_storage().data_ptr()
        if any(t.untyped_storage().data_ptr() == place for t in self._given):
            return True
        return any(t.untyped_storage().data_ptr() == place and v == tensor._version for t, v in self._recent)

    def _take(
        self,
        key: Key,
        module: nn.Module,
        tensor: Tensor,
        *,
        judged: bool,
        channels_first: bool | None,
        bounds: Bounds | None,
    ) -> None:
        tensor = tensor.detach()
        axis = unit_axis(tensor, channels_first=channels_first)
        moments = self._kernels.moments(tensor, axis, bounds=bounds)
        seen = self.seen.get(key)
        if seen is None:
            seen = self.seen[key] = Seen(type(module).__name__, tuple(tensor.shape[1:]), judged)
            seen.features = self._features(tensor, axis)
        seen.parts.append((tensor.numel(), [float(v) for v in moments.vector]))
        if axis is not None and moments.units is not None:
            peaks, activity = (u.detach().double().cpu() for u in moments.units)
            places = tensor.numel() // tensor.shape[axis]
            seen.add_units(peaks, activity * places, places)

    def _features(self, tensor: Tensor, axis: int | None) -> Tensor | None:
        """Few features of the first samples: channels averaged over places until they are few enough."""
        if tensor.ndim < 2 or not self._described:
            return None
        if tensor.shape[0] != self.count:
            if tensor.shape[1] == self.count:
                tensor = tensor.movedim(1, 0)
            elif tensor.shape[0] % self.count == 0:
                tensor, axis = tensor.reshape(self.count, -1, *tensor.shape[1:]), axis and axis + 1
            else:
                return None
        rows = tensor[: self._described]
        moved = rows.movedim(axis, 1) if axis is not None else rows[:, None]
        flat = moved.reshape(len(rows), moved.shape[1], -1).float()
        flat = flat[:, :: -(-flat.shape[1] // self._most)]
        places = min(flat.shape[2], max(1, self._most // flat.shape[1]))
        if places < flat.shape[2]:
            flat = nn.functional.adaptive_avg_pool1d(flat, places)
        return flat.reshape(len(rows), -1).cpu().clone()
