"""The last measured steps are written in full when something critical happens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from torchwatch import WatchConfig, Watcher
from torchwatch.recorder.blackbox import BlackboxBuffer
from torchwatch.records import Alert, Blackbox, End, Step
from torchwatch.runfile import read_records


def step(number: int) -> Step:
    return Step(step=number, loss=1.0, grad_norms=np.ones(2, np.float32))


def test_only_the_last_steps_are_kept() -> None:
    buffer = BlackboxBuffer(3)
    for number in range(1, 8):
        buffer.add(step(number))
    record = buffer.record("why", 7, 1.5)
    assert record is not None
    assert [s["step"] for s in record.steps] == [5, 6, 7]
    assert (record.reason, record.step, record.time_s) == ("why", 7, 1.5)


def test_what_was_written_once_is_not_written_again() -> None:
    buffer = BlackboxBuffer(3)
    buffer.add(step(1))
    assert buffer.record("first", 1, 0.0) is not None
    assert buffer.record("again", 1, 0.0) is None
    buffer.add(step(2))
    record = buffer.record("later", 2, 0.0)
    assert record is not None
    assert [s["step"] for s in record.steps] == [2]


def test_it_can_be_switched_off() -> None:
    buffer = BlackboxBuffer(0)
    buffer.add(step(1))
    assert buffer.record("why", 1, 0.0) is None


def run(path, *, steps: int, bad: int | None = None, fail: bool = False) -> list:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body() -> None:
        with Watcher(model, path, config=WatchConfig(terminal=False, gradients_every=1)) as watch:
            for number in range(1, steps + 1):
                loss = model(torch.randn(8, 4)).square().mean() * (math.nan if number == bad else 1.0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            if fail:
                raise KeyError("mine")

    if fail:
        with pytest.raises(KeyError):
            body()
    else:
        body()
    return list(read_records(path))


def test_a_critical_alert_and_a_crash_write_it_and_a_healthy_run_does_not(tmp_path) -> None:
    assert not [r for r in run(tmp_path / "healthy.jsonl", steps=30) if isinstance(r, Blackbox)]

    records = run(tmp_path / "nan.jsonl", steps=30, bad=20)
    boxes = [r for r in records if isinstance(r, Blackbox)]
    opened = [r for r in records if isinstance(r, Alert) and r.severity == "critical" and r.state == "opened"]
    assert boxes
    assert opened
    assert boxes[0].reason == f"critical alert: {opened[0].check}"
    assert records.index(opened[0]) < records.index(boxes[0])
    kept = {s["step"]: s for box in boxes for s in box.steps}
    assert {18, 19, 20} <= set(kept)
    assert "grad_norms" in kept[19]
    assert "activations" in kept[10]

    records = run(tmp_path / "crash.jsonl", steps=30, fail=True)
    boxes = [r for r in records if isinstance(r, Blackbox)]
    assert len(boxes) == 1
    assert "KeyError" in boxes[0].reason
    assert [s["step"] for s in boxes[0].steps] == list(range(1, 31))
    assert isinstance(records[-1], End)
