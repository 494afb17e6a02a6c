"""``wandb.watch`` with a histogram per tensor on every step, offline.

``wandb.log`` is called on every step as its users do (what ``watch`` collects is written by it). The process
that wandb writes its files with is left out of the measurement: it may use the other cores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.overhead.monitors.base import Monitor
from benchmarks.overhead.workloads import Workload


class WandbGradients(Monitor):
    """``wandb.watch(model, log="gradients", log_freq=1)``."""

    log: Literal["gradients", "all"] = "gradients"

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        os.environ |= {
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_DIR": str(folder),
            "WANDB_CACHE_DIR": str(folder),
            "WANDB_CONFIG_DIR": str(folder),
            "WANDB_DATA_DIR": str(folder),
        }
        import wandb

        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, save_code=False)
        self._run = wandb.init(project="overhead", mode="offline", dir=str(folder), settings=settings)
        self._run.watch(workload.model, log=self.log, log_freq=1)

    def after_step(self, loss: torch.Tensor) -> None:
        self._run.log({"loss": loss.item()})

    def close(self) -> dict[str, Any]:
        self._run.finish()
        return {}


class WandbAll(WandbGradients):
    """``wandb.watch(model, log="all", log_freq=1)``: parameters too."""

    log: Literal["gradients", "all"] = "all"
