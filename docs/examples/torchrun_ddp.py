"""Two processes train one network on handwritten digits; each writes its own run file.

    torchrun --nproc-per-node 2 torchrun_ddp.py runs/ddp.jsonl
    torchwatch tail runs/ddp.jsonl
    torchwatch diagnose runs/ddp.jsonl

Rank 0 writes runs/ddp.jsonl, rank 1 runs/ddp.rank1.jsonl; the commands find the second by the first.
"""

import os
import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from torchwatch import Watcher

EPOCHS = int(os.environ.get("EPOCHS", "5"))
LEARNING_RATE = float(os.environ.get("LEARNING_RATE", "0.03"))


def digits() -> TensorDataset:
    """1,797 images of 8 by 8 pixels, of ten classes."""
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images / 16 - 0.3, dtype=torch.float32), torch.tensor(labels))


def main(path: str) -> None:
    """Train, and watch it on every rank."""
    dist.init_process_group("gloo")  # "nccl" on GPUs
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    data = digits()
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=32, sampler=sampler, drop_last=True)
    with Watcher(model, path) as watch:
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            for x, y in watch.batches(loader):
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/ddp.jsonl")
