"""A model for data whose own model does not run: it gives outputs of the right shape and knows nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch.errors import UsageError
from torchwatch.examinations.samples import take
from torchwatch.results import AutopsyInputs

_LOOKED_AT = 500
_MOST_CLASSES = 100_000


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


def with_stand_in(inputs: AutopsyInputs) -> AutopsyInputs:
    """The same data with a :class:`StandIn` that fits their targets.

    Floating targets are taken for numbers, whole ones of one per sample for classes, others for tokens,
    unless the task says otherwise.

    Raises:
        UsageError: the data cannot be read, or what they hold as classes are none.
    """
    try:
        targets = take(inputs.data, _LOOKED_AT, 0).targets
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the data raised {type(error).__name__} when they were read: {reason}") from error
    if targets is None:
        return dataclasses.replace(inputs, model=StandIn((1,)), loss=None)
    shape = tuple(targets.shape[1:])
    task = inputs.task
    if task == "auto" and not targets.is_floating_point():
        task = "multiclass" if targets[0].numel() == 1 else "token"
    if task in ("multiclass", "token"):
        most = int(targets.max())
        if most >= _MOST_CLASSES:
            raise UsageError(
                f"a class number of {most} is no class: give the task, such as task='regression'"
            )
        shape = (most + 1,) if task == "multiclass" else (*shape, most + 1)
    return dataclasses.replace(inputs, model=StandIn(shape), task=task, loss=None)
