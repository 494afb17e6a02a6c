"""A dict of values is logged per class, whatever the classes are called, and reads back as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_watch import record, steps_of
from torchwatch.records import Epoch, Eval

NAMES = [
    "cat",
    "a.b",
    "",
    "köttur",
    "~1",
    "nonfinite",
    "loss",
    "</script>",
    "new\nline",
    "0",
    "val_loss",
    "[red]",
]
RECALL = {name: i / len(NAMES) for i, name in enumerate(NAMES)}


def run(tmp_path, said):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(3):
            loss = model(torch.ones(4, 2)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
        said(watch)

    return record(model, body, tmp_path / "r.jsonl")


def metrics(records, kind) -> dict:
    (found,) = [r for r in records if isinstance(r, kind)]
    return found.metrics


def test_an_evaluation_per_class(tmp_path) -> None:
    found = metrics(run(tmp_path, lambda watch: watch.log(val_recall=RECALL)), Eval)
    assert found == {f"val_recall.{name}": pytest.approx(value) for name, value in RECALL.items()}


def test_an_epoch_per_class_with_tensors_and_numbers_as_names(tmp_path) -> None:
    values = {0: torch.tensor(0.25), 1: np.float32(0.5), "bad": math.nan}
    records = run(tmp_path, lambda watch: watch.epoch(val_recall=values, val_loss=0.1))
    for kind in (Eval, Epoch):
        found = metrics(records, kind)
        assert math.isnan(found.pop("val_recall.bad"))
        assert found == {"val_recall.0": 0.25, "val_recall.1": 0.5, "val_loss": 0.1}


def test_a_step_per_class_and_classes_within_sets(tmp_path) -> None:
    steps = steps_of(run(tmp_path, lambda watch: watch.log(accuracy={"front": {"cat": 0.5, "dog": 1.0}})))
    assert steps[-1].metrics == {"accuracy.front.cat": 0.5, "accuracy.front.dog": 1.0}
