"""What the loggers of a Lightning Trainer are given: numbers, alerts and pictures, through their own API."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torchwatch.records import Alert, Record
from torchwatch.sinks.scalars import Row, Scalars
from torchwatch.sinks.tensorboard import pictures
from torchwatch.text import markdown, printable

PREFIX = "torchwatch/"
COLUMNS = ("check", "severity", "state", "layer", "since_step", "title", "fix")
"""Columns of the table of issues: fields of an alert."""

_ROOM = 1000


class ForLoggers:
    """A sink that keeps rows and alerts until the training thread hands them on: loggers are not thread-safe.

    Args:
        every_s: at most one row per so many seconds of the run for the scalars of steps.
    """

    def __init__(self, every_s: float = 1.0) -> None:
        self._scalars = Scalars(every_s)
        self._rows: deque[Row] = deque(maxlen=_ROOM)
        self._alerts: deque[Alert] = deque(maxlen=_ROOM)

    def write(self, record: Record) -> None:
        """Keep what is due because of this record."""
        if isinstance(record, Alert):
            self._alerts.append(record)
        self._rows.extend(self._scalars.feed(record))

    def close(self) -> None:
        """Keep what was still being gathered."""
        self._rows.extend(self._scalars.finish())

    def hand_on(self, loggers: Iterable[Any]) -> None:
        """Give all that was kept to the loggers; called in the training thread, quick if there is nothing."""
        while self._rows:
            row = self._rows.popleft()
            for logger in loggers:
                logger.log_metrics({PREFIX + name: value for name, value in row.values.items()}, row.step)
        while self._alerts:
            alert = self._alerts.popleft()
            for logger in loggers:
                _add_text(logger, alert)

    def conclude(self, loggers: Iterable[Any]) -> None:
        """The table of issues, for loggers that take tables."""
        rows = [_row(alert) for alert in self._scalars.issues.latest.values()]
        for logger in loggers:
            if rows and hasattr(logger, "log_table"):
                logger.log_table(key=f"{PREFIX}issues", columns=list(COLUMNS), data=rows)


def show_pictures(folder: Path, loggers: Iterable[Any], step: int) -> int:
    """Give the plots of a written report to the loggers that take pictures, under ``torchwatch/report/``.

    Returns:
        How many loggers took them.

    Raises:
        UsageError: the folder holds no picture.
    """
    from matplotlib.image import imread

    found, took = pictures(folder), 0
    for logger in loggers:
        add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
        for path in found:
            tag = f"{PREFIX}report/{path.stem}"
            if hasattr(logger, "log_image"):
                logger.log_image(key=tag, images=[str(path)])
            elif add_image is not None:
                pixels = (imread(path) * 255).round().astype("uint8")
                add_image(tag, pixels, step, dataformats="HWC")
        took += hasattr(logger, "log_image") or add_image is not None
    return took


def _add_text(logger: Any, alert: Alert) -> None:
    """As text, where the logger's experiment takes text."""
    add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
    if add_text is None:
        return
    word = "resolved" if alert.state == "resolved" else alert.severity
    told = [f"**{markdown(word.upper(), 20)}** {markdown(alert.check)}: {markdown(alert.title)}"]
    told += [f"What to do: {markdown(alert.fix, 1000)}"] if alert.fix else []
    add_text(f"{PREFIX}alerts", "\n\n".join(told), alert.step)


def _row(alert: Alert) -> list[Any]:
    row = [getattr(alert, column) for column in COLUMNS]
    return [value if isinstance(value, int) else printable(str(value or ""), 1000) for value in row]
