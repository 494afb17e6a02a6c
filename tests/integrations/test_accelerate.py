"""``watch`` and the tracker in real loops of Accelerate. What Accelerate warns of is its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig
from torchwatch.errors import ConfigError, ModelError, RunBusy
from torchwatch.records import Alert, End, Epoch, Eval, Layout, Note, Record, RunHeader
from torchwatch.runfile import read_records

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = WatchConfig(terminal=False, energy=False, budget=None)
QUIET: dict[str, Any] = {"config": CONFIG, "sinks": []}
FEATURES, CLASSES = 6, 3


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def accelerator(**options: Any) -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True, **options)


def tracker(path: Path | None = None, **options: Any) -> Any:
    from torchwatch_integrations.accelerate import WatcherTracker

    return WatcherTracker(path, **{**QUIET, **options})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)))


def data(count: int = 240) -> DataLoader[Any]:
    """Classes that a linear teacher gives; the same each time."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, FEATURES, generator=generator)
    y = (x @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size=8)


class Training:
    """An ordinary loop; ``watched`` around it."""

    def __init__(self, made: Any, lr: float = 0.1, epochs: int = 2) -> None:
        torch.manual_seed(0)
        self.accelerator, self.epochs = made, epochs
        self.plain = Net()
        optimizer = torch.optim.SGD(self.plain.parameters(), lr=lr)
        self.model, self.optimizer, self.loader = made.prepare(self.plain, optimizer, data())
        self.losses: list[float] = []

    def run(self, watcher: Any = None) -> None:
        for _ in range(self.epochs):
            for x, y in self.loader if watcher is None else watcher.batches(self.loader):
                loss = self.step(x, y)
                if watcher is not None:
                    watcher.log(loss=loss)
                self.losses.append(loss.item())
            if watcher is not None:
                watcher.epoch(val_loss=1.0)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        with self.accelerator.accumulate(self.model):
            loss = F.cross_entropy(self.model(x), y)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"mixed_precision": "bf16"},
    "accumulate": {"gradient_accumulation_steps": 3},
}


def watched(path: Path, training: Training, **options: Any) -> list[Record]:
    from torchwatch_integrations.accelerate import watch

    with watch(training.accelerator, training.model, path, **{**QUIET, **options}) as watcher:
        training.run(watcher)
    return assert_live_equals_replay(path)


def warned(records: list[Record]) -> list[str]:
    return [f"{a.check}: {a.title}" for a in records if isinstance(a, Alert) and a.severity != "info"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_and_all_of_it_is_recorded(way: str, tmp_path: Path) -> None:
    bare = Training(accelerator(**WAYS[way]))
    bare.run()
    _reset()
    training = Training(accelerator(**WAYS[way]))
    records = watched(tmp_path / "run.jsonl", training)
    for name, value in bare.plain.state_dict().items():
        assert torch.equal(value, training.plain.state_dict()[name]), name
    every = WAYS[way].get("gradient_accumulation_steps", 1)
    steps = steps_in(records)
    assert len(steps) == len(training.losses) // every
    means = torch.tensor(training.losses).view(-1, every).mean(1).tolist()
    assert [step.loss for step in steps] == pytest.approx(means, rel=1e-5)
    assert {step.samples for step in steps} == {8 * every}
    assert all(step.grad_norm_preclip is not None for step in steps)
    assert any(step.clipped for step in steps)
    assert [e.metrics for e in records if isinstance(e, Epoch)] == [{"val_loss": 1.0}] * 2
    assert warned(records) == []


def _reset() -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_the_model_may_be_given_before_it_is_prepared(tmp_path: Path) -> None:
    from torchwatch_integrations.accelerate import watch

    training = Training(accelerator(mixed_precision="bf16"))
    with watch(training.accelerator, training.plain, tmp_path / "run.jsonl", **QUIET) as watcher:
        training.run(watcher)
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) == len(training.losses)
    assert records[0].model == "Net"  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "check"), [(0.0, "lr-zero"), (1e30, "parameter-nonfinite")])
