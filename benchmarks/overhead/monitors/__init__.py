"""The monitors that are compared, each with the share of measuring time that its precision needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.overhead.monitors.base import Monitor
from benchmarks.overhead.workloads import Workload

BARE = "bare"


@dataclass(frozen=True)
class Kind:
    """One row of the tables.

    ``where`` is ``module:class`` in this package, loaded in the monitor's own process only. ``share``:
    relative measuring time. ``calibrates``: it needs a long warm-up. ``activations``: it records activations.
    """

    title: str
    where: str
    share: float
    calibrates: bool = False
    activations: bool = False

    def make(self, workload: Workload, folder: Path) -> Monitor:
        """The monitor, attached to the workload."""
        module, name = self.where.split(":")
        made: Monitor = getattr(importlib.import_module(f"{__name__}.{module}"), name)(workload, folder)
        return made


KINDS: dict[str, Kind] = {
    BARE: Kind("bare", "base:Monitor", 0),
    "control": Kind("bare again (the noise of this comparison)", "base:Monitor", 2),
    "default": Kind("**torchwatch**, default (`budget=0.01`)", "watching:Watching", 6, calibrates=True),
    "everything": Kind(
        "**torchwatch**, everything on every step", "watching:Everything", 3, activations=True
    ),
    "idle": Kind("**torchwatch**, attached, measuring nothing", "watching:Idle", 2),
    "wandb-gradients": Kind('`wandb.watch("gradients", log_freq=1)`', "wandb_watch:WandbGradients", 1),
    "wandb-all": Kind('`wandb.watch("all", log_freq=1)`', "wandb_watch:WandbAll", 1),
    "naive-hooks": Kind(
        "naive hooks, 6 statistics per leaf by `.item()`", "naive_hooks:NaiveHooks", 1, activations=True
    ),
    "composer-style": Kind(
        "Composer-style activation monitor", "composer_style:ComposerStyle", 1, activations=True
    ),
    "lightning-norms": Kind("Lightning's `grad_norm`", "gradient_norms:LightningNorms", 1),
    "item-norms": Kind("`.grad.norm().item()` per parameter", "gradient_norms:ItemNorms", 1),
}
