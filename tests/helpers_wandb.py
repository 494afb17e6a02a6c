"""Reads what Weights & Biases wrote offline: the transaction log ``run-*.wandb`` of each run.

The file is a LevelDB log: after a header of seven bytes, blocks of 32 KiB with records that are whole (1) or
in pieces (2 first, 3 middle, 4 last), each a protobuf ``Record``. The package reads it in compiled code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32 * 1024
_WHOLE, _LAST = 1, 4


def offline_runs(folder: Path) -> list[Path]:
    """The transaction logs below a folder, oldest first. Ends the service: only then are they complete."""
    import wandb

    wandb.teardown()
    return sorted(folder.rglob("run-*.wandb"), key=lambda p: p.stat().st_mtime_ns)


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's history: ``_step`` and what was logged in it."""
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            rows.append({"_step": record.history.step.num, **items})
    return rows


def records(path: Path) -> Iterator[Any]:
    """All records of a transaction log."""
    from wandb.proto import wandb_internal_pb2

    for data in _chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _chunks(raw: bytes) -> Iterator[bytes]:
    assert raw[:4] == b":W&B"
    at, pieces = 7, b""
    while at + 7 <= len(raw):
        room = _BLOCK - at % _BLOCK
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        pieces += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_WHOLE, _LAST):
            yield pieces
            pieces = b""
