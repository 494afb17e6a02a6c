"""Real data that ships in packages: digit images, a table of patients, standard library sources."""

from __future__ import annotations

import json.decoder
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from sklearn.datasets import load_diabetes, load_digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class Split(NamedTuple):
    """Inputs and targets for training and for validation."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the training set in a new random order."""
        for chosen in torch.randperm(len(self.x)).split(size):
            yield self.x[chosen], self.y[chosen]


def digits(held_out: int = 360) -> Split:
    """Images (n, 1, 8, 8) in 0…1 and their labels."""
    raw = load_digits()
    x = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
    return _split(x, torch.tensor(raw.target), held_out)


def diabetes(held_out: int = 110) -> Split:
    """Ten standardised measurements of 442 patients and the standardised progression of their disease."""
    raw = load_diabetes()
    x = torch.tensor(raw.data, dtype=torch.float32)
    y = torch.tensor(raw.target, dtype=torch.float32)
    return _split(x / x.std(0), ((y - y.mean()) / y.std()).unsqueeze(1), held_out)


def sources(length: int) -> Split:
    """Standard library sources as windows (n, length) of characters; the target is the next character."""
    files = [Path(module.__file__) for module in (json.decoder, shlex, textwrap)]
    text = "".join(file.read_text(encoding="ascii", errors="replace") for file in files)
    codes = torch.tensor([min(ord(c), 127) for c in text])
    count = (len(codes) - 1) // length
    x, y = codes[: count * length].view(count, length), codes[1 : count * length + 1].view(count, length)
    return _split(x, y, held_out=count // 10)


def _split(x: Tensor, y: Tensor, held_out: int) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    val, train = order[:held_out], order[held_out:]
    return Split(x[train], y[train], x[val], y[val])
