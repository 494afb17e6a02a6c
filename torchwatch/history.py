"""What checks see: the records so far, bounded and in columns, the same live and in replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.records import Epoch, Eval, Interval, Layout, Log, Record, RunHeader, System


class Series(NamedTuple):
    """Measured values of one scalar: ``steps`` (n,) int64 and ``values`` (n,) float64, oldest first.

    Steps at which the scalar was not measured are not in it; a NaN in ``values`` was measured as NaN.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class Columns(NamedTuple):
    """Observations of one column: ``steps`` (n,) int64, ``values`` (n, width) float32 (with MISSING entries)."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


class History:
    """Records so far, as checks see them.

    header, layout, declared (``header.config["declare"]``), step (last), steps_seen, epoch, time_s.
    ``new_from``: the first step that arrived with the record being looked at: a STEP check that only has to look
    at fresh values looks at ``steps >= new_from``.
    """

    header: RunHeader
    layout: Layout | None
    declared: dict[str, Any]
    step: int
    steps_seen: int
    epoch: int | None
    time_s: float
    new_from: int
    intervals: Sequence[Interval]  # bounded: every one up to 4,096, then thinned; [0] is always the first
    epochs: Sequence[Epoch]
    evals: Sequence[Eval]
    systems: Sequence[System]
    logs: Sequence[Log]

    def add(self, record: Record) -> None:
        """Take in one record."""

    def seen(self, name: str) -> bool:
        """Whether the field was ever measured (names as in ``Check.reads``)."""

    def series(self, name: str, last: int | None = None) -> Series:
        """A step scalar at full resolution, up to the last 2,048 steps ("lr" is the largest over the groups;
        "metrics.<name>" a logged metric; booleans are 0.0 and 1.0)."""

    def first(self, name: str, count: int = 100) -> Series:
        """The first ``count`` ≤ 100 measured values after step 0: an anchor that is never dropped."""

    def older(self, name: str) -> Series: ...  # buckets' means before the full-resolution window

    def columns(self, name: str, last: int | None = None) -> Columns:
        """The last observations (up to 64) of a column under the present layout: "grad_norms",
        "update_ratios", "weight_norms", "activations.<statistic>"."""

    def interval_columns(self, name: str, last: int | None = None) -> Columns:
        """Per interval (up to the last 32) the median of each entry over its observations; steps = last_step."""

    def interval_series(self, name: str) -> Series:
        """A field of the interval records ("loss_mean", "rss_bytes", "samples_per_s" …); steps = last_step."""

    def eval_series(self, name: str) -> Series:
        """A metric of the evaluations ("val_loss")."""

    def val_loss_name(self) -> str | None:
        """The validation loss's name: "val_loss", else the first seen of valid_loss, eval_loss, test_loss,
        else the first metric of an evaluation whose name contains "loss"."""

    def best(self, name: str = "loss") -> tuple[int, float] | None:
        """Step and value of the running minimum of a scalar."""

    def warm_up_end(self) -> int:
        """Last step of warm-up: while the logged lr still rises from the start, else step 20."""

    def lr_rises(self) -> list[int]:
        """Steps after warm-up at which the lr rose by more than 10 % (a restart), at most the last 64."""
