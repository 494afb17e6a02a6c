"""The callback in a real Lightning Trainer: what it records, that it changes nothing, never stops it.

Importing Lightning takes longer than a training here, so that all of these tests are slow ones. What it warns
of is its own.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.modules import module as module_hooks

from tests.helpers_lightning import TRAINED, Net, fitted, loaders, module, trainer
from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.helpers_torchrun import distributed, environment, torchrun
from torchwatch import WatchConfig, Watcher
from torchwatch.errors import ConfigError, RunBusy, UsageError
from torchwatch.records import Alert, End, Epoch, Eval, Note, Record
from torchwatch.runfile import read_records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CONFIG = WatchConfig(terminal=False, energy=False, budget=None)


@pytest.fixture(autouse=True, scope="module")
def _silent() -> None:
    import lightning.pytorch

    logging.getLogger(lightning.pytorch.__name__).setLevel(logging.ERROR)


def watching(path: Path | None = None, **options: Any) -> Any:
    from torchwatch_integrations.lightning import WatcherCallback

    given = {"config": CONFIG, "sinks": [], **options}
    return WatcherCallback(None if path is None else str(path), **given)


def pl() -> Any:
    import lightning.pytorch

    return lightning.pytorch


def of(kind: type[Record], records: list[Record]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def warned(records: list[Record]) -> list[str]:
    """Warnings about the training; how fast it runs is up to whoever shares the machine."""
    ours = [a for a in of(Alert, records) if a.severity != "info"]
    return [f"{a.check}: {a.title}" for a in ours if a.category not in ("throughput", "system")]


def assert_same_weights(one: Any, two: Any) -> None:
    other = two.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other[name]), name


WAYS: dict[str, dict[str, Any]] = {
    "automatic": {},
    "manual": {"manual": True},
    "accumulation": {"accumulate_grad_batches": 3},
    "clipping": {"gradient_clip_val": 0.1},
    "clipping-by-value": {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
    "bf16": {"precision": "bf16-mixed"},
    "fp16": {"precision": "16-mixed"},
    "double": {"precision": "64-true"},
    "profiler": {"profiler": "simple"},
    "fast-dev-run": {"fast_dev_run": 4},
    "no-sanity-check": {"num_sanity_val_steps": 0},
    "uneven-epochs": {"limit_train_batches": 7, "max_epochs": 3},
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_and_all_of_it_is_recorded(way: str, tmp_path: Path) -> None:
    """Bitwise the same weights and metrics; as many steps as ``global_step``; the loss of each."""
    settings = dict(WAYS[way])
    manual = settings.pop("manual", False)
    bare = fitted(pl(), tmp_path, patient=module(pl(), manual=manual), **settings)
    random = torch.get_rng_state()
    callback, patient = watching(), module(pl(), manual=manual)
    made = fitted(pl(), tmp_path, callback, patient=patient, **settings)
    assert_same_weights(bare.lightning_module, patient)
    assert torch.equal(torch.get_rng_state(), random)
    assert {k: float(v) for k, v in made.callback_metrics.items()} == {
        k: float(v) for k, v in bare.callback_metrics.items()
    }
    assert callback.watch.path == tmp_path / "torchwatch.jsonl"
    records = assert_live_equals_replay(callback.watch.path)
    steps = steps_in(records)
    assert made.global_step > 0
    assert [step.step for step in steps] == list(range(1, made.global_step + 1))
    accumulated = settings.get("accumulate_grad_batches", 1)
    batches = len(patient.losses) // made.current_epoch
    per_epoch = [patient.losses[at : at + batches] for at in range(0, len(patient.losses), batches)]
    groups = [of_[i : i + accumulated] for of_ in per_epoch for i in range(0, batches, accumulated)]
    assert [step.loss for step in steps] == pytest.approx([sum(g) / len(g) for g in groups], rel=1e-5)
    assert {step.loss_source for step in steps} == {"log"}
    assert {step.lr[0] for step in steps} == {0.01}
    assert all(step.grad_norm > 0 for step in steps)
    assert all(step.update_ratio > 0 for step in steps)
    assert all(step.wait_time_s is not None for step in steps)
    if way == "clipping":
        assert max(step.grad_norm for step in steps) < 0.1001 < max(s.grad_norm_preclip for s in steps)
    if not settings.get("limit_train_batches") and not settings.get("fast_dev_run"):
        assert sum(step.samples for step in steps) == 2 * TRAINED
    epochs = of(Epoch, records)
    assert [epoch.epoch for epoch in epochs] == list(range(made.current_epoch))
    measured = {"val_loss", "val_mean", "val_accuracy", "train_loss"}
    assert all(set(epoch.metrics) == measured for epoch in epochs)
    assert epochs[-1].metrics["val_loss"] == pytest.approx(float(made.callback_metrics["val/loss"]))
    assert [e.step for e in of(Eval, records)] == [epoch.step for epoch in epochs]  # none of the sanity check
    assert warned(records) == []
    assert records[-1].status == "finished"  # type: ignore[attr-defined]
    assert records[0].hyperparameters["width"] == 32  # type: ignore[attr-defined]


def test_evaluations_between_belong_to_their_step(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    fitted(pl(), tmp_path, callback, val_check_interval=5, max_epochs=1)
    records = assert_live_equals_replay(callback.watch.path)
    assert [(e.step, sorted(e.metrics)) for e in of(Eval, records)] == [
        (step, ["val_accuracy", "val_loss", "val_mean"]) for step in (5, 10)
    ]
    assert len(of(Epoch, records)) == 1


def test_every_second_epoch_is_evaluated(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    fitted(pl(), tmp_path, callback, check_val_every_n_epoch=2, max_epochs=4)
    epochs = of(Epoch, assert_live_equals_replay(callback.watch.path))
    assert ["val_loss" in epoch.metrics for epoch in epochs] == [False, True, False, True]


def test_a_resumed_training_goes_on_with_its_numbers(tmp_path: Path) -> None:
    """The second file goes on with the step after the checkpoint, and says so."""
    saved = pl().callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True)
    settings = {"enable_checkpointing": True}
    fitted(pl(), tmp_path, watching(), saved, max_epochs=1, **settings)
    bare = trainer(pl(), tmp_path, max_epochs=2)
    bare.fit(module(pl()), *loaders(), ckpt_path=saved.last_model_path)
    callback = watching()
    made = trainer(pl(), tmp_path, callback, max_epochs=2)
    made.fit(module(pl()), *loaders(), ckpt_path=saved.last_model_path)
    assert_same_weights(bare.lightning_module, made.lightning_module)
    assert callback.watch.path.name == "torchwatch-2.jsonl"
    records = assert_live_equals_replay(callback.watch.path)
    assert [step.step for step in steps_in(records)] == list(range(14, 27))
    assert [(epoch.epoch, epoch.step) for epoch in of(Epoch, records)] == [(1, 26)]
    assert "resumed at step 13" in [note.message for note in of(Note, records)]
    assert records[0].hyperparameters["ckpt_path"] == saved.last_model_path  # type: ignore[attr-defined]


def test_every_fit_of_a_callback_has_its_file(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    for name in ("run.jsonl", "run-2.jsonl"):
        made = fitted(pl(), tmp_path, callback, max_epochs=1)
        assert callback.watch.path.name == name
        assert len(steps_in(assert_live_equals_replay(callback.watch.path))) == 13
    made.validate(
        made.lightning_module, loaders()[1], verbose=False
    )  # nothing is open, and nothing goes wrong


def test_two_optimizers_make_one_step(tmp_path: Path) -> None:
    """The trainer counts both, which the run says."""

    class Two(pl().LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.first, self.second = Net(), Net()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            loss = torch.zeros(())
            for net, optimizer in zip((self.first, self.second), self.optimizers(), strict=True):
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss * 2

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.first, self.second)]

    torch.manual_seed(0)
    callback = watching(tmp_path / "run.jsonl")
    made = trainer(pl(), tmp_path, callback, max_epochs=2)
    made.fit(Two(), loaders()[0])
    records = assert_live_equals_replay(callback.watch.path)
    steps = steps_in(records)
    assert (made.global_step, len(steps)) == (52, 26)
    assert all(step.loss is not None for step in steps)
    assert any("trainer.global_step counts every" in note.message for note in of(Note, records))
    assert warned(records) == []


def test_steps_without_a_loss_are_counted(tmp_path: Path) -> None:
    """``training_step`` returns nothing now and then; the trainer counts these steps."""
    made: dict[str, Any] = {}
    for way in ("bare", "watched"):
        patient = module(pl())
        step = patient.training_step
        patient.training_step = lambda batch, batch_idx, step=step: (
            None if batch_idx % 4 == 3 else step(batch, batch_idx)
        )
        callback = watching(tmp_path / f"{way}.jsonl")
        callbacks = [callback] if way == "watched" else []
        made[way] = fitted(pl(), tmp_path, *callbacks, patient=patient, precision="16-mixed")
    assert_same_weights(made["bare"].lightning_module, made["watched"].lightning_module)
    steps = steps_in(assert_live_equals_replay(callback.watch.path))
    assert [s.step for s in steps] == list(range(1, made["watched"].global_step + 1))


# ---------------------------------------------------------------------- the two names


WORLD = """
import sys
{imports}
from torchwatch_integrations.lightning import WatcherCallback
framework = sys.modules["{world}"]
import warnings
warnings.simplefilter("ignore")
from pathlib import Path
from tests.helpers_lightning import fitted
from tests.helpers_replay import assert_live_equals_replay, steps_in
assert issubclass(WatcherCallback, framework.Callback)
for other in ("lightning", "pytorch_lightning"):
    assert (other in sys.modules) == (other in {loaded}), other
