"""Small models of every kind that an autopsy must leave as it found them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

SAMPLES = 24


@dataclass(frozen=True)
class Patient:
    """``build()`` makes the model and one batch of data, seeded."""

    name: str
    build: Callable[[], tuple[nn.Module, Any]]

    def __str__(self) -> str:
        return self.name


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, left, right):
        return {"logits": self.head(torch.relu(self.left(left) + self.right(right)))}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Shared(nn.Module):
    """One layer and one activation used three times."""

    def __init__(self):
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)

    def forward(self, x):
        for _ in range(3):
            x = self.act(self.layer(x))
        return self.head(x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, ids):
        x = self.embedding(ids)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


class Counting(nn.Module):
    """A buffer that every forward pass changes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.layer(x)


def _conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.2),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 1),
    )  # fmt: skip


def _image() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(24, 4),
    )  # fmt: skip


def _signals() -> tuple[nn.Module, Any]:
    x = torch.randn(SAMPLES, 6, 40)
    return _conv(), (x, x[:, 2, 10:20].mean(1, keepdim=True))


def _images() -> tuple[nn.Module, Any]:
    return _image(), (torch.randn(SAMPLES, 1, 8, 8), torch.arange(SAMPLES) % 4)


def _sequences() -> tuple[nn.Module, Any]:
    x = torch.randn(SAMPLES, 12, 5)
    return Recurrent(), (x, x[:, 3, 1])


def _dicts() -> tuple[nn.Module, Any]:
    batch = {
        "left": torch.randn(SAMPLES, 4),
        "right": torch.randn(SAMPLES, 3),
        "labels": torch.arange(SAMPLES) % 3,
    }
    batch["site"] = [f"site{i % 2}" for i in range(SAMPLES)]
    return TwoInputs(), [batch]


def _shared() -> tuple[nn.Module, Any]:
    return Shared(), (torch.randn(SAMPLES, 6), torch.arange(SAMPLES) % 2)


def _tokens() -> tuple[nn.Module, Any]:
    ids = torch.randint(20, (SAMPLES, 7))
    return Tokens(), (ids, ids.roll(-1, 1))


def _frozen() -> tuple[nn.Module, Any]:
    model, data = _signals()
    model[0].requires_grad_(False)
    model.train()
    return model, data


def _with_gradients() -> tuple[nn.Module, Any]:
    model, (x, y) = _signals()
    nn.functional.mse_loss(model(x), y).backward()
    return model, (x, y)


def _counting() -> tuple[nn.Module, Any]:
    return Counting(), (torch.randn(SAMPLES, 4), torch.randn(SAMPLES, 1))


def _labels() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), (
        torch.randn(SAMPLES, 5),
        (torch.rand(SAMPLES, 3) < 0.4).float(),
    )


def _hooked() -> tuple[nn.Module, Any]:
    model, data = _shared()
    model.layer.register_forward_hook(lambda module, args, output: output * 1.01)
    return model, data


def _compiled() -> tuple[nn.Module, Any]:
    model, data = _shared()
    return torch.compile(model, backend="eager"), data


PATIENTS = [
    Patient(function.__name__.strip("_"), function)
    for function in (
        _signals, _images, _sequences, _dicts, _shared, _tokens, _frozen, _with_gradients, _counting, _labels,
        _hooked, _compiled,
    )
]  # fmt: skip


def admit(patient: Patient) -> tuple[nn.Module, Any]:
    """The model and its data, the same at every call."""
    torch.manual_seed(3)
    return patient.build()


@contextmanager
def assert_untouched(model: nn.Module) -> Iterator[None]:
    """Everything that belongs to the model, and all random numbers, bitwise the same after the body."""
    before = _everything(model)
    try:
        yield
    finally:
        after = _everything(model)
        assert before.keys() == after.keys(), before.keys() ^ after.keys()
        for name, value in before.items():
            assert _same(value, after[name]), f"{name} changed: {value!r} → {after[name]!r}"


def _everything(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [a.tolist() if isinstance(a, np.ndarray) else a for a in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().clone(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }
    for name, module in model.named_modules():
        state[f"{name}.training"] = module.training
        state[f"{name}.type"] = type(module)
        for attribute, value in vars(module).items():
            if "_hooks" in attribute and isinstance(value, dict):
                state[f"{name}{attribute}"] = {k: id(v) for k, v in value.items()}
            elif isinstance(value, (bool, int, float, str)):
                state[f"{name}.{attribute}"] = value
        for key, buffer in module._buffers.items():
            state[f"{name}.buffers.{key}"] = (id(buffer), None if buffer is None else buffer.clone())
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        state[f"{name}.parameter"] = (id(parameter), parameter.requires_grad, parameter.detach().clone())
        state[f"{name}.grad"] = (
            id(grad),
            None if grad is None else grad.clone(),
            grad is not None and grad.requires_grad,
        )
        state[f"{name}.hooks"] = copy.copy(parameter._backward_hooks)
    return state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and _bits(a) == _bits(b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
