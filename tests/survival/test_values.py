"""Values that break naive statistics: trained the same, and what can be read of the others is right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.survival.conduct import BOTH, CONFIGS, EVERYTHING, Survival, survive
from tests.zoo import numbers, tokens, train
from torchwatch.records import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.zoo import Stage


class Emitting(nn.Module):
    """Hands an odd value to whoever listens, and trains on an ordinary one."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


class Net(nn.Module):
    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.odd = Emitting(make)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.odd(x)
        return self.last(x)


def nested(x: Tensor) -> Tensor:
    return torch.nested.nested_tensor([x[0].detach(), x[1, :2].detach()], layout=torch.jagged)


def quantized(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x.detach(), 0.1, 0, torch.qint8)


def listing_itself(x: Tensor) -> Any:
    endless: list[Any] = [x]
    endless.append(endless)
    return endless


def deep(x: Tensor) -> Any:
    value: Any = x
    for _ in range(200):
        value = [value]
    return value


def yielding(x: Tensor) -> Any:
    """Iterated by anybody but the model, it would fail the test."""
    yield x
    raise AssertionError("somebody iterated over a generator of the host")


VALUES: dict[str, Callable[[Tensor], Any]] = {
    "integers": lambda x: x.detach().long(),
    "truth-values": lambda x: x > 0,
    "quantized": quantized,
    "nested": nested,
    "sparse": lambda x: x.relu().to_sparse(),
    "sparse-csr": lambda x: x.detach().relu().to_sparse_csr(),
    "meta": lambda x: torch.empty_like(x, device="meta"),
    "empty": lambda x: x[:0],
    "empty-and-not": lambda x: (x[:0], x[:1], None, "text", 3),
    "one-element": lambda x: x.sum(),
    "one-sample": lambda x: x[:1],
    "one-feature": lambda x: x[:, :1],
    "complex": lambda x: torch.complex(x, x),
    "float16-large": lambda x: (x.detach() * 0 + 6e4).half(),
    "bfloat16": lambda x: x.bfloat16(),
    "float64-large": lambda x: x.double() * 1e200,
    "float8": lambda x: x.detach().to(torch.float8_e4m3fn),
    "not-a-number": lambda x: x * math.nan,
    "infinite": lambda x: x / 0,
    "expanded": lambda x: x[:1, :1].expand(6, 4),
    "strided": lambda x: x.t()[::2],
    "permuted": lambda x: x.view(6, 2, 2).permute(2, 0, 1),
    "overlapping": lambda x: x.as_strided((5, 3), (1, 1)),
    "no-tensor": lambda x: None,
    "generator": yielding,
    "endless": listing_itself,
    "deep": deep,
    "own-parameter": lambda x: nn.Parameter(torch.ones(3)),
    "dictionary": lambda x: {"a": {"b": [x, (x, {"c": x})]}, 3: x},
}


def seen(survival: Survival, layer: str, statistic: str) -> list[float]:
    place = [info.name for info in survival.layouts[-1].layers].index(layer)
    return [float(step.activations[statistic][place]) for step in survival.steps if step.activations]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # torch's own, of half-supported kinds of tensors
@pytest.mark.parametrize("value", VALUES)
def test_outputs_of_every_kind(value: str, tmp_path: Path) -> None:
    """The odd layer takes nobody else's statistics with it."""
    survival = survive(
        lambda stage: train(stage, Net(VALUES[value]), numbers(6, 5, count=6)),
        tmp_path / "run.jsonl",
        EVERYTHING,
        warns=(".*",),
    )
    for layer in ("first", "last"):
        for statistic in ("mean", "rms", "absmax"):
            values = seen(survival, layer, statistic)
            assert len(values) == len(survival.steps)
            assert np.isfinite(values).all(), (layer, statistic)


@pytest.mark.parametrize("value", ["float16-large", "float64-large"])
def test_large_values_do_not_overflow_in_the_statistics(value: str, tmp_path: Path) -> None:
    """Sums of squares of a half would be infinite in half precision, and of a double in single precision."""

    class Kept(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 0.1
            return (x.half() * 0 + 6e4) + x.half() * 0 if value == "float16-large" else x.double() * 1e100

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd, self.last = nn.Linear(5, 4), Kept(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x + (self.odd(x) * 0).float())

    survival = survive(lambda stage: train(stage, Large(), numbers(6, 5)), tmp_path / "run.jsonl")
    rms = seen(survival, "odd", "rms")
    if value == "float16-large":
        assert rms == pytest.approx([6e4] * len(rms), rel=1e-2)
    else:  # beyond what a float32 column holds: large, and not infinite
        assert all(1e37 < number < math.inf for number in rms)


def half_gradients(stage: Stage) -> None:
    """Half-precision gradients whose squares overflow half precision."""
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)

    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return (model(x.half()).float() * 1e4).sum()

    train(stage, model, numbers(6, 5), optimizer, loss_of)


def test_half_gradients_whose_squares_overflow(tmp_path: Path) -> None:
    survival = survive(half_gradients, tmp_path / "run.jsonl")
    assert all(1e4 < step.grad_norm < math.inf for step in survival.steps)


def empty_and_scalar_parameters(stage: Stage) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(5, 3)
            self.empty = nn.Parameter(torch.empty(0, 3))
            self.scalar = nn.Parameter(torch.tensor(1.0))
            self.whole = nn.Parameter(torch.arange(3), requires_grad=False)
            self.table = nn.Embedding(4, 3, sparse=True)

        def forward(self, x: Tensor) -> Tensor:
            looked_up = self.table(torch.zeros(x.shape[0], dtype=torch.long))
            return self.line(x) * self.scalar + self.empty.sum() + self.whole * looked_up

    model = Odd()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    train(stage, model, numbers(6, 5), optimizer)


@pytest.mark.parametrize("config", BOTH)
def test_empty_scalar_and_integer_parameters(config: str, tmp_path: Path) -> None:
    survival = survive(empty_and_scalar_parameters, tmp_path / "run.jsonl", CONFIGS[config])
    names = [p.name for p in survival.layouts[-1].parameters]
    last = next(step for step in reversed(survival.steps) if step.grad_norms is not None)
    absent = {name for name, gone in zip(names, is_missing(last.grad_norms), strict=True) if gone}
    assert absent == {"empty", "whole"}


class Routed(nn.Module):
    """Experts of which all but one get no row: their outputs are empty, in turns."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 11)
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        self.turn += 1
        rows = torch.full(x.shape[:2], self.turn % 3)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            out[rows == i] = expert(x[rows == i])
        return self.head(out)


def test_experts_that_get_nothing(tmp_path: Path) -> None:
    def play(stage: Stage) -> None:
        model = Routed()
        train(
            stage,
            model,
            tokens(),
            torch.optim.Adam(model.parameters()),
            lambda model, x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()),
        )

    survival = survive(play, tmp_path / "run.jsonl")
    place = [info.name for info in survival.layouts[-1].layers].index("experts.0")
    means = np.array([step.activations["mean"][place] for step in survival.steps if step.activations])
    ran = ~is_missing(means)
    assert ran.tolist() == [(i + 1) % 3 == 0 for i in range(len(ran))]
    assert np.isfinite(means[ran]).all()