def test_a_planted_fault_is_named(lr: float, check: str, tmp_path: Path) -> None:
    records = watched(tmp_path / "run.jsonl", Training(accelerator(), lr=lr, epochs=4))
    assert check in {alert.check for alert in records if isinstance(alert, Alert)}


def test_what_the_body_raises_is_recorded_and_passes(tmp_path: Path) -> None:
    from torchwatch_integrations.accelerate import watch

    training = Training(accelerator())
    with (
        pytest.raises(ZeroDivisionError),
        watch(training.accelerator, training.model, tmp_path / "run.jsonl", **QUIET),
    ):
        raise ZeroDivisionError
    end = list(read_records(tmp_path / "run.jsonl"))[-1]
    assert isinstance(end, End)
    assert (end.status, end.error) == ("crashed", "ZeroDivisionError")


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    from torchwatch_integrations.accelerate import watch

    made = accelerator()
    with pytest.raises(ModelError, match="needs an Accelerator first, not Net"), watch(Net(), made):
        pass
    with pytest.raises(ModelError, match=r"not int"), watch(made, 3):  # type: ignore[arg-type]
        pass
    with pytest.raises(ConfigError), watch(made, Net(), limits={"nonsense": {}}):
        pass
    with pytest.raises(ConfigError):
        tracker(ignore=["nonsense"])
    model = Net()
    busy = watch(made, model, tmp_path / "run.jsonl", **QUIET)
    with watch(made, model, tmp_path / "run.jsonl", **QUIET), pytest.raises(RunBusy), busy:
        pass


# ---------------------------------------------------------------------- the tracker


def test_tracker_and_watch_find_each_other(tmp_path: Path) -> None:
    """One run: the configuration is in its header, logged values are in its steps."""
    from torchwatch_integrations.accelerate import watch

    made = accelerator(log_with=tracker(tmp_path / "run.jsonl", name="digits"))
    made.init_trackers("project", config={"lr": 0.1, "width": 16})
    training = Training(made)
    with watch(made, training.model, hyperparameters={"width": 32}) as watcher:
        assert made.get_tracker("torchwatch", unwrap=True) is watcher
        for count, (x, y) in enumerate(training.loader, 1):
            loss = training.step(x, y)
            made.log({"loss": loss.item(), "train/acc": 0.5, "text": "x", "epoch": 0}, step=count)
        made.log({"val/loss": 0.25}, step=30)
        made.end_training()
        assert watcher.path == tmp_path / "run.jsonl"
    header, *records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert isinstance(header, RunHeader)
    assert (header.name, header.hyperparameters) == ("digits", {"lr": 0.1, "width": 32})
    steps = steps_in(records)
    assert len(steps) == 30
    assert {step.loss_source for step in steps} == {"log"}
    assert [step.metrics for step in steps] == [{"train_acc": 0.5}] * 30
    assert [(e.step, e.metrics) for e in records if isinstance(e, Eval)] == [(30, {"val_loss": 0.25})]
    assert [p.name for p in tmp_path.iterdir()] == ["run.jsonl"]


def test_a_tracker_on_its_own_writes_metrics_and_says_how_to_see_inside(tmp_path: Path) -> None:
    made = accelerator(log_with=tracker(tmp_path / "run.jsonl"))
    made.init_trackers("project", config={"lr": 0.1})
    assert not (tmp_path / "run.jsonl").exists()
    training = Training(made)
    for count, (x, y) in enumerate(training.loader, 1):
        loss = training.step(x, y)
        if count % 5 == 0:
            made.log({"train_loss": loss.item()}, step=count)
            made.log({"accuracy": 0.5, "val_loss": 1.0}, step=count)
    made.end_training()
    header, *records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert isinstance(header, RunHeader)
    assert (header.model, header.parameters, header.hyperparameters) == ("NoModel", 0, {"lr": 0.1})
    assert [(s.step, s.metrics) for s in steps_in(records)] == [
        (n, {"train_loss": pytest.approx(s.loss), "accuracy": 0.5})
        for n, s in zip(range(5, 31, 5), steps_in(records), strict=True)
    ]
    assert [e.step for e in records if isinstance(e, Eval)] == list(range(5, 31, 5))
    assert any("wrap the loop in `with" in note.message for note in records if isinstance(note, Note))
    layout = next(record for record in records if isinstance(record, Layout))
    assert layout.parameters == []
    assert warned(records) == []
    assert records[-1].status == "finished"  # type: ignore[attr-defined]


