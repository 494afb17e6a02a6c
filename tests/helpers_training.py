"""Small real trainings under a Watcher, for tests of checks: one with the fault, its twin without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch import WatchConfig, Watcher
from torchwatch.records import Record
from torchwatch.runfile import read_records

CONFIG = WatchConfig(budget=None, terminal=False, energy=False, interval_steps=50, zoom_steps=0)

Batch = tuple[Tensor, Tensor]


def classes(count: int = 64, features: int = 20, of: int = 4, seed: int = 0) -> Callable[[int], Batch]:
    """A batch for each step: normal inputs, and labels that a fixed linear teacher gives."""
    teacher = torch.randn(features, of, generator=torch.Generator().manual_seed(seed))

    def batch(step: int) -> Batch:
        x = torch.randn(count, features, generator=torch.Generator().manual_seed(1000 * seed + step))
        return x, (x @ teacher).argmax(1)

    return batch


def noise(count: int = 64, features: int = 20, of: int = 4, seed: int = 0) -> Callable[[int], Batch]:
    """The same inputs with labels that mean nothing: there is nothing to learn."""

    def batch(step: int) -> Batch:
        generator = torch.Generator().manual_seed(1000 * seed + step)
        x = torch.randn(count, features, generator=generator)
        return x, torch.randint(of, (count,), generator=generator)

    return batch


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """One thread, a seed of its own; both are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def trained(
    path: Path,
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, int], Tensor],
    *,
    steps: int = 300,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    before: Callable[[nn.Module, int], Any] | None = None,
    after: Callable[[nn.Module, int], Any] | None = None,
    **changes: Any,
) -> list[Record]:
    """The records of an ordinary loop.

    Args:
        path: a folder for the run file.
        make: makes the model.
        loss: the loss of a step, from 1.
        steps: how many.
        optimizer: makes the optimizer, by default SGD with a rate of 0.05.
        scaler: scales the loss.
        before: done to the model before a step's forward pass.
        after: done to the model after a step.
        changes: fields of the configuration.
    """
    with seeded():
        model = make()
        stepper = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.05)
        config = dataclasses.replace(CONFIG, **changes)
        with Watcher(model, path / "run.jsonl", config=config, sinks=[]) as watch:
            for step in range(1, steps + 1):
                if before is not None:
                    before(model, step)
                stepper.zero_grad()
                value = loss(model, step)
                if scaler is None:
                    value.backward()
                    stepper.step()
                else:
                    scaler.scale(value).backward()
                    scaler.step(stepper)
                    scaler.update()
                watch.log(loss=value)
                if after is not None:
                    after(model, step)
    return list(read_records(watch.path))
