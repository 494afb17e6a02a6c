"""The header names what is trained, with what, and on what."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

import torchwatch
from torchwatch import WatchConfig
from torchwatch.check import select
from torchwatch.header import describe, rank_and_world, rank_path
from torchwatch.records import RunHeader, decode_header, encode


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


def test_the_model_inside_a_parallel_wrapper_is_named() -> None:
    header = describe(nn.DataParallel(nn.Linear(3, 4)), select(), WatchConfig(), "run")
    assert (header.model, header.parameters) == ("Linear", 16)


@pytest.fixture(autouse=True)
def _alone(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def header_of(model: nn.Module) -> RunHeader:
    return describe(model, select(), WatchConfig(), "run", hyperparameters={}, recipe=None)


ENVIRONMENTS = [
    ({}, (0, 1)),
    ({"RANK": "0", "WORLD_SIZE": "4"}, (0, 4)),
    ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
    ({"RANK": "3"}, (3, 4)),  # there are at least as many
    ({"RANK": "x", "WORLD_SIZE": "4"}, (0, 1)),
    ({"RANK": "-1"}, (0, 1)),
]


@pytest.mark.parametrize(("environment", "expected"), ENVIRONMENTS)
def test_rank_and_world_as_a_launcher_says_them(monkeypatch, environment, expected) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    header = header_of(nn.Linear(2, 1))
    assert (header.rank, header.world) == rank_and_world() == expected


@pytest.mark.parametrize("environment", [{}, {"RANK": "5", "WORLD_SIZE": "8"}])
def test_rank_and_world_as_torch_knows_them(monkeypatch, environment) -> None:
    """Initialised, it knows better than the environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    header = header_of(nn.Linear(2, 1))
    assert (header.rank, header.world) == (1, 2)
    assert rank_path(Path("runs/a.jsonl")) == Path("runs/a.rank1.jsonl")


def test_a_torch_without_distributed_is_asked_nothing(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "is_available", lambda: False)
    monkeypatch.delattr(distributed, "is_initialized")
    assert rank_and_world() == (0, 1)


@pytest.mark.parametrize(
    ("rank", "path"), [("0", "runs/a.jsonl"), ("3", "runs/a.rank3.jsonl"), ("x", "runs/a.jsonl")]
)
def test_each_rank_has_a_path_of_its_own(monkeypatch, rank, path) -> None:
    monkeypatch.setenv("RANK", rank)
    assert rank_path(Path("runs/a.jsonl")) == Path(path)


def spread(parameter: nn.Parameter, mesh: tuple[int, ...], *placements: str) -> None:
    """Make a parameter look as one that is distributed over a mesh of ranks."""
    parameter.device_mesh = SimpleNamespace(shape=mesh)  # type: ignore[attr-defined]
    parameter.placements = [  # type: ignore[attr-defined]
        SimpleNamespace(is_replicate=lambda placed=placed: placed == "replicate") for placed in placements
    ]


def test_a_model_on_one_rank_says_nothing_of_shards() -> None:
    assert "shards" not in header_of(nn.Linear(2, 1)).device
    model = nn.Linear(2, 1)
    spread(model.weight, (4,), "replicate")
    assert "shards" not in header_of(model).device


def test_over_how_many_ranks_each_parameter_is_spread() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    for parameter in model[:2].parameters():
        spread(parameter, (2, 4), "replicate", "shard")
    spread(model[2].weight, (2, 4), "shard", "shard")
    header = header_of(nn.ModuleDict({"module": model}))
    assert header.device["shards"] == {"most": 4, "others": {"2.weight": 8, "2.bias": 1}}
    assert decode_header(encode(header)) == header


class Flat(nn.Module):
    """Stands in for ``FullyShardedDataParallel``; without a handle where a release of torch has another."""

    def __init__(self, inner: nn.Module, **handle: object) -> None:
        super().__init__()
        self.inner = inner
        if handle:
            flat = SimpleNamespace(_params=list(inner.parameters(recurse=False)), _shared_params=None)
            self._handle = SimpleNamespace(flat_param=flat, **handle)


def test_parameters_of_the_first_generation_of_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(FullyShardedDataParallel=Flat)
    monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", stand_in)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 8)
    model = nn.Sequential(
        Flat(nn.Linear(2, 2), world_size=4, uses_sharded_strategy=True),
        Flat(nn.Linear(2, 2, bias=False), world_size=2, uses_sharded_strategy=False),
        Flat(nn.Linear(2, 2, bias=False)),
        nn.Linear(2, 2, bias=False),
    )
    others = {"1.inner.weight": 1, "2.inner.weight": 8, "3.weight": 1}
    told = header_of(model).device["shards"]
    assert {name: told["others"].get(name, told["most"]) for name, _ in model.named_parameters()} == {
        "0.inner.weight": 4, "0.inner.bias": 4, **others
    }  # fmt: skip
