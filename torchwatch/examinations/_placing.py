"""The patient itself: out of its wrappers, on its device, and as a copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch.errors import UsageError


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and ``torch.compile``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also where modules hold tensors of a graph, as the old ``weight_norm`` leaves them."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def on_device(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """The model itself where it is on the device already, else a copy there."""
    if device is None:
        return model
    try:
        wanted = torch.device(device)
        probe = torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}): try --device cpu") from error
    if probe.is_meta:
        raise UsageError("on the device 'meta' nothing can be computed: try --device cpu")
    return model if probe.device == device_of(model) else copied(model).to(wanted)
