"""How large run files get: bytes a step in every kind of line, and a day of training.

    python benchmarks/filesize/filesize.py                 # exit code 1 where a goal is missed
    python benchmarks/filesize/filesize.py --json sizes.json

The model has 150 parameters in 100 layers, as a small transformer or ResNet-50 has. Numbers are drawn with
the spread that they have in training, so that their digits are as many as there. The days are taken through
the disk budget that the recorder uses, with a clock of its own, until an hour after it first left something
out (of the fast loop: a quarter of an hour); from then on the file grows evenly.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from torchwatch.codec import rounded_together
from torchwatch.config import WatchConfig
from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.recorder.thinning import DiskBudget
from torchwatch.records import (
    Record,
    Step,
    StepColumns,
    Steps,
    System,
    batch,
    encode,
    missing_column,
    rounded_line,
)

PARAMETERS, LAYERS = 150, 100
EVERY = 10
GOALS = {"fast": 60.0, "plain": 400.0, "full": 12_000.0, "day": 1e9}


def column(rng: np.random.Generator, width: int, level: float, spread: float = 1.0) -> np.ndarray:
    return (level * rng.lognormal(0, spread, width)).astype(np.float32)


def some(rng: np.random.Generator, share: float, where: slice) -> np.ndarray:
    """Measured in some layers only: the activation modules."""
    values = missing_column(LAYERS)
    values[where] = np.where(rng.random(len(values[where])) < share, rng.random(len(values[where])), 0)
    return values


def columns(rng: np.random.Generator) -> dict:
    """All columns of a sampled step: seven per parameter, and the fourteen statistics per layer."""
    parameters, relu = PARAMETERS, slice(2, None, 3)
    zeros = np.zeros(LAYERS, np.float32)
    zeros[relu] = rng.normal(0.5, 0.1, len(zeros[relu]))
    embedding = np.zeros(parameters, np.float32)
    embedding[0] = 0.125
    return {
        "grad_norms": column(rng, parameters, 0.03), "update_ratios": column(rng, parameters, 1e-3),
        "weight_norms": column(rng, parameters, 12.0), "grad_absmax": column(rng, parameters, 4e-3),
        "grad_nonfinite": np.zeros(parameters, np.float32),
        "weight_nonfinite": np.zeros(parameters, np.float32),
        "weight_zero_fraction": embedding,
        "activations": {
            "mean": (rng.normal(0, 0.3, LAYERS)).astype(np.float32), "std": column(rng, LAYERS, 0.8),
            "rms": column(rng, LAYERS, 0.9), "zero_fraction": zeros, "dead_fraction": some(rng, 0.3, relu),
            "batch_std": column(rng, LAYERS, 0.5), "absmax": column(rng, LAYERS, 6.0),
            "nonfinite": np.zeros(LAYERS, np.float32), "saturated_fraction": some(rng, 0.5, slice(0, 3)),
            "dormant_fraction": some(rng, 0.3, relu), "grad_rms": column(rng, LAYERS, 2e-5),
            "headroom": column(rng, LAYERS, 1e-4), "cosine": missing_column(LAYERS),
            "effective_rank": missing_column(LAYERS),
        },
    }  # fmt: skip


def step(rng: np.random.Generator, number: int, time_s: float, took_s: float, **detail: object) -> Step:
    """A step with all that is measured on every one."""
    noise = rng.lognormal(0, 0.1, 4)
    return Step(
        step=number, epoch=number // 5000, time_s=round(time_s, 6), loss=tidy(2.3 * noise[0]),
        loss_source="log", lr=[0.001], samples=64, step_time_s=round(took_s, 6),
        wait_time_s=round(took_s / 100 * noise[1], 6),
        grad_norm=tidy(1.5 * noise[2]), update_ratio=tidy(1e-3 * noise[3]), stale_gradients=False,
        watch_time_s=round(took_s / 100 * noise[3], 6), fingerprint=f"{rng.integers(2**32):08x}", **detail,
    )  # type: ignore[arg-type]  # fmt: skip


def sampled(rng: np.random.Generator, number: int, time_s: float, took_s: float) -> Step:
    """A step with everything."""
    found = columns(rng)
    layers = found.pop("activations")
    parts = iter(rounded_together([*found.values(), *layers.values()]))
    found = {name: next(parts) for name in found}
    layers = {name: next(parts) for name in layers}
    return step(rng, number, time_s, took_s, **found, activations=layers)


def fast_line(rng: np.random.Generator, first: int, count: int) -> Steps:
    """A tenth of a second of a loop of 0.3 ms steps: what the training thread hands over of plain steps."""
    took = np.round(3e-4 * rng.lognormal(0, 0.2, count), 6)
    return rounded_line(
        Steps(
            step=list(range(first, first + count)), epoch=[first // 10_000] * count,
            time_s=np.round(first * 3e-4 + np.cumsum(took), 6), loss=2.3 * rng.lognormal(0, 0.1, count),
            loss_source=["log"] * count, lr=[[0.001]] * count, step_time_s=took,
            watch_time_s=np.round(4e-6 * rng.lognormal(0, 0.2, count), 7),
            grad_norm=1.5 * rng.lognormal(0, 0.3, count), update_ratio=1e-3 * rng.lognormal(0, 0.3, count),
        )
    )  # fmt: skip


def day(rng: np.random.Generator, took_s: float, watched_s: float, *, per_line: int = 1) -> float:
    """Bytes after 24 hours of steps that take so long; ``watched_s`` of them after the budget began."""
    config = WatchConfig()
    disk = DiskBudget(config.disk_full_bytes, config.disk_bytes_per_hour)
    intervals, time_s, number, size = IntervalBuilder(), 0.0, 0, 0
    details = [sampled(rng, 0, 0.0, took_s) for _ in range(50)]
    system_s, began = 0.0, (math.inf, 0)
    while time_s < began[0] + watched_s:
        pieces: list[Step | Steps] = list(tick(rng, details, number, time_s, took_s, per_line))
        number += sum(len(p.step) if isinstance(p, Steps) else 1 for p in pieces)
        time_s = number * took_s
        out: list[Record | None] = []
        if disk.tight and len(pieces) > 1:
            pieces = [batch([p for p in pieces if isinstance(p, Step)])]
        for piece in pieces:
            if isinstance(piece, Steps):
                intervals.add_all(piece)
                out.append(disk.line(piece))
            else:
                intervals.add(piece)
                out.append(disk.step(piece))
        if intervals.full:
            out.append(intervals.close("steps", time_s, rss_bytes=10**9, thinned=disk.thinned()))
            intervals.interval_steps = disk.interval_steps(config.interval_steps)
        if time_s - system_s >= 1:
            system_s = time_s
            told = {"since_step_s": 0.01, "uss_bytes": 10**9, "stack": "1a2b3c4d"}
            out.append(System(time_s, number, 98.1, 10**9, **told))  # type: ignore[arg-type]
        written = [record for record in out if record is not None]
        sizes = [len(encode(record)) for record in written]
        disk.wrote(written, sizes, time_s)
        size += sum(sizes)
        if disk.tight and began[0] == math.inf:
            began = time_s, size
    return size + (24 * 3600 - time_s) * (size - began[1]) / (time_s - began[0])


def tick(
    rng: np.random.Generator, details: list[Step], number: int, time_s: float, took_s: float, per_line: int
) -> Iterator[Step | Steps]:
    """What a tenth of a second brings."""
    if per_line > 1:
        line = fast_line(rng, number + 1, per_line)
        yield Steps(**{n: getattr(line, n) for n in Steps.__slots__ if n != "columns"}, columns={
            str(per_line - 1): StepColumns(grad_norms=details[0].grad_norms)
        })  # fmt: skip
        return
    for i in range(1, max(round(0.1 / took_s), 1) + 1):
        plain = step(rng, number + i, time_s + i * took_s, took_s)
        if (number + i) % EVERY:
            yield plain
        else:
            detail = details[(number // EVERY) % len(details)]
            known = ("grad_norms", "update_ratios", "weight_norms", "grad_absmax", "activations")
            yield Step(**{n: getattr(plain, n) for n in Step.__slots__ if n not in known},
                       **{n: getattr(detail, n) for n in known})  # fmt: skip


def measure() -> dict[str, float]:
    rng = np.random.default_rng(0)
    lines = [encode(fast_line(rng, 400_001 + i * 256, 256)) for i in range(50)]
    plain = [encode(step(rng, 400_000 + i, 15_000 + i * 0.038, 0.038)) for i in range(500)]
    full = [encode(sampled(rng, 400_000 + i, 15_000 + i * 0.038, 0.038)) for i in range(100)]
    return {
        "fast": sum(map(len, lines)) / 256 / len(lines),
        "plain": sum(map(len, plain)) / len(plain),
        "full": sum(map(len, full)) / len(full),
        "day": day(rng, 0.038, 3600),
        "fast_day": day(rng, 3e-4, 900, per_line=250),
    }


NAMES = {
    "fast": "a step of a fast loop (`steps` line of 256)",
    "plain": "a `step` line without columns",
    "full": f"a `step` line with all columns, {PARAMETERS} parameters, {LAYERS} layers",
    "day": "a day of 38 ms steps",
    "fast_day": "a day of 0.3 ms steps",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the sizes (bytes) to this file")
    given = parser.parse_args()
    sizes = measure()
    missed = [name for name, goal in GOALS.items() if sizes[name] > goal]
    for name, size in sizes.items():
        goal = f"goal {GOALS[name]:>13,.0f}  {'MISSED' if name in missed else 'met'}" if name in GOALS else ""
        print(f"{NAMES[name]:62} {size:>13,.0f} bytes  {goal}")
    if given.json:
        given.json.write_text(json.dumps({name: round(size, 1) for name, size in sizes.items()}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
