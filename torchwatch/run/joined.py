"""The files of all ranks of a run as one run."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.run.contents import ColumnSeries, Contents, Series
from torchwatch.run.run import Run
from torchwatch.run.shards import (
    JOINED_COLUMNS,
    SHARDS_ONLY,
    common_rows,
    joined_column,
    norm_of,
    shard_counts,
    stepped,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.records import Layout

ADDED = ("samples", "tokens")
"""Scalars of a step that add up over the ranks."""

ADDED_INTERVALS = ("samples", "samples_per_s", "tokens_per_s")
"""Fields of an interval that add up over the ranks."""


class JoinedRun(Run):
    """Rank 0's file, with what the other ranks' files add to it. What is not named here is rank 0's.

    * ``samples`` and ``tokens`` of steps, and ``samples``, ``samples_per_s`` and ``tokens_per_s`` of
      intervals, add up over the ranks (each trains on data of its own).
    * Parameters that are spread over ranks (FSDP): ``grad_norms`` and ``weight_norms`` are the roots of the
      sums of squares, ``grad_absmax`` is the largest, ``grad_nonfinite`` and ``weight_nonfinite`` add up;
      ``grad_norm`` is the norm over all of it. Parameters that every rank holds whole (DDP) have the same
      reduced gradient everywhere: rank 0's is taken.
    * ``update_ratios``, activations, losses, times and alerts stay rank 0's; :meth:`Run.across_ranks` and
      :attr:`Run.ranks` have everybody's.

    What adds up is there for the steps that every rank has measured, never a part of it; :attr:`gaps` says
    which ranks have no file, where files end early and which lines could not be read. A rank without a file
    adds nothing, so that sums are over those that have one.

    Args:
        first: rank 0's run.
        others: the runs of other ranks, by rank.
        gaps: what is known to be missing already.
    """

    def __init__(self, first: Run, others: Sequence[Run], gaps: Sequence[str]) -> None:
        self.path, self.header = first.path, first.header
        self._alone = (first, *others)
        self._known_gaps = gaps

    @property
    def ranks(self) -> tuple[Run, ...]:
        """Each rank's own run, by rank; the first is rank 0's."""
        return self._alone

    @cached_property
    def _contents(self) -> Contents:
        return self._alone[0]._contents

    @cached_property
    def gaps(self) -> tuple[str, ...]:
        """What the join lacks, in sentences; empty when all ranks are there and as long as rank 0."""
        found = list(self._known_gaps)
        last = _last(self._alone[0])
        for rank in self._alone:
            who = f"rank {rank.header.rank}"
            if rank.torn:
                found.append(f"{who}: {rank.torn} line{'s' if rank.torn > 1 else ''} could not be read")
            if _last(rank) < last:
                found.append(f"{who} ends at step {_last(rank)}, rank 0 at step {last}: sums end there")
            elif _last(rank) > last:
                found.append(f"{who} goes on to step {_last(rank)}, rank 0 ends at step {last}")
        return tuple(found)

    def scalar(self, name: str) -> Series:
        """As :meth:`Run.scalar`, joined."""
        if name in ADDED:
            steps, values = self.across_ranks(name)
            return Series(steps, values.sum(axis=1))
        if name == "grad_norm":
            return self._grad_norm()
        return super().scalar(name)

    def column_segments(self, name: str) -> list[ColumnSeries]:
        """As :meth:`Run.column_segments`, joined."""
        own = super().column_segments(name)
        if name not in JOINED_COLUMNS:
            return own
        others = [rank.column_segments(name) for rank in self._alone[1:]]
        return [self._joined(name, segment, others) for segment in own]

    def _joined(self, name: str, own: ColumnSeries, others: list[list[ColumnSeries]]) -> ColumnSeries:
        counts = shard_counts(self.header, own.layout)
        if (counts > 1).any():
            own = joined_column(name, own, others, counts, self.header.world)
        return own._replace(layout=self._as_joined(own.layout))

    def interval_series(self, name: str) -> Series:
        """As :meth:`Run.interval_series`, joined."""
        if name not in ADDED_INTERVALS:
            return super().interval_series(name)
        steps, values = common_rows([rank.interval_series(name) for rank in self._alone])
        return Series(steps, values.sum(axis=1))

    @property
    def layout(self) -> Layout | None:
        """Rank 0's last layout; its coverage speaks of the joined norms."""
        layout = super().layout
        return None if layout is None else self._as_joined(layout)

    @property
    def torn(self) -> int:
        """Lines that could not be read, in all files."""
        return sum(rank.torn for rank in self._alone)

    @property
    def complete(self) -> bool:
        """Whether the run ended by itself on every rank that has a file, and nothing of those is missing."""
        return all(rank.complete for rank in self._alone)

    @property
    def thinned(self) -> dict[str, int]:
        """What was thinned out while reading, in any of the files: every n-th was kept."""
        found: dict[str, int] = {}
        for rank in self._alone:
            found |= {name: max(every, found.get(name, 1)) for name, every in rank.thinned.items()}
        return found

    def _grad_norm(self) -> Series:
        """The norm over all ranks.

        From the ranks' own norms where all parameters are spread alike, else from the columns, where those
        are.
        """
        own = super().scalar("grad_norm")
        latest = self.ranks[0].layout
        layouts = [s.layout for s in super().column_segments("grad_norms")] + ([latest] if latest else [])
        kinds = {int(n) for x in layouts for n in shard_counts(self.header, x)[stepped(x)]}
        if kinds <= {1}:
            return own
        if len(kinds) == 1:
            steps, values = self.across_ranks("grad_norm")
            return Series(steps, np.sqrt((values**2).sum(axis=1) * (kinds.pop() / self.header.world)))
        joined = [(s.steps, norm_of(s)) for s in self.column_segments("grad_norms")]
        steps = np.concatenate([np.empty(0, np.int64), *(steps for steps, _ in joined)])
        values = np.concatenate([np.empty(0), *(values for _, values in joined)])
        measured = np.isin(steps, own.steps)
        return Series(steps[measured], values[measured])

    def _as_joined(self, layout: Layout) -> Layout:
        """The layout with a coverage that counts the shards which were read."""
        if SHARDS_ONLY not in layout.coverage.get("gradients", ""):
            return layout
        read, world = len(self._alone), self.header.world
        said = "ok" if read == world else f"shards of {read} of {world} ranks only"
        return dataclasses.replace(layout, coverage={**layout.coverage, "gradients": said})


def _last(run: Run) -> int:
    """The number of the last step, 0 where there is none."""
    return int(run.steps[-1]) if len(run.steps) else 0
