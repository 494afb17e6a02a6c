"""A small classifier in a Lightning Trainer, and what its tests ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 16
TRAINED, VALIDATED = 200, 96


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(12, 32)
        self.activation = nn.ReLU()
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.activation(self.hidden(x)))
        return logits


def points(count: int, seed: int) -> torch.utils.data.TensorDataset:
    """Noise, and which of three directions it points to."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 12, generator=generator)
    teacher = torch.randn(12, 3, generator=torch.Generator().manual_seed(99))
    return torch.utils.data.TensorDataset(x, (x @ teacher).argmax(1))


def loaders() -> tuple[Any, Any]:
    """For training (its last batch is incomplete) and for validation, in the same order each time."""
    sets = points(TRAINED, 1), points(VALIDATED, 2)
    return tuple(torch.utils.data.DataLoader(each, batch_size=BATCH) for each in sets)  # type: ignore[return-value]


def module(framework: Any, *, lr: float = 0.01, manual: bool = False, nameless: bool = False) -> Any:
    """A module of ``lightning`` or ``pytorch_lightning``; the same weights each time.

    Args:
        framework: either of the two.
        lr: learning rate of AdamW.
        manual: optimise by hand.
        nameless: ``forward`` is not defined.
    """

    import torchmetrics

    class Classifier(framework.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"width": 32})
            self.automatic_optimization = not manual
            self.net = Net()
            self.seen = torchmetrics.MeanMetric()
            self.losses: list[float] = []

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            loss = F.cross_entropy((self.net if nameless else self)(x), y)
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            self.losses.append(float(loss))
            self.log("train/loss", loss, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            x, y = batch
            logits = self.net(x)
            self.log("val/loss", F.cross_entropy(logits, y))
            self.seen.update(x.mean())
            self.log("mean", self.seen)
            self.log("accuracy", (logits.argmax(1) == y).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=lr)

    if not nameless:
        Classifier.forward = lambda self, x: self.net(x)
    torch.manual_seed(0)
    return Classifier()


def trainer(framework: Any, folder: Path, *callbacks: Any, **changes: Any) -> Any:
    """A silent Trainer of two epochs on the CPU, without loggers and checkpoints."""
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "callbacks": list(callbacks),
    }
    return framework.Trainer(**{**settings, **changes})


def fitted(framework: Any, folder: Path, *callbacks: Any, patient: Any = None, **changes: Any) -> Any:
    """The trainer after ``fit``, with its module as ``lightning_module``."""
    made = trainer(framework, folder, *callbacks, **changes)
    made.fit(module(framework) if patient is None else patient, *loaders())
    return made
