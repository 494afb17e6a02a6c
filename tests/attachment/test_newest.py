"""Looks out of turn, where steps go by unmeasured: at a loss out of bounds, and at an evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks

from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.attachment.lane import Lane
from torchwatch.records import Step
from torchwatch.runfile import read_records

RARELY = {
    "terminal": False,
    "activations_every": 1000,
    "gradients_every": 1000,
    "dense_steps": 2,
    "logs": False,
}
STRANGE = 30


class Host:
    """A small training that does what a test needs at one step."""

    def __init__(self, path, **options) -> None:
        torch.manual_seed(0)
        self.path = path
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.watch = Watcher(self.model, path, config=WatchConfig(**(RARELY | options)), sinks=[])
        self.batch = [(torch.randn(16, 4), torch.randint(0, 3, (16,)))]

    def train(
        self, steps: int = 60, *, ahead=False, zeroed=None, number=False, factor=1.0, at=STRANGE, x=None
    ):
        """Log before the step (``ahead``) or after it; multiply the loss of step ``at`` by ``factor``."""
        batches = self.batch * steps
        if x is not None:
            batches[at - 1] = (x, batches[0][1])
        with self.watch as watch:
            for first, last in (
                (1, at - 10),
                (at - 9, steps),
            ):  # what is usual is known from a block that is over
                for step, (inputs, labels) in enumerate(watch.batches(batches[first - 1 : last]), first):
                    loss = functional.cross_entropy(self.model(inputs), labels) * (
                        factor if step == at else 1.0
                    )
                    self.optimizer.zero_grad()
                    loss.backward()
                    if ahead:
                        watch.log(loss=loss.item() if number else loss)
                    self.optimizer.step()
                    if zeroed is not None:
                        self.optimizer.zero_grad(set_to_none=zeroed)
                    if not ahead:
                        watch.log(loss=loss.item() if number else loss)
        assert_live_equals_replay(self.path)
        return {s.step: s for s in steps_in(list(read_records(self.path)))}

    def opened(self) -> dict[str, int]:
        """The alerts that were opened, by the step at which they were."""
        return {a.check: a.step for a in self.watch.alerts if a.state == "opened"}


@pytest.fixture
def host(tmp_path) -> Host:
    return Host(tmp_path / "run.jsonl")


@pytest.mark.parametrize("number", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_a_loss_that_is_not_finite_is_told_of_its_step(host: Host, ahead: bool, number: bool) -> None:
    steps = host.train(ahead=ahead, number=number, factor=math.nan)
    assert list(steps) == list(range(1, 61))
    assert math.isnan(steps[STRANGE].loss)
    assert host.opened()["loss-nonfinite"] == STRANGE
    assert host.opened()["gradient-nonfinite"] == STRANGE  # they were looked at as well
    assert steps[STRANGE + 1].activations is not None
    assert {steps[n].grad_norm for n in range(3, STRANGE)} == {None}


def test_a_batch_that_is_not_finite_is_named(host: Host) -> None:
    x = host.batch[0][0].clone()
    x[3, 2] = math.nan
    steps = host.train(x=x)
    named = {"where": "input", "name": "batch.0", "order": None, "seen_by": "sentinel"}
    assert steps[STRANGE].first_nonfinite == named
    assert host.opened()["input-nonfinite"] == STRANGE


@pytest.mark.parametrize("ahead", [True, False])
def test_a_jump_of_the_loss_is_looked_at_once(host: Host, ahead: bool) -> None:
    steps = host.train(ahead=ahead, factor=1e3)
    measured = [n for n, s in steps.items() if s.grad_norm is not None and n > 2]
    assert measured[:2] == [STRANGE, STRANGE + 1]
    assert steps[STRANGE].grad_norm > 100 * steps[2].grad_norm
    assert steps[STRANGE].lr == [0.1]
    assert steps[STRANGE].samples == 16
    assert [n for n, s in steps.items() if s.activations is not None][2] == STRANGE + 1


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_that_were_zeroed_by_then_are_not_taken_for_zero(host: Host, to_none: bool) -> None:
    steps = host.train(zeroed=to_none, factor=1e3)
    assert steps[STRANGE].grad_norm is None
    assert steps[STRANGE + 1].activations is not None


def test_what_is_told_out_of_turn_says_nothing_of_usual_costs(host: Host) -> None:
    host.train(factor=1e3)
    budget = host.watch._session.attachment.budget
    assert not budget._kinds["sentinel"].durations


def test_a_loss_that_stays_not_finite_is_noticed_once() -> None:
    lane, parameter = Lane(0.1), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    noticed = []
    for losses in ([1.0] * 20, [math.nan] * 5, [1.0] * 20, [math.inf]):
        lane.enter(optimizer, 1, 1000, 0, 0.0)
        for loss in losses:
            lane.stepped(0.0)
            assert lane.log({"loss": loss, "accuracy": math.nan})
            if lane.strange:
                noticed.append((loss, *lane.take_strange()))
        lane.leave()
    assert [(math.isfinite(loss), lost, ahead) for loss, lost, ahead in noticed] == [(False, True, False)] * 2


@pytest.mark.parametrize(
    ("losses", "strange"),
    [
        ([1.0] * 20 + [9.0], False),
        ([1.0] * 20 + [11.0], True),
        ([-1.0] * 20 + [-11.0], True),
        ([0.0] * 20 + [5.0], False),
        ([1.0] * 5 + [500.0], False),  # too few to know what is usual
    ],
)
def test_what_counts_as_a_jump(losses: list[float], strange: bool) -> None:
    lane = Lane(0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    for part in (losses[:-1], losses[-1:]):
        lane.enter(optimizer, 1, 1000, 0, 0.0)
        for loss in part:
            lane.stepped(0.0)
            lane.log({"loss": loss})
        last = lane.strange
        lane.leave()
    assert last is strange


# ---------------------------------------------------------------------- evaluations


def evaluated(host: Host, *, dropout: bool, epochs: int = 4, each=None) -> dict[int, Step]:
    with host.watch as watch:
        for _ in range(epochs):
            for inputs, labels in watch.batches(host.batch * 12):
                loss = functional.cross_entropy(host.model(inputs), labels)
                host.optimizer.zero_grad()
                loss.backward()
                host.optimizer.step()
                watch.log(loss=loss)
            host.model.train(dropout)
            with torch.no_grad():
                value = functional.cross_entropy(host.model(host.batch[0][0]), host.batch[0][1])
            host.model.train()
            if each is not None:
                each()
            watch.epoch(val_loss=value)
    assert_live_equals_replay(host.path)
    return {s.step: s for s in steps_in(list(read_records(host.path)))}


@pytest.mark.parametrize("dropout", [True, False])
def test_an_evaluation_after_the_batches_is_seen_with_the_last_step(host: Host, dropout: bool) -> None:
    on = []
    steps = evaluated(host, dropout=dropout, each=lambda: on.append(bool(hooks._global_forward_hooks)))
    told = {
        n: s.wiring["evaluation_dropout"]
        for n, s in steps.items()
        if "evaluation_dropout" in (s.wiring or {})
    }
    assert told[12] is dropout
    assert set(told) <= {12, 24, 36, 48}
    assert list(steps) == list(range(1, 49))
    assert [s.epoch for s in steps.values()] == [(n - 1) // 12 for n in range(1, 49)]
    assert all(s.loss is not None for s in steps.values())
    assert on[:2] == [False] * 2  # one pass is enough; a warning may zoom in later
    assert ("train-mode-eval" in host.opened()) is dropout


def test_batches_without_an_evaluation_leave_no_hook(host: Host) -> None:
    on = []
    with host.watch as watch:
        for _ in range(3):
            for place, (inputs, labels) in enumerate(watch.batches(host.batch * 12)):
                loss = functional.cross_entropy(host.model(inputs), labels)
                if place:
                    on.append(bool(hooks._global_forward_hooks))
                host.optimizer.zero_grad()
                loss.backward()
                host.optimizer.step()
                watch.log(loss=loss)
            assert watch._session.attachment.batch is None
    assert not any(on[11:])
    steps = steps_in(list(read_records(host.path)))
    assert [s.step for s in steps] == list(range(1, 37))
    assert all(s.wiring is None for s in steps[2:])
