"""What watching costs on a CUDA device: GPT-2 124M (batch 8 × 1024, bf16 autocast) and ResNet-50.

    python benchmarks/gpu/overhead.py --json benchmarks/gpu/last.json

Each workload is built once bare and once per monitor. A monitored block of steps runs between two blocks of
the bare loop, and a block ends with a synchronisation of the *bench*. The figure is the median over rounds of
the monitored block ÷ the mean of the bare blocks around it. The monitor stays attached during bare blocks: of
torchwatch these then hold the identity filter of two optimizer hooks, a few microseconds a step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu.gpt2 import Gpt2
from benchmarks.gpu.resnet50 import ResNet50
from torchwatch import WatchConfig, Watcher, read_run

Step = Callable[[], torch.Tensor]
Monitor = Callable[[nn.Module], Any]

GOALS = {"torchwatch, default": 1.01, "torchwatch, activations every 10": 1.03}
CONFIGS = {
    "torchwatch, default": WatchConfig(terminal=False),
    "torchwatch, activations every 10": WatchConfig(
        terminal=False, budget=None, gradients_every=1, activations_every=10, dense_steps=0
    ),
    "torchwatch, everything every step": WatchConfig(
        terminal=False, budget=None, gradients_every=1, activations_every=1
    ),
}


class Workload:
    """A model, an optimizer and one batch on the device."""

    def __init__(self, name: str, device: torch.device) -> None:
        torch.manual_seed(0)
        if name == "gpt2":
            self.model: nn.Module = Gpt2().to(device)
            tokens = torch.randint(0, 50257, (8, 1025), device=device)
            self.inputs, self.targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
        else:
            self.model = ResNet50().to(device, memory_format=torch.channels_last)
            self.inputs = torch.randn(64, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
            self.targets = torch.randint(0, 1000, (64,), device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = functional.cross_entropy(self.model(self.inputs).flatten(0, -2), self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def block(work: Workload, steps: int, log: Callable[[torch.Tensor], None] | None = None) -> float:
    """Seconds per step of a block."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        loss = work.step()
        if log is not None:
            log(loss)
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


@contextmanager
def naive_hooks(model: nn.Module) -> Iterator[Callable[[torch.Tensor], None]]:
    """Six statistics per leaf with ``.item()``, as hand-written monitors do it."""
    seen: list[tuple[float, ...]] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            x = output.detach().float()
            values = (x.mean(), x.std(), x.min(), x.max(), (x == 0).float().mean(), x.isfinite().all())
            seen.append(tuple(v.item() for v in values))

    handles = [m.register_forward_hook(hook) for m in model.modules() if not list(m.children())]
    try:
        yield lambda _: seen.clear()
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def wandb_watch(model: nn.Module, what: str) -> Iterator[Callable[[torch.Tensor], None]]:
    """``wandb.watch`` at every step, offline."""
    import wandb

    os.environ["WANDB_MODE"] = "offline"
    run = wandb.init(project="overhead", dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True))
    run.watch(model, log=what, log_freq=1)
    try:
        yield lambda loss: run.log({"loss": loss})
    finally:
        run.unwatch(model)
        run.finish()


@contextmanager
def watched(model: nn.Module, config: WatchConfig, path: Path) -> Iterator[Callable[[torch.Tensor], None]]:
    with Watcher(model, path, config=config) as watch:
        yield lambda loss: watch.log(loss=loss)


def measure(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """Ratios of every monitor on one workload, and what torchwatch says of its own cost."""
    device = torch.device("cuda")
    folder = Path(tempfile.mkdtemp())
    results: dict[str, Any] = {}
    bare = Workload(name, device)
    block(bare, 2 * steps)
    monitors: dict[str, Callable[[nn.Module], Any]] = {
        label: (lambda model, c=config, p=folder / f"{at}.jsonl": watched(model, c, p))
        for at, (label, config) in enumerate(CONFIGS.items())
    }
    monitors["naive hooks, .item()"] = naive_hooks
    try:
        import wandb  # noqa: F401

        monitors["wandb.watch(gradients)"] = lambda model: wandb_watch(model, "gradients")
        monitors["wandb.watch(all)"] = lambda model: wandb_watch(model, "all")
    except ImportError:
        print("wandb is not installed: not measured")
    for label, monitor in monitors.items():
        work = Workload(name, device)
        ratios, times = [], []
        with monitor(work.model) as log:
            block(work, 10 * steps, log)  # warm-up: allocator, budget
            for _ in range(rounds):
                before = block(bare, steps)
                times.append(block(work, steps, log))
                after = block(bare, steps)
                ratios.append(2 * times[-1] / (before + after))
        results[label] = {"ratio": statistics.quantiles(ratios, n=4), "ms": 1e3 * statistics.median(times)}
        del work
    for at, label in enumerate(CONFIGS):
        end = read_run(folder / f"{at}.jsonl").end
        results[label]["self_reported"] = None if end is None else end.watch_share
        results[label]["dropped"] = None if end is None else end.dropped
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="steps per block")
    parser.add_argument("--workloads", default="gpt2,resnet50")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this bench needs a CUDA device; on a CPU run benchmarks/overhead/overhead.py")
    card = torch.cuda.get_device_name()
    found: dict[str, Any] = {"card": card, "torch": str(torch.__version__)}
    for name in arguments.workloads.split(","):
        found[name] = measure(name, arguments.rounds, arguments.steps)
        print(
            f"\n## {name} on {card}, torch {torch.__version__}\n\n| monitor | ratio [quartiles] | ms | goal |"
        )
        print("|---|---|---|---|")
        for label, figures in found[name].items():
            low, middle, high = figures["ratio"]
            goal = GOALS.get(label)
            verdict = "" if goal is None else f"≤ {goal}: {'met' if middle <= goal else 'missed'}"
            print(f"| {label} | {middle:.3f} [{low:.3f}, {high:.3f}] | {figures['ms']:.2f} | {verdict} |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
