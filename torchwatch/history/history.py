"""What checks see: the records so far, bounded and in columns, the same live and in replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from torchwatch.history.columns import Columns
from torchwatch.history.intake import Intake
from torchwatch.history.maps import Stretch
from torchwatch.history.scalars import Series
from torchwatch.records import missing_column

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from torchwatch.history.heads import Heads
    from torchwatch.records import Column, Epoch, Eval, Interval, Log, Profile, System

T = TypeVar("T")

_VAL_LOSSES = ("val_loss", "valid_loss", "eval_loss", "test_loss")


class History(Intake):
    """Records so far, as checks see them; memory does not grow with the length of the run.

    Attributes:
        header: the run's header (an empty one before it came).
        layout: the latest layout, None before the first.
        declared: what the user declared (``header.config["declare"]``).
        step: number of the last step, 0 before the first.
        steps_seen: step records so far.
        epoch: epoch of the last step that said one, from 0.
        time_s: latest time in the records, seconds from the start of the run.
        new_from: the first step that arrived with the record being looked at: a STEP check that only has to
            look at fresh values looks at ``steps >= new_from``. After any other record it is ``step + 1``.
        intervals: every one up to 4,096, then the older half is thinned; [0] is always the first.
        epochs: bounded as the intervals are.
        evals: bounded as the intervals are.
        systems: the last 1,024.
        profiles: the last 16.
        logs: the last 256.
    """

    @property
    def steps_seen(self) -> int:
        """Step records so far."""
        return self._scalars.seen

    @property
    def intervals(self) -> Sequence[Interval]:
        """Interval records, oldest first."""
        return self._intervals.items

    @property
    def epochs(self) -> Sequence[Epoch]:
        """Epoch records, oldest first."""
        return self._epochs.items

    @property
    def evals(self) -> Sequence[Eval]:
        """Evaluations, oldest first."""
        return self._evals.items

    @property
    def systems(self) -> Sequence[System]:
        """The last system records, oldest first."""
        return self._systems.items

    @property
    def profiles(self) -> Sequence[Profile]:
        """The last profiler windows, oldest first."""
        return self._profiles.items

    @property
    def logs(self) -> Sequence[Log]:
        """The last log records, oldest first."""
        return self._logs.items

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of ``compute()``, computed once per pass whoever asks first (until the next record)."""
        if key not in self._pass:
            self._pass[key] = compute()
        return cast("T", self._pass[key])

    def of_layout(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of ``compute()``, computed once per layout: for what follows from the layout alone."""
        if key not in self._of_layout:
            self._of_layout[key] = compute()
        return cast("T", self._of_layout[key])

    def seen(self, name: str) -> bool:
        """Whether the field was ever measured (names as in ``Check.reads``)."""
        if name == "val_loss":
            return self.val_loss_name() is not None
        return name in self._seen

    def series(self, name: str, last: int | None = None) -> Series:
        """A step scalar at full resolution: what was measured within the last 2,048 steps, oldest first.

        Args:
            name: a scalar of :class:`~torchwatch.records.Step`; "lr" is the largest over the groups,
                "metrics.<name>" a logged metric; booleans are 0.0 and 1.0.
            last: only the last so many measured values.
        """
        return self.cached(("series", name, last), lambda: self._scalars.window(name, last))

    def first(self, name: str, count: int = 100) -> Series:
        """The first ``count`` ≤ 100 measured values after step 0: an anchor that is never dropped."""
        return self._scalars.first(name, count)

    def older(self, name: str) -> Series:
        """Means of the finite values before the full-resolution window, in up to 129 buckets.

        ``steps`` are the buckets' middles. A bucket is 64 steps wide at first and twice as wide whenever
        there would be more than 128 of them.
        """
        return self.cached(("older", name), lambda: self._scalars.older(name))

    def columns(self, name: str, last: int | None = None) -> Columns:
        """The last observations (up to 64) of a column under the present layout.

        Args:
            name: "grad_norms", "update_ratios", "weight_norms" or "activations.<statistic>".
            last: only the last so many.
        """
        column = self._columns.get(name)
        return self._nothing(name) if column is None else column.observations.last(last)

    def first_column(self, name: str) -> Column:
        """Each entry's first finite value under the present layout, MISSING where it has none yet.

        It is never dropped. An entry that is measured first after the column's first 16 observations has the
        median of the interval in which it was.
        """
        column = self._columns.get(name)
        return missing_column(self._nothing(name).values.shape[1]) if column is None else column.first

    def first_bad(self, name: str) -> tuple[int, Column] | None:
        """Step and row where the present stretch of observations with a NaN or infinite entry began.

        None where the last observation has none. It is kept however long the stretch gets, so that what began
        it can still be named when the observations themselves are gone.
        """
        column = self._columns.get(name)
        return None if column is None else column.first_bad

    def stretches(self, name: str, last: int | None = None) -> Sequence[Stretch]:
        """Values of a field that is a map or a word, oldest first, up to 64; consecutive equal ones as one.

        Args:
            name: "fingerprint", "inputs", "targets", "wiring" (forgotten when the layout's names change) or
                "first_nonfinite".
            last: only the last so many.
        """
        return self._maps.stretches(name, last)

    def value_at(self, name: str, step: int) -> Any:
        """The value of such a field at one step, None where it has none or it is too long ago."""
        return self._maps.value_at(name, step)

    def attention(self) -> Mapping[str, Heads]:
        """Entropy per head by the name of the attention, with its first value and the last 32; bounded."""
        return self._attention.layers

    def interval_columns(self, name: str, last: int | None = None) -> Columns:
        """Per interval (up to the last 32) the median of each entry over its observations.

        ``steps`` are the intervals' last steps. The median is over the finite ones of the interval's last 64
        observations: NaN where all were non-finite, MISSING where there were none.
        """
        column = self._columns.get(name)
        return self._nothing(name) if column is None else column.medians.last(last)

    def interval_series(self, name: str) -> Series:
        """A field of the interval records ("loss_mean", "rss_bytes" …); ``steps`` are its last ones."""
        return self._slow_series(
            ("interval", name), lambda: self._interval_fields.series(name, self.intervals)
        )

    def interval_sums(self, name: str) -> Series:
        """What a field of the intervals adds up to, at their last steps, thinned intervals included.

        Args:
            name: "busy_s", "energy_j", "co2_kg"; "metered_s" and "metered_samples" are duration and samples
                of the intervals that know their energy.
        """
        return self._slow_series(("sums", name), lambda: self._sums.series(name))

    def eval_series(self, name: str) -> Series:
        """A metric of the evaluations ("val_loss")."""
        return self._slow_series(("eval", name), lambda: self._eval_fields.series(name, self.evals))

    def val_loss_name(self) -> str | None:
        """The validation loss's name.

        "val_loss", else the first seen of valid_loss, eval_loss, test_loss, else the first metric of an
        evaluation whose name contains "loss".
        """
        for name in _VAL_LOSSES:
            if name in self._eval_best:
                return name
        return next((n for n in self._eval_best if "loss" in n.lower()), None)

    def best(self, name: str = "loss") -> tuple[int, float] | None:
        """Step and value of the running minimum of a step scalar or an eval metric; finite values only."""
        return self._scalars.best(name) if name in self._scalars else self._eval_best.get(name)

    def warm_up_end(self) -> int:
        """Last step of warm-up: while the logged lr still rises from the start, and never before step 20."""
        return self._rate.warm_up_end

    def lr_rises(self) -> list[int]:
        """Steps after warm-up at which the lr rose by more than 10 % (a restart), at most the last 64."""
        return list(self._rate.rises)

    def _nothing(self, name: str) -> Columns:
        """No observations, as wide as they would be, so that a check can index entries without asking."""
        width = 0 if self.layout is None else self._width(self.layout, name)
        return Columns(np.zeros(0, np.int64), np.zeros((0, width), np.float32))

    def _slow_series(self, key: Hashable, collect: Callable[[], Series]) -> Series:
        """A series over interval or eval records: the same arrays until the next of them."""
        if key not in self._slow:
            self._slow[key] = collect()
        return cast("Series", self._slow[key])
