"""Once more through the engine: are the recorded alerts those that the records give?"""

from __future__ import annotations

import itertools

from torchwatch.engine import Engine
from torchwatch.records import Alert, End, Epoch, Note, Record, Unknown, encode


class Replay:
    """Feeds records to the engine and compares its alerts with the recorded ones, line by line.

    Attributes:
        engine: what the records are fed to.
        end: the end record, once it came.
        epochs: epoch records so far.
        recorded: alerts in the file so far.
        replayed: alerts of the engine so far.
        difference: the first one between them, in words.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.end: End | None = None
        self.epochs = 0
        self.recorded = 0
        self.replayed = 0
        self.difference: str | None = None
        self._given: list[Alert] = []
        self._written: list[Alert] = []

    def take(self, record: Record) -> None:
        """Take in the next record of the file."""
        if isinstance(record, Alert):
            self._written.append(record)
        elif not isinstance(record, (Note, Unknown)):
            self._feed(record)

    def finish(self) -> None:
        """The end of the records; a run that was cut off still gets its checks' last look."""
        self._given += self.engine.finish()
        self._compare()

    def _feed(self, record: Record) -> None:
        if isinstance(record, End):
            # Live, the alerts of the last look are written before the end record, which counts them.
            self.end = record
            self._given += self.engine.finish()
        self._compare()
        self.epochs += isinstance(record, Epoch)
        self._given = self.engine.feed(record)

    def _compare(self) -> None:
        """Compare the alerts that the last record gave with those written after it."""
        given, written = self._given, self._written
        self.replayed += len(given)
        self.recorded += len(written)
        if self.difference is None and (given or written):
            for recorded, replayed in itertools.zip_longest(written, given):
                if recorded is None or replayed is None or encode(recorded) != encode(replayed):
                    step = self.engine.history.step
                    self.difference = f"step {step}: {_words(recorded)} recorded, {_words(replayed)} replayed"
                    break
        self._given, self._written = [], []


def _words(alert: Alert | None) -> str:
    if alert is None:
        return "nothing"
    where = "" if alert.layer is None else f" in {alert.layer!r}"
    return f"{alert.check} {alert.state} as {alert.severity}{where} ({alert.title})"
