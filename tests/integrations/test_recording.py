"""What is kept from one event of a trainer to the next; a plain loop tells the events here."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchwatch_integrations._loop import Loop
from torchwatch_integrations._recording import Recording

from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.records import End, Epoch, Eval, Note
from torchwatch.runfile import read_records

CONFIG = WatchConfig(terminal=False, energy=False, budget=None)


class Scorer(nn.Module):
    """Returns its loss, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.body(x).square().mean()}


def train(tell: Callable[[], None]) -> None:
    """The trainer's loop."""
    tell()


LOOP = Loop(train.__code__, "train()")


class Training:
    """A model, its watcher, and the recording of it; ``step`` plays the events of a step."""

    def __init__(self, path: Path, factor: int | None = None, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = Scorer()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.watch = Watcher(self.model, path, **{"config": CONFIG, "sinks": [], **options})
        self.recording = Recording(self.watch, LOOP, factor)

    def step(self, passes: int = 1) -> list[float]:
        self.recording.fetched()
        losses = [self.model(torch.ones(4, 3))["loss"] for _ in range(passes)]
        for loss in losses:
            loss.backward()
        self.recording.passes_done()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return [loss.item() for loss in losses]

    def records(self) -> list[Any]:
        self.recording.end(None)
        return assert_live_equals_replay(self.watch.path)


@pytest.mark.parametrize(("factor", "expected"), [(None, 1.0), (1, 3.0), (2, 6.0)])
def test_losses_of_several_passes_are_one(factor: int | None, expected: float, tmp_path: Path) -> None:
    """Averaged, added up, or added up over processes too; an untouched step is what the model returned."""
    training = Training(tmp_path / "run.jsonl", factor)
    losses = [training.step(3)[0] for _ in range(4)]
    steps = steps_in(training.records())
    assert [step.loss for step in steps] == pytest.approx([loss * expected for loss in losses])


def test_the_log_gives_what_the_model_does_not(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl")
    training.step()
    training.recording.logged({"loss": 77.0, "epoch": 0.1, "accuracy": 0.5, "eval_loss": 1.0, "text": "x"})
    training.model.forward = lambda x: {"other": training.model.body(x).square().mean()}  # type: ignore[method-assign]
    for _ in range(2):
        training.optimizer.zero_grad()
        training.recording.fetched()
        training.model(torch.ones(4, 3))["other"].backward()
        training.recording.passes_done()
        training.optimizer.step()
    training.recording.logged({"loss": 5.0})
    training.recording.logged({"train_runtime": 3.0, "train_loss": 2.0})
    first, second, third = steps_in(training.records())
    assert (first.loss_source, first.metrics) == ("output", {"accuracy": 0.5})
    assert (second.loss, third.loss, third.loss_source) == (None, 5.0, "log")


def test_evaluations_after_an_epoch_are_the_epochs(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl")
    recording = training.recording
    recording.epoch_begins()
    training.step()
    recording.evaluated({"eval_loss": 3.0, "epoch": 0.5})
    training.step()
    recording.epoch_ends()
    recording.evaluated({"eval_loss": 2.0, "eval_runtime": 0.1, "eval_samples_per_second": 9.0})
    recording.evaluated({"far_loss": 4.0})
    recording.epoch_begins()
    training.step()
    recording.epoch_ends()
    recording.epoch_begins()
    records = training.records()
    assert [(e.step, e.epoch, e.metrics) for e in records if isinstance(e, Eval)] == [
        (1, 0, {"eval_loss": 3.0}),
        (2, 0, {"eval_loss": 2.0, "eval_far_loss": 4.0}),
    ]
    assert [(e.epoch, e.steps, e.metrics) for e in records if isinstance(e, Epoch)] == [
        (0, 2, {"eval_loss": 2.0, "eval_far_loss": 4.0}),
        (1, 1, {}),
    ]


def test_waiting_is_what_passes_between_two_steps(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl")
    now = [100.0]
    session = training.watch._session
    assert session is not None
    session.attachment.clock = lambda: now[0]
    training.recording.idle()
    for wait in (0.5, 2.0):
        now[0] += wait
        training.step()
        now[0] += 7.0  # computing
        training.recording.wants_to_stop(1)
    assert [step.wait_time_s for step in steps_in(training.records())] == [0.5, 2.0]


def test_the_wish_to_stop_is_said_once(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl", stop_on=100)
    training.step()
    assert not training.recording.wants_to_stop(1)
    assert training.watch._session is not None
    training.watch._session.recorder.health_score = 99
    assert training.recording.wants_to_stop(2)
    assert training.recording.wants_to_stop(3)
    said = [r.message for r in training.records() if isinstance(r, Note) and r.topic == "stop"]
    assert said == ["stop_on has come true: the Trainer was asked to stop at step 2"]


def test_it_ends_once_and_the_first_word_counts(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl")
    training.step()
    error = ValueError("first")
    training.recording.end(error)
    training.recording.end(None)
    assert training.recording.ended
    ends = [r for r in read_records(training.watch.path) if isinstance(r, End)]
    assert [(end.status, end.error) for end in ends] == [("crashed", "ValueError: first")]


def test_a_recording_that_goes_away_has_crashed(tmp_path: Path) -> None:
    training = Training(tmp_path / "run.jsonl")
    training.step()
    path = training.watch.path
    del training.recording, training.watch
    gc.collect()
    end = list(read_records(path))[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"
    assert "train() was left by an exception" in (end.error or "")
