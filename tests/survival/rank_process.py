"""One process of a distributed training: ``python -m tests.survival.rank_process ORDER``.

Plays the jobs of the order one after the other, and of each job its variants, the same training watched on
other ranks. What each computed, with the number of collectives that it took, goes to
``<out>/<job>/rank<r>.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F

from tests.survival.conduct import EVERYTHING
from torchwatch import Watcher

STEPS = 6


class Net(nn.Module):
    """Sizes that do not divide by two, a parameter of one element, and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.1))
        self.middle = nn.Linear(7, 3)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(3, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.body(x)).tanh() * self.scale)


def as_it_is(model: Net) -> nn.Module:
    return model


def replicated(model: Net) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def sharded(model: Net) -> nn.Module:
    for module in (model.body, model.middle):
        fully_shard(module)
    return fully_shard(model)


def sharded_in_part(model: Net) -> nn.Module:
    """The rest is whole on every rank; its gradients are averaged by hand."""
    fully_shard(model.body)
    for parameter in (*model.middle.parameters(), model.scale, *model.head.parameters()):
        parameter.register_post_accumulate_grad_hook(_average)
    return model


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad, op=dist.ReduceOp.SUM)
    parameter.grad /= dist.get_world_size()


def sharded_in_half(model: Net) -> nn.Module:
    """Half-precision weights in the passes, full-precision gradients; batch statistics cannot do that."""
    model.body[1] = nn.LayerNorm(7)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return fully_shard(model, mp_policy=policy)


def flat(model: Net, *, names: bool = True) -> nn.Module:
    """The first generation of sharding: plain parameters that hold what this rank has of them."""
    cpu = torch.device("cpu")
    model.body = FullyShardedDataParallel(model.body, use_orig_params=names, device_id=cpu)  # type: ignore[assignment]
    return FullyShardedDataParallel(model, use_orig_params=names, device_id=cpu)


def flat_without_names(model: Net) -> nn.Module:
    """All parameters of a wrapped module as one."""
    return flat(model, names=False)


KINDS = {
    f.__name__: f
    for f in (as_it_is, replicated, sharded, sharded_in_part, sharded_in_half, flat, flat_without_names)
}


def collectives() -> int:
    """How many collectives this process has issued, as the process group itself counts them."""
    return int(dist.distributed_c10d._get_default_group()._get_sequence_number_for_group())


def digest(*tensors: Tensor) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        found.update(local.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def whole_norms(tensors: list[Tensor], *, parts: bool) -> list[float]:
    """The true norms, over all ranks: this does issue collectives, and is called after the watch.

    ``parts``: the tensors are this rank's parts, though they do not say so.
    """
    if parts:
        squares = torch.stack([t.double().square().sum() for t in tensors])
        dist.all_reduce(squares)
        return [float(norm) for norm in squares.sqrt()]
    return [(t.full_tensor() if hasattr(t, "full_tensor") else t).double().norm().item() for t in tensors]


def train(job: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """One variant. In a ``late`` job the model is wrapped after the watcher was entered."""
    rank = dist.get_rank()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model: nn.Module = Net()
    wrap = KINDS[job["kind"]]
    if not job.get("late"):
        model = wrap(model)
    torch.manual_seed(1 + rank)  # from here on the ranks have data of their own
    before = collectives()
    losses, gradients, norms, weights = [], [], [], []
    watch: AbstractContextManager[Any] = nullcontext()
    if path is not None:
        watch = Watcher(model, path, config=EVERYTHING, sinks=[])
    with watch as watcher:
        if job.get("late"):
            model = wrap(model)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(STEPS):
            x, y = torch.randn(4 + rank, 5), torch.randn(4 + rank, 3)
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            if job.get("clip"):
                nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            kept = [p.new_zeros(0) if p.grad is None else p.grad.clone() for p in model.parameters()]
            optimizer.step()
            losses.append(loss.detach())
            gradients.append(kept)
            weights.append([p.detach().clone() for p in model.parameters()])
            if watcher is not None:
                watcher.log(loss=loss)
    issued = collectives() - before
    for kept, moved in zip(gradients, weights, strict=True):
        parts = job["kind"].startswith("flat")
        norms.append((whole_norms(kept, parts=parts), whole_norms(moved, parts=parts)))
    return {
        "collectives": issued,
        "loss": [loss.item() for loss in losses],
        "digest": [digest(*kept) for kept in gradients] + [digest(*model.state_dict().values())],
        "generators": [
            digest(torch.get_rng_state()),
            str(random.getstate()),
            str(np.random.get_state()),  # noqa: NPY002
        ],
        "names": [n.removeprefix("module.") for n, _ in model.named_parameters()],
        "grad_norms": [norm for norm, _ in norms],
        "weight_norms": [norm for _, norm in norms],
        "paths": [] if path is None else [str(watcher.path)],
    }


def main(order: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    if "rank" in order:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{order['out']}/rendezvous",
            rank=order["rank"],
            world_size=order["world"],
        )
    else:  # as a launcher leaves it: everything is in the environment
        dist.init_process_group("gloo")
    for name, job in order["jobs"].items():
        play(job, Path(order["out"]) / name, order["variants"])
    dist.barrier()
    dist.destroy_process_group()


def play(job: dict[str, Any], out: Path, variants: dict[str, list[int]]) -> None:
    rank = dist.get_rank()
    found = {}
    for variant, ranks in variants.items():
        path = out / f"{variant}.jsonl" if rank in ranks else None
        found[variant] = train(job, path)
    (out / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(json.loads(sys.argv[1]))
