"""What the ablation costs against its floor and against the obvious loop.

    python -m benchmarks.autopsy.ablation [--model example] [--rounds 5] [--samples 500] [--device cpu]

A regression on 129 channels × 200 bins by the network of ``docs/examples/mean_collapse.py``: 129 channels, 10
windows and the model's blocks are ablated once each. ``floor`` is as many plain forward passes as there are
ablations, and one more, at the batch size that is fastest here. ``loop`` is what one would write: for each
ablation iterate the loader, copy the batch, fill, run the model. ``whole`` is the examination with its
shortcut behind the first layer switched off, ``ours`` the examination as it is. All four are measured one
after the other in each round, in another order each time; ratios are taken within a round. Both clocks are
shown: time on the wall, and CPU time of the process, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from docs.examples.mean_collapse import Network
from torchwatch.examinations import _ablation_inputs
from torchwatch.examinations.ablation import EXAMINATION
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.untouched import untouched
from torchwatch.results import AutopsyInputs
from torchwatch.results.ablation import Ablation

CHANNELS, BINS, WINDOW = 129, 200, 20
MODELS = ("example", "larger")
_SIZES = (32, 64, 128, 256, 512, 1024)
_LOADER_BATCH = 64


@dataclass(frozen=True)
class Taken:
    """Seconds on the wall, and of CPU time."""

    wall_s: float
    cpu_s: float


def model_of(kind: str, device: str) -> nn.Module:
    """The network of the worked example, or a somewhat larger one with batch normalisation."""
    torch.manual_seed(0)
    if kind == "example":
        model: nn.Module = Network()
        model(torch.zeros(1, CHANNELS, BINS))  # its last layer learns its width from a batch
        return model.eval().to(device)
    model = nn.Sequential(
        nn.Conv1d(CHANNELS, 16, 7, padding=3), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 32, 7, stride=2, padding=3), nn.BatchNorm1d(32), nn.ReLU(),
        nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(256, 1),
    )  # fmt: skip
    return model.eval().to(device)


def data(samples: int) -> tuple[Tensor, Tensor]:
    """Noise with a weak signal in three channels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, CHANNELS, BINS, generator=generator)
    y = torch.randn(samples, 1, generator=generator)
    x[:, [10, 50, 90], 80:100] += 0.3 * y[:, :, None]
    return x, y


def floor(model: nn.Module, x: Tensor, passes: int, batch: int) -> None:
    """Plain forward passes over everything; several passes share a batch that is larger than all samples."""
    copies = max(1, batch // len(x))
    rows = x.repeat(copies, 1, 1)
    with torch.no_grad():
        for _ in range(-(-passes // copies)):
            for chunk in rows.split(batch):
                model(chunk)
    _finish(x)


def best_batch(model: nn.Module, x: Tensor) -> int:
    """The fastest batch size of plain passes, tried at length."""
    sizes = [s for s in _SIZES if s <= len(x)]
    if x.is_cuda:
        sizes += [len(x) * 2**i for i in range(1, 7)]
    taken: dict[int, float] = {}
    for _, size in itertools.product(range(2), sizes):
        copies = max(1, size // len(x))
        per_pass = timed(lambda size=size, n=copies: floor(model, x, n, size)).cpu_s / copies
        taken[size] = min(taken.get(size, per_pass), per_pass)
    return min(taken, key=lambda size: taken[size])


def loop(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]], device: str) -> list[float]:
    """The obvious way: error without each channel and window, then with everything."""
    places: list[tuple[slice, slice]] = [(slice(c, c + 1), slice(None)) for c in range(CHANNELS)]
    places += [(slice(None), slice(t, t + WINDOW)) for t in range(0, BINS, WINDOW)]
    found = []
    with torch.no_grad():
        for place in [*places, None]:
            total = 0.0
            for x, y in loader:
                x, y = x.to(device).clone(), y.to(device)  # noqa: PLW2901 - as one would write it
                if place is not None:
                    x[:, *place] = x[torch.randperm(len(x), device=x.device)][:, *place]
                total += float((model(x) - y).square().sum())
            found.append(total / len(loader.dataset))  # type: ignore[arg-type]
    return found


def ours(case: Case, *, whole: bool) -> Ablation:
    """The examination; ``whole`` runs the whole model each time."""
    with untouched(case.model), ExitStack() as stack:
        if whole:
            stack.enter_context(mock.patch.object(_ablation_inputs, "shortcut", return_value=None))
        result: Ablation = EXAMINATION.examine(case)
    return result


def timed(work: Callable[[], object]) -> Taken:
    """Both clocks around some work."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def _finish(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def measure(kind: str, rounds: int, samples: int, device: str) -> None:
    """Measure and print a table."""
    model, (x, y) = model_of(kind, device), data(samples)
    loader = DataLoader(TensorDataset(x, y), batch_size=_LOADER_BATCH)
    options = Options(samples=samples, repeats=1, window=WINDOW)
    case = Case(AutopsyInputs(model, (x, y), axes=("channel", "time")), options)
    inputs = x.to(device)
    batch = best_batch(model, inputs)
    result = ours(case, whole=False)
    ablations = sum(len(p.elements) for p in result.parts)
    print(
        f"{ablations} ablations, {samples} samples; fastest plain batch {batch}, chosen {result.batch}, ",
        end="",
    )
    print(f"shortcut behind {result.shortcut!r}")
    ways: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(model, inputs, ablations + 1, batch),
        "loop": lambda: loop(model, loader, device),
        "whole": lambda: ours(case, whole=True),
        "ours": lambda: ours(case, whole=False),
    }
    found: dict[str, list[Taken]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)
        for name in names[number % 4 :] + names[: number % 4]:
            found[name].append(timed(ways[name]))
            print(f"  round {number + 1}: {name} {found[name][-1]}", flush=True)
    _show(found)


def _show(found: dict[str, list[Taken]]) -> None:
    for clock in ("wall_s", "cpu_s"):
        taken = {name: [getattr(t, clock) for t in all_] for name, all_ in found.items()}
        print(f"\n{clock}: " + ", ".join(f"{n} {statistics.median(t):.2f}" for n, t in taken.items()))
        for above, below in (("whole", "floor"), ("ours", "floor"), ("loop", "whole"), ("loop", "ours")):
            print(f"  {above} / {below}: {_ratio(taken[above], taken[below])}")


def _ratio(above: Sequence[float], below: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Read arguments, say where this runs, measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="example")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if given.device == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads of {os.cpu_count()} CPUs")
    measure(given.model, given.rounds, given.samples, given.device)


if __name__ == "__main__":
    main()
