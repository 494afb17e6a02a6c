"""The callback in a real Trainer: what it records, that it changes nothing, and that it never stops it.

Importing these packages takes longer than a training here, so that all of these tests are slow ones. What the
packages warn of is theirs.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules import module

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.helpers_torchrun import distributed, torchrun
from tests.helpers_trainer import BATCH, Characters, language_model, logged_losses, trainer
from torchwatch import WatchConfig, Watcher
from torchwatch.errors import ConfigError, RunBusy, UsageError
from torchwatch.records import Alert, End, Epoch, Eval, Note, Record, RunHeader
from torchwatch.runfile import read_records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CONFIG = WatchConfig(terminal=False, energy=False, budget=None)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def watching(path: Path | None = None, **options: Any) -> Any:
    from torchwatch_integrations.transformers import WatcherTrainerCallback

    return WatcherTrainerCallback(path, **{"config": CONFIG, "sinks": [], **options})


def of(kind: type[Record], records: list[Record]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def warned(records: list[Record]) -> list[str]:
    return [f"{a.check}: {a.title}" for a in of(Alert, records) if a.severity != "info"]


def weights(made: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"bf16": True},
    "gradient-checkpointing": {"gradient_checkpointing": True},
    "evaluation": {"eval_strategy": "epoch"},
    "accumulation": {"gradient_accumulation_steps": 3},
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_and_all_of_it_is_recorded(way: str, tmp_path: Path) -> None:
    """Bitwise the same weights and logs; as many steps as ``global_step``; the loss of each as logged."""
    bare = trainer(tmp_path / "bare", **WAYS[way])
    bare.train()
    callback = watching()
    made = trainer(tmp_path / "watched", callback, **WAYS[way])
    made.train()
    for name, value in weights(bare).items():
        assert torch.equal(value, weights(made)[name]), name
    assert logged_losses(made) == logged_losses(bare)
    assert callback.watch.path == tmp_path / "watched" / "torchwatch.jsonl"
    records = assert_live_equals_replay(callback.watch.path)
    steps = steps_in(records)
    assert [step.step for step in steps] == list(range(1, made.state.global_step + 1))
    assert [step.loss for step in steps] == pytest.approx(logged_losses(made), rel=1e-6)
    assert {step.loss_source for step in steps} == {"output"}
    assert [step.lr[0] for step in steps] == pytest.approx(
        [e["learning_rate"] for e in made.state.log_history if "learning_rate" in e]
    )
    assert [step.grad_norm_preclip for step in steps] == pytest.approx(
        [e["grad_norm"] for e in made.state.log_history if "grad_norm" in e], rel=1e-3
    )
    assert sum(step.samples for step in steps) == 200
    assert all(step.wait_time_s is not None for step in steps)
    assert [(epoch.epoch, epoch.steps) for epoch in of(Epoch, records)] == [
        (n, made.state.global_step // 2) for n in (0, 1)
    ]
    assert warned(records) == []
    assert records[-1].status == "finished"
    assert records[0].hyperparameters["per_device_train_batch_size"] == BATCH
    assert records[0].config["declare"] == {"planned_steps": made.state.max_steps}


def test_evaluations_belong_to_their_epoch_or_step(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, eval_strategy="epoch", eval_on_start=True)
    made.train()
    records = list(read_records(callback.watch.path))
    told = [e["eval_loss"] for e in made.state.log_history if "eval_loss" in e]
    assert [(e.step, e.epoch, list(e.metrics)) for e in of(Eval, records)] == [
        (0, 0, ["eval_loss"]),
        (13, 0, ["eval_loss"]),
        (26, 1, ["eval_loss"]),
    ]
    assert [e.metrics["eval_loss"] for e in of(Eval, records)] == pytest.approx(told)
    assert [e.metrics["eval_loss"] for e in of(Epoch, records)] == pytest.approx(told[1:])
    made.evaluate()  # after the training: nothing is open any more, and nothing goes wrong


def test_evaluations_between_and_of_several_sets(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=13, num_train_epochs=1)
    made.eval_dataset = {"near": Characters(8, first=100), "far": Characters(8, first=500)}
    made.train()
    found = of(Eval, list(read_records(callback.watch.path)))
    assert [(e.step, sorted(e.metrics)) for e in found] == [(13, ["eval_near_loss"]), (13, ["eval_far_loss"])]


def test_metrics_of_the_users_are_in_their_step(tmp_path: Path) -> None:
    import transformers

    class Own(transformers.Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.log({"temperature": float(self.state.global_step), "note": "warm"})
            return super().training_step(*args, **kwargs)

    callback = watching(tmp_path / "run.jsonl")
    trainer(tmp_path, callback, kind=Own, num_train_epochs=1, logging_strategy="no").train()
    steps = steps_in(list(read_records(callback.watch.path)))
    assert len(steps) == 13
    assert {name for step in steps for name in step.metrics or {}} == {"temperature"}


def test_a_loss_that_the_model_does_not_return_is_taken_from_the_log(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, label_smoothing_factor=0.1, logging_steps=5)
    made.train()
    steps = steps_in(list(read_records(callback.watch.path)))
    seen = {step.step: step.loss for step in steps if step.loss_source == "log"}
    assert list(seen) == [5, 10, 15, 20, 25]
    assert list(seen.values()) == pytest.approx(logged_losses(made), rel=1e-6)


TWO = """
import json, sys
from pathlib import Path
from tests.helpers_trainer import logged_losses, trainer
from tests.integrations.test_transformers import watching
made = trainer(Path(sys.argv[1]), watching(), gradient_accumulation_steps=2)
made.train()
if made.args.process_index == 0:
    Path(sys.argv[1], "logged.json").write_text(json.dumps(logged_losses(made)))
