"""Healthy trainings on text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tests.healthy.data import sources

if TYPE_CHECKING:
    from torch import Tensor

    from tests.healthy.images import Start

CHARACTERS, WIDTH, LENGTH = 128, 48, 32


class CharTransformer(nn.Module):
    """Two causal pre-norm blocks with learnt positions."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        block = nn.TransformerEncoderLayer(
            WIDTH,
            nhead=4,
            dim_feedforward=4 * WIDTH,
            dropout=0.1,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CHARACTERS)

    def forward(self, codes: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(codes.shape[1])
        x = self.tokens(codes) + self.positions(torch.arange(codes.shape[1]))
        return self.head(self.norm(self.blocks(x, mask=mask, is_causal=True)))


class CharLSTM(nn.Module):
    """An embedding, two LSTM layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(CHARACTERS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, 96, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(96, CHARACTERS)

    def forward(self, codes: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.tokens(codes))
        return self.head(hidden)


def transformer(start: Start) -> None:
    """Linear warm-up, cosine decay, clipping: the usual recipe."""
    model = CharTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    _language_model(start, model, optimizer, epochs=10)


def lstm(start: Start) -> None:
    """The same text with a recurrent network."""
    model = CharLSTM()
    _language_model(start, model, torch.optim.Adam(model.parameters(), lr=4e-3), epochs=10)


def _language_model(start: Start, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    split, size = sources(LENGTH), 28
    steps = epochs * -(-len(split.x) // size)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=30),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - 30),
        ],
        milestones=[30],
    )
    with start(model) as watch:
        for _ in range(epochs):
            model.train()
            for x, y in watch.batches(split.batches(size)):
                loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                watch.log(loss=loss)
            model.eval()
            with torch.no_grad():
                watch.epoch(
                    val_loss=functional.cross_entropy(model(split.val_x).flatten(0, 1), split.val_y.flatten())
                )
