"""What the Lightning callback is made of, without Lightning: stand-ins for its classes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchwatch_integrations import _lightning_base as base
from torchwatch_integrations._lightning_autopsy import EarlyStops, Plan, _best_weights, best_checkpoint, tidy
from torchwatch_integrations._lightning_loggers import PREFIX, ForLoggers, show_pictures
from torchwatch_integrations._lightning_recording import FitRecording

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.helpers_runs import alert, header, steps
from torchwatch import WatchConfig, Watcher
from torchwatch.errors import MissingExtra, UsageError
from torchwatch.records import Epoch, Eval

# ---------------------------------------------------------------------- whose callback it is


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Neither is imported; both can be."""
    made: dict[str, Any] = {}
    for name in ("lightning.pytorch", "pytorch_lightning"):
        made[name] = ModuleType(name)
        made[name].Callback = type("Callback", (), {})
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(base, "require", lambda *args, **kwargs: None)
    monkeypatch.setattr(base.importlib, "import_module", made.__getitem__)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: object())
    return made


@pytest.mark.parametrize("imported", [["lightning.pytorch"], ["pytorch_lightning"], None])
def test_the_base_is_what_was_imported(
    imported: list[str] | None, frameworks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(frameworks) if imported is None else imported
    for name in names:
        monkeypatch.setitem(sys.modules, name, frameworks[name])
    assert base.callback_bases() == tuple(frameworks[name].Callback for name in names)


def test_the_base_is_what_is_installed(frameworks: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.callback_bases() == (frameworks["lightning.pytorch"].Callback,)
    spec = {"lightning": None, "pytorch_lightning": object()}
    monkeypatch.setattr(base.importlib.util, "find_spec", spec.__getitem__)
    assert base.callback_bases() == (frameworks["pytorch_lightning"].Callback,)


def test_without_any_of_them_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'torchwatch-monitor\[lightning\]'"):
        base.callback_bases()


# ---------------------------------------------------------------------- one fit


class Loop:
    """A training as Lightning makes it: an optimizer with a closure, events before and after."""

    def __init__(self, path: Path, optimizers: int = 1) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        config = WatchConfig(terminal=False, energy=False, budget=None)
        self.recording = FitRecording(Watcher(self.model, path, config=config, sinks=[]), optimizers)
        self.path, self.made, self.losses = path, 0, []
        self.recording.train_starts(0, 0)

    def batch(self, size: int = 8, *, steps: bool = True, scale: int = 1) -> None:
        x = torch.randn(size, 4)
        self.recording.batch_starts(x)

        def closure() -> torch.Tensor:
            loss = self.model(x).square().mean()
            (loss / scale).backward()
            self.losses.append(loss.detach())
            return loss

        if steps:
            self.optimizer.step(closure)
            self.optimizer.zero_grad()
            self.made += 1
        else:
            closure()
        after = self.model(x).exp().sum() * 2.0 + 1.0  # computed after the step, as a metric may be
        assert after.requires_grad
        self.recording.batch_ends({"loss": self.losses[-1] / scale}, scale, self.made)


def test_losses_and_samples_belong_to_the_step_that_was_made(tmp_path: Path) -> None:
    """The model is watched itself, and called within the closure: a batch is counted once."""
    loop = Loop(tmp_path / "run.jsonl")
    for _ in range(4):
        loop.batch()
    loop.recording.epoch_is_over({})
    loop.recording.end(None, loop.made)
    made = steps_in(assert_live_equals_replay(loop.path))
    assert [step.loss for step in made] == pytest.approx([float(loss) for loss in loop.losses])
    assert [step.samples for step in made] == [8, 8, 8, 8]


def test_an_accumulation_is_one_step_with_the_mean(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run.jsonl")
    for at in range(6):
        loop.batch(steps=at % 3 == 2, scale=3)
    loop.recording.end(None, loop.made)
    made = steps_in(assert_live_equals_replay(loop.path))
    losses = [float(loss) for loss in loop.losses]
    assert [step.loss for step in made] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    assert [step.samples for step in made] == [24, 24]


def test_a_step_that_raised_is_none(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run.jsonl")
    loop.batch()

    def fail() -> torch.Tensor:
        raise ValueError("no such sample")

    with pytest.raises(ValueError, match="no such sample") as caught:
        loop.optimizer.step(fail)
    loop.recording.end(caught.value, 1)
    assert len(steps_in(assert_live_equals_replay(loop.path))) == 1


def test_new_metrics_alone_are_what_an_evaluation_measured(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run.jsonl")
    train, stale = torch.tensor(1.0), torch.tensor(2.0)
    loop.batch()
    before = {"train/loss": train, "val/loss": stale}
    loop.recording.validation_starts(before)
    measured = before | {"val/loss": torch.tensor(3.0), "f1": torch.tensor(0.5)}
    loop.recording.validation_ends(measured, ends_epoch=False)
    loop.batch()
    loop.recording.validation_starts(measured)
    last = measured | {"val/loss": torch.tensor(4.0)}
    loop.recording.validation_ends(last, ends_epoch=True)
    loop.recording.epoch_is_over(
        last | {"train/loss": torch.tensor(0.9), "train/loss_epoch": torch.tensor(0.9)}
    )
    loop.recording.end(None, loop.made)
    records = assert_live_equals_replay(loop.path)
    evaluations = [(r.step, r.metrics) for r in records if isinstance(r, Eval)]
    assert evaluations[0] == (1, {"val_loss": 3.0, "val_f1": 0.5})
    epochs = [r for r in records if isinstance(r, Epoch)]
    assert [e.metrics for e in epochs] == [{"val_loss": 4.0, "train_loss": pytest.approx(0.9)}]


# ---------------------------------------------------------------------- loggers


class Logger:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []
        self.tables: list[Any] = []
        self.images: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((metrics, step))

    def log_table(self, key: str, columns: list[str], data: list[Any]) -> None:
        self.tables.append((key, columns, data))

    def log_image(self, key: str, images: list[str]) -> None:
        self.images.append(key)


def test_loggers_are_given_rows_and_issues_by_the_thread_that_trains() -> None:
    sink, logger = ForLoggers(), Logger()
    for record in (header(), *steps(1, 3), alert()):
        sink.write(record)
    sink.close()
    assert logger.rows == []
    sink.hand_on([logger])
    assert {name for row, _ in logger.rows for name in row} >= {f"{PREFIX}loss", f"{PREFIX}health_score"}
    sink.hand_on([logger])
    sink.conclude([logger, object()])
    assert [(key, len(data)) for key, _, data in logger.tables] == [(f"{PREFIX}issues", 1)]


def test_pictures_go_where_pictures_are_taken(tmp_path: Path) -> None:
    import matplotlib.image
    import numpy as np

    matplotlib.image.imsave(tmp_path / "loss.png", np.linspace(0, 1, 48).reshape(4, 4, 3))
    shown: list[Any] = []
    board = SimpleNamespace(experiment=SimpleNamespace(add_image=lambda *a, **k: shown.append(a)))
    logger = Logger()
    assert show_pictures(tmp_path, [logger, board, object()], step=7) == 2
    assert logger.images == [f"{PREFIX}report/loss"]
    [(tag, pixels, step)] = shown
    assert (tag, step, pixels.dtype, pixels.max()) == (f"{PREFIX}report/loss", 7, np.uint8, 255)
    with pytest.raises(UsageError, match="no picture"):
        show_pictures(tmp_path / "none", [logger], step=7)


# ---------------------------------------------------------------------- when, and of which weights


class Stopper:
    patience, monitor = 3, "val_loss"

    def __init__(self) -> None:
        self.stopped_epoch = self.wait_count = 0
        self.stopping_reason_message: str | None = None


def test_an_early_stop_is_told_by_the_callbacks_own_state() -> None:
    stopper = Stopper()
    early = EarlyStops([object(), stopper])
    assert early.message(should_stop=False) is None
    assert early.message(should_stop=True) is None  # somebody else stopped it
    stopper.stopped_epoch, stopper.stopping_reason_message = 4, "no better"
    assert early.message(should_stop=True) == "no better"
    assert EarlyStops([stopper]).message(should_stop=False) is None  # that was the training before
    stopper.wait_count = 3
    assert EarlyStops([stopper]).message(should_stop=True) == "no better"  # the same epoch once more
    del stopper.stopping_reason_message  # as before Lightning 2.6
    assert EarlyStops([stopper]).message(should_stop=True) == "val_loss did not improve in 3 records"


def plan(**changes: Any) -> Plan:
    given = {
        "at_training_end": True, "at_early_stop": True, "diagnostics": None, "output_dir": None,
        "save_plots": True, "generate_report": True, "num_samples": 10, "ig_n_steps": 5,
        "ig_baseline": "zero", "target_layers": (), "time_limit_s": None,
    }  # fmt: skip
    return Plan(**{**given, **changes})


def test_only_what_was_asked_for_stays(tmp_path: Path) -> None:
    for save, page, left in (
        (True, True, ["a.png", "report.html", "report.json", "report.md"]),
        (False, True, ["report.html", "report.json"]),
        (True, False, ["a.png", "report.json"]),
        (False, False, ["report.json"]),
    ):
        for name in ("a.png", "report.html", "report.md", "report.json"):
            (tmp_path / name).touch()
        tidy(tmp_path, plan(save_plots=save, generate_report=page))
        assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_the_best_weights_are_lent_whatever_happens(tmp_path: Path) -> None:
    """The checkpoint that watches a metric beats another; afterwards the weights are bitwise the last."""
    model = nn.BatchNorm1d(3)
    last = {name: value.clone() for name, value in model.state_dict().items()}
    best = {name: value + 1 for name, value in last.items()}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": best, "pytorch-lightning_version": "2.6"}, path)
    callbacks = [
        SimpleNamespace(best_model_path=str(tmp_path / "last.ckpt"), monitor=None),
        SimpleNamespace(best_model_path="", monitor="val_f1"),
        SimpleNamespace(best_model_path=str(path), monitor="val_loss"),
    ]
    trainer = SimpleNamespace(checkpoint_callbacks=callbacks)
    assert best_checkpoint(trainer) == str(path)
    assert best_checkpoint(SimpleNamespace(checkpoint_callbacks=callbacks[1:2])) is None
    with pytest.raises(KeyboardInterrupt), _best_weights(trainer, model) as whose:
        assert "best.ckpt" in whose
        assert all(torch.equal(model.state_dict()[name], value) for name, value in best.items())
        raise KeyboardInterrupt
    assert all(torch.equal(model.state_dict()[name], value) for name, value in last.items())
