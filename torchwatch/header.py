"""The first record of a run: what is trained, with what, on what."""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import statistics
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchwatch
from torchwatch.check import Selection
from torchwatch.config import WatchConfig
from torchwatch.patient import clean_name
from torchwatch.probes import _torch
from torchwatch.records import RunHeader


def describe(
    model: torch.nn.Module, selection: Selection, config: WatchConfig, name: str, **told: Any
) -> RunHeader:
    """The header; ``told`` are the fields that come from the user as they are (hyperparameters, recipe)."""
    rank, world = rank_and_world()
    lazy = torch.nn.parameter.UninitializedParameter
    return RunHeader(
        run_id=uuid.uuid4().hex[:12],
        name=name,
        time=dt.datetime.now(dt.UTC).astimezone().isoformat(timespec="seconds"),
        torchwatch=torchwatch.__version__,
        rank=rank,
        world=world,
        pid=os.getpid(),
        model=type(_inside(model)).__name__,
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


def _inside(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside of wrappers that leave its parameters as they are; their own class says nothing."""
    while isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
        model = model.module
    return model


def rank_path(path: Path) -> Path:
    """The path of this rank's file: rank r > 0 of a distributed run writes ``<name>.rank<r>.jsonl``."""
    rank, _ = rank_and_world()
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and number of ranks; (0, 1) where nobody says otherwise.

    ``torch.distributed`` knows best once it is initialised; before that launchers say it in the environment
    (``RANK`` and ``WORLD_SIZE``). Both are known without asking the other ranks.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1
    return (rank, max(world, rank + 1)) if rank >= 0 else (0, 1)


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
    shards = _shards(model)
    if shards is not None:
        device["shards"] = shards
    return device


def _shards(model: torch.nn.Module) -> dict[str, Any] | None:
    """Over how many ranks the values of each parameter are spread; None where every rank has all of them.

    ``most`` is the number that holds for most parameters, ``others`` has the parameters with another one: 1
    for those that every rank holds whole. Who joins the ranks' files needs it to know what adds up.
    """
    flat = _torch.flat_shards(model)
    counts = {clean_name(n): flat.get(id(p), 0) or _shard_count(p) for n, p in model.named_parameters()}
    if all(n == 1 for n in counts.values()):
        return None
    most = statistics.mode(counts.values())
    return {"most": most, "others": {name: n for name, n in counts.items() if n != most}}


def _shard_count(parameter: torch.Tensor) -> int:
    """Ranks that hold different parts of a distributed tensor; it knows by itself, nobody is asked."""
    mesh, placements = getattr(parameter, "device_mesh", None), getattr(parameter, "placements", None)
    if mesh is None or placements is None:
        return 1
    spread = [size for size, placed in zip(mesh.shape, placements, strict=True) if not placed.is_replicate()]
    return math.prod(spread)
