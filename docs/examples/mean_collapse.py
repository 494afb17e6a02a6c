"""A network that predicts the mean: three causes that look alike on the loss curve, told apart.

A network regresses a score from 129 channels × 200 samples (1 s at 200 Hz). The recording holds a response
in six channels for a fifth of a second, under coloured noise, and the score depends on its size. In all three
variants the validation NRMSE sticks near 1:

* ``weak``: the response explains a sixth of the score's variance, and nothing in the recording the rest. The
  network has found what there is; it shrinks its predictions towards the mean because that is right.
* ``collapsed``: the response is the score, but the first steps were too long and ruined the weights.
* ``misaligned``: the response is the score, but the scores were written one row too late.

Run it::

    python docs/examples/mean_collapse.py weak runs/weak       # writes runs/weak.jsonl and runs/weak.pt
    torchwatch postmortem runs/weak.jsonl --use-recipe --checkpoint runs/weak.pt
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchwatch import Watcher
from torchwatch.results import AutopsyInputs

CHANNELS, SAMPLES, RATE_HZ = 129, 200, 200.0
PLANTED_CHANNELS = (40, 41, 42, 70, 71, 72)
PLANTED_WINDOW = (80, 120)
TRAINED_ON, VALIDATED_ON = 1_500, 500
AMPLITUDE = {"weak": 2.0, "collapsed": 0.8, "misaligned": 0.8}
CORRELATION = {"weak": 0.4, "collapsed": 1.0, "misaligned": 1.0}
"""Of the response with the score."""
LEARNING_RATE = {"weak": 1e-3, "collapsed": 0.3, "misaligned": 1e-3}


class Network(nn.Module):
    """Two convolutions along time, a mean over what is left of it, and a linear read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv1d(CHANNELS, 16, 9, stride=4), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv1d(16, 16, 5, stride=2), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 129, 200) → (N, 1)."""
        predicted: torch.Tensor = self.head(self.block2(self.block1(x)))
        return predicted


def series(count: int, amplitude: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured noise with a response of random size: (count, 129, 200), and its sizes (count, 1)."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, CHANNELS, SAMPLES, generator=draw)
    for t in range(1, SAMPLES):  # AR(1): neighbouring samples are alike, as in any recording
        x[:, :, t] = 0.9 * x[:, :, t - 1] + 0.436 * x[:, :, t]
    size = torch.randn(count, 1, generator=draw)
    start, end = PLANTED_WINDOW
    shape = torch.hann_window(end - start, periodic=False)
    for channel in PLANTED_CHANNELS:
        x[:, channel, start:end] += amplitude * size * shape
    return x, size


def splits(variant: str, seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """Training and validation data of a variant."""
    x, size = series(TRAINED_ON + VALIDATED_ON, AMPLITUDE[variant], seed)
    r = CORRELATION[variant]
    other = torch.randn(size.shape, generator=torch.Generator().manual_seed(seed + 1_000))
    y = r * size + (1 - r**2) ** 0.5 * other
    if variant == "misaligned":
        y = y.roll(1, 0)
    return TensorDataset(x[:TRAINED_ON], y[:TRAINED_ON]), TensorDataset(x[TRAINED_ON:], y[TRAINED_ON:])


def network(seed: int = 0) -> Network:
    """An untrained network."""
    torch.manual_seed(seed)
    model = Network()
    model(torch.zeros(1, CHANNELS, SAMPLES))
    return model


def train(variant: str, out: Path, epochs: int = 12, seed: int = 0) -> float:
    """Train a variant, keep its best weights in ``out.pt`` and its run in ``out.jsonl``; the best NRMSE."""
    training, validation = splits(variant, seed)
    model = network(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE[variant], weight_decay=0.01)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(training, batch_size=64, shuffle=True, generator=order)
    x, y = validation.tensors
    best = float("inf")
    recipe = f"{Path(__file__).as_posix()}:{variant}"
    with Watcher(model, out.with_suffix(".jsonl"), optimizer=optimizer, recipe=recipe) as watch:
        for _ in range(epochs):
            model.train()
            for inputs, targets in watch.batches(loader):
                loss = nn.functional.mse_loss(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            model.eval()
            with torch.no_grad():
                val_loss = float(nn.functional.mse_loss(model(x), y))
            watch.epoch(val_loss=val_loss)
            if val_loss < best:
                best = val_loss
                torch.save(model.state_dict(), out.with_suffix(".pt"))
    return float((best / y.var(correction=0)) ** 0.5)


def inputs_of(variant: str, seed: int = 0) -> AutopsyInputs:
    """Everything that the autopsy of a variant needs."""
    training, validation = splits(variant, seed)
    return AutopsyInputs(
        network(seed),
        validation,
        train_data=training,
        axes=("channel", "time"),
        sample_rate=RATE_HZ,
        channel_names=[f"E{i + 1}" for i in range(CHANNELS)],
    )


def weak() -> AutopsyInputs:
    """Weak signal, honest shrinkage."""
    return inputs_of("weak")


def collapsed() -> AutopsyInputs:
    """Collapsed by training."""
    return inputs_of("collapsed")


def misaligned() -> AutopsyInputs:
    """Labels misaligned."""
    return inputs_of("misaligned")


if __name__ == "__main__":
    variant, out = sys.argv[1], Path(sys.argv[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{variant}: validation NRMSE {train(variant, out):.3f}\n")