def test_steps_of_a_tracker_on_its_own_count_up_whatever_it_is_told(tmp_path: Path) -> None:
    own = tracker(tmp_path / "run.jsonl")
    for step in (0, 1, 100, 50, None):
        own.log({"loss": 1.0}, step=step)
    own.finish()
    assert [s.step for s in steps_in(list(read_records(tmp_path / "run.jsonl")))] == [1, 2, 100, 101, 102]


def test_a_healthy_curve_is_quiet_and_nan_is_named_without_a_model(tmp_path: Path) -> None:
    for name, broken in (("good", False), ("bad", True)):
        own = tracker(tmp_path / f"{name}.jsonl")
        for step in range(1, 301):
            loss = 2.0 / math.sqrt(step) + 0.1
            own.log({"loss": math.nan if broken and step > 200 else loss, "lr": 0.1}, step=step)
        own.finish()
    good, bad = (assert_live_equals_replay(tmp_path / f"{name}.jsonl") for name in ("good", "bad"))
    assert warned(good) == []
    assert "loss-nonfinite" in {a.check for a in bad if isinstance(a, Alert)}


def test_a_watch_that_comes_later_takes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from torchwatch_integrations.accelerate import watch

    made = accelerator(log_with=tracker(tmp_path / "run.jsonl"))
    made.init_trackers("project")
    made.log({"loss": 1.0})
    model = Net()
    with watch(made, model) as watcher:
        made.get_tracker("torchwatch").store_init_configuration({"late": 1})
        made.log({"val_loss": 1.0})
        assert watcher.path.name == "run-2.jsonl"
    with caplog.at_level(logging.WARNING, logger="torchwatch"):
        made.log({"loss": 1.0})
    assert "outside of the watch block" in caplog.text
    first, second = (list(read_records(tmp_path / name)) for name in ("run.jsonl", "run-2.jsonl"))
    assert isinstance(first[-1], End)
    assert [e.metrics for e in second if isinstance(e, Eval)] == [{"val_loss": 1.0}]
    assert any(note.message == "late=1" for note in second if isinstance(note, Note))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_bug_of_the_tracker_never_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise KeyError("broken on purpose")

    made = accelerator(log_with=tracker(tmp_path / "run.jsonl"))
    monkeypatch.setattr("torchwatch_integrations.accelerate._MetricsOnly.log", fail)
    made.init_trackers("project", config={"lr": 0.1})
    for _ in range(3):
        made.log({"loss": 1.0})
    made.end_training()
    said = [r.getMessage() for r in caplog.records if r.name == "torchwatch"]
    assert len(said) == 1
    assert said[0].startswith("WatcherTracker switched off after KeyError: 'broken on purpose'")
    assert isinstance(list(read_records(tmp_path / "run.jsonl"))[-1], End)


def test_only_the_main_process_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others write their files."""
    from torchwatch_integrations.accelerate import watch

    made, model = accelerator(), Net()
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        with watch(made, model, tmp_path / "run.jsonl", config=WatchConfig(energy=False)):
            pass
        assert bool(capsys.readouterr().err) is (rank == 0)
    assert {p.name for p in tmp_path.iterdir()} == {"run.jsonl", "run.rank1.jsonl"}