"""


@distributed
def test_the_losses_of_two_processes_average_to_the_logged_one(tmp_path: Path) -> None:
    """The Trainer divides by the tokens of all processes, and so does a rank's recorded loss."""
    (tmp_path / "two.py").write_text(TWO)
    torchrun(tmp_path, tmp_path / "two.py", "out", PYTHONPATH=str(Path.cwd()), PYTHONWARNINGS="ignore")
    names = ("torchwatch.jsonl", "torchwatch.rank1.jsonl")
    first, second = (steps_in(assert_live_equals_replay(tmp_path / "out" / name)) for name in names)
    mean = [(one.loss + two.loss) / 2 for one, two in zip(first, second, strict=True)]  # type: ignore[operator]
    assert mean == pytest.approx(json.loads((tmp_path / "out" / "logged.json").read_text()), rel=1e-5)


# ---------------------------------------------------------------------- resuming


def test_a_resumed_training_is_linked_to_the_file_of_the_steps_before(tmp_path: Path) -> None:
    """The same weights as without us; the second file goes on with the step after the checkpoint."""
    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 16, "eval_strategy": "epoch"}
    bare = trainer(tmp_path / "bare", **saved)
    bare.train()
    first = watching()
    trainer(tmp_path / "out", first, **saved).train()
    second = watching()
    made = trainer(tmp_path / "out", second, **saved)
    made.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-16"))
    for name, value in weights(bare).items():
        assert torch.equal(value, weights(made)[name]), name
    assert second.watch.path.name == "torchwatch-2.jsonl"
    records = assert_live_equals_replay(second.watch.path)
    header = records[0]
    assert isinstance(header, RunHeader)
    assert header.hyperparameters["resumed_from"] == str(first.watch.path)
    assert header.hyperparameters["resumed_at_step"] == 16
    assert [step.step for step in steps_in(records)] == list(range(17, 27))
    assert [(epoch.epoch, epoch.step) for epoch in of(Epoch, records)] == [(1, 26)]
    notes = [note.message for note in of(Note, records)]
    assert f"resumed at step 16: the steps before are in {first.watch.path}" in notes
    assert warned(records) == []


def test_a_resumed_training_whose_first_file_is_gone_says_so(tmp_path: Path) -> None:
    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 16}
    trainer(tmp_path / "out", **saved).train()
    callback = watching(tmp_path / "run.jsonl")
    trainer(tmp_path / "out", callback, **saved).train(resume_from_checkpoint=True)
    records = list(read_records(callback.watch.path))
    assert records[0].hyperparameters["resumed_from"] is None  # type: ignore[attr-defined]
    assert any("there is no run file of them" in note.message for note in of(Note, records))


