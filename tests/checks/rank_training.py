"""One process of two that train: ``python -m tests.checks.rank_training HOW RANK FOLDER``.

HOW is ``plain`` (DistributedDataParallel), ``slow`` (the same, and rank 1 sleeps in its forward pass),
``apart`` (nobody averages gradients) or ``unlike`` (gradients are averaged, but the ranks began with other
weights).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from torchwatch import WatchConfig, Watcher

STEPS = 80


def train(how: str, rank: int, folder: Path) -> None:
    torch.manual_seed(0 if how != "unlike" else rank)
    middle = nn.ReLU()
    model: nn.Module = nn.Sequential(nn.Linear(16, 64), middle, nn.Linear(64, 4))
    if how == "slow" and rank == 1:
        middle.register_forward_hook(lambda *_: time.sleep(0.01))
    if how in ("plain", "slow"):
        model = nn.parallel.DistributedDataParallel(model)
    torch.manual_seed(1 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    config = WatchConfig(activations_every=1, interval_steps=10, terminal=False, energy=False)
    with Watcher(model, folder / "run.jsonl", config=config, sinks=[]) as watch:
        for _ in range(STEPS):
            loss = (model(torch.randn(32, 16)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if how == "unlike":
                for parameter in model.parameters():
                    gradient = parameter.grad
                    assert gradient is not None
                    dist.all_reduce(gradient, op=dist.ReduceOp.SUM)
                    gradient.div_(dist.get_world_size())
            optimizer.step()
            watch.log(loss=loss)


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    how, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    train(how, rank, folder)
    dist.barrier()
    dist.destroy_process_group()
