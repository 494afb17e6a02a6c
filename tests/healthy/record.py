"""The healthy trainings by name, and how one is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from tests.healthy import images, shapes, tables, text
from torchwatch.config import WatchConfig
from torchwatch.watcher import Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

TRAININGS: Mapping[str, Callable[[images.Start], None]] = MappingProxyType(
    {
        "digits-cnn": images.cnn,
        "digits-mlp": images.mlp,
        "diabetes-regression": tables.regression,
        "character-lm": text.transformer,
        "lstm": text.lstm,
        "autoencoder": images.autoencoder,
        "gan": images.gan,
        "warm-restarts": images.warm_restarts,
        "fine-tuning": images.fine_tuning,
        "small-batches": images.small_batches,
        "contrastive": shapes.contrastive,
        "accumulation": shapes.accumulation,
    }
)


def record(training: Callable[[images.Start], None], path: Path, seed: int) -> None:
    """Run a training under a Watcher that writes to ``path``; RNG and thread count are put back."""

    def start(model: nn.Module) -> Watcher:
        return Watcher(model, path, config=WatchConfig(terminal=False, budget=None))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            training(start)
    finally:
        torch.set_num_threads(threads)
