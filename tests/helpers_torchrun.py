"""Programs in processes of their own, one or several of them under torchrun, with gloo on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ALONE = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}

distributed = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this build of torch has no gloo",
)


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in ALONE}
    return {**own, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def torchrun(
    folder: Path, script: Path | str, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    here = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    return run(folder, *launch, *here, str(script), *arguments, **more)
