"""``log.txt`` of MAE, DeiT and their kin: a JSON line per epoch with ``train_`` and ``test_`` metrics."""

from __future__ import annotations

from collections.abc import Mapping

from torchwatch.importers.log import Log
from torchwatch.importers.source import Source
from torchwatch.importers.table import log_of

NAME = "MAE/DeiT log"


def recognises(source: Source) -> bool:
    """Whether the first line is an object with ``epoch``, ``train_loss`` and ``train_lr``."""
    return {"epoch", "train_loss", "train_lr"} <= set(source.first_object or ())


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log; ``n_parameters`` is the model's size."""
    rows = source.json_rows()
    sizes = [r.pop("n_parameters", 0.0) for r in rows]
    log = log_of(source, NAME, rows, columns)
    log.parameters = int(max((s for s in sizes if isinstance(s, float) and 0 <= s < 1e15), default=0))
    return log
