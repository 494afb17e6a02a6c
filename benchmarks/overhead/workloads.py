"""The four trainings that watching is measured on: small, wide, convolutional, transformer.

Sizes are set so that a bare step takes about 0.3, 38, 170 and 360 ms on one core of a 2.5 GHz Xeon. Targets
come from a fixed teacher, so that there is something to learn: a healthy run raises no warning, and a warning
would make torchwatch measure more than it does by default.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Workload:
    """A model, its optimizer and an endless supply of batches."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Batch]

    def run(self, before_step: Callable[[], object], after_step: Callable[[torch.Tensor], object]) -> None:
        """One training step; a monitor may look at the gradients before it and at the loss after it."""
        inputs, targets = next(self.batches)
        loss = functional.cross_entropy(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()
        before_step()
        self.optimizer.step()
        after_step(loss)


class Residual(nn.Module):
    """Two 3×3 convolutions beside an identity (or a 1×1 convolution where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.first_norm(self.first(x)))
        return self.activation(self.second_norm(self.second(y)) + self.shortcut(x))


class Block(nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(self.activation(self.widen(self.mlp_norm(x))))


class Gpt(nn.Module):
    """A decoder-only transformer; logits of all positions, flattened."""

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("order", torch.arange(length), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions(self.order)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


def tiny() -> Workload:
    """2 hidden layers of 64, batch 32: what Python costs."""
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )  # fmt: skip
    return _classifier(model, (32, 20), 256)


def mlp() -> Workload:
    """3 hidden layers of 1024, batch 176: 2.9 million parameters."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((784, 1024), (1024, 1024), (1024, 1024)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return _classifier(nn.Sequential(*layers, nn.Linear(1024, 10)), (176, 784), 32)


def conv() -> Workload:
    """5 residual blocks on 32×32 images, batch 48: activations outweigh the parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, outputs, stride in ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers.append(Residual(inputs, outputs, stride))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return _classifier(model, (48, 3, 32, 32), 16)


def gpt() -> Workload:
    """6 blocks of width 256 over 128 tokens, batch 11: 5 million parameters."""
    vocabulary, length, batch = 512, 128, 11
    model = Gpt(vocabulary, length, width=256, heads=8, blocks=6)
    successor = torch.randperm(vocabulary)
    batches = []
    for _ in range(32):
        tokens = torch.randint(0, vocabulary, (batch, length))
        batches.append((tokens, successor[tokens].flatten()))
    return _with_optimizer(model, batches)


def _classifier(model: nn.Module, shape: tuple[int, ...], count: int) -> Workload:
    teacher = torch.randn(math.prod(shape[1:]), 10)
    batches = []
    for _ in range(count):
        inputs = torch.randn(shape)
        batches.append((inputs, (inputs.flatten(1) @ teacher).argmax(1)))
    return _with_optimizer(model, batches)


def _with_optimizer(model: nn.Module, batches: list[Batch]) -> Workload:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return Workload(model, optimizer, itertools.cycle(batches))


WORKLOADS: dict[str, Callable[[], Workload]] = {"tiny": tiny, "mlp": mlp, "conv": conv, "gpt": gpt}


def build(name: str) -> Workload:
    """The workload of that name, from the same seed in every process."""
    torch.manual_seed(0)
    return WORKLOADS[name]()
