import builtins
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers_cli import call
from tests.importers.reading import evals, losses, of_kind, opened
from torchwatch.errors import NotARunFile
from torchwatch.importers import open_run
from torchwatch.records import Step

pytest.importorskip("tensorboard")


def event_file(folder: Path, scalars: Mapping[int, Mapping[str, float]], histogram: bool = False) -> Path:
    """An event file as writers make it: simple values, one event per tag."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, values in scalars.items():
        for tag, value in values.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(wall_time=1.7e9 + step, step=step, summary=summary))
        if histogram:
            weights = HistogramProto(min=0, max=1, num=2, sum=1, bucket_limit=[1.0], bucket=[2.0])
            summary = Summary(value=[Summary.Value(tag="weights", histo=weights)])
            writer.add_event(Event(wall_time=1.7e9 + step, step=step, summary=summary))
    writer.close()
    return next(folder.iterdir())


def training(count: int = 40) -> dict[int, dict[str, float]]:
    found = {10 * i: {"train/loss": 4.0 / i, "train/learning_rate": 0.5} for i in range(1, count + 1)}
    for step in range(100, 10 * count + 1, 100):
        found[step]["eval/loss"] = 8.0 / step
    return found


def test_tags_are_columns(tmp_path: Path) -> None:
    path = event_file(tmp_path / "a", training(), histogram=True)
    reader, records = opened(path, path.read_bytes())
    assert reader.format == "TensorBoard events"
    assert losses(records)[20] == 2.0
    assert evals(records, "eval_loss")[200] == pytest.approx(0.04)
    step = of_kind(records, Step)[1]
    assert (step.lr, step.time_s) == ([0.5], 10.0)
    assert step.metrics is None


def test_columns_and_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = event_file(tmp_path / "a", {i: {"objective": 1 / i, "held": 2 / i} for i in range(1, 30)})
    path = path.rename(tmp_path / "a" / "no-telling-name")
    assert call(monkeypatch, "diagnose", path).code == 2
    shown = call(monkeypatch, "diagnose", path, "--columns", "loss=objective,val_loss=held", "--json")
    assert shown.code == 0


def test_a_torn_end_keeps_what_is_whole(tmp_path: Path) -> None:
    path = event_file(tmp_path / "a", training())
    _, records = opened(tmp_path / "torn", path.read_bytes()[:-30])
    assert 30 < len(losses(records)) <= 40


def test_without_scalars(tmp_path: Path) -> None:
    path = event_file(tmp_path / "a", {})
    with pytest.raises(NotARunFile, match="without scalars"):
        open_run(path)


def test_the_format_is_told_without_the_package_and_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = b"\x1a\x0dbrain.Event:2"
    path = tmp_path / "events"
    path.write_bytes(struct.pack("<QI", len(version), 0) + version)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    shown = call(monkeypatch, "diagnose", path)
    assert shown.code == 2
    assert 'pip install "torchwatch-monitor[tensorboard]"' in shown.err
    assert shown.err.count("\n") == 1
