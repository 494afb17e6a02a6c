"""What watching costs: step time watched ÷ bare, paired and interleaved in one process, one thread.

    python benchmarks/overhead/overhead.py                # a few minutes
    python benchmarks/overhead/overhead.py --repeats 5    # quicker, noisier

Each repeat runs every variant once on the same workload, in turn; the figures are medians of the ratios of
one repeat, with the quartiles. Workloads: tiny (a 0.2 ms step), mlp, conv, gpt (a small transformer).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from torchwatch import WatchConfig, Watcher

Workload = tuple[nn.Module, torch.Tensor, torch.Tensor]
VARIANTS = {
    "default": WatchConfig(terminal=False),
    "everything, every step": WatchConfig(terminal=False, activations_every=1),
    "gradients every 10": WatchConfig(terminal=False, gradients_every=10, dense_steps=0),
}


def tiny() -> Workload:
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
    return model, torch.randn(32, 20), torch.randint(0, 10, (32,))


def mlp() -> Workload:
    layers: list[nn.Module] = []
    for inputs, outputs in ((784, 1024), (1024, 1024), (1024, 1024)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(256, 784), torch.randint(0, 10, (256,))


def conv() -> Workload:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return model, torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))


class Gpt(nn.Module):
    """Four pre-norm blocks of width 128 over 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 128)
        block = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embedding(tokens))).flatten(0, 1)


def gpt() -> Workload:
    return Gpt(), torch.randint(0, 256, (16, 64)), torch.randint(0, 256, (16 * 64,))


WORKLOADS: dict[str, tuple[Callable[[], Workload], int]] = {
    "tiny": (tiny, 1000),
    "mlp": (mlp, 30),
    "conv": (conv, 20),
    "gpt": (gpt, 20),
}


def seconds_per_step(make: Callable[[], Workload], steps: int, config: WatchConfig | None) -> float:
    """Mean step time after a warm-up of as many steps; the whole loop, the recorder thread included."""
    torch.manual_seed(0)
    model, inputs, targets = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loop(watch: Watcher | None) -> None:
        for _ in range(steps):
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watch is not None:
                watch.log(loss=loss)

    def timed(watch: Watcher | None) -> float:
        loop(watch)
        started = time.perf_counter()
        loop(watch)
        return (time.perf_counter() - started) / steps

    if config is None:
        return timed(None)
    with (
        tempfile.TemporaryDirectory() as folder,
        Watcher(model, Path(folder) / "r.jsonl", config=config) as watch,
    ):
        return timed(watch)


def measure(repeats: int) -> dict[str, dict[str, object]]:
    results: dict[str, dict[str, object]] = {}
    for name, (make, steps) in WORKLOADS.items():
        bare: list[float] = []
        ratios: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(repeats):
            bare.append(seconds_per_step(make, steps, None))
            for variant, config in VARIANTS.items():
                ratios[variant].append(seconds_per_step(make, steps, config) / bare[-1])
        results[name] = {
            "bare_ms": statistics.median(bare) * 1e3,
            "ratios": {v: statistics.quantiles(r, n=4) for v, r in ratios.items()},
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, default=None, help="also keep the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.repeats)
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread; median [quartiles] of watched ÷ bare"
    )
    print("| workload | bare step |", " | ".join(VARIANTS), "|")
    print("|---|---|" + "---|" * len(VARIANTS))
    for name, figures in results.items():
        cells = [f"{q[1]:.3f} [{q[0]:.3f}, {q[2]:.3f}]" for q in figures["ratios"].values()]  # type: ignore[attr-defined]
        print(f"| {name} | {figures['bare_ms']:.2f} ms |", " | ".join(cells), "|")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
