"""Healthy trainings on digit images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tests.healthy.data import Split, digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from torchwatch.watcher import Watcher

    Start = Callable[[nn.Module], Watcher]


@torch.no_grad()
def classified(model: nn.Module, split: Split) -> dict[str, float]:
    """Validation loss and accuracy; the model is left in training mode."""
    model.eval()
    logits = model(split.val_x)
    model.train()
    loss = functional.cross_entropy(logits, split.val_y).item()
    return {"val_loss": loss, "val_accuracy": (logits.argmax(1) == split.val_y).double().mean().item()}


def cnn(start: Start) -> None:
    """Convolutions with batch normalisation, Adam, one-cycle learning rate."""
    split, epochs, size = digits(), 14, 64
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    steps = epochs * -(-len(split.x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    with start(model) as watch:
        for _ in range(epochs):
            for x, y in watch.batches(split.batches(size)):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                schedule.step()
                watch.log(loss=loss)
            watch.epoch(**classified(model, split))


def mlp(start: Start) -> None:
    """A ReLU network with Adam in an untouched loop: the loss is seen through its module."""
    split = digits()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with start(model) as watch:
        for _ in range(15):
            for x, y in split.batches(64):
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            watch.epoch(**classified(model, split))


def autoencoder(start: Start) -> None:
    """Sixteen numbers per image, mean squared error, no targets."""
    split = digits()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16), nn.Linear(16, 64), nn.ReLU(),
        nn.Linear(64, 64), nn.Sigmoid(),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with start(model) as watch:
        for _ in range(20):
            for x, _ in watch.batches(split.batches(64)):
                loss = functional.mse_loss(model(x), x.flatten(1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            with torch.no_grad():
                watch.epoch(val_loss=functional.mse_loss(model(split.val_x), split.val_x.flatten(1)))


def gan(start: Start) -> None:
    """Two networks, two optimizers, and gradients of one left lying about by the other's backward pass."""
    split = digits()
    generator = nn.Sequential(nn.Linear(16, 128), nn.LeakyReLU(0.2), nn.Linear(128, 64), nn.Sigmoid())
    discriminator = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(128, 1))
    model = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    of_generator = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    judge = functional.binary_cross_entropy_with_logits
    with start(model) as watch:
        for _ in range(15):
            for x, _ in split.batches(64):
                real, ones, zeros = x.flatten(1), torch.ones(len(x), 1), torch.zeros(len(x), 1)
                fake = generator(torch.randn(len(x), 16))
                of_discriminator.zero_grad()
                d_loss = judge(discriminator(real), 0.9 * ones) + judge(discriminator(fake.detach()), zeros)
                d_loss.backward()
                of_discriminator.step()
                of_generator.zero_grad()
                g_loss = judge(discriminator(fake), ones)
                g_loss.backward()
                of_generator.step()
                watch.log(loss=d_loss, g_loss=g_loss)
            watch.epoch(val_distance=_distance_of_means(generator, split))


@torch.no_grad()
def _distance_of_means(generator: nn.Module, split: Split) -> Tensor:
    return (generator(torch.randn(512, 16)).mean(0) - split.val_x.flatten(1).mean(0)).norm()


def warm_restarts(start: Start) -> None:
    """The learning rate jumps back to its maximum every few epochs, and the loss with it."""
    split, per_epoch = digits(), -(-1437 // 64)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4 * per_epoch)
    with start(model) as watch:
        for _ in range(16):
            for x, y in watch.batches(split.batches(64)):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                watch.log(loss=loss)
            watch.epoch(**classified(model, split))


def fine_tuning(start: Start) -> None:
    """Features learnt on the digits 0 to 4 are frozen; a new head learns the others."""
    split = digits()
    features = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
    )
    _pretrain(features, _only(split, split.y < 5, split.val_y < 5))
    features.requires_grad_(requires_grad=False)
    model = nn.Sequential(features, nn.Linear(512, 10))
    optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=1e-3)
    others = _only(split, split.y >= 5, split.val_y >= 5)
    with start(model) as watch:
        for _ in range(16):
            for x, y in watch.batches(others.batches(32)):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            watch.epoch(**classified(model, others))


def _pretrain(features: nn.Module, split: Split) -> None:
    model = nn.Sequential(features, nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(4):
        for x, y in split.batches(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def _only(split: Split, train: Tensor, val: Tensor) -> Split:
    return Split(split.x[train], split.y[train], split.val_x[val], split.val_y[val])


def small_batches(start: Start) -> None:
    """Four images a step: every loss is noise around a falling mean."""
    split = digits(held_out=1077)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    with start(model) as watch:
        for _ in range(10):
            for x, y in watch.batches(split.batches(4)):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            watch.epoch(**classified(model, split))
