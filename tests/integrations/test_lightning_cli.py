"""The callback in the configuration files of LightningCLI: all of its arguments are plain values.

Real command lines: all of these tests are slow ones (see test_lightning).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from tests.helpers_lightning import loaders, module
from tests.integrations.test_lightning import pl
from torchwatch.records import RunHeader
from torchwatch.runfile import read_records

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BASE = """
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args:
        monitor: val/loss
"""
CALLBACK = """
    - class_path: torchwatch_integrations.lightning.WatcherCallback
      init_args:
        path: run.jsonl
        stop_on: critical
        budget: 0.02
        config: {terminal: false, energy: false}
        limits: {overfitting: {patience: 5}}
        sinks: []
        hyperparameters: {note: from yaml}
        diagnostics: [predictions]
        num_samples: 30
        target_layers: [net.hidden]
        time_limit_s: 60
"""
FORCED = """
torchwatch:
  path: run.jsonl
  config: {terminal: false, energy: false}
  sinks: []
"""
OFF = """
torchwatch:
  enabled: false
"""


def train(folder: Path, *arguments: str, forced: bool = False) -> Any:
    """``fit`` by a command line; the callback in it, None if there is none."""
    from lightning.pytorch.cli import LightningCLI
    from torchwatch_integrations.lightning import WatcherCallback

    class Data(pl().LightningDataModule):  # type: ignore[misc]
        def train_dataloader(self) -> DataLoader[Any]:
            return loaders()[0]

        def val_dataloader(self) -> DataLoader[Any]:
            return loaders()[1]

    class Cli(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            if forced:
                parser.add_lightning_class_args(WatcherCallback, "torchwatch")

    cli = Cli(
        type(module(pl())),
        Data,
        save_config_callback=None,
        args=["fit", *arguments, f"--trainer.default_root_dir={folder}"],
    )
    return next((c for c in cli.trainer.callbacks if isinstance(c, WatcherCallback)), None)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {"base": BASE, "watched": BASE + CALLBACK, "forced": BASE + FORCED, "off": OFF}
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(text)


def test_a_configuration_file_holds_all_of_it(tmp_path: Path) -> None:
    callback = train(tmp_path, "--config", "watched.yaml")
    header = next(iter(read_records(tmp_path / "run.jsonl")))
    assert isinstance(header, RunHeader)
    assert header.hyperparameters["note"] == "from yaml"
    assert header.config["budget"] == 0.02
    assert header.limits["overfitting"]["patience"] == 5
    assert callback.examined.about.samples == 30
    assert (tmp_path / "autopsy" / "report.html").is_file()


def test_a_second_file_switches_it_off_by_one_flag(tmp_path: Path) -> None:
    assert train(tmp_path, "--config", "forced.yaml", forced=True).watch is not None
    Path("run.jsonl").unlink()
    callback = train(tmp_path, "--config", "forced.yaml", "--config", "off.yaml", forced=True)
    assert callback.watch is None
    assert not Path("run.jsonl").exists()
    assert train(tmp_path, "--config", "forced.yaml", "--torchwatch.enabled=false", forced=True).watch is None


def test_the_command_line_adds_it_or_switches_it_off(tmp_path: Path) -> None:
    name = "torchwatch_integrations.lightning.WatcherCallback"
    added = train(
        tmp_path, "--config", "base.yaml", f"--trainer.callbacks+={name}",
        "--trainer.callbacks.path=cli.jsonl",
        "--trainer.callbacks.config={terminal: false, energy: false}", "--trainer.callbacks.stop_on=30",
    )  # fmt: skip
    assert added.watch.path == Path("cli.jsonl")
    assert added.watch.path.is_file()
    assert train(tmp_path, "--config", "watched.yaml", "--trainer.callbacks.enabled=false").watch is None
    assert train(tmp_path, "--config", "base.yaml") is None
