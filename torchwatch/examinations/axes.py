"""Names of the axes of an input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchwatch.errors import UsageError

_RECURRENT = (nn.RNNBase, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)


def name_axes(given: Sequence[str] | None, main: Tensor, model: nn.Module) -> tuple[str, ...]:
    """Names of the axes without the batch axis.

    ``("token",)`` for integers, ``("feature",)`` for vectors; of matrices ``("channel", "time")``, or
    ``("time", "channel")`` where the model's first layer is recurrent or takes the last axis as features;
    ``("channel", "height", "width")`` for images and ``("channel", "depth", "height", "width")`` for volumes.

    Args:
        given: names given by the user.
        main: the input, (N, …).
        model: whose first layers tell which axis holds channels.

    Raises:
        UsageError: another number of names than axes, or a name twice.
    """
    count = main.ndim - 1
    if given is not None:
        names = (given,) if isinstance(given, str) else tuple(given)
        if len(names) != count or len(set(names)) != len(names):
            shape = tuple(main.shape[1:])
            raise UsageError(
                f"axes must name each of the {count} axes of an input of shape {shape} once (the batch axis "
                f"is left out), not {names}"
            )
        return names
    if count == 1:
        return ("feature",) if main.is_floating_point() else ("token",)
    if count == 2:
        return _of_matrix(main, model)
    if count == 3:
        return ("channel", "height", "width")
    if count == 4:
        return ("channel", "depth", "height", "width")
    return tuple(f"axis{i}" for i in range(count))


def _of_matrix(main: Tensor, model: nn.Module) -> tuple[str, ...]:
    first, second = main.shape[1:]
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            image = isinstance(module, nn.Conv2d) and first == second
            return ("height", "width") if image else ("channel", "time")
        features = isinstance(module, nn.Linear) and module.in_features == second != first
        if features or isinstance(module, _RECURRENT):
            return ("time", "channel")
        if isinstance(module, nn.Linear) and module.in_features == first * second:
            return ("height", "width") if first == second else ("channel", "time")
    return ("channel", "time")


def integer(tensor: Tensor) -> bool:
    """Whether a tensor holds indices, which are attributed at their embedding."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