def test_every_training_of_a_trainer_has_its_file(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, num_train_epochs=1)
    for name in ("run.jsonl", "run-2.jsonl"):
        made.train()
        assert callback.watch.path.name == name
        assert len(steps_in(assert_live_equals_replay(callback.watch.path))) == 13


# ---------------------------------------------------------------------- faults, and stopping


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("lr-zero", {"learning_rate": 0.0, "num_train_epochs": 4}),
        ("parameter-nonfinite", {"learning_rate": 1e30, "max_grad_norm": 0.0, "optim": "sgd"}),
    ],
)
def test_a_planted_fault_is_named(check: str, changes: dict[str, Any], tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    trainer(tmp_path, callback, **changes).train()
    records = assert_live_equals_replay(callback.watch.path)
    assert check in {alert.check for alert in of(Alert, records)}


def test_stop_on_critical_stops_the_trainer_cleanly(tmp_path: Path) -> None:
    import transformers

    class Slow(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.02)

    callback = watching(tmp_path / "run.jsonl", stop_on="critical")
    changes = {"learning_rate": 1e30, "max_grad_norm": 0.0, "optim": "sgd", "num_train_epochs": 20}
    made = trainer(tmp_path, callback, **changes)
    made.add_callback(Slow())
    result = made.train()
    assert result.global_step < made.state.max_steps
    records = list(read_records(callback.watch.path))
    assert len(steps_in(records)) == result.global_step
    assert records[-1].status == "finished"  # type: ignore[attr-defined]
    said = [note.message for note in of(Note, records) if note.topic == "stop"]
    assert said == [f"stop_on has come true: the Trainer was asked to stop at step {result.global_step}"]


def test_stop_on_is_refused_where_ranks_would_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = watching(tmp_path / "run.jsonl", stop_on="critical")
    made = trainer(tmp_path, callback)
    monkeypatch.setattr("torchwatch_integrations.transformers.rank_and_world", lambda: (0, 2))
    with pytest.raises(UsageError, match="one process"):
        made.train()


# ---------------------------------------------------------------------- how it ends


class Broken(Characters):
    """Its last batch cannot be fetched."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == 99:
            raise ValueError("no such sample")
        return super().__getitem__(index)


def test_an_exception_that_passes_the_callbacks_block_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such sample"), watching(tmp_path / "run.jsonl") as callback:
        trainer(tmp_path, callback, trained=Broken(100)).train()
    end = list(read_records(callback.watch.path))[-1]
    assert isinstance(end, End)
    assert (end.status, end.error) == ("crashed", "ValueError: no such sample")
    assert "in __getitem__" in (end.traceback or "")


def test_a_loop_that_was_left_ends_the_run_by_itself(tmp_path: Path) -> None:
    """The exception is caught outside, the trainer lives on: within a second or so the run has ended."""
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, trained=Broken(100))
    with pytest.raises(ValueError, match="no such sample"):
        made.train()
    ends: list[Any] = []
    until = time.monotonic() + 20
    while not ends and time.monotonic() < until:
        time.sleep(0.1)
        ends = of(End, list(read_records(callback.watch.path)))
    assert ends[0].status == "crashed"
    assert "trainer.train() was left by an exception" in ends[0].error
    made.train_dataset = Characters(100)
    made.train()  # again, from the start
    assert list(read_records(callback.watch.path))[-1].status == "finished"  # type: ignore[attr-defined]


def test_another_training_ends_the_one_that_was_left(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path, callback, trained=Broken(100))
    with pytest.raises(ValueError, match="no such sample"):
        made.train()
    made.train_dataset = Characters(100)
    made.train()
    left, good = (list(read_records(tmp_path / name))[-1] for name in ("run.jsonl", "run-2.jsonl"))
    assert (left.status, good.status) == ("crashed", "finished")  # type: ignore[attr-defined]


SCRIPT = """
import sys
from pathlib import Path
from tests.helpers_trainer import trainer
from tests.integrations.test_transformers import Broken, watching
trainer(Path(sys.argv[1]), watching(), trained=Broken(100)).train()
"""


def test_a_script_that_crashes_leaves_the_traceback(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path.cwd(),
    )
    assert ran.returncode == 1
    assert ran.stderr.rstrip().endswith("ValueError: no such sample")
    end = list(read_records(tmp_path / "torchwatch.jsonl"))[-1]
    assert isinstance(end, End)
    assert (end.status, end.error) == ("crashed", "ValueError: no such sample")
    assert "in __getitem__" in (end.traceback or "")


# ---------------------------------------------------------------------- a guest


@pytest.mark.parametrize(
    "event", ["fetched", "passes_done", "logged", "evaluated", "epoch_ends", "epoch_begins"]
)
def test_a_bug_of_ours_never_stops_the_trainer(
    event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, in the log and in the file; the same weights; all steps and the end are in the run."""

    def fail(*args: Any) -> None:
        raise KeyError("broken on purpose")

    bare = trainer(tmp_path / "bare", eval_strategy="epoch")
    bare.train()
    monkeypatch.setattr(f"torchwatch_integrations._recording.Recording.{event}", fail)
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(tmp_path / "watched", callback, eval_strategy="epoch")
    with caplog.at_level(logging.WARNING, logger="torchwatch"):
        made.train()
    for name, value in weights(bare).items():
        assert torch.equal(value, weights(made)[name]), name
    said = [r.getMessage() for r in caplog.records if r.name == "torchwatch"]
    assert len(said) == 1
    assert "WatcherTrainerCallback switched off after KeyError: 'broken on purpose'" in said[0]
    records = list(read_records(callback.watch.path))
    assert len(steps_in(records)) == 26
    assert said[0] in [note.message for note in of(Note, records)]
    assert records[-1].status == "finished"  # type: ignore[attr-defined]


def test_a_bug_while_attaching_never_stops_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise KeyError("broken on purpose")

    monkeypatch.setattr("torchwatch_integrations.transformers._factor", fail)
    callback = watching(tmp_path / "run.jsonl")
    assert trainer(tmp_path, callback).train().global_step == 26
    assert "training goes on" in caplog.text
    assert callback.watch is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise error

    monkeypatch.setattr("torchwatch_integrations._recording.Recording.fetched", interrupt)
    with pytest.raises(error), watching(tmp_path / "run.jsonl") as callback:
        trainer(tmp_path, callback).train()
    assert list(read_records(callback.watch.path))[-1].status == "interrupted"  # type: ignore[attr-defined]


def test_what_the_users_callback_raises_is_the_users(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(alert: Alert) -> None:
        raise Enough

    callback = watching(tmp_path / "run.jsonl", on_alert=stop)
    changes = {"learning_rate": 1e30, "max_grad_norm": 0.0, "optim": "sgd", "num_train_epochs": 40}
    with pytest.raises(Enough), callback:
        trainer(tmp_path, callback, **changes).train()
    end = list(read_records(callback.watch.path))[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"


def test_mistakes_of_the_user_are_told_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'overfitting'"):
        watching(limits={"overfiting": {"patience": 5}})
    with pytest.raises(TypeError, match="colour"):
        watching(colour="red")
    with pytest.raises(UsageError, match="is a directory"):
        trainer(tmp_path, watching(tmp_path)).train()
    model = language_model()
    with Watcher(model, tmp_path / "busy.jsonl", config=CONFIG, sinks=[]), pytest.raises(RunBusy):
        trainer(tmp_path, watching(tmp_path / "busy.jsonl")).train()


def test_nothing_is_left_when_the_training_is_over(tmp_path: Path) -> None:
    bare = trainer(tmp_path / "bare")
    bare.train()
    before = set(threading.enumerate())
    made = trainer(tmp_path, watching())
    made.train()
    assert set(threading.enumerate()) == before
    assert not module._global_forward_hooks
    for ours, theirs in zip(made.model.modules(), bare.model.modules(), strict=True):
        assert vars(ours).keys() == vars(theirs).keys()
