"""Trainings that went wrong for one known reason each, for the verdict to find."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from torchwatch.results import AutopsyInputs

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@dataclass(frozen=True)
class Cause:
    """``build(seed)`` trains the model and gives it with its data; ``blamed`` is the right hypothesis."""

    name: str
    blamed: str
    build: Callable[[int], AutopsyInputs]

    def __str__(self) -> str:
        return self.name


def mean_collapse(variant: str) -> Callable[[int], AutopsyInputs]:
    def build(seed: int) -> AutopsyInputs:
        example = _example()
        inputs = example.inputs_of(variant, seed)
        training, validation = example.splits(variant, seed)
        settings = {"lr": example.LEARNING_RATE[variant], "weight_decay": 0.01}
        _fit(inputs.model, training, seed, epochs=8, validation=validation, **settings)
        return inputs

    return build


def _example():
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    import mean_collapse

    return mean_collapse


def _fit(
    model, training, seed, *, epochs, lr, validation=None, weight_decay=0.0, optimizer=torch.optim.AdamW
):
    """Train; with validation data the best weights are kept, as everybody does."""
    x, y = training.tensors
    steps = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay)
    draw = torch.Generator().manual_seed(seed)
    best, kept = float("inf"), None
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x), generator=draw).split(64):
            loss = _loss(model(x[rows]), y[rows])
            steps.zero_grad()
            loss.backward()
            steps.step()
        model.eval()
        if validation is not None:
            with torch.no_grad():
                error = float(_loss(model(validation.tensors[0]), validation.tensors[1]))
            if error < best:
                best, kept = error, {k: v.clone() for k, v in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)


def _loss(output, target):
    loss = nn.functional.mse_loss if target.is_floating_point() else nn.functional.cross_entropy
    return loss(output, target)


def _digits(seed):
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


def _network(seed, *middle):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), *(middle or (nn.Linear(48, 48), nn.ReLU())), nn.Linear(48, 10)
    )


def _trained(model, x, y, seed, **settings):
    training, validation = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    _fit(model, training, seed, **({"epochs": 15, "lr": 1e-3} | settings))
    return AutopsyInputs(model, validation, train_data=training)


def too_low_lr(seed: int) -> AutopsyInputs:
    return _trained(_network(seed), *_digits(seed), seed, lr=3e-6)


class Dead(nn.Module):
    """A block whose offset nothing overcomes: its ReLU never passes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(48, 48), nn.ReLU()

    def forward(self, x):
        return self.act(self.linear(x) - 100)


def dead_block(seed: int) -> AutopsyInputs:
    return _trained(_network(seed, Dead()), *_digits(seed), seed)


def shuffled_labels(seed: int) -> AutopsyInputs:
    x, y = _digits(seed)
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed + 99))]
    return _trained(_network(seed), x, y, seed, epochs=40)


def too_small(seed: int) -> AutopsyInputs:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 1), nn.ReLU(), nn.Linear(1, 10))
    return _trained(model, *_digits(seed), seed, epochs=40)


def leaked_split(seed: int) -> AutopsyInputs:
    x, y = _digits(seed)
    x[1200:1400], y[1200:1400] = x[:200].clone(), y[:200].clone()
    return _trained(_network(seed), x, y, seed)


CAUSES = (
    Cause("weak signal", "task ceiling", mean_collapse("weak")),
    Cause("collapsed", "training", mean_collapse("collapsed")),
    Cause("misaligned", "data", mean_collapse("misaligned")),
    Cause("too low lr", "training", too_low_lr),
    Cause("dead block", "architecture", dead_block),
    Cause("shuffled labels", "data", shuffled_labels),
    Cause("too small model", "architecture", too_small),
    Cause("leaked split", "data", leaked_split),
)
