"""Ultralytics ``results.csv`` (YOLOv5 and later): one row per epoch, losses in parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torchwatch.importers.log import Log, Points
from torchwatch.importers.source import Row, Source, number
from torchwatch.importers.table import read as read_table

NAME = "Ultralytics results"

_FITNESS = ("map50-95(m)", "map50-95(p)", "map50-95(b)", "map50-95", "map_0.5:0.95", "accuracy_top1")


def recognises(source: Source) -> bool:
    """Whether the header has an epoch, losses of training and learning rates by group."""
    names = source.header
    rates = any(n.startswith(("lr/pg", "x/lr")) for n in names)
    return "epoch" in names and rates and any(n.startswith("train/") and n.endswith("loss") for n in names)


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log: the parts of a loss are weighted already, so that their sum is what was minimised."""
    if columns:
        return read_table(source, columns)
    rows = source.csv_rows()
    points = Points()
    known = [e for r in rows if (e := number(r.get("epoch"))) is not None]
    first = 0 if not known or min(known) < 1 else 1
    before: list[float] | None = None
    frozen = 0
    for row in rows:
        epoch = number(row.get("epoch"))
        if epoch is None or not 0 <= epoch < 1e9:
            continue
        index = int(epoch) - first
        time_s = number(row.get("time"))
        train = _parts(row, "train/")
        if train:
            point = points.train(index + 1, math.fsum(train), index, time_s)
            point.lr = _rates(row)
            point.metrics |= {n: v for n, v in row.items() if n.startswith("train/") and isinstance(v, float)}
        val = _parts(row, "val/")
        metrics = _metrics(row)
        evaluated = [*val, *metrics.values()]
        if evaluated == before and evaluated:
            frozen += 1
            continue
        before = evaluated
        if any(val):  # all zero: not computed
            metrics = {"val_loss": _sum(val)} | metrics
        if metrics:
            points.evaluate(index + 1, metrics, index, time_s)
    notes = points.notes()
    if frozen:
        notes.append(f"{frozen} evaluations repeat the one before digit by digit and were not counted.")
    return Log(NAME, "epoch", points.sorted(), notes)


def _parts(row: Row, prefix: str) -> list[float]:
    return [v for n, v in row.items() if n.startswith(prefix) and n.endswith("loss") and isinstance(v, float)]


def _sum(values: Sequence[float]) -> float:
    """The sum, NaN or infinite where a part is."""
    return sum(values)


def _metrics(row: Row) -> dict[str, float]:
    """Metrics of the evaluation: first what chooses the best checkpoint, last the parts of the loss."""
    found = {n.removeprefix("metrics/"): v for n, v in row.items() if n.startswith("metrics/")}
    numbers = {n: v for n, v in found.items() if isinstance(v, float)}
    ordered = sorted(
        numbers, key=lambda n: _FITNESS.index(n.lower()) if n.lower() in _FITNESS else len(_FITNESS)
    )
    parts = {f"val_{n.removeprefix('val/')}": v for n, v in row.items() if n.startswith("val/")}
    parts = {
        n: v
        for n, v in parts.items()
        if isinstance(v, float) and n != "val_loss" and any(_parts(row, "val/"))
    }
    return {f"val_{n}": numbers[n] for n in ordered} | parts


def _rates(row: Row) -> list[float] | None:
    rates = [v for n, v in row.items() if n.startswith(("lr/pg", "x/lr")) and isinstance(v, float)]
    return [r for r in rates if math.isfinite(r)] or None
