"""What Integrated Gradients cost here against calling Captum directly.

    python -m benchmarks.autopsy.attributions [--rounds 7] [--device cpu]

100 samples × 50 steps, on a convolutional network (129 channels × 200 bins) and on a small perceptron, where
every call counts. ``captum`` is ``IntegratedGradients(model).attribute(...)`` with its convergence delta, all
samples at once; ``ours`` is what the examination does for that method: choosing samples, baselines, wrapping
the model, chunks, profiles along each axis and the map. Both run one after the other in each round, in turns
first; the ratio is taken within a round. CPU time of the process is shown too, which other programs on the
machine disturb less. The last figures are in ``attributions.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from torchwatch.examinations import attributions
from torchwatch.examinations._attribution_methods import METHODS, noise_of
from torchwatch.examinations._explained import seeded, subject
from torchwatch.examinations._references import reference
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.untouched import untouched
from torchwatch.results import AutopsyInputs

SAMPLES, STEPS, ALLOWED = 100, 50, 1.2


def workloads() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    conv = nn.Sequential(
        nn.Conv1d(129, 16, 7, padding=3), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 32, 7, stride=2, padding=3), nn.BatchNorm1d(32), nn.ReLU(),
        nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(256, 1),
    )  # fmt: skip
    perceptron = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    return {
        "conv, 129 × 200": (conv.eval(), torch.randn(SAMPLES, 129, 200)),
        "perceptron, 40": (perceptron.eval(), torch.randn(SAMPLES, 40)),
    }


def directly(case: Case, x: Tensor) -> None:
    IntegratedGradients(case.model).attribute(
        x,
        torch.zeros_like(x),
        target=0,
        n_steps=STEPS,
        internal_batch_size=SAMPLES,
        return_convergence_delta=True,
    )


def ours(case: Case) -> None:
    chosen = subject(case, SAMPLES, "attributions")
    work = attributions._Work(chosen, reference(chosen, "zero"), case, noise_of(chosen.main))
    tally = attributions._tallied(work, METHODS[0])
    assert len(tally.profiles()) == len(case.axes)
    assert tally.convergence() is not None
    assert len(case.axes) == 1 or tally.overview() is not None


def timed(run: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds on the wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def measured(name: str, rounds: int, device: str) -> dict[str, float | str]:
    model, x = workloads()[name]
    data = (x, torch.randn(SAMPLES, 1))
    case = Case(AutopsyInputs(model.to(device), data), Options(ig_n_steps=STEPS))
    on_device = x.to(device)
    sides = {"captum": lambda: directly(case, on_device), "ours": lambda: ours(case)}
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with untouched(case.model), seeded(case, "bench"):
        for number in range(rounds + 1):  # the first round warms up
            order = list(sides) if number % 2 else list(sides)[::-1]
            for side in order:
                taken[side].append(timed(sides[side], device))
    walls = [o[0] / c[0] for o, c in zip(taken["ours"][1:], taken["captum"][1:], strict=True)]
    cpus = [o[1] / c[1] for o, c in zip(taken["ours"][1:], taken["captum"][1:], strict=True)]
    return {
        "workload": name,
        "captum_s": statistics.median(c[0] for c in taken["captum"][1:]),
        "ours_s": statistics.median(o[0] for o in taken["ours"][1:]),
        "ratio": statistics.median(walls),
        "ratio_low": min(walls),
        "ratio_high": max(walls),
        "cpu_ratio": statistics.median(cpus),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    rows = [
        measured(name, chosen.rounds * (5 if "perceptron" in name else 1), chosen.device)
        for name in workloads()
    ]
    for row in rows:
        print(
            f"{row['workload']:18} captum {row['captum_s']:.3f} s, ours {row['ours_s']:.3f} s, "
            f"ratio {row['ratio']:.3f} ({row['ratio_low']:.3f} … {row['ratio_high']:.3f}), "
            f"CPU {row['cpu_ratio']:.3f}; allowed {ALLOWED}"
        )
    about = {
        "samples": SAMPLES, "steps": STEPS, "rounds": chosen.rounds, "device": chosen.device,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "cpus": os.cpu_count(),
        "machine": platform.machine(), "allowed_ratio": ALLOWED, "workloads": rows,
    }  # fmt: skip
    chosen.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
