"""Where the loss comes from, and to which step a logged value belongs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_watch import record, steps_of
from torchwatch.probes.loss import as_logged

VALUES = [float(i) for i in range(1, 7)]


class Setup:
    """A linear model whose loss in step i is exactly i."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 1, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)

    def loss(self, value: float) -> torch.Tensor:
        return self.model(torch.ones(3, 2)).sum() * 0 + value


def log_after(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    loss.backward()
    s.optimizer.step()
    watch.log(loss=loss)


def log_before_backward(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    watch.log(loss=loss)
    loss.backward()
    s.optimizer.step()


def log_number_before(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    watch.log(loss=loss.item())
    loss.backward()
    s.optimizer.step()


def log_number_after(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    loss.backward()
    s.optimizer.step()
    watch.log(loss=loss.detach().item())


def log_scaled_after(s: Setup, watch, value: float) -> None:
    loss = s.loss(value) / 4
    loss.backward()
    s.optimizer.step()
    watch.log(loss=loss * 4)


def log_numpy_between(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    loss.backward()
    watch.log(loss=loss.detach().numpy())
    s.optimizer.step()


def named_step(s: Setup, watch, value: float) -> None:
    loss = s.loss(value)
    loss.backward()
    s.optimizer.step()
    watch.step(loss=loss)


def loss_module(s: Setup, watch, value: float) -> None:
    target = s.model(torch.ones(3, 2)).detach() - value**0.5
    nn.MSELoss()(s.model(torch.ones(3, 2)), target).backward()
    s.optimizer.step()


@pytest.mark.parametrize(
    "style",
    [
        log_after, log_before_backward, log_number_before, log_number_after, log_scaled_after,
        log_numpy_between, named_step, loss_module,
    ],
)  # fmt: skip
@pytest.mark.parametrize("loader", [False, True])
def test_each_value_belongs_to_its_step(tmp_path, style, loader) -> None:
    setup = Setup()

    def body(watch) -> None:
        for value in watch.batches(VALUES) if loader else VALUES:
            setup.optimizer.zero_grad()
            style(setup, watch, value)

    steps = steps_of(record(setup.model, body, tmp_path / "r.jsonl"))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s.loss for s in steps] == pytest.approx(VALUES, rel=1e-5)
    assert {s.loss_source for s in steps} == {"module" if style is loss_module else "log"}


def test_accumulation_averages(tmp_path) -> None:
    setup = Setup()

    def body(watch) -> None:
        for value in VALUES:
            loss = setup.loss(value)
            loss.backward()
            watch.log(loss=loss, accuracy=value)
            if value % 2 == 0:
                setup.optimizer.step()

    steps = steps_of(record(setup.model, body, tmp_path / "r.jsonl"))
    assert [s.loss for s in steps] == [1.5, 3.5, 5.5]
    assert [s.metrics for s in steps] == [{"accuracy": 1.5}, {"accuracy": 3.5}, {"accuracy": 5.5}]


@dataclass
class Output:
    loss: torch.Tensor


@pytest.mark.parametrize("wrap", [lambda loss: {"loss": loss}, Output])
def test_the_loss_in_a_models_output(tmp_path, wrap) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 1)

        def forward(self, x):
            return wrap(self.inner(x).square().mean())

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    truth: list[float] = []

    def body(watch) -> None:
        for _ in range(15):
            optimizer.zero_grad()
            output = model(torch.ones(3, 2))
            loss = output["loss"] if isinstance(output, dict) else output.loss
            truth.append(loss.item())
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model(torch.full((3, 2), 50.0))  # evaluation

    steps = steps_of(record(model, body, tmp_path / "r.jsonl"))
    assert [s.loss for s in steps] == pytest.approx(truth, rel=1e-6)
    assert {s.loss_source for s in steps} == {"output"}
    assert [s.samples for s in steps] == [3] * 15


def test_a_validation_loss_module_is_not_the_loss(tmp_path) -> None:
    model = nn.Linear(2, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def body(watch) -> None:
        for _ in range(3):
            criterion(model(torch.ones(3, 2)), torch.zeros(3, 1)).backward()
            optimizer.step()
            optimizer.zero_grad()
            criterion(model(torch.ones(3, 2)), torch.full((3, 1), 1e6))  # forgot no_grad

    assert all(s.loss < 100 for s in steps_of(record(model, body, tmp_path / "r.jsonl")))


def test_two_loss_modules_are_not_added_up(tmp_path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    first, second = nn.MSELoss(), nn.L1Loss()

    def body(watch) -> None:
        for _ in range(25):
            out = model(torch.ones(3, 2))
            (first(out, torch.zeros(3, 1)) + 0.1 * second(out, torch.zeros(3, 1))).backward()
            optimizer.step()

    records = record(model, body, tmp_path / "r.jsonl")
    assert all(s.loss is None for s in steps_of(records))
    assert any("call watch.log(loss=loss)" in r.message for r in records if r.kind == "note")


def test_what_can_be_logged() -> None:
    usable, refused = as_logged(
        {
            "float": 1, "numpy": np.float32(2), "array": np.array([3.0]), "tensor": torch.tensor([1.0, 3.0]),
            "flag": True, "classes": {"cat": 0.5, 1: torch.tensor(0.25)}, "none": None, "text": "0.5",
            "list": [1, 2], "empty": torch.zeros(0), "huge": 10**400,
        }
    )  # fmt: skip
    assert {k: float(v.mean() if isinstance(v, torch.Tensor) else v) for k, v in usable.items()} == {
        "float": 1, "numpy": 2, "array": 3, "tensor": 2, "flag": 1, "classes.cat": 0.5, "classes.1": 0.25,
        "huge": float("inf"),
    }  # fmt: skip
    assert refused == ["text", "list", "empty"]


def test_logged_tensors_are_copies(tmp_path) -> None:
    setup = Setup()

    def body(watch) -> None:
        value = torch.tensor(1.0)
        setup.loss(1.0).backward()
        setup.optimizer.step()
        watch.log(loss=value, norm=functional.normalize(torch.ones(2), dim=0))
        value.fill_(99)

    assert steps_of(record(setup.model, body, tmp_path / "r.jsonl"))[0].loss == 1.0


class OfAllItems(nn.Module):
    """Gives its loss as Hugging Face models do: divided by the items of the whole step where it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, num_items_in_batch: int | None = None) -> dict[str, torch.Tensor]:
        errors = self.inner(x).square()
        return {"loss": errors.mean() if num_items_in_batch is None else errors.sum() / num_items_in_batch}


@pytest.mark.parametrize("told", [True, False])
def test_losses_that_were_divided_by_all_items_of_the_step_add_up(tmp_path, told: bool) -> None:
    model, x = OfAllItems(), torch.randn(12, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    expected = model(x)["loss"].item()

    def body(watch) -> None:
        for _ in range(3):
            for part in x.split(4):
                loss = model(part, num_items_in_batch=12 if told else None)["loss"]
                (loss if told else loss / 3).backward()
            optimizer.step()
            optimizer.zero_grad()

    steps = steps_of(record(model, body, tmp_path / "run.jsonl"))
    assert [s.loss for s in steps] == pytest.approx([expected] * 3, rel=1e-6)
    assert {s.loss_source for s in steps} == {"output"}
