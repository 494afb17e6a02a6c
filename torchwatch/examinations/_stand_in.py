"""A model for data whose own model does not run: it gives outputs of the right shape and knows nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StandIn(nn.Module):
    """Zeros in the shape that targets want.

    Args:
        shape: of an output without the batch axis.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """(N, …) zeros for inputs of N samples."""
        first = next(v for v in (*inputs, *named.values()) if isinstance(v, Tensor))
        return torch.zeros(first.shape[0], *self.shape)
