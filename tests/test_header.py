"""The header names what is trained, with what, and on what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torchwatch
from torchwatch import WatchConfig
from torchwatch.check import select
from torchwatch.header import describe, rank_path
from torchwatch.records import decode_header, encode


def test_it_describes_model_software_and_limits() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))
    config = WatchConfig(declare={"planned_steps": 10})
    header = describe(
        model, select(ignore=["noisy-loss"]), config, "run", hyperparameters={"lr": 1}, recipe=None
    )
    assert (header.model, header.parameters, header.name) == ("Sequential", 16, "run")
    assert header.torchwatch == torchwatch.__version__
    assert header.software["torch"] == str(torch.__version__)
    assert header.device["parameters_on"] == ["cpu"]
    assert header.config["declare"] == {"planned_steps": 10}
    assert header.ignore == ["noisy-loss"]
    assert "loss-nonfinite" in header.limits
    assert decode_header(encode(header)) == header


@pytest.mark.parametrize(
    ("rank", "path"), [("0", "runs/a.jsonl"), ("3", "runs/a.rank3.jsonl"), ("x", "runs/a.jsonl")]
)
def test_each_rank_has_a_path_of_its_own(monkeypatch, rank, path) -> None:
    monkeypatch.setenv("RANK", rank)
    assert rank_path(Path("runs/a.jsonl")) == Path(path)
