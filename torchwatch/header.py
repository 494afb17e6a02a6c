"""The first record of a run: what is trained, with what, on what."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchwatch
from torchwatch.check import Selection
from torchwatch.config import WatchConfig
from torchwatch.records import RunHeader


def describe(
    model: torch.nn.Module, selection: Selection, config: WatchConfig, name: str, **told: Any
) -> RunHeader:
    """The header; ``told`` are the fields that come from the user as they are (hyperparameters, recipe)."""
    rank, world = _rank()
    lazy = torch.nn.parameter.UninitializedParameter
    return RunHeader(
        run_id=uuid.uuid4().hex[:12],
        name=name,
        time=dt.datetime.now(dt.UTC).astimezone().isoformat(timespec="seconds"),
        torchwatch=torchwatch.__version__,
        rank=rank,
        world=world,
        pid=os.getpid(),
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters() if not isinstance(p, lazy)),
        software={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        device=_device(model),
        config=config.as_json(),
        limits=selection.limits(),
        ignore=list(selection.ignored),
        **told,
    )


def rank_path(path: Path) -> Path:
    """The path of this rank's file: rank r > 0 of a distributed run writes ``<name>.rank<r>.jsonl``."""
    rank = _rank()[0]
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def _rank() -> tuple[int, int]:
    """Rank and world size as launchers say them in the environment."""
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1


def _device(model: torch.nn.Module) -> dict[str, Any]:
    used = sorted({str(p.device) for p in model.parameters()})
    device: dict[str, Any] = {
        "parameters_on": used,
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if any(d.startswith("cuda") for d in used):
        device["cuda"] = torch.cuda.get_device_name()
    return device
