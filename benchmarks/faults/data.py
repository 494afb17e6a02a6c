"""Data that ship in packages: scikit-learn's small sets, and the standard library's sources as text."""

from __future__ import annotations

import argparse
import json.decoder
import random as source_of_text
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

VOCABULARY = 96
"""Printable ASCII and one for everything else."""


@dataclass(frozen=True)
class Data:
    """A training and a validation part."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    def few(self, n: int) -> Data:
        """With only the first n training samples."""
        return Data(self.x[:n], self.y[:n], self.val_x, self.val_y)

    def images(self) -> Data:
        """Digits as 8 × 8 images."""
        return Data(self.x.view(-1, 1, 8, 8), self.y, self.val_x.view(-1, 1, 8, 8), self.val_y)

    def rows(self) -> Data:
        """Digits as sequences of eight rows."""
        return Data(self.x.view(-1, 8, 8), self.y, self.val_x.view(-1, 8, 8), self.val_y)


@cache
def load(name: str, part: float = 0.8) -> Data:
    """``digits`` (0…1), ``cancer``, ``wine`` or ``diabetes`` (standardised, its target too)."""
    loader = {
        "digits": datasets.load_digits, "cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine, "diabetes": datasets.load_diabetes,
    }[name]  # fmt: skip
    x, y = loader(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(x))
    x, y = x[order], y[order]
    x = x / 16 if name == "digits" else (x - x.mean(0)) / x.std(0)
    target = torch.tensor((y - y.mean()) / y.std()).float() if name == "diabetes" else torch.tensor(y).long()
    features, cut = torch.tensor(x).float(), int(part * len(x))
    return Data(features[:cut], target[:cut], features[cut:], target[cut:])


@cache
def text() -> tuple[Tensor, Tensor]:
    """Sources of the standard library as character codes: to train on, and to validate with."""
    files = (argparse.__file__, textwrap.__file__, json.decoder.__file__, source_of_text.__file__)
    letters = "".join(Path(f).read_text(encoding="utf-8") for f in files)
    codes = torch.tensor([ord(c) - 31 if 32 <= ord(c) < 126 else 0 for c in letters])
    cut = int(0.9 * len(codes))
    return codes[:cut], codes[cut:]


def windows(codes: Tensor, size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of text: characters, and the characters after them."""
    at = torch.randint(0, len(codes) - length - 1, (size,), generator=generator)
    piece = torch.stack([codes[i : i + length + 1] for i in at.tolist()])
    return piece[:, :-1], piece[:, 1:]


class Loader:
    """Shuffled batches; a new order in each pass. The last, smaller batch is dropped."""

    def __init__(self, x: Tensor, y: Tensor, size: int, seed: int = 0) -> None:
        self.x, self.y, self.size = x, y, min(size, len(x))
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.x) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.generator)
        for i in range(len(self)):
            piece = order[i * self.size : (i + 1) * self.size]
            yield self.x[piece], self.y[piece]


class TextLoader:
    """So many batches of text a pass."""

    def __init__(self, batches: int, size: int = 16, length: int = 32, seed: int = 0) -> None:
        self.batches, self.size, self.length = batches, size, length
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.batches):
            yield windows(text()[0], self.size, self.length, self.generator)
