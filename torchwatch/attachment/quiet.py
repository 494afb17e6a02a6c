"""Our own tensor work inside somebody else's training."""

from __future__ import annotations

import torch

from torchwatch.probes import _torch


class Quiet:
    """No gradients, no autocast, invisible to ``__torch_function__`` overrides. Not reentrant."""

    __slots__ = ("_autocast", "_function", "_grad")

    def __enter__(self) -> None:
        # First, so that a TorchFunctionMode of the host does not see the rest.
        self._function = _torch.without_torch_function()
        self._function.__enter__()
        self._grad = torch.no_grad()
        self._grad.__enter__()
        device = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
        # Leaving the outermost autocast empties its weight cache: only ever nest inside the host's own.
        self._autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else None
        if self._autocast is not None:
            self._autocast.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._autocast is not None:
            self._autocast.__exit__(None, None, None)
        self._grad.__exit__(None, None, None)
        self._function.__exit__(None, None, None)
