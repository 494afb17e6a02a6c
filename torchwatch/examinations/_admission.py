"""What has to hold before a model can be examined, each in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchwatch.errors import ModelError, UsageError
from torchwatch.examinations.tasks import IGNORED, Task


def check_model(model: Any) -> None:
    """Whether there is a model with weights.

    Raises:
        ModelError: no module, lazy layers that were never called, weights on the meta device.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"an autopsy examines a torch.nn.Module, not {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(f"{name} is not initialised yet: call the model once on a batch before")
        if tensor.is_meta:
            raise ModelError(f"{name} is on the meta device and holds no values: load the weights before")


def check_output(output: Tensor, count: int) -> None:
    """Whether there is an output for each sample.

    Raises:
        ModelError: there is not.
    """
    if not output.ndim or output.shape[0] != count:
        raise ModelError(
            f"the model returned a tensor of shape {tuple(output.shape)} for {count} samples: it must return "
            "predictions, one for each sample along the first axis"
        )


def unfit(targets: Tensor, task: Task, classes: int) -> str:
    """Why canonical targets cannot be compared with the outputs; empty where they can.

    It is asked before any loss is taken: on a GPU a class that is out of range ends the process's use of it.
    """
    if task.name not in ("multiclass", "token") or not targets.numel():
        return ""
    counted = targets[targets != IGNORED]
    if not counted.numel() or (int(counted.min()) >= 0 and int(counted.max()) < classes):
        return ""
    odd = int(counted.max()) if int(counted.max()) >= classes else int(counted.min())
    return (
        f"the targets hold class {odd}, but the model has outputs for the classes 0 … {classes - 1}: number "
        "the classes from 0, give the model more outputs, or pass the loss whose ignore_index it is"
    )


def check_loss(value: Any) -> Tensor:
    """What a loss returned, where it is a tensor.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, Tensor):
        return value
    raise UsageError(f"loss(outputs, targets) returned {type(value).__name__}: it must return a tensor")


@torch.no_grad()
def writes_inputs(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether a pass changed the tensors that it was given; NaN counts as itself."""
    return any(not torch.equal(v.nan_to_num(), after[k].nan_to_num()) for k, v in before.items())
