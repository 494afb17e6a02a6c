"""Tables of the numbers that the run ended with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report.document import Block, Table, Text
from torchwatch.text import number, size

if TYPE_CHECKING:
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


def machine_table(report: Report) -> list[Block]:
    """Typical throughput, waiting, memory, and what watching cost; only what was measured."""
    found, trace = report.found, report.trace
    rows = []
    for name, what, unit in (
        ("samples_per_s", "throughput", "samples/s"),
        ("steps_per_s", "speed", "steps/s"),
    ):
        values = _interval(report, name)
        if len(values):
            rows.append(
                [what, f"{number(float(np.median(values)))} {unit}", f"median of {len(values)} intervals"]
            )
    waits = _interval(report, "wait_share")
    waited = f"{100 * float(np.mean(waits)):.1f} %" if len(waits) else "not measured"
    rows.append(
        [
            "waiting for data",
            waited,
            "mean share of the time of the steps" if len(waits) else "wrap the loader in watch.batches",
        ]
    )
    for name, what in (
        ("rss_bytes", "memory of the process"),
        ("cuda_reserved_bytes", "memory reserved on the device"),
    ):
        points = trace.systems.get(name) or trace.intervals.get(name)
        if points is not None and np.isfinite(points.values).any():
            first, last = points.values[0], points.values[-1]
            rows.append(
                [
                    what,
                    size(float(np.nanmax(points.values))),
                    f"highest; {size(first)} at first, {size(last)} at last",
                ]
            )
    share = found.end.watch_share if found.end is not None else None
    if share is not None:
        rows.append(
            [
                "cost of watching",
                f"{100 * share:.2f} %",
                "of the time of the steps, as measured by torchwatch",
            ]
        )
    return [Table(["what", "value", "how"], rows, numeric=frozenset({1}))]


def _interval(report: Report, name: str) -> Floats:
    points = report.trace.intervals.get(name)
    return _finite(points.values) if points is not None else np.empty(0)
