"""How long a diagnosis of a long run takes, and how much memory.

Writes a run file of a million healthy steps (a small network that steps 2,500 times a second) and diagnoses
it in a process of its own:

    python benchmarks/replay/replay.py                    # `steps` lines of 250
    python benchmarks/replay/replay.py --lines step       # one `step` line per step
    python benchmarks/replay/replay.py --profile          # where the time goes, per check
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import torchwatch
from torchwatch.check import select
from torchwatch.intervals import IntervalBuilder
from torchwatch.records import (
    End,
    Eval,
    LayerInfo,
    Layout,
    OptimizerInfo,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    System,
    batch,
    encode,
)  # fmt: skip

LAYERS = 12
STEP_S = 0.0004
EVAL_EVERY = 10_000
COLUMNS_EVERY = 10
LINE_STEPS = 250
"""Steps of 0.4 ms that go into one line of 0.1 s."""


def layout() -> Layout:
    layers = [
        LayerInfo(f"block.{i}", "Linear" if i % 2 == 0 else "ReLU", 4096 if i % 2 == 0 else 0, order=i,
                  inputs=[[32, 64]], outputs=[[32, 64]])
        for i in range(LAYERS)
    ]  # fmt: skip
    parameters = [
        ParameterInfo(f"block.{i}.weight", i, [64, 64], "float32", optimizer=0, group=0)
        for i in range(0, LAYERS, 2)
    ]
    return Layout(1, layers, parameters, [OptimizerInfo("Adam", [{"lr": 1e-3}])], {"loss": "ok"})


def healthy_steps(count: int) -> Iterator[Step]:
    """Steps of a run whose loss falls as 0.3 + 2 / √(1 + t/1000) with 2 % noise."""
    rng = np.random.default_rng(0)
    parameters = LAYERS // 2

    def column(width: int, scale: float) -> np.ndarray:
        return (scale * rng.lognormal(0, 0.1, width)).astype(np.float32)

    statistics = ("mean", "std", "rms", "zero_fraction", "dead_fraction", "batch_std", "absmax", "nonfinite")
    for start in range(0, count, 10_000):
        noise = rng.lognormal(0, 0.02, (10_000, 3))
        for i in range(min(10_000, count - start)):
            number = start + i + 1
            due = number <= 10 or number % COLUMNS_EVERY == 0
            columns = {} if not due else {
                "weight_norms": column(parameters, 8.0),
                "activations": {
                    s: column(LAYERS, 0.0 if s in ("dead_fraction", "nonfinite") else 0.5) for s in statistics
                },
            }  # fmt: skip
            noisy = noise[i].tolist()
            yield Step(
                step=number, epoch=number // 50_000, time_s=round(number * STEP_S, 6),
                loss=round((0.3 + 2 / (1 + number / 1000) ** 0.5) * noisy[0], 7), loss_source="log",
                lr=[1e-3], samples=32, step_time_s=round(STEP_S * noisy[1], 9), wait_time_s=1e-5,
                grad_norm=round(noisy[2], 7), update_ratio=round(1e-3 * noisy[1], 10), stale_gradients=False,
                grad_norms=column(parameters, 0.5), update_ratios=column(parameters, 1e-3), **columns,
            )  # fmt: skip


def records(count: int, *, batched: bool) -> Iterator[Record]:
    yield RunHeader(
        run_id="benchmark", name="replay", torchwatch=torchwatch.__version__, limits=select().limits(),
        config={"interval_steps": 200, "declare": {}},
    )  # fmt: skip
    yield layout()
    intervals, waiting = IntervalBuilder(200), []
    for step in healthy_steps(count):
        waiting.append(step)
        intervals.add(step)
        full = intervals.full
        evaluated = step.step % EVAL_EVERY == 0
        if full or evaluated or len(waiting) == (LINE_STEPS if batched else 1):
            yield batch(waiting) if len(waiting) > 1 else waiting[0]
            waiting = []
        if full:
            yield intervals.close("steps", step.time_s, rss_bytes=500_000_000)
        if evaluated:
            yield Eval(step.step, step.epoch, step.time_s, {"val_loss": step.loss})
        if step.step % 2500 == 0:
            yield System(step.time_s, step.step, cpu_percent=50.0, rss_bytes=500_000_000)
    yield from [batch(waiting)] if waiting else []
    yield End(step=count, steps=count)


def write(path: Path, count: int, *, batched: bool) -> None:
    with path.open("wb") as file:
        file.writelines(map(encode, records(count, batched=batched)))


def measure(path: Path) -> None:
    """In the process of its own: one diagnosis, its time and the peak of the resident memory."""
    diagnosis = torchwatch.diagnose(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "steps": diagnosis.steps, "seconds": round(diagnosis.wall_s, 1),
                "cpu_seconds": round(time.process_time(), 1),
        "steps_per_s": round(diagnosis.steps_per_s), "peak_rss_mib": round(peak / 2**20),
        "file_mib": round(path.stat().st_size / 2**20), "health_score": diagnosis.health_score,
        "issues": [f"{i.check} ({i.severity}, {i.layer})" for i in diagnosis.issues],
    }, indent=1))  # fmt: skip


def profile(path: Path) -> None:
    """Where the time of a diagnosis goes: reading, taking in, each check; wall time in µs per step."""
    from torchwatch.engine import Engine
    from torchwatch.runfile import read_records

    engine = Engine(select())
    spent: defaultdict[str, float] = defaultdict(float)
    find, add = engine._find, engine.history.add

    def timed(name: str, work, argument):
        started = time.perf_counter()
        result = work(argument)
        spent[name] += time.perf_counter() - started
        return result

    engine._find = lambda check: timed(check.slug, find, check)
    engine.history.add = lambda record: timed("(history)", add, record)
    started = time.perf_counter()
    fed = 0.0
    for record in read_records(path):
        before = time.perf_counter()
        engine.feed(record)
        fed += time.perf_counter() - before
    spent["(read)"] = time.perf_counter() - started - fed
    spent["(engine)"] = fed - sum(v for k, v in spent.items() if k != "(read)")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{name:24} {seconds / engine.history.steps_seen * 1e6:8.2f} µs per step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--lines", choices=("steps", "step"), default="steps")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        (profile if given.profile else measure)(given.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        write(path, given.steps, batched=given.lines == "steps")
        again = [sys.executable, __file__, "--measure", str(path), *(["--profile"] if given.profile else [])]
        subprocess.run(again, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
