"""Forward passes of a model under many ablations.

What is fed to the model lies in one slab of rows, as many copies of the samples as fit the best batch. An
ablation writes its element into the rows of a copy, and afterwards puts back what was there, so that next to
nothing is copied. Each pass has the shape of the one that gave the baseline: a difference of errors is never
one of rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from torchwatch.examinations._ablation_fills import Fills, Job
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks, out_of_memory


class Feed(Protocol):
    """What is fed to the model, and how an ablation changes it."""

    home: Tensor

    def fill(self, rows: Tensor, job: Job) -> None:
        """Write an ablation into the rows of one copy (N, …)."""

    def restore(self, rows: Tensor, job: Job) -> None:
        """Put back what :meth:`fill` changed."""

    def forward(self, rows: Tensor, others: dict[str, Tensor]) -> Tensor:
        """Canonical outputs of a batch."""


class InputFeed:
    """Feeds the main input itself; always possible.

    Args:
        case: the case.
        fills: of its main input.
    """

    def __init__(self, case: Case, fills: Fills) -> None:
        self._case, self._fills, self.home = case, fills, fills.home

    def fill(self, rows: Tensor, job: Job) -> None:
        """Write an ablation into the rows of one copy."""
        for piece in job.element.pieces:
            rows[(slice(None), *piece)].copy_(self._fills.values(piece, job))

    def restore(self, rows: Tensor, job: Job) -> None:
        """Put back the samples' own values."""
        for piece in job.element.pieces:
            place = (slice(None), *piece)
            rows[place].copy_(self.home[place])

    def forward(self, rows: Tensor, others: dict[str, Tensor]) -> Tensor:
        """Canonical outputs of a batch."""
        names = self._case.samples.inputs
        return self._case.forward({k: rows if k == self._case.main else others[k] for k in names})


class Passes:
    """Runs ablations, several in a forward pass where the best batch holds several times all samples.

    Args:
        case: the case; it must have targets.
        feed: what is fed.
        batch: samples per forward pass; halved when memory runs out.

    Attributes:
        batch: as it is now.
        baseline: error of each sample without an ablation (copies, N).
    """

    def __init__(self, case: Case, feed: Feed, batch: int) -> None:
        self._case, self._feed, self.batch = case, feed, max(1, batch)
        self._count = feed.home.shape[0]
        self._others = {k: v.to(feed.home.device) for k, v in case.samples.inputs.items() if k != case.main}
        self._targets = case.wanted_targets.to(case.device)
        self._lay_out()

    @property
    def copies(self) -> int:
        """How many ablations run at once."""
        return max(1, self.batch // self._count)

    @property
    def _rows(self) -> int:
        """Rows of one forward pass."""
        return self.copies * self._count if self.copies > 1 else min(self.batch, self._count)

    @torch.no_grad()
    def changes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Tensor]]:
        """Run ablations.

        Yields:
            Place of the first of some jobs, and for each of them the change of each sample's error (n, N),
            on the device.
        """
        start = 0
        while start < len(jobs):
            group = jobs[start : start + self.copies]
            changed = self._changed(group)
            if changed is not None:
                yield start, changed
                start += len(group)

    def _changed(self, group: Sequence[Job]) -> Tensor | None:
        """None where memory ran out, and everything was laid out anew for smaller passes."""
        rows = self._slab.view(self.copies, self._count, *self._slab.shape[1:])
        for copy, job in zip(rows, group, strict=False):
            self._feed.fill(copy, job)
        errors = self._errors()
        if errors is None:
            self._lay_out()
            return None
        for copy, job in zip(rows, group, strict=False):
            self._feed.restore(copy, job)
        return (errors - self.baseline)[: len(group)]

    @torch.no_grad()
    def _lay_out(self) -> None:
        while True:
            try:
                self._slab = _repeated(self._feed.home, self.copies)
                self._along = {k: _repeated(v, self.copies) for k, v in self._others.items()}
                self._wanted = _repeated(self._targets, self.copies)
            except Exception as error:
                if not out_of_memory(error) or self.copies == 1:
                    raise
                self.batch //= 2
                continue
            self._altered = False
            errors = self._errors()
            if errors is not None:
                break
        self.baseline = errors
        first = self._slab[: self._count]
        self._altered = not torch.equal(first, self._feed.home)
        if self._altered:
            self._slab.copy_(_repeated(self._feed.home, self.copies))

    def _errors(self) -> Tensor | None:
        """Errors of all rows (copies, N); None where memory ran out on the way: the batch is smaller now."""

        def work(start: int, end: int) -> Tensor:
            rows = self._slab[start:end]
            if self._altered:  # the model writes into what it is given
                rows = rows.clone()
            outputs = self._feed.forward(rows, {k: v[start:end] for k, v in self._along.items()})
            return self._case.errors(outputs, self._wanted[start:end])

        parts, sizes = [], []
        for start, end, errors in in_chunks(work, self._slab.shape[0], self._rows):
            parts.append(errors)
            sizes.append(end - start)
        smallest = min(sizes[:-1], default=self._rows)  # the last one may be a rest
        if smallest < self._rows:
            self.batch = smallest
            return None
        return torch.cat(parts).view(-1, self._count)


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return tensor.repeat(copies, *[1] * (tensor.ndim - 1))
