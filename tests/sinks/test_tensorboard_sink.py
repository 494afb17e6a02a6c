"""TensorBoard event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import errno
import math
import random
import struct
import sys
import zlib
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tests.helpers_runs import HOSTILE, alert, header, hostile_run, steps, whole_run
from torchwatch.errors import MissingExtra, UsageError
from torchwatch.records import Step
from torchwatch.sinks.tensorboard import TensorBoardSink, log_report


def written(folder: Path, records, **options) -> EventAccumulator:
    sink = TensorBoardSink(folder, **options)
    for record in records:
        sink.write(record)
    sink.drain(10)
    assert sink.counts()["undelivered"] == 0
    sink.close()
    return read(sink.folder)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()


def scalars(events: EventAccumulator, name: str) -> dict[int, float]:
    return {e.step: e.value for e in events.Scalars(f"torchwatch/{name}")}


def test_scalars_come_back_with_steps_and_times(tmp_path: Path) -> None:
    events = written(tmp_path, whole_run())
    assert scalars(events, "loss") == pytest.approx(
        {s.step: s.loss for s in steps(1, 100) if s.step % 10 == 1 or s.step == 100}
    )
    assert scalars(events, "metric/val_accuracy") == pytest.approx({100: 0.9})
    assert scalars(events, "health_score") == {1: 100, 61: 93}
    first, last = events.Scalars("torchwatch/loss")[0], events.Scalars("torchwatch/loss")[-1]
    assert last.wall_time - first.wall_time == pytest.approx(9.9)
    assert all(tag.startswith("torchwatch/") for tag in events.Tags()["scalars"])


def test_alerts_come_back_as_escaped_text(tmp_path: Path) -> None:
    text = "<b>*bold*</b>"
    events = written(tmp_path, [header(), *steps(1, 2), alert(title=text), alert(state="resolved", step=70)])
    told = events.Tensors("torchwatch/alerts/text_summary")
    assert [t.step for t in told] == [60, 70]
    first, second = (tensor_util.make_ndarray(t.tensor_proto)[0].decode() for t in told)
    assert first == r"**WARNING** dead-units: &lt;b&gt;\*bold\*&lt;/b&gt;" + "\n\nWhat to do: Use LeakyReLU."
    assert second.startswith("**RESOLVED**")


def test_a_value_that_is_not_finite_comes_back(tmp_path: Path) -> None:
    events = written(
        tmp_path, [header(), Step(step=1, loss=math.nan), Step(step=2, time_s=2.0, loss=math.inf)]
    )
    assert math.isnan(scalars(events, "loss")[1])
    assert scalars(events, "loss")[2] == math.inf


def test_the_file_can_be_read_while_the_run_lasts(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    for record in [header(), *steps(1, 30)]:
        sink.write(record)
    sink.drain(10)
    assert scalars(read(sink.folder), "loss")
    sink.close()


def test_each_run_and_rank_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for fields in ({}, {}, {"rank": 1, "world": 2}, {"name": "../../etc/x"}, {"name": "..", "run_id": ""}):
        written(tmp_path, [header(**fields), *steps(1, 1)])
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["_.._etc_x", "digits", "digits-2", "digits.rank1", "run"]


@pytest.mark.parametrize("text", [*HOSTILE, "\ud800"])
def test_hostile_names_are_written(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, hostile_run(text)).Tags()["scalars"]


def test_a_folder_that_cannot_be_written_is_the_sink_s_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = TensorBoardSink(tmp_path / "file")
    with pytest.raises(OSError):
        sink.write(header())
    sink.close()


def test_a_disk_that_fills_up_is_met_with_the_row_that_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.write(header())

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sink._writer, "flush", full)
    for record in steps(1, 1):
        sink.write(record)
    with pytest.raises(OSError, match="No space left"):
        sink.drain(10)
    assert sink.counts()["delivered"] == 0
    assert sink.counts()["undelivered"] >= 1
    sink.close()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(MissingExtra, match=r"pip install 'torchwatch-monitor\[tensorboard\]'"):
        TensorBoardSink()


def test_the_pictures_of_a_report_come_back(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "loss.png").write_bytes(png(3, 2))
    (report / "not_really.png").write_bytes(b"text")
    (report / "report.md").write_text("text")
    assert log_report(report, tmp_path / "tb", step=7) == 1
    (image,) = read(tmp_path / "tb").Images("torchwatch/report/loss")
    assert (image.step, image.width, image.height) == (7, 3, 2)
    assert image.encoded_image_string == png(3, 2)
    with pytest.raises(UsageError, match="holds no picture"):
        log_report(tmp_path, tmp_path / "tb")


def test_the_host_s_random_numbers_stay_what_they_are(tmp_path: Path) -> None:
    before = random.getstate()
    written(tmp_path, whole_run())
    assert random.getstate() == before


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x7f" * (3 * width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
