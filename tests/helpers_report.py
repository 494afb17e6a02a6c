"""Run files for tests of the report: a small CNN's training, healthy, faulty or hostile, without torch.

The numbers follow simple laws (an exponential loss, gradients that shrink towards the input): a reader
of a plot knows what it should show. Alerts are those of the real engine, where a recorder writes them.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch import records
from torchwatch.check import select
from torchwatch.engine import Engine
from torchwatch.records import (
    End,
    Epoch,
    Eval,
    Interval,
    LayerInfo,
    Layout,
    Log,
    Note,
    OptimizerInfo,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    System,
    batch,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HOSTILE = (
    "<script>alert(1)</script>\"' onload=x ![a](javascript:b) \x1b[31mred\x1b[0m\nnew `line` $x_{1}$ | "
    "漢字 🙂 \u202eevil"
)
_CNN = (
    ("conv1", "Conv2d", [(8, 1, 3, 3), (8,)]),
    ("relu1", "ReLU", []),
    ("conv2", "Conv2d", [(16, 8, 3, 3), (16,)]),
    ("relu2", "ReLU", []),
    ("pool", "AdaptiveAvgPool2d", []),
    ("classifier.0", "Linear", [(64, 256), (64,)]),
    ("classifier.1", "ReLU", []),
    ("classifier.2", "Linear", [(10, 64), (10,)]),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to write.

    ``dead_from``: step at which relu2 begins to die; ``nan_from``: step of the first NaN loss.
    """

    epochs: int = 8
    steps_per_epoch: int = 45
    dead_from: int | None = None
    nan_from: int | None = None
    overfit: bool = False
    columns: bool = True
    evals: bool = True
    hostile: bool = False
    fast: bool = False
    status: str | None = "finished"
    layers: int = 0
    seed: int = 0


def header(plan: Plan) -> RunHeader:
    return RunHeader(
        run_id="20261121-digits-7f3a",
        name=HOSTILE if plan.hostile else "digits-cnn",
        time="2026-11-21T09:30:00+01:00",
        torchwatch="0.1.0",
        pid=4242,
        model="SmallCNN",
        parameters=18_378,
        software={"python": "3.11.9", "torch": "2.13.0", "numpy": "2.1.0"},
        device={"kind": "cpu", "cores": 2, "machine": "x86_64"},
        hyperparameters={"lr": 1e-3, "batch_size": 32, HOSTILE: HOSTILE}
        if plan.hostile
        else {"lr": 1e-3, "batch_size": 32},
        config={"interval_steps": 200, "declare": {}},
        limits=select().limits(),
        recipe="train.py:build",
    )


def layout(plan: Plan) -> Layout:
    plain = [*_CNN, *((f"blocks.{i}.mlp.fc", "Linear", [(32, 32), (32,)]) for i in range(plan.layers))]
    layers, parameters = [], []
    evil = {2: HOSTILE, 5: "x" * 10_000 + "</td><img src=x onerror=y>"} if plan.hostile else {}
    for order, (plain_name, kind, shapes) in enumerate(plain):
        name = evil.get(order, plain_name)
        size = sum(math.prod(s) for s in shapes)
        layers.append(LayerInfo(name, kind, size, order=order, inputs=[[32, 8]], outputs=[[32, 8]]))
        for part, shape in zip(("weight", "bias"), shapes, strict=False):
            parameters.append(
                ParameterInfo(f"{name}.{part}", order, list(shape), "float32", optimizer=0, group=0)
            )
    coverage = {
        "gradients": "ok",
        "activations": "ok",
        "loss": "ok",
        HOSTILE if plan.hostile else "memory": "ok",
    }
    return Layout(0, layers, parameters, [OptimizerInfo("AdamW", [{"lr": 1e-3}])], coverage)


def run(plan: Plan = Plan()) -> Iterator[Record]:
    """All records of the plan in the order of happening, alerts included."""
    first = header(plan)
    engine = Engine.for_header(first)
    for record in _measured(plan):
        yield record
        yield from engine.feed(record)
    if plan.status is not None:
        yield from engine.finish()
        yield _end(plan, engine.health_score())


def write(path: Path, lines: Iterable[Record]) -> Path:
    """The records as a run file, gzipped when the name says so."""
    data = b"".join(records.encode(r) for r in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _measured(plan: Plan) -> Iterator[Record]:
    rng = np.random.default_rng(plan.seed)
    yield header(plan)
    shape = layout(plan)
    yield shape
    step, pending = 0, []
    for epoch in range(plan.epochs):
        losses = []
        for _ in range(plan.steps_per_epoch):
            step += 1
            record = _step(plan, shape, step, epoch, rng)
            losses.append(record.loss)
            if not plan.fast:
                yield record
            else:
                pending.append(record)
                if len(pending) == 30:
                    yield batch(pending)
                    pending = []
            if step % 10 == 0:
                yield _system(step)
        if pending:
            yield batch(pending)
            pending = []
        yield _interval(step, epoch, losses)
        yield from _epoch_end(plan, step, epoch, losses)
    if plan.hostile:
        yield Log(step, 1.0, "ERROR", HOSTILE, HOSTILE)
        yield Note(step, 1.0, "collector", HOSTILE)


def _level(step: int) -> float:
    return 0.12 + 2.2 * math.exp(-step / 90)


def _step(plan: Plan, shape: Layout, step: int, epoch: int, rng: np.random.Generator) -> Step:
    loss = _level(step) * float(np.exp(rng.normal(0, 0.08)))
    if plan.nan_from is not None and step >= plan.nan_from:
        loss = math.nan
    metrics: dict[str, Any] = {
        "accuracy": min(1.0, 1 - 0.8 * math.exp(-step / 80) + float(rng.normal(0, 0.01)))
    }
    if plan.hostile:
        metrics[HOSTILE] = loss
    columns = _columns(plan, shape, step, rng) if plan.columns and (step <= 10 or step % 2 == 0) else {}
    norms = _gradients(plan, shape, step, rng) if plan.columns else None
    return Step(
        step=step,
        epoch=epoch,
        time_s=round(step * 0.04, 6),
        loss=_rounded(loss),
        loss_source="log",
        lr=[_rounded(1e-3 * min(1.0, step / 20))],
        samples=32,
        step_time_s=_rounded(0.036 + abs(float(rng.normal(0, 0.002)))),
        wait_time_s=_rounded(0.002 + abs(float(rng.normal(0, 0.0004)))),
        grad_norm=_rounded(1.4 * math.exp(-step / 400) * float(np.exp(rng.normal(0, 0.1))))
        if plan.columns
        else None,
        update_ratio=_rounded(2e-3 * float(np.exp(rng.normal(0, 0.1)))) if plan.columns else None,
        metrics={k: _rounded(v) for k, v in metrics.items()},
        grad_norms=norms,
        **columns,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def _dead(plan: Plan, step: int) -> float:
    if plan.dead_from is None or step < plan.dead_from:
        return 0.0
    return min(1.0, (step - plan.dead_from) / 40)


def _gradients(plan: Plan, shape: Layout, step: int, rng: np.random.Generator) -> np.ndarray:
    alive = 1.0 - _dead(plan, step)
    sizes = np.array([math.prod(p.shape) for p in shape.parameters], np.float64)
    norms = 2e-3 * np.sqrt(sizes) * np.exp(rng.normal(0, 0.15, len(sizes)) - step / 500)
    behind = np.array([p.layer <= 2 for p in shape.parameters])
    return np.where(behind, norms * alive, norms).astype(np.float32)


def _columns(plan: Plan, shape: Layout, step: int, rng: np.random.Generator) -> dict[str, Any]:
    width = len(shape.layers)
    relu = np.array([x.type == "ReLU" for x in shape.layers])
    second = np.array([i == 3 for i in range(width)])
    dead = records.missing_column(width)
    # A unit counts as dead once it was silent for a window of 512 samples: 16 observations of every 2nd step.
    dead[relu] = np.where(second[relu], _dead(plan, step - 32), 0.0)
    zero = np.where(relu, 0.45 + 0.55 * second * _dead(plan, step), 0.0).astype(np.float32)
    spread = (1.0 + 0.1 * rng.random(width)).astype(np.float32)
    return {
        "update_ratios": np.full(len(shape.parameters), 2e-3, np.float32),
        "weight_norms": np.full(len(shape.parameters), 3.0, np.float32),
        "activations": {
            "mean": spread * 0.1,
            "std": spread,
            "rms": spread,
            "zero_fraction": zero,
            "dead_fraction": dead,
            "batch_std": spread * 0.5,
            "absmax": spread * 4,
            "nonfinite": np.zeros(width, np.float32),
        },
    }


def _system(step: int) -> System:
    return System(step * 0.04, step, 92.0, 410_000_000 + 20_000 * min(step, 60), since_step_s=0.01)


def _interval(step: int, epoch: int, losses: list[float]) -> Interval:
    n, finite = len(losses), np.array(losses)
    return Interval(
        index=epoch, first_step=step - n + 1, last_step=step, steps=n, epoch=epoch, time_s=step * 0.04,
        closed_by="epoch", duration_s=n * 0.04, busy_s=n * 0.039, loss_mean=float(finite.mean()),
        loss_std=float(finite.std()), loss_min=float(finite.min()), loss_max=float(finite.max()), lr_max=1e-3,
        samples=32 * n, steps_per_s=25.6, samples_per_s=820.0 + 5 * (epoch % 3), step_time_median_s=0.037,
        wait_share=0.05, rss_bytes=411_200_000, cpu_percent=92.0, watch_share=0.008,
    )  # fmt: skip


def _epoch_end(plan: Plan, step: int, epoch: int, losses: list[float]) -> Iterator[Record]:
    if plan.evals:
        value = _level(step) + 0.04
        if plan.overfit and epoch > 3:
            value = _level(4 * plan.steps_per_epoch) + 0.04 + 0.12 * (epoch - 3)
        metrics = {"val_loss": _rounded(value), "val_accuracy": _rounded(1 - 0.7 * math.exp(-step / 80))}
        yield Eval(step, epoch, step * 0.04, metrics)
    yield Epoch(
        epoch, step, len(losses), step * 0.04, len(losses) * 0.04, float(np.mean(losses)), 32 * len(losses)
    )


def _end(plan: Plan, score: int) -> End:
    steps = plan.epochs * plan.steps_per_epoch
    crashed = plan.status == "crashed"
    message = HOSTILE if plan.hostile else "mat1 and mat2 shapes cannot be multiplied (32x256 and 128x64)"
    trace = (
        'Traceback (most recent call last):\n  File "train.py", line 41, in <module>\n'
        f"    loss = f(model(x), y)\nRuntimeError: {message}"
    )
    return End(
        plan.status or "finished", steps, steps, plan.epochs, steps * 0.04, steps * 32, score, {}, 0.008,
        error=f"RuntimeError: {message}" if crashed else None, traceback=trace if crashed else None,
    )  # fmt: skip
