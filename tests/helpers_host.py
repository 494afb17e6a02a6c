"""An ordinary host: a model, an optimizer, one training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo import mean_square, numbers
from tests.zoo_models import mlp
from torchwatch import WatchConfig

CONFIG = WatchConfig(terminal=False, activations_every=1, budget=None)


class Loop:
    """A model, an optimizer and one ordinary step."""

    def __init__(self, model: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.model = model or mlp()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.taken = 0
        self.batches = numbers(6, 5, count=1) if model is None else numbers(4, 1, 8, 8, count=1)

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = mean_square(self.model, *self.batches[0])
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return loss.detach()