callback = WatcherCallback(config={{"terminal": False, "energy": False}}, sinks=[])
made = fitted(framework, Path(sys.argv[1]), callback, max_epochs=1)
assert len(steps_in(assert_live_equals_replay(callback.watch.path))) == made.global_step == 13
"""


@pytest.mark.parametrize(
    ("imports", "world", "loaded"),
    [
        ("import lightning", "lightning.pytorch", ["lightning"]),
        ("import pytorch_lightning", "pytorch_lightning", ["pytorch_lightning"]),
        ("", "lightning.pytorch", ["lightning"]),
        ("import lightning, pytorch_lightning", "lightning.pytorch", ["lightning", "pytorch_lightning"]),
        ("import lightning, pytorch_lightning", "pytorch_lightning", ["lightning", "pytorch_lightning"]),
    ],
)
def test_it_is_a_callback_of_either_name(imports: str, world: str, loaded: list[str], tmp_path: Path) -> None:
    script = WORLD.format(imports=imports, world=world, loaded=loaded)
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path.cwd(), env=environment(),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]


# ---------------------------------------------------------------------- faults, and stopping


@pytest.mark.parametrize(
    ("check", "rate", "changes"),
    [("lr-zero", 0.0, {"max_epochs": 4}), ("parameter-nonfinite", 1e30, {})],
)
def test_a_planted_fault_is_named(check: str, rate: float, changes: dict[str, Any], tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    fitted(pl(), tmp_path, callback, patient=module(pl(), lr=rate), **changes)
    records = assert_live_equals_replay(callback.watch.path)
    assert check in {alert.check for alert in of(Alert, records)}


class Slow:
    """Waits, so that the checks have time to speak."""

    @staticmethod
    def made() -> Any:
        class Waiting(pl().Callback):  # type: ignore[misc]
            def on_train_batch_start(self, *args: Any) -> None:
                time.sleep(0.02)

        return Waiting()


def test_stop_on_critical_stops_the_trainer_cleanly(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl", stop_on="critical")
    made = fitted(pl(), tmp_path, callback, Slow.made(), patient=module(pl(), lr=1e30), max_epochs=20)
    assert made.global_step < 260
    assert made.state.finished
    records = list(read_records(callback.watch.path))
    assert len(steps_in(records)) == made.global_step
    assert records[-1].status == "finished"  # type: ignore[attr-defined]
    said = [note.message for note in of(Note, records) if note.topic == "stop"]
    assert len(said) == 1
    assert said[0].startswith("stop_on has come true: the Trainer was asked to stop at step ")


# ---------------------------------------------------------------------- how it ends


def failing(error: BaseException, at: int = 5) -> Any:
    patient = module(pl())
    step = patient.training_step

    def fail(batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == at:
            raise error
        return step(batch, batch_idx)

    patient.training_step = fail
    return patient


def test_an_exception_is_recorded(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl", diagnostics=["predictions"])
    with pytest.raises(ValueError, match="no such sample"):
        fitted(pl(), tmp_path, callback, patient=failing(ValueError("no such sample")))
    records = list(read_records(callback.watch.path))
    end = records[-1]
    assert isinstance(end, End)
    assert (end.status, end.error) == ("crashed", "ValueError: no such sample")
    assert "in fail" in (end.traceback or "")
    assert len(steps_in(records)) == 5
    assert callback.examined is None
    assert not module_hooks._global_forward_hooks
    fitted(pl(), tmp_path, callback)  # again, from the start
    assert list(read_records(tmp_path / "run-2.jsonl"))[-1].status == "finished"  # type: ignore[attr-defined]


def test_ctrl_c_is_an_interruption(tmp_path: Path) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    callback = watching(tmp_path / "run.jsonl")
    try:
        with pytest.raises(SystemExit):
            fitted(pl(), tmp_path, callback, patient=failing(KeyboardInterrupt()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(read_records(callback.watch.path))[-1].status == "interrupted"  # type: ignore[attr-defined]


def test_nothing_to_train_ends_well(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl", diagnostics=["predictions"])
    fitted(pl(), tmp_path, callback, max_epochs=0)
    assert list(read_records(callback.watch.path))[-1].status == "finished"  # type: ignore[attr-defined]
    assert callback.examined is None


def test_switched_off_by_one_flag_it_does_nothing(tmp_path: Path) -> None:
    callback = watching(enabled=False, diagnostics=["predictions"], stop_on="critical")
    fitted(pl(), tmp_path, callback)
    assert callback.watch is None
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- a guest


@pytest.mark.parametrize(
    "event",
    ["train_starts", "batch_starts", "batch_ends", "validation_starts", "validation_ends", "epoch_is_over"],
)
def test_a_bug_of_ours_never_stops_the_trainer(
    event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, in the log and in the file; the same weights; all steps and the end are in the run."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError("broken on purpose")

    bare = fitted(pl(), tmp_path)
    monkeypatch.setattr(f"torchwatch_integrations._lightning_recording.FitRecording.{event}", fail)
    callback = watching(tmp_path / "run.jsonl", stop_on="critical")
    with caplog.at_level(logging.WARNING, logger="torchwatch"):
        made = fitted(pl(), tmp_path, callback)
    assert_same_weights(bare.lightning_module, made.lightning_module)
    said = [r.getMessage() for r in caplog.records if r.name == "torchwatch"]
    assert len(said) == 1
    assert "WatcherCallback switched off after KeyError: 'broken on purpose'" in said[0]
    records = list(read_records(callback.watch.path))
    assert len(steps_in(records)) == 26
    assert said[0] in [note.message for note in of(Note, records)]
    assert records[-1].status == "finished"  # type: ignore[attr-defined]


def test_what_the_users_callback_raises_is_the_users(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(alert: Alert) -> None:
        raise Enough

    callback = watching(tmp_path / "run.jsonl", on_alert=stop)
    with pytest.raises(Enough):
        fitted(pl(), tmp_path, callback, Slow.made(), patient=module(pl(), lr=1e30), max_epochs=20)
    assert list(read_records(callback.watch.path))[-1].status == "crashed"  # type: ignore[attr-defined]


def test_mistakes_of_the_user_are_told_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'overfitting'"):
        watching(limits={"overfiting": {"patience": 5}})
    with pytest.raises(ConfigError, match="attributions"):
        watching(diagnostics=["atributions"])
    with pytest.raises(UsageError, match="ig_baseline"):
        watching(diagnostics=["attributions"], ig_baseline="black")
    with pytest.raises(UsageError, match="num_samples"):
        watching(run_on_training_end=True, num_samples=0)
    with pytest.raises(TypeError, match="colour"):
        watching(colour="red")
    with pytest.raises(UsageError, match="is a directory"):
        fitted(pl(), tmp_path, watching(tmp_path))
    model = Net()
    with Watcher(model, tmp_path / "busy.jsonl", config=CONFIG, sinks=[]), pytest.raises(RunBusy):
        fitted(pl(), tmp_path, watching(tmp_path / "busy.jsonl"))


def test_nothing_is_left_when_the_training_is_over(tmp_path: Path) -> None:
    bare = fitted(pl(), tmp_path).lightning_module
    before = set(threading.enumerate())
    callback = watching()
    made = fitted(pl(), tmp_path, callback).lightning_module
    assert set(threading.enumerate()) == before
    assert not module_hooks._global_forward_hooks
    for ours, theirs in zip(made.modules(), bare.modules(), strict=True):
        assert vars(ours).keys() == vars(theirs).keys()


def test_it_goes_to_processes_that_a_launcher_starts(tmp_path: Path) -> None:
    callback = watching(tmp_path / "run.jsonl")
    fitted(pl(), tmp_path, callback, max_epochs=1)
    del callback.log, callback.log_dict  # the Trainer's, bound to a class of this test
    other = pickle.loads(pickle.dumps(callback))
    assert other.watch is None
    fitted(pl(), tmp_path, other, max_epochs=1)
    assert other.watch.path.name == "run-2.jsonl"


# ---------------------------------------------------------------------- two processes


TWO = """
import sys
from pathlib import Path
import lightning.pytorch
import torch
from tests.helpers_lightning import fitted, module
from tests.integrations.test_lightning import Slow, watching

