"""Hand-built run files for the command line's tests."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torchwatch.records import (
    Alert,
    End,
    Epoch,
    Eval,
    Interval,
    LayerInfo,
    Layout,
    Note,
    OptimizerInfo,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    System,
    encode,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "two\nlines\r\x0bthree",
    "x" * 10_000,
    "left\u202eright\u2066isolate\u2069",
    "[red]markup[/red] [link=http://x]y[/link] [/]",
    "\u200b\u2028\u0085\x9b31m",
]


def header(**fields: Any) -> RunHeader:
    given = {"run_id": "r1", "name": "digits", "model": "SmallNet", "parameters": 12_345} | fields
    return RunHeader(time="2026-01-02T03:04:05+00:00", torchwatch="0.1.0", **given)


def layout(*names: str) -> Layout:
    layers = [LayerInfo(name=n, type="Linear", parameters=10, order=i) for i, n in enumerate(names)]
    weights = [
        ParameterInfo(name=f"{n}.weight", layer=i, shape=[5, 2], dtype="float32", optimizer=0, group=0)
        for i, n in enumerate(names)
    ]
    optimizers = [OptimizerInfo(type="SGD", groups=[{"lr": 0.1}])]
    return Layout(step=1, layers=layers, parameters=weights, optimizers=optimizers)


def steps(first: int, last: int, *, every_s: float = 0.1, samples: int | None = 32) -> list[Step]:
    return [
        Step(
            step=i,
            epoch=(i - 1) // 100,
            time_s=round(i * every_s, 6),
            loss=round(2.0 / i + 0.1, 6),
            loss_source="log",
            samples=samples,
            step_time_s=every_s,
        )
        for i in range(first, last + 1)
    ]


def alert(**fields: Any) -> Alert:
    given = {
        "check": "dead-units",
        "severity": "warning",
        "category": "activations",
        "title": "92 % of units are dead",
        "step": 60,
        "layer": "conv2",
        "fix": "Use LeakyReLU.",
        "since_step": 60,
        "last_step": 60,
        "incident": 1,
        "root": True,
    }
    return Alert(**(given | fields))


def interval(last: int, *, first: int = 1, every_s: float = 0.1) -> Interval:
    return Interval(
        first_step=first,
        last_step=last,
        steps=last - first + 1,
        time_s=last * every_s,
        duration_s=(last - first + 1) * every_s,
        busy_s=(last - first + 1) * every_s,
        loss_mean=0.5,
        rss_bytes=512_000_000,
    )


def whole_run() -> list[Record]:
    """A run with one warning, one evaluation, a note and an end."""
    return [
        header(),
        layout("conv1", "conv2"),
        *steps(1, 60),
        alert(),
        *steps(61, 100),
        Note(step=100, topic="loss", message="loss not seen: call watch.log(loss=loss)"),
        System(time_s=10.0, step=100, rss_bytes=512_000_000, cuda_allocated_bytes=2_000_000_000),
        interval(100),
        Eval(step=100, epoch=0, time_s=10.1, metrics={"val_loss": 0.5, "val_accuracy": 0.9}),
        Epoch(epoch=0, step=100, steps=100, time_s=10.2, duration_s=10.0, metrics={"val_loss": 0.5}),
        End(step=100, steps=100, epochs=1, time_s=10.2, samples=3200, health_score=93, issues={"warning": 1}),
    ]


def faulty_run() -> list[Record]:
    """A run whose loss is NaN from step 50 on: `loss-nonfinite` is critical."""
    first = [header(), layout("conv1", "conv2"), *steps(1, 49)]
    return [*first, *(dataclasses.replace(s, loss=math.nan) for s in steps(50, 80)), interval(80)]


def hostile_run(text: str) -> list[Record]:
    """A run in which every text that a run can supply is ``text``."""
    return [
        header(name=text, model=text, run_id=text, hyperparameters={text: text}),
        layout(text, "fine"),
        *steps(1, 40),
        Step(step=41, epoch=0, time_s=4.1, loss=float("nan"), metrics={text: 1.0}),
        alert(title=text, layer=text, metric=text, value=1.5, detail=text, fix=text, snippet=text, step=41),
        alert(check=text, severity=text, state="updated", step=41),
        alert(check=text, severity="critical", state="opened", layer=None, step=41),
        alert(check=text, severity="critical", state="resolved", layer=None, step=41),
        *(alert(layer=f"{text}{i}", step=41) for i in range(5)),
        Note(step=41, message=text),
        Eval(step=41, epoch=0, time_s=4.2, metrics={f"val_{text}": 0.5}),
        End(status=text, step=41, steps=41, time_s=4.3, health_score=60, error=text, traceback=text),
    ]


def write_run(path: Path, records: Iterable[Record]) -> Path:
    path.write_bytes(b"".join(encode(r) for r in records))
    return path


def is_harmless(shown: str, *, colours: bool = False) -> bool:
    """No control character but the newline, none that reorders or hides text, no line beyond measure."""
    if colours:
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    rest = shown.replace("\n", "")
    return all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in rest)
