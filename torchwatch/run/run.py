"""A run as columns; see :class:`Run`."""

from __future__ import annotations

import difflib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.records import Alert, End, Epoch, Eval, Interval, Layout, Log, Note, RunHeader, System
from torchwatch.run.contents import SCALARS, ColumnSeries, Contents, Series, series_of
from torchwatch.run.shards import RankSeries, common_rows
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    import numpy.typing as npt


class Run:
    """One run file as columns, read when something beyond its header is first asked for.

    ``run["loss"]`` is a :class:`Series`, ``run.column("grad_norms")`` a :class:`ColumnSeries`. Scalars of all
    steps are kept in full (8 to 16 bytes a value), columns up to 16 MiB each, other records up to 20,000 of a
    kind; beyond that every second one is dropped, again and again, and :attr:`thinned` says so.

    Attributes:
        path: the file.
        header: its first line.

    Raises:
        NotARunFile: the path is missing, a directory, empty, or not a run file.
        NewerSchema: the file was written with a newer schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with read_records(self.path) as reader:
            self.header: RunHeader = reader.header

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __contains__(self, name: str) -> bool:
        return name in self._contents.scalars or name in self._metrics

    def __getitem__(self, name: str) -> Series:
        return self.scalar(name)

    @cached_property
    def _contents(self) -> Contents:
        return Contents.of(self.path)

    @cached_property
    def _metrics(self) -> dict[str, Series]:
        found: dict[str, Series] = {}
        sources: tuple[list[Epoch] | list[Eval], ...] = (self.epochs, self.evals)
        for records in sources:  # where both have it, the evaluation: it can be more frequent
            for name in {n: None for r in records for n in r.metrics}:
                found[name] = series_of((r.step, r.metrics.get(name)) for r in records)
        return found

    def scalar(self, name: str) -> Series:
        """A scalar over the steps; empty when it was not measured.

        Args:
            name: a field of the step records ("loss"; "lr", "momentum" and "weight_decay" are the largest of
                their groups; booleans are 0 and 1), "metrics.<name>" for a metric logged with the steps, or a
                metric of the evaluations or epochs ("val_loss").

        Raises:
            KeyError: there is no such name, with the nearest that there is.
        """
        scalar = self._contents.scalars.get(name)
        if scalar is not None:
            return scalar.series(self.steps)
        if name in self._metrics:
            return self._metrics[name]
        if name in SCALARS:
            return series_of(())
        near = difflib.get_close_matches(name, [*SCALARS, *self.names], n=1)
        raise KeyError(f"{name!r} is not in this run" + (f"; did you mean {near[0]!r}?" if near else ""))

    @property
    def names(self) -> tuple[str, ...]:
        """Every scalar that was measured, sorted."""
        return tuple(sorted({*self._contents.scalars, *self._metrics}))

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """The number of every recorded step, in the order of the file."""
        return np.frombuffer(self._contents.steps, np.int64)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every column that was measured, sorted."""
        return tuple(sorted(self._contents.columns))

    def column(self, name: str) -> ColumnSeries | None:
        """A column ("grad_norms", "activations.rms") under the last layout that has it, None if unseen."""
        series = self.column_segments(name)
        return series[-1] if series else None

    def column_segments(self, name: str) -> list[ColumnSeries]:
        """A column under each layout that has it, oldest first."""
        store = self._contents.columns.get(name)
        return store.series() if store is not None else []

    def interval_series(self, name: str) -> Series:
        """A field of the interval records ("loss_mean", "rss_bytes" …), at each interval's last step.

        Raises:
            KeyError: intervals have no such number.
        """
        if name not in Interval.__dataclass_fields__ or name in ("closed_by", "thinned"):
            raise KeyError(f"intervals have no number called {name!r}")
        return series_of((r.last_step, getattr(r, name)) for r in self.intervals)

    @property
    def layout(self) -> Layout | None:
        """The last layout."""
        return self._contents.layout

    @property
    def intervals(self) -> list[Interval]:
        """Interval records, oldest first."""
        return self._contents.kept(Interval)

    @property
    def epochs(self) -> list[Epoch]:
        """Epoch records, oldest first."""
        return self._contents.kept(Epoch)

    @property
    def evals(self) -> list[Eval]:
        """Evaluations, oldest first."""
        return self._contents.kept(Eval)

    @property
    def systems(self) -> list[System]:
        """System records, oldest first."""
        return self._contents.kept(System)

    @property
    def logs(self) -> list[Log]:
        """Messages of the host, oldest first."""
        return self._contents.kept(Log)

    @property
    def notes(self) -> list[Note]:
        """What torchwatch said about itself, oldest first."""
        return self._contents.kept(Note)

    @property
    def alerts(self) -> list[Alert]:
        """Every alert, oldest first."""
        return self._contents.alerts

    @property
    def end(self) -> End | None:
        """The end record; None when the run was killed or is still running."""
        return self._contents.end

    @property
    def torn(self) -> int:
        """Lines that could not be read."""
        return self._contents.torn

    @property
    def complete(self) -> bool:
        """Whether the run ended by itself and nothing of it is missing."""
        return self.end is not None and self.end.complete and not self.torn

    @property
    def thinned(self) -> dict[str, int]:
        """What was thinned out while reading: a column or a kind of record, and that every n-th was kept."""
        return self._contents.thinned

    @property
    def ranks(self) -> tuple[Run, ...]:
        """Each rank's own run, by rank; of a single file, the run itself."""
        return (self,)

    @property
    def gaps(self) -> tuple[str, ...]:
        """What a join of several ranks lacks, in sentences; a single file lacks nothing."""
        return ()

    def across_ranks(self, name: str) -> RankSeries:
        """A scalar of every rank, side by side: ``run.across_ranks("step_time_s").values[:, 1]`` is rank 1's.

        Raises:
            KeyError: there is no such name.
        """
        return common_rows([rank.scalar(name) for rank in self.ranks])
