"""Runs on machines: steps of a second each with a `system` record after each, on the GPU or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tests.helpers_checks import records
from torchwatch.records import Record, RunHeader, System

Fields = Callable[[int], Mapping[str, Any]]


def on(device: str, *, cpus: int = 8, world: int = 1, **header: Any) -> dict[str, Any]:
    """Fields of a header whose parameters are on the device."""
    return {"device": {"parameters_on": [device], "cpus": cpus}, "world": world, "pid": 4321} | header


def machine(
    seconds: int, fields: Fields, header: Mapping[str, Any] | None = None, **more: Any
) -> list[Record]:
    """A run of one step a second; ``fields(second)`` are those of the `system` record after it."""
    given = {
        s: [System(**({"time_s": float(s), "step": s, "since_step_s": 0.1} | dict(fields(s))))]
        for s in range(1, seconds + 1)
    }
    body = records([1.0] * seconds, extra=given, **{"interval_steps": 20, "step_time_s": 1.0} | more)
    first = body[0]
    assert isinstance(first, RunHeader)
    return [dataclasses.replace(first, **(header if header is not None else on("cuda:0"))), *body[1:]]


def idle(body: list[Record], seconds: int, **fields: Any) -> list[Record]:
    """The run, and then so many seconds without a step."""
    last = max(r.time_s for r in body if isinstance(r, System))
    step = max(r.step for r in body if isinstance(r, System))
    quiet = {"cpu_percent": 0.5, "machine_cpu_percent": 1.0, "stack": "0badcafe", "rss_bytes": 1}
    return [
        *body,
        *(
            System(**({"time_s": last + s, "step": step, "since_step_s": float(s)} | quiet | fields))
            for s in range(1, seconds + 1)
        ),
    ]


def gpu(index: int = 0, **fields: Any) -> dict[str, Any]:
    """One GPU's reading."""
    return {"index": index, "name": "H200", **fields}
