"""Real images that need no download, and a small convolutional network for them."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from torchwatch.errors import MissingExtra

VALIDATION_IMAGES = 360
BATCH_SIZE = 64


class Split(NamedTuple):
    """Images (n, 1, 8, 8) float32, standardised, and labels (n,) int64 of both sets."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor


def load_split(train_images: int | None = None, seed: int = 0) -> Split:
    """scikit-learn's 1,797 digits: 360 for validation, the others (or the first few of them) for training.

    Args:
        train_images: keep only so many training images (None: all 1,437).
        seed: of the shuffle before the split.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra(
            'the demo trains on the digit images of scikit-learn: pip install "torchwatch-monitor[demo]"'
        ) from None
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(digits.target)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held_out, train = shuffled[:VALIDATION_IMAGES], shuffled[VALIDATION_IMAGES:][:train_images]
    return Split(images[train], labels[train], images[held_out], labels[held_out])


class SlowDataset(TensorDataset):
    """A data set that takes ``delay_s`` seconds per sample, as a busy network disk would."""

    def __init__(self, *tensors: Tensor, delay_s: float) -> None:
        super().__init__(*tensors)
        self._delay_s = delay_s

    def __getitem__(self, index: list[int]) -> tuple[Tensor, ...]:
        time.sleep(self._delay_s * len(index))
        return tuple(tensor[index] for tensor in self.tensors)


def batches_of(
    split: Split, batch_size: int = BATCH_SIZE, delay_s: float = 0.0
) -> DataLoader[tuple[Tensor, ...]]:
    """Shuffled training batches; indexed batch by batch, since 64 single look-ups cost as much as a step."""
    if delay_s:
        dataset: TensorDataset = SlowDataset(split.images, split.labels, delay_s=delay_s)
    else:
        dataset = TensorDataset(split.images, split.labels)
    sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


class DigitsNet(nn.Module):
    """Three convolutions and a linear head: 8×8 → 4×4 → 2×2; 25,866 parameters."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(256, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 8, 8)."""
        x = self.relu1(self.conv1(images))
        x = self.pool(self.relu2(self.conv2(x)))
        x = self.pool(self.relu3(self.conv3(x)))
        logits: Tensor = self.head(self.dropout(x.flatten(1)))
        return logits
