"""Healthy trainings on a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tests.healthy.data import diabetes

if TYPE_CHECKING:
    from tests.healthy.images import Start


def regression(start: Start) -> None:
    """A noisy target: half of its variance cannot be learnt."""
    split = diabetes()
    model = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    with start(model) as watch:
        for _ in range(25):
            model.train()
            for x, y in split.batches(16):
                loss = functional.mse_loss(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            model.eval()
            with torch.no_grad():
                watch.epoch(val_loss=functional.mse_loss(model(split.val_x), split.val_y))
