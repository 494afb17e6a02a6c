"""The autopsy after a fit: once, with the right reason, of the best weights, and never in the training's way.

Real Trainers: all of these tests are slow ones (see test_lightning).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers_lightning import VALIDATED, fitted, loaders, module, points
from tests.helpers_wandb import history, offline_runs
from tests.integrations.test_lightning import assert_same_weights, of, pl, watching
from torchwatch.examinations.examination import all_examinations
from torchwatch.records import Note
from torchwatch.runfile import read_records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True, scope="module")
def _silent() -> None:
    logging.getLogger(pl().__name__).setLevel(logging.ERROR)


def examining(folder: Path, **options: Any) -> Any:
    return watching(folder / "run.jsonl", **{"diagnostics": ["predictions"], **options})


def stopping(**changes: Any) -> Any:
    return pl().callbacks.EarlyStopping(**{"monitor": "val/loss", "patience": 2, **changes})


def checkpoint(folder: Path) -> Any:
    return pl().callbacks.ModelCheckpoint(dirpath=folder / "saved", monitor="val/loss")


def early(folder: Path, *callbacks: Any, patient: Any = None, **changes: Any) -> Any:
    """A training that gets worse and is stopped, with a best checkpoint before."""
    patient = module(pl(), lr=0.3) if patient is None else patient
    given = (stopping(), *callbacks, checkpoint(folder))
    settings = {"max_epochs": 30, "enable_checkpointing": True, **changes}
    return fitted(pl(), folder, *given, patient=patient, **settings)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The weights with which each autopsy was made."""
    from torchwatch_integrations import _lightning_autopsy

    seen: list[Any] = []
    whole = _lightning_autopsy.autopsy

    def count(model: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return whole(model, *args, **kwargs)

    monkeypatch.setattr(_lightning_autopsy, "autopsy", count)
    return seen


def test_after_early_stopping_once_on_the_best_checkpoint(tmp_path: Path, counted: list[Any]) -> None:
    """The examined weights are the checkpoint's; the module has its last ones, and nothing else changed."""
    bare = early(tmp_path / "bare")
    random = torch.get_rng_state()
    callback = examining(tmp_path)
    logger = pl().loggers.TensorBoardLogger(tmp_path, name="tb")
    made = early(tmp_path, callback, logger=logger)
    assert made.current_epoch < 30
    assert (callback.autopsy_reason, len(counted)) == ("early_stop", 1)
    assert_same_weights(bare.lightning_module, made.lightning_module)
    assert torch.equal(torch.get_rng_state(), random)
    assert made.lightning_module.trainer is made
    best = torch.load(made.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    last = made.lightning_module.state_dict()
    assert all(torch.equal(value, counted[0][name]) for name, value in best.items())
    assert any(not torch.equal(value, counted[0][name]) for name, value in last.items())
    loss = callback.examined["predictions"].classes.nll
    assert loss == pytest.approx(float(made.checkpoint_callback.best_model_score), rel=1e-4)
    out = Path(made.log_dir) / "autopsy"
    assert out == tmp_path / "tb" / "version_0" / "autopsy"
    written = {path.name for path in out.iterdir()}
    assert {"report.html", "report.md", "report.json", "predictions_confusion.png", "loss.png"} <= written
    body = (out / "report.md").read_text().replace("\\", "")
    assert "(early_stop)" in body
    assert Path(made.checkpoint_callback.best_model_path).name in body
    notes = [note for note in of(Note, list(read_records(callback.watch.path))) if note.topic == "early_stop"]
    assert len(notes) == 1
    assert "did not improve in the last 2 records" in notes[0].message


def test_at_the_end_with_the_weights_in_memory(tmp_path: Path, counted: list[Any]) -> None:
    """All epochs were trained, an early-stopping callback had nothing to do, there is no checkpoint."""
    callback = examining(tmp_path)
    made = fitted(pl(), tmp_path, stopping(), callback)
    assert (callback.autopsy_reason, len(counted)) == ("training_end", 1)
    assert all(torch.equal(v, counted[0][n]) for n, v in made.lightning_module.state_dict().items())
    assert callback.examined.about.samples == VALIDATED
    assert "weights in memory" in callback.examined.about.remarks[0].text
    assert (tmp_path / "autopsy" / "report.html").is_file()
    made.fit_loop.max_epochs = 4
    made.fit(made.lightning_module, *loaders())  # another fit is another training
    assert len(counted) == 2


@pytest.mark.parametrize(
    ("at_end", "at_early_stop", "stopped", "expected"),
    [
        (True, False, True, "early_stop"),  # an early end is an end
        (False, True, True, "early_stop"),
        (False, True, False, None),
        (True, False, False, "training_end"),
        (False, False, True, None),
    ],
)
def test_it_is_made_when_it_was_asked_for(
    at_end: bool, at_early_stop: bool, stopped: bool, expected: str | None, tmp_path: Path, counted: list[Any]
) -> None:
    callback = examining(tmp_path, run_on_training_end=at_end, run_on_early_stop=at_early_stop)
    stop = (
        stopping(stopping_threshold=100.0) if stopped else stopping()
    )  # in the first epoch: stopped_epoch is 0
    fitted(pl(), tmp_path, stop, callback)
    assert (callback.autopsy_reason, len(counted)) == (expected, 0 if expected is None else 1)


def test_stops_of_a_training_before_do_not_count(tmp_path: Path, counted: list[Any]) -> None:
    callback, stop = examining(tmp_path), stopping(stopping_threshold=100.0)
    fitted(pl(), tmp_path, stop, callback)
    assert callback.autopsy_reason == "early_stop"
    stop.stopping_threshold = None
    fitted(pl(), tmp_path, stop, callback)
    assert (callback.autopsy_reason, len(counted)) == ("training_end", 2)


def test_never_in_a_fast_dev_run(tmp_path: Path, counted: list[Any]) -> None:
    fitted(pl(), tmp_path, examining(tmp_path), fast_dev_run=True)
    assert counted == []


@pytest.mark.parametrize("what", ["examination", "autopsy", "report", "no-data", "checkpoint"])
def test_a_failure_never_fails_the_training(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the trainer has finished, with the same weights."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("broken on purpose")

    bare = early(tmp_path / "bare")
    where = "torchwatch_integrations._lightning_autopsy."
    callback = examining(tmp_path)
    if what == "examination":
        broken = dataclasses.replace(all_examinations()["predictions"], examine=fail)
        monkeypatch.setattr("torchwatch.examinations.conduct.chosen", lambda names: (broken,))
    elif what in ("autopsy", "report"):
        monkeypatch.setattr(where + {"autopsy": "autopsy", "report": "build_report"}[what], fail)
    elif what == "no-data":
        monkeypatch.setattr(where + "_validation", fail)
    else:
        monkeypatch.setattr(where + "best_checkpoint", lambda trainer: str(tmp_path / "gone.ckpt"))
    with caplog.at_level(logging.WARNING, logger="torchwatch"):
        made = early(tmp_path, callback)
    assert made.state.finished
    assert_same_weights(bare.lightning_module, made.lightning_module)
    assert made.lightning_module.trainer is made
    said = [r.getMessage() for r in caplog.records if r.name == "torchwatch"]
    assert len(said) == 1, said
    if what == "examination":
        assert "the examination predictions failed: ZeroDivisionError: broken on purpose" in said[0]
        assert "broken on purpose" in (tmp_path / "autopsy" / "report.md").read_text()
    elif what == "checkpoint":
        assert "the best checkpoint is left alone" in said[0]
        assert "could not be loaded" in callback.examined.about.remarks[0].text
    else:
        assert "the autopsy of WatcherCallback switched off after ZeroDivisionError" in said[0]


def test_options_reach_the_autopsy(tmp_path: Path) -> None:
    """Also where the module has no ``forward``: layers keep the names that they have in the module."""
    callback = examining(
        tmp_path, diagnostics=["attributions", "layer_attributions"], output_dir=str(tmp_path / "mine"),
        save_plots=False, num_samples=40, ig_n_steps=5, ig_baseline="mean", target_layers=["net.hidden"],
    )  # fmt: skip
    fitted(pl(), tmp_path, callback, patient=module(pl(), nameless=True))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["report.html", "report.json"]
    found = callback.examined
    assert found.about.samples == 40
    told = json.loads((tmp_path / "mine" / "report.json").read_bytes())["autopsy"]
    assert told["about"]["model"] == "Net"
    assert "mean" in found["attributions"].baseline
    assert [each.layer for each in found["layer_attributions"].conductance] == ["hidden"]


def test_without_a_page(tmp_path: Path) -> None:
    fitted(pl(), tmp_path, examining(tmp_path, generate_report=False, save_plots=False))
    assert [path.name for path in (tmp_path / "autopsy").iterdir()] == ["report.json"]


def test_data_of_the_argument_or_of_the_data_module(tmp_path: Path) -> None:
    class Data(pl().LightningDataModule):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return loaders()[0]

        def val_dataloader(self) -> Any:
            return [loaders()[1]]

    callback = examining(tmp_path)
    made = pl().Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[callback], limit_val_batches=0,
    )  # fmt: skip
    made.fit(module(pl()), datamodule=Data())
    assert callback.examined.about.samples == VALIDATED
    given = torch.utils.data.DataLoader(points(50, 7), batch_size=10)
    callback = examining(tmp_path, val_dataloader=given)
    fitted(pl(), tmp_path, callback, max_epochs=1)
    assert callback.examined.about.samples == 50


def test_double_precision(tmp_path: Path) -> None:
    callback = examining(tmp_path)
    fitted(pl(), tmp_path, callback, precision="64-true")
    assert callback.examined["predictions"] is not None


# ---------------------------------------------------------------------- loggers


def test_tensorboard_and_csv_get_numbers_alerts_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [
        pl().loggers.TensorBoardLogger(tmp_path, name="tb"),
        pl().loggers.CSVLogger(tmp_path, name="csv"),
    ]
    callback = examining(tmp_path)
    made = fitted(pl(), tmp_path, callback, patient=module(pl(), lr=0.0), max_epochs=4, logger=loggers)
    events = EventAccumulator(str(tmp_path / "tb" / "version_0")).Reload()
    scalars = events.Tags()["scalars"]
    assert {"train/loss_step", "torchwatch/loss", "torchwatch/lr", "torchwatch/health_score"} <= set(scalars)
    assert events.Scalars("torchwatch/loss")[-1].step <= made.global_step
    texts = events.Tensors("torchwatch/alerts/text_summary")
    assert any(b"lr-zero" in event.tensor_proto.string_val[0] for event in texts)
    images = set(events.Tags()["images"])
    plots = {path.stem for path in (Path(made.log_dir) / "autopsy").glob("*.png")}
    assert images == {f"torchwatch/report/{name}" for name in plots}
    assert "torchwatch/report/predictions_confusion" in images
    picture = events.Images("torchwatch/report/predictions_confusion")[0]
    assert picture.width > 300
    table = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {"val/loss", "torchwatch/loss", "torchwatch/issues/critical"} <= set(table[0].split(","))


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import wandb

    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    wandb.teardown()


@pytest.mark.usefixtures("_offline")
def test_wandb_gets_numbers_issues_and_pictures(tmp_path: Path) -> None:
    logger = pl().loggers.WandbLogger(project="test", save_dir=tmp_path, offline=True)
    callback = examining(tmp_path)
    early(tmp_path, callback, logger=logger, patient=module(pl(), lr=0.3))
    logger.experiment.finish()
    [run] = offline_runs(tmp_path)
    rows = history(run)
    names = {name for row in rows for name in row}
    assert {"val/loss", "torchwatch/loss", "torchwatch/health_score"} <= names
    assert any(name.startswith("torchwatch/report/predictions_confusion") for name in names)
    assert (tmp_path / "autopsy" / "report.html").is_file()


def test_a_logger_that_fails_ends_only_its_own_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(pl().loggers.CSVLogger):  # type: ignore[misc]
        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            if any(name.startswith("torchwatch/") for name in metrics):
                raise OSError("disk full")

    callback = examining(tmp_path)
    with caplog.at_level(logging.WARNING, logger="torchwatch"):
        made = fitted(pl(), tmp_path, callback, logger=Broken(tmp_path))
    assert "log_to_logger of WatcherCallback switched off after OSError: disk full" in caplog.text
    assert made.global_step == 26
    assert callback.examined is not None


def test_loggers_get_nothing_unless_wanted(tmp_path: Path) -> None:
    logger = pl().loggers.CSVLogger(tmp_path, name="csv")
    fitted(pl(), tmp_path, examining(tmp_path, log_to_logger=False), logger=logger)
    assert "torchwatch" not in (tmp_path / "csv" / "version_0" / "metrics.csv").read_text()
