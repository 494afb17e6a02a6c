"""The patient comes back as it was: flags, buffers, gradients, hooks, random numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode for the body, and leave it bitwise as it was found.

    Restored, also after an exception or Ctrl-C: train/eval flag of every module, values of parameters and
    buffers (in place, only where they changed), which tensors they are, ``requires_grad``, ``.grad`` (the
    same tensor with the same values), hooks, grad mode, and the random numbers of Python, numpy and torch on
    every device.
    """
    with ExitStack() as stack:
        stack.callback(_restorer_of_random_numbers())
        stack.callback(_restorer_of_modules(model))
        stack.callback(_restorer_of_tensors(model))
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        stack.enter_context(_backward_of_rnns(model))
        model.eval()
        yield


@contextmanager
def random_numbers_untouched() -> Iterator[None]:
    """Leave the random numbers as they were; a loader draws its workers' seed even without workers."""
    with ExitStack() as stack:
        stack.callback(_restorer_of_random_numbers())
        yield


def _restorer_of_random_numbers() -> Any:
    python, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the host's global generator is what is kept
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002 - as above
        torch.set_rng_state(torch_state)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return restore


def _restorer_of_modules(model: nn.Module) -> Any:
    before = [
        (m, m.training, [(getattr(m, n), dict(getattr(m, n))) for n in _HOOKS if hasattr(m, n)])
        for m in model.modules()
    ]

    def restore() -> None:
        for module, training, hooks in before:
            module.training = training
            for registered, kept in hooks:
                if dict(registered) != kept:
                    registered.clear()
                    registered.update(kept)

    return restore


def _restorer_of_tensors(model: nn.Module) -> Any:
    parameters = [
        (p, p.requires_grad, p.grad, None if p.grad is None else p.grad.detach().clone(), _copied(p))
        for p in model.parameters()
    ]
    buffers = [
        (m, n, b, None if b is None else _copied(b)) for m in model.modules() for n, b in m._buffers.items()
    ]

    @torch.no_grad()
    def restore() -> None:
        for parameter, required, grad, grad_values, values in parameters:
            _put_back(parameter, values)
            if parameter.requires_grad != required:
                parameter.requires_grad_(required)
            parameter.grad = grad
            _put_back(grad, grad_values)
        for module, name, buffer, buffer_values in buffers:
            module._buffers[name] = buffer
            _put_back(buffer, buffer_values)

    return restore


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _put_back(tensor: torch.Tensor | None, values: torch.Tensor | None) -> None:
    """Only where a bit differs (NaN counts as itself), so that version counters and graphs stay valid."""
    if tensor is None or values is None:
        return
    if tensor.shape != values.shape or not _same_bits(tensor.detach(), values):
        tensor.data.copy_(values)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if torch.equal(a, b):
        return True
    if not a.is_floating_point():
        return False
    both = torch.isnan(a) & torch.isnan(b)
    return bool(both.any()) and torch.equal(a.masked_fill(both, 0), b.masked_fill(both, 0))


@contextmanager
def _backward_of_rnns(model: nn.Module) -> Iterator[None]:
    """CuDNN's RNNs have no backward in evaluation mode; torch's own have."""
    on_cuda = any(isinstance(m, nn.RNNBase) and next(m.parameters()).is_cuda for m in model.modules())
    if not on_cuda:
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield
