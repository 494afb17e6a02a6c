"""Tables of the numbers that the run ended with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report.document import Block, Table, Text
from torchwatch.text import number, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchwatch.report.report import Report
    from torchwatch.report.trace import Curve, Floats, Points

_MOST = 40


def loss_table(report: Report) -> list[Block]:
    """First, lowest, highest and last value of every loss and metric."""
    trace = report.trace
    rows = []
    for name, curve in trace.curves.items():
        if name == "loss" or name.startswith("metrics."):
            rows.append([name.removeprefix("metrics."), "training step", *_curve_cells(curve)])
    rows += [[name, "evaluation", *_points_cells(points)] for name, points in trace.evals.items()]
    if not rows:
        return [Text("Neither a loss nor a metric was seen in this run: watch.log(loss=loss) records it.")]
    head = ["name", "of each", "values", "first", "lowest", "at step", "highest", "at step", "last"]
    cut = [Text(f"Shown are {_MOST} of {len(rows)} names.", quiet=True)] if len(rows) > _MOST else []
    return [Table(head, rows[:_MOST], numeric=frozenset(range(2, 9)), names=frozenset({0})), *cut]


def _curve_cells(curve: Curve) -> list[str]:
    low, high = _finite(curve.low), _finite(curve.high)
    if not len(low):
        return [f"{curve.count:,}", "NaN or ∞", "–", "–", "–", "–", "NaN or ∞"]
    last_bad = len(curve.bad) and curve.bad[-1] > curve.steps[-1]
    at_low, at_high = int(np.argmin(low)), int(np.argmax(high))
    return [
        f"{curve.count:,}",
        number(float(curve.mean[0])),
        number(float(low[at_low])),
        f"{curve.steps[at_low]:,.0f}",
        number(float(high[at_high])),
        f"{curve.steps[at_high]:,.0f}",
        "NaN or ∞" if last_bad else number(float(curve.mean[-1])),
    ]


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _points_cells(points: Points) -> list[str]:
    finite = np.isfinite(points.values)
    if not finite.any():
        return [f"{len(points.at):,}", "NaN or ∞", "–", "–", "–", "–", "NaN or ∞"]
    at, values = points.at[finite], points.values[finite]
    low, high = int(np.argmin(values)), int(np.argmax(values))
    return [
        f"{len(points.at):,}",
        number(float(points.values[0])),
        number(float(values[low])),
        f"{at[low]:,.0f}",
        number(float(values[high])),
        f"{at[high]:,.0f}",
        number(float(points.values[-1])),
    ]


_RATES = (("samples_per_s", "throughput", "samples/s"), ("steps_per_s", "speed", "steps/s"))
_MEMORY = (("rss_bytes", "memory of the process"), ("cuda_reserved_bytes", "memory reserved on the device"))


def machine_table(report: Report) -> list[Block]:
    """Typical throughput, waiting, memory, and what watching cost; only what was measured."""
    rows = [*_rates(report), _waiting(report), *_memory(report)]
    end = report.found.end
    if end is not None and end.watch_share is not None:
        share = f"{100 * end.watch_share:.2f} %"
        if end.watch_share_error is not None:
            share += f" ± {100 * end.watch_share_error:.2f}"
        start = f"; {end.watch_start_s:.1f} s at the start apart" if end.watch_start_s else ""
        rows.append(["cost of watching", share, f"of the time of the steps, by its own account{start}"])
    return [Table(["what", "value", "how"], rows, numeric=frozenset({1}))]


def _rates(report: Report) -> Iterator[list[str]]:
    for name, what, unit in _RATES:
        values = _interval(report, name)
        if len(values):
            yield [what, f"{number(float(np.median(values)))} {unit}", f"median of {len(values)} intervals"]


def _waiting(report: Report) -> list[str]:
    waits = _interval(report, "wait_share")
    if not len(waits):
        return ["waiting for data", "not measured", "wrap the loader in watch.batches"]
    share = f"{100 * float(np.mean(waits)):.1f} %"
    return ["waiting for data", share, "mean share of the time of the steps"]


def _memory(report: Report) -> Iterator[list[str]]:
    for name, what in _MEMORY:
        points = report.trace.systems.get(name) or report.trace.intervals.get(name)
        if points is not None and np.isfinite(points.values).any():
            first, last = size(points.values[0]), size(points.values[-1])
            yield [what, size(float(np.nanmax(points.values))), f"highest; {first} at first, {last} at last"]


def _interval(report: Report, name: str) -> Floats:
    points = report.trace.intervals.get(name)
    return _finite(points.values) if points is not None else np.empty(0)
