"""Small real trainings for the checks of the wiring: a healthy one, and room for one mistake in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers_replay import assert_live_equals_replay
from torchwatch import WatchConfig, Watcher
from torchwatch.records import Alert

SINGLE = WatchConfig(budget=None, terminal=False, energy=False, fast_steps_per_s=1e9)
"""One record and one look per step, so that an alert says at which step it could be known."""

EVERY = WatchConfig(
    budget=None, terminal=False, energy=False, fast_steps_per_s=1e9, activations_every=1, sentinel=True
)
"""The same, with everything measured at every step."""


def net(dropout: float = 0.2, end: nn.Module | None = None) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout, linear: 8 features, 4 classes."""
    torch.manual_seed(0)
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4)]
    return nn.Sequential(*layers, *([] if end is None else [end]))


def batch(size: int = 32) -> tuple[Tensor, Tensor]:
    """Standard normal inputs; the class is the largest of the first four."""
    x = torch.randn(size, 8)
    return x, x[:, :4].argmax(1)


def entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the model's output."""
    return functional.cross_entropy(model(x), y)


def sgd(model: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.Optimizer:
    """SGD over all parameters."""
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


class Fit:
    """A plain loop with places for mistakes.

    Args:
        model: what is trained.
        optimizer: default SGD over all parameters.
        steps: how many.
        before: called with the step's number (from 1) before it.
        after: called with the watcher and the number after it.
        data: gives the batch of a step by its number.
        loss: of model, inputs and targets.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        steps: int = 40,
        before: Callable[[int], object] = lambda _: None,
        after: Callable[[Watcher, int], object] = lambda *_: None,
        data: Callable[[int], tuple[Tensor, Tensor]] = lambda _: batch(),
        loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = entropy,
    ) -> None:
        self.model, self.optimizer = model, optimizer or sgd(model)
        self.steps, self.before, self.after, self.data, self.loss = steps, before, after, data, loss

    def __call__(self, watch: Watcher) -> None:
        for number in range(1, self.steps + 1):
            self.before(number)
            x, y = self.data(number)
            self.optimizer.zero_grad()
            loss = self.loss(self.model, x, y)
            loss.backward()
            self.optimizer.step()
            watch.log(loss=loss)
            self.after(watch, number)


def alerts(
    path: Path,
    model: nn.Module,
    body: Callable[[Watcher], object],
    config: WatchConfig = SINGLE,
    **keywords: Any,
) -> list[Alert]:
    """Every alert of a training under a Watcher; a replay of its file gives the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            with Watcher(model, path, config=config, sinks=[], **keywords) as watch:
                body(watch)
    finally:
        torch.set_num_threads(threads)
    return [r for r in assert_live_equals_replay(watch.path) if isinstance(r, Alert)]


def opened(found: list[Alert], slug: str) -> Alert:
    """The first alert of a check."""
    return next(a for a in found if a.check == slug and a.state == "opened")


def loud(found: list[Alert]) -> list[tuple[str, str, str]]:
    """Check, severity and title of all warnings and criticals."""
    return [(a.check, a.severity, a.title) for a in found if a.severity != "info"]


def said(found: list[Alert], slug: str) -> list[str]:
    """Titles of what a check said."""
    return [a.title for a in found if a.check == slug]
