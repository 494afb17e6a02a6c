"""Replaying a run file through the engine gives the alerts that were recorded live, at the same places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.engine import Engine
from torchwatch.records import Alert, End, Note, Record, RunHeader, Step, Steps, encode, expand
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from pathlib import Path


def recorded_and_replayed(records: list[Record]) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Both lists of alerts as (number of records before it that are no alert, encoded line)."""
    header = records[0]
    assert isinstance(header, RunHeader)
    engine = Engine.for_header(header)
    recorded: list[tuple[int, bytes]] = []
    replayed: list[tuple[int, bytes]] = []
    place = 0
    for record in records:
        if isinstance(record, Alert):
            recorded.append((place, encode(record)))
            continue
        found = engine.finish() if isinstance(record, End) else engine.feed(record)
        place += not isinstance(record, End)
        replayed += [(place, encode(alert)) for alert in found]
    return recorded, replayed


def steps_in(records: list[Record]) -> list[Step]:
    """The single steps among the records."""
    found: list[Step] = []
    for record in records:
        found += expand(record) if isinstance(record, Steps) else [record] if isinstance(record, Step) else []
    return found


def troubles(records: list[Record]) -> list[str]:
    """What the run file says of failures of its own writer: contained, but never expected."""
    words = ("switched off", "failed", "could not be")
    return [r.message for r in records if isinstance(r, Note) and any(word in r.message for word in words)]


def assert_live_equals_replay(path: Path, *, killed: bool = False, troubled: bool = False) -> list[Record]:
    """Assert it, and that nothing of ours failed on the way; give the records back.

    Args:
        path: a run file.
        killed: the writer was killed: alerts of the last line may be missing, and there is no end record.
        troubled: something of ours was made to fail.
    """
    records = list(read_records(path))
    assert troubled or troubles(records) == []
    assert killed or isinstance(records[-1], End), "the run has no end record"
    recorded, replayed = recorded_and_replayed(records)
    if killed:
        last = sum(not isinstance(record, Alert) for record in records)
        missing = replayed[len(recorded) :]
        assert all(place == last for place, _ in missing), "alerts are missing before the last line"
        replayed = replayed[: len(recorded)]
    assert recorded == replayed
    return records
