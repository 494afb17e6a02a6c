"""Healthy trainings with unusual loops: several passes or several batches per step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tests.healthy.data import digits
from tests.healthy.images import classified

if TYPE_CHECKING:
    from torch import Tensor

    from tests.healthy.images import Start


def contrastive(start: Start) -> None:
    """The model runs twice a step, on two views of the same images, and the loss is between its outputs."""
    split = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with start(model) as watch:
        for _ in range(16):
            for x, _ in watch.batches(split.batches(64)):
                loss = _between_views(model, x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            with torch.no_grad():
                watch.epoch(val_loss=_between_views(model, split.val_x[:64]))


def _between_views(model: nn.Module, x: Tensor) -> Tensor:
    """InfoNCE: each image's second view must be told from those of the other images."""
    first, second = (functional.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1) for _ in range(2))
    return functional.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))


def accumulation(start: Start) -> None:
    """Four small batches per step under bf16 autocast, with batch normalisation and clipping."""
    split = digits()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    with start(model) as watch:
        for _ in range(16):
            for i, (x, y) in enumerate(watch.batches(split.batches(16)), 1):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = functional.cross_entropy(model(x), y)
                (loss / 4).backward()
                watch.log(loss=loss)
                if i % 4 == 0:
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
            watch.epoch(**classified(model, split))
