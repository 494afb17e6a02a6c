"""What the class of a module says about its output: where its units are, its bounds, its sign."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from torchwatch.probes._moments import NEAR, Bounds

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Threshold,
    nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.LogSigmoid, nn.GLU,
)  # fmt: skip
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
)  # fmt: skip
_NONNEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_BOUNDS: dict[type[nn.Module], Bounds] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
}


class Role(NamedTuple):
    """What the class of a module says.

    ``activates``: its output has units. ``channels_first``: the units of this module and of activations after
    it are on axis 1 (True) or on the last (False); None says nothing about it. ``bounds`` are those that the
    output saturates at. ``nonnegative``: the output is never below 0.
    """

    activates: bool
    channels_first: bool | None
    bounds: Bounds | None
    nonnegative: bool


def role_of(module: nn.Module) -> Role:
    """The role of a module. Subclasses may compute something else: they are promised nothing."""
    kind = type(module)
    channels_first = None
    if isinstance(module, (*_CONVOLUTIONS, nn.Linear)):
        channels_first = not isinstance(module, nn.Linear)
    return Role(
        activates=isinstance(module, _ACTIVATIONS),
        channels_first=channels_first,
        bounds=_bounds(module),
        nonnegative=kind in _NONNEGATIVE,
    )


def _bounds(module: nn.Module) -> Bounds | None:
    if type(module) is nn.Hardtanh:  # ReLU6 is a subclass, and a rectifier's zero is no saturation
        low, high = float(module.min_val), float(module.max_val)
        return (low, high) if high - low > 2 * NEAR else None
    return _BOUNDS.get(type(module))


def unit_axis(tensor: torch.Tensor, *, channels_first: bool | None) -> int | None:
    """Axis of a tensor's units: channels of images, else features; None without a batch axis beside it."""
    axes = tensor.dim()
    if axes < 2:
        return None
    if channels_first is None:
        channels_first = axes >= 4
    return 1 if axes == 2 or channels_first else axes - 1
