"""An ordinary training loop under a Watcher; a recipe can carry one of the planted mistakes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from torchwatch.commands._demo.digits import DigitsNet, batches_of, load_split
from torchwatch.config import WatchConfig
from torchwatch.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from torchwatch.commands._demo.digits import Split
    from torchwatch.commands._demo.faults import Recipe

    OnEpoch = Callable[[int, dict[str, float]], None]


_MOST_GROWTH = 10  # steps: more would leave the range of a float before long


def train(
    recipe: Recipe,
    path: Path,
    on_epoch: OnEpoch | None = None,
    *,
    seed: int = 0,
    config: WatchConfig | None = None,
) -> Path:
    """Train the digits network as the recipe says and record it.

    Args:
        recipe: the training, with or without a mistake.
        path: the run file (an existing one is kept, and the new one gets a number).
        on_epoch: called after each epoch with its number, from 1, and the validation metrics.
        seed: of weights, batches and dropout.
        config: how to record (default: at the full rate, without a budget).

    Returns:
        The run file as written.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    torch.manual_seed(seed)
    split = load_split(recipe.train_images)
    model = DigitsNet(recipe.dropout)
    loader = batches_of(split, recipe.batch_size, recipe.delay_s)
    optimizer = SGD(_given(model, recipe), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    schedule = LambdaLR(optimizer, _schedule(recipe, recipe.epochs * len(loader)))
    kept: list[Tensor] = []
    step = 0
    if config is None:  # on a network this small one percent buys too few looks to name a layer at once
        config = WatchConfig(budget=None)
    with Watcher(model, path, config=config, hyperparameters=asdict(recipe) | {"seed": seed}) as watch:
        for epoch in range(recipe.epochs):
            model.train()
            for images, labels in watch.batches(loader):
                step += 1
                _shift_biases(model, recipe, step)
                loss = functional.cross_entropy(model(images), labels)
                if recipe.zero_grad:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                watch.log(loss=loss)
            metrics = _validate(model, split, kept if recipe.keep_graphs else None)
            watch.epoch(**metrics)
            if on_epoch is not None:
                on_epoch(epoch + 1, metrics)
    return watch.path


def _given(model: nn.Module, recipe: Recipe) -> Iterator[nn.Parameter]:
    """The parameters that the optimizer is given."""
    for name, layer in model.named_children():
        if name != recipe.forgotten:
            yield from layer.parameters()


def _schedule(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """The factor of the learning rate after so many steps."""

    def factor(done: int) -> float:
        decayed = 0.5 * (1 + math.cos(math.pi * done / steps)) if recipe.cosine else 1.0
        if recipe.lr_growth is None:
            return decayed
        first, growth = recipe.lr_growth
        return decayed * growth ** min(max(done + 2 - first, 0), _MOST_GROWTH)

    return factor


def _shift_biases(model: nn.Module, recipe: Recipe, step: int) -> None:
    if recipe.bias_shift is None or step != recipe.bias_shift[0]:
        return
    _, layer, shift = recipe.bias_shift
    with torch.no_grad():
        model.get_parameter(f"{layer}.bias").add_(shift)


def _validate(model: nn.Module, split: Split, kept: list[Tensor] | None) -> dict[str, float]:
    """Loss and accuracy on the validation images; ``kept`` takes the losses with their graphs."""
    model.eval()
    with torch.set_grad_enabled(kept is not None):
        logits = model(split.val_images)
        loss = functional.cross_entropy(logits, split.val_labels)
    if kept is not None:
        kept.append(loss)
    right = (logits.argmax(1) == split.val_labels).double().mean()
    return {"val_loss": loss.item(), "val_accuracy": right.item()}