folder, rate = Path(sys.argv[1]), float(sys.argv[2])
stop_on = sys.argv[3] if len(sys.argv) > 3 else None
callback = watching(folder / "run.jsonl", stop_on=stop_on, diagnostics=["predictions"])
callbacks = [callback] + ([Slow.made()] if stop_on else [])
made = fitted(lightning.pytorch, folder, *callbacks, patient=module(lightning.pytorch, lr=rate),
              devices=2, strategy="ddp", accumulate_grad_batches=2, max_epochs=20 if stop_on else 2)
torch.save(made.global_step, folder / f"steps{made.global_rank}.pt")
if not stop_on:
    bare = fitted(lightning.pytorch, folder, devices=2, strategy="ddp", accumulate_grad_batches=2)
    other = bare.lightning_module.state_dict()
    for name, value in made.lightning_module.state_dict().items():
        assert torch.equal(value, other[name]), name
assert (callback.examined is not None) == (made.global_rank == 0)
"""


@distributed
@pytest.mark.parametrize("arguments", [("0.01",), ("1e30", "critical")])
def test_two_processes(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Each rank has its file, both the same steps, also when stopped; rank zero alone examines."""
    (tmp_path / "two.py").write_text(TWO)
    torchrun(tmp_path, tmp_path / "two.py", str(tmp_path), *arguments, PYTHONPATH=str(Path.cwd()))
    for rank, name in enumerate(("run.jsonl", "run.rank1.jsonl")):
        records = assert_live_equals_replay(tmp_path / name)
        assert (records[0].rank, records[0].world) == (rank, 2)  # type: ignore[attr-defined]
        counted = torch.load(tmp_path / f"steps{rank}.pt")
        assert [step.step for step in steps_in(records)] == list(range(1, counted + 1))
        if len(arguments) == 1:
            assert warned(records) == []
            assert counted == 8
            assert sum(step.samples for step in steps_in(records)) == TRAINED
        else:
            assert counted < 80
    assert (tmp_path / "autopsy" / "report.html").is_file()
