"""Scalars and alerts as a TensorBoard event file. Needs the package ``tensorboard``, not torch."""

from __future__ import annotations

import datetime as dt
import os
import re
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchwatch.errors import UsageError
from torchwatch.records import Alert, RunHeader
from torchwatch.sinks._extra import package
from torchwatch.sinks._side import Side, SideSink
from torchwatch.sinks.scalars import EVERY_S, Row, Scalars
from torchwatch.text import markdown

if TYPE_CHECKING:
    from torchwatch.records import Record

FOLDER = "runs/tensorboard"
PREFIX = "torchwatch/"
_PNG = b"\x89PNG\r\n\x1a\n"


class TensorBoardSink(SideSink[Any]):
    """Writes scalars under ``torchwatch/``, and each alert as text, into ``<folder>/<name of the run>``.

    The x axis is the step of the run, the time is when it happened. A folder that exists gets a number.

    Args:
        folder: what ``tensorboard --logdir`` is given.
        every_s: at most one point per so many seconds of the run for the scalars of steps.

    Raises:
        MissingExtra: the package is not installed.
    """

    name = "tensorboard"

    def __init__(self, folder: str | os.PathLike[str] = FOLDER, *, every_s: float = EVERY_S) -> None:
        package("tensorboard.summary.writer.event_file_writer", self.name)
        super().__init__(Side(self.name, self._deliver))
        self._folder = Path(folder)
        self._scalars = Scalars(every_s)
        self._started = 0.0
        self._writer: Any = None

    @property
    def folder(self) -> Path:
        """Where the event file is, or will be below."""
        return self._folder

    def write(self, record: Record) -> None:
        """Queue the points due because of this record; the header opens the file."""
        if isinstance(record, RunHeader):
            self._open(record)
        for row in self._scalars.feed(record):
            self.put(self._event(row))
        if isinstance(record, Alert):
            self.put(self._text(record))

    def drain(self, seconds: float) -> None:
        """Write what is still being gathered, and wait for the queue."""
        for row in self._scalars.finish():
            self.put(self._event(row))
        super().drain(seconds)

    def close(self) -> None:
        """Close the event file, unless its thread hangs in it."""
        super().close()
        if self._writer is not None and self.side.ended(0.5):
            self._writer.close()

    def _open(self, header: RunHeader) -> None:
        if self._writer is not None:
            return
        name = _plain(header.name or header.run_id)
        if header.rank and not name.endswith(f".rank{header.rank}"):
            name += f".rank{header.rank}"
        self._folder = _free(self._folder / name)
        self._started = _seconds(header.time)
        self._writer = _writer(self._folder)

    def _deliver(self, event: Any) -> bool:
        self._writer.add_event(event)
        self._writer.flush()  # a full disk is met here, with what it concerns
        return True

    def _event(self, row: Row) -> Any:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [summary_pb2.Summary.Value(tag=PREFIX + k, simple_value=v) for k, v in row.values.items()]
        summary = summary_pb2.Summary(value=values)
        return event_pb2.Event(wall_time=self._started + row.time_s, step=row.step, summary=summary)

    def _text(self, alert: Alert) -> Any:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

        word = "resolved" if alert.state == "resolved" else alert.severity
        told = [f"**{markdown(word.upper(), 20)}** {markdown(alert.check)}: {markdown(alert.title)}"]
        told += [f"What to do: {markdown(alert.fix, 1000)}"] if alert.fix else []
        kind = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        value = summary_pb2.Summary.Value(
            tag=PREFIX + "alerts/text_summary",
            metadata=summary_pb2.SummaryMetadata(plugin_data=kind),
            tensor=tensor_pb2.TensorProto(
                dtype=types_pb2.DT_STRING,
                string_val=["\n\n".join(told).encode()],
                tensor_shape=tensor_shape_pb2.TensorShapeProto(
                    dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]
                ),
            ),
        )
        return event_pb2.Event(
            wall_time=time.time(), step=alert.step, summary=summary_pb2.Summary(value=[value])
        )


def log_report(report: str | os.PathLike[str], folder: str | os.PathLike[str], step: int = 0) -> int:
    """Add the pictures of a written report to TensorBoard.

    Args:
        report: folder of ``torchwatch postmortem``, with its PNG files.
        folder: where the event file goes, such as :attr:`TensorBoardSink.folder`.
        step: where on the x axis.

    Returns:
        How many pictures there were.

    Raises:
        UsageError: the folder holds no picture.
        MissingExtra: the package is not installed.
    """
    package("tensorboard.summary.writer.event_file_writer", "tensorboard")
    from tensorboard.compat.proto import event_pb2, summary_pb2

    writer = _writer(Path(folder))
    values = []
    for path in pictures(report):
        data = path.read_bytes()
        if data[:8] == _PNG:
            width, height = struct.unpack(">II", data[16:24])
            image = summary_pb2.Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=data
            )
            values.append(summary_pb2.Summary.Value(tag=f"{PREFIX}report/{path.stem}", image=image))
    summary = summary_pb2.Summary(value=values)
    writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()
    return len(values)


def pictures(report: str | os.PathLike[str]) -> list[Path]:
    """The PNG files of a report's folder, by name.

    Raises:
        UsageError: there is none.
    """
    found = sorted(Path(report).glob("*.png"))
    if not found:
        raise UsageError(f"{os.fspath(report)} holds no picture: give the folder of a written report")
    return found


def _writer(folder: Path) -> Any:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    return EventFileWriter(os.fspath(folder), flush_secs=5)


def _plain(name: str) -> str:
    """A name as one folder's: nothing in it leads elsewhere."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")[:100] or "run"


def _free(folder: Path) -> Path:
    number = 2
    free = folder
    while free.exists():
        free, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return free


def _seconds(time_: str) -> float:
    try:
        return dt.datetime.fromisoformat(time_).timestamp()
    except ValueError:
        return time.time()
