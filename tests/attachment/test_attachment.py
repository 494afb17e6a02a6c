"""Arming: when the forward hook is on, and what that costs a loop that logs its loss."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig

CONFIG = WatchConfig(dense_steps=2, activations_every=5, terminal=False)


def watched(log: bool, steps: int, tmp_path) -> tuple[list[bool], list]:
    """Whether the global forward hook was on in each step's forward pass, and the records."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    armed: list[bool] = []

    def body(watch) -> None:
        for _ in range(steps):
            armed.append(bool(hooks._global_forward_hooks))
            loss = nn.functional.mse_loss(model(torch.randn(6, 4)), torch.zeros(6, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if log:
                watch.log(loss=loss)

    return armed, record(model, body, tmp_path / "run.jsonl", config=CONFIG)


def test_unsampled_steps_pay_nothing_per_module_once_the_loss_is_logged(tmp_path) -> None:
    armed, records = watched(log=True, steps=11, tmp_path=tmp_path)
    assert [i + 1 for i, on in enumerate(armed) if on] == [1, 2, 5, 10]
    assert [s.step for s in steps_of(records) if s.activations is not None] == [1, 2, 5, 10]


def test_while_no_loss_is_logged_a_light_hook_looks_for_one(tmp_path) -> None:
    armed, records = watched(log=False, steps=11, tmp_path=tmp_path)
    assert all(armed)
    assert [s.step for s in steps_of(records) if s.activations is not None] == [1, 2, 5, 10]
    assert [s.samples for s in steps_of(records)] == [6] * 11


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_compiled_model_keeps_everything_but_activations(tmp_path, when) -> None:
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    model = torch.compile(inner, backend="eager") if when == "before" else inner
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        run = model if when == "before" else torch.compile(model, backend="eager")
        for _ in range(4):
            loss = run(torch.randn(6, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    # torch itself warns whoever compiles while a global hook is on; ours does nothing under compile.
    expected = (
        pytest.warns(UserWarning, match="global hooks") if when == "after" else contextlib.nullcontext()
    )
    try:
        with expected:
            records = record(model, body, tmp_path / "run.jsonl")
    finally:
        torch._dynamo.reset()
    steps = steps_of(records)
    assert len(steps) == 4
    assert all(s.grad_norm > 0 and s.update_ratio > 0 for s in steps)
    layouts = [r for r in records if r.kind == "layout"]
    assert layouts[-1].coverage["activations"] == "unavailable: compiled"
    assert ["torch.compile" in r.message for r in records if r.kind == "note"] == [True]
    assert [p.name for p in layouts[-1].parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_compilation_in_mid_run_is_in_the_coverage(tmp_path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for number in range(12):
            if number == 6:
                torch.compile(torch.sin, backend="eager")(torch.ones(2))
            loss = model(torch.randn(6, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    try:
        records = record(model, body, tmp_path / "run.jsonl", config=CONFIG)
    finally:
        torch._dynamo.reset()
    said = [r.coverage["activations"] for r in records if r.kind == "layout"]
    assert [word for word, _ in itertools.groupby(said)] == ["ok", "unavailable: compiled"]
    assert [r.kind for r in records].count("note") == 1


def test_a_layer_added_in_mid_run_gets_a_new_layout(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for number in range(6):
            if number == 3:
                model.append(nn.Linear(4, 2))
                optimizer.add_param_group({"params": model[1].parameters()})
            loss = model(torch.randn(6, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    records = record(model, body, tmp_path / "run.jsonl")
    layouts = [r for r in records if r.kind == "layout"]
    assert [len(layout.parameters) for layout in layouts][0 :: len(layouts) - 1] == [2, 4]
    assert [len(s.grad_norms) for s in steps_of(records) if s.grad_norms is not None][-1] == 4


def test_parameters_replaced_in_mid_run_make_their_optimizer_foreign(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for number in range(40):
            if number == 12:
                model[0], model[2] = nn.Linear(4, 8), nn.Linear(8, 1)
            loss = model(torch.randn(6, 4)).square().mean()
            model.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    records = record(model, body, tmp_path / "run.jsonl", config=CONFIG)
    steps = steps_of(records)
    assert len(steps) == 40
    foreign = [s.step for s in steps if s.foreign_optimizer]
    assert foreign == list(range(15, 41))  # found when step 15 is armed
    assert any(r.kind == "alert" and r.check == "no-op-step" and r.root for r in records)


class Named(nn.Module):
    """A model that is called by keyword, as language models are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, *, values: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.layer(values) * scale


def test_samples_of_a_model_that_is_called_by_keyword(tmp_path) -> None:
    model = Named()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:  # an untouched loop
        for _ in range(3):
            optimizer.zero_grad()
            for size in (6, 2):
                model(scale=2.0, values=torch.randn(size, 4)).square().mean().backward()
            optimizer.step()

    assert [s.samples for s in steps_of(record(model, body, tmp_path / "run.jsonl"))] == [8, 8, 8]


def test_the_forward_hook_leaves_no_entry_in_any_table(tmp_path) -> None:
    tables = (hooks._global_forward_hooks, hooks._global_forward_hooks_with_kwargs)
    before = [len(t) for t in tables]
    watched(log=True, steps=6, tmp_path=tmp_path)  # armed and disarmed twice
    assert [len(t) for t in tables] == before


def test_sharded_parameters_are_in_the_coverage(tmp_path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for parameter in model.parameters():
        parameter.to_local = parameter.detach  # what a DTensor has

    def body(watch) -> None:
        model(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()

    layout = next(r for r in record(model, body, tmp_path / "run.jsonl") if r.kind == "layout")
    assert layout.coverage["gradients"] == "this rank's shards only"


@pytest.mark.parametrize("anew", [False, True])
def test_a_layer_that_goes_in_mid_run_leaves_no_column_under_the_wrong_layout(tmp_path, anew) -> None:
    """Found when a step is armed, or when an optimizer made anew holds nothing known."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    truth: dict[int, list[float]] = {}

    def body(watch) -> None:
        for number in range(1, 31):
            if number in (7, 17):
                del model[1]
                if anew:
                    model[0], model[-1] = nn.Linear(4, 8), nn.Linear(8, 1)
                    optimizer.param_groups.clear()
                    optimizer.add_param_group({"params": model.parameters(), "lr": 0.01})
            loss = model(torch.randn(6, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            truth[number] = [p.grad.norm().item() for p in model.parameters()]
            optimizer.step()
            watch.log(loss=loss)

    records = record(model, body, tmp_path / "run.jsonl", config=CONFIG)
    assert [r.message for r in records if r.kind == "note"] == []
    width = 0
    for item in records:
        if item.kind == "layout":
            width = len(item.parameters)
        for step in steps_of([item]):
            if step.grad_norms is not None:
                assert len(step.grad_norms) == width
            if step.grad_norms is not None and width == len(truth[step.step]):
                assert step.grad_norms.tolist() == pytest.approx(truth[step.step], rel=1e-3)
    assert width == 4


def test_a_resumed_training_goes_on_counting_and_samples_by_its_own_numbers(tmp_path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        watch._session.attachment.go_on_from(103, 2)
        for _ in range(8):
            loss = model(torch.randn(6, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    steps = steps_of(record(model, body, tmp_path / "run.jsonl", config=CONFIG))
    assert [s.step for s in steps] == list(range(104, 112))
    assert {s.epoch for s in steps} == {2}
    assert [s.step for s in steps if s.activations is not None] == [105, 110]


def test_a_step_that_no_optimizer_makes_has_what_is_logged(tmp_path) -> None:
    model = nn.Linear(4, 1)

    def body(watch) -> None:
        for number in range(4):
            watch._session.attachment.steps.close()
            watch.log(loss=float(number))
            watch._session.attachment.step_without_optimizer()

    steps = steps_of(record(model, body, tmp_path / "run.jsonl", config=CONFIG))
    assert [(s.step, s.loss) for s in steps] == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0)]
