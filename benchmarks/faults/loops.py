"""The ordinary training loop, in pieces that a fault can replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from benchmarks.faults.bench import Run, Watch
from benchmarks.faults.data import Data, Loader, TextLoader, text, windows

Loss = Callable[[Tensor, Tensor], Tensor]


def sgd(model: nn.Module, lr: float = 0.1, momentum: float = 0.9, **more: Any) -> Optimizer:
    return SGD(model.parameters(), lr=lr, momentum=momentum, **more)


def adam(model: nn.Module, lr: float = 1e-3, **more: Any) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr, **more)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Called by its module's name, as training loops do, so that a watcher can see it."""
    return functional.cross_entropy(logits, y)


def flat_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten())


def mse(out: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(out.squeeze(-1), y)


def update(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def judge(model: nn.Module, data: Data, loss: Loss = cross_entropy) -> dict[str, float]:
    """Validation loss, and accuracy of a classifier, in eval mode."""
    mode = model.training
    model.eval()
    with torch.no_grad():
        out = model(data.val_x)
        metrics = {"val_loss": float(loss(out, data.val_y))}
        if data.val_y.dtype == torch.long:
            metrics["val_accuracy"] = float((out.argmax(-1) == data.val_y).float().mean())
    model.train(mode)
    return metrics


def text_data(windows_of_val: int = 32, length: int = 32) -> Data:
    """Validation windows of the text; the training part is what TextLoader gives."""
    x, y = windows(text()[1], windows_of_val, length, torch.Generator().manual_seed(0))
    return Data(x, y, x, y)


def supervised(
    run: Run,
    model: nn.Module,
    data: Data,
    optimizer: Optimizer,
    *,
    epochs: int,
    size: int = 32,
    loss: Loss = cross_entropy,
    loader: Iterable[tuple[Tensor, Tensor]] | None = None,
    on_epoch: Callable[[int], object] | None = None,
    on_step: Callable[[int], object] | None = None,
    step: Callable[[Optimizer, Tensor], object] = update,
    scheduler: Any = None,
    each_epoch: Any = None,
    evaluate: Callable[[], dict[str, Any]] | None = None,
    watch: dict[str, Any] | None = None,
) -> float:
    """Train and give the final validation loss.

    Args:
        run: the training.
        model: classifier or regressor.
        data: what it learns.
        optimizer: of the model.
        epochs: passes.
        size: of a batch.
        loss: of outputs and targets.
        loader: other batches than shuffled ones of ``data``.
        on_epoch: called with the epoch's number before it starts.
        on_step: called with the step's number, from 1, before its forward pass.
        step: backward pass and update.
        scheduler: stepped after every step.
        each_epoch: stepped after every epoch.
        evaluate: other metrics than :func:`judge`'s.
        watch: keywords of the watcher.
    """
    batches = Loader(data.x, data.y, size, run.seed) if loader is None else loader
    number = 0
    with run.watch(model, **(watch or {})) as watching:
        for epoch in range(epochs):
            if on_epoch is not None:
                on_epoch(epoch)
            for x, y in watching.batches(batches):
                number += 1
                if on_step is not None:
                    on_step(number)
                value = loss(model(x), y)
                step(optimizer, value)
                if scheduler is not None:
                    scheduler.step()
                watching.log(loss=value)
            watching.epoch(**(judge(model, data, loss) if evaluate is None else evaluate()))
            if each_epoch is not None:
                each_epoch.step()
    return judge(model, data, loss)["val_loss"]


def language(run: Run, model: nn.Module, optimizer: Optimizer, *, epochs: int = 6, **more: Any) -> float:
    """Train a character model; ``loader`` replaces ``batches``, ``size`` and ``length`` of its own."""
    loader = more.pop("loader", None)
    if loader is None:
        loader = TextLoader(more.pop("batches", 40), more.pop("size", 16), more.pop("length", 32), run.seed)
    return supervised(
        run, model, text_data(), optimizer, epochs=epochs, loss=flat_cross_entropy, loader=loader, **more
    )


def in_epochs(
    run: Run,
    model: nn.Module,
    data: Data,
    optimizer: Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    rows: Callable[[int], Tensor | slice] = lambda _: slice(None),
    evaluate: Callable[[], dict[str, Any]] = dict,
) -> float:
    """Train with a loss of one's own making, of batches of 32 that are shuffled anew; the last loss.

    Args:
        run: the training.
        model: what is watched.
        data: what it learns.
        optimizer: of the model.
        loss_of: the loss of a batch's samples and targets.
        epochs: passes.
        rows: which samples an epoch has (default: all).
        evaluate: what is said at the end of an epoch (default: nothing).
    """
    loss = torch.zeros(())
    with run.watch(model) as watch:
        for epoch in range(epochs):
            own = rows(epoch)
            for x, y in watch.batches(Loader(data.x[own], data.y[own], 32, run.seed + epoch)):
                loss = loss_of(x, y)
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch(**evaluate())
    return float(loss.detach())


__all__ = ["Run", "Watch", "adam", "judge", "language", "mse", "sgd", "supervised", "text_data", "update"]
