"""The record of the step in progress: when it opens and closes, and what belongs to it.

A few lines longer than a file should be: which step a value belongs to is decided here alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torchwatch.attachment.lane import Lane
from torchwatch.attachment.newest import frame_of
from torchwatch.attachment.quiet import Quiet
from torchwatch.guard import Guard
from torchwatch.probe import Block, Frame, Probe
from torchwatch.probes import _torch
from torchwatch.probes.loss import Logged, LossProbe
from torchwatch.schedule import Plan
from torchwatch.transfer import Transfers

_SLACK = 2
"""Autograd nodes that may be made after a step (scaling a loss to log it) without counting as a new step."""


class Pending:
    """What was seen since the last optimizer step and belongs to the next one."""

    def __init__(self) -> None:
        self.logged: list[Logged] = []
        self.wait_s: float | None = None
        self.samples: int | None = None
        self.batches: list[int] = []

    def samples_of(self, *, closure: bool) -> int:
        """Samples of the passes; a closure runs the same batch several times."""
        if self.samples is not None:
            return self.samples
        return max(self.batches, default=0) if closure else sum(self.batches)


class StepBuilder:
    """Builds the frames of the steps, one after the other.

    A step is a maximal run of ``optimizer.step()`` calls that touch each watched parameter at most once. Its
    frame is closed late, at the next overlap: by then device values have been computed.

    Args:
        planned: what is measured in step n.
        loss: takes logged values.
        probes: asked to merge before a step, and once more when its record closes.
        guard: keeps our failures away from the host.
        emit: called with every frame and block that is complete; must not block.
        clock: seconds, monotonic.
        flush_s: how often the recorder looks; see ``Lane``.
    """

    def __init__(
        self,
        planned: Callable[[int], Plan],
        loss: LossProbe,
        probes: tuple[Probe, ...],
        guard: Guard,
        emit: Callable[[Frame | Block], None],
        clock: Callable[[], float],
        flush_s: float = 0.1,
    ) -> None:
        self._planned, self._loss = planned, loss
        self._merged = tuple(p for p in probes if type(p).merge is not Probe.merge)
        self._closing = tuple(p for p in probes if type(p).closing is not Probe.closing)
        self._guard, self._emit, self._clock = guard, emit, clock
        self.frame: Frame | None = None
        self.pending = Pending()
        self.count = 0
        self.epoch = 0
        self.in_epoch = 0
        self.logs_loss = False
        self._logged_now = False
        self._previous: frozenset[int] = frozenset()
        self._start = clock()
        self.lane = Lane(flush_s)
        self.transfers = Transfers()
        self._entered = 0
        self._last_end = 0.0
        self._sequence = _torch.sequence_number()
        self._fetched = False
        self._watch_s = 0.0
        self._samples_told = False
        self.spent_s = 0.0

    def now(self) -> float:
        """Seconds since the start of the run."""
        return self._clock() - self._start

    @property
    def now_in(self) -> int:
        """Number of the step in progress: the one after the last that the optimizer made."""
        if self.lane.busy:
            return self.lane.last + 1
        return self.count + 1 if self.frame is None else self.frame.number + 1

    def restart_clock(self) -> None:
        """What has passed since the last step was not training: the next step's time starts now."""
        self._last_end = self.now()
        if self.lane.busy:
            self.lane.restart(self._last_end)

    def spent(self, seconds: float) -> None:
        """Count time that torchwatch took in the training thread."""
        self._watch_s += seconds
        self.spent_s += seconds

    def overlaps(self, held: list[int]) -> bool:
        """Whether the open record already stepped one of these parameters, or cannot take them in."""
        frame = self.frame
        if self.lane.busy:
            return True
        return frame is not None and (frame.foreign or frame.scalars_only or not frame.held.isdisjoint(held))

    def is_whole(self) -> bool:
        """Whether the open record stepped as much as the one before: the next step may begin."""
        return self.frame is not None and self._previous <= self.frame.held

    def open(self) -> Frame:
        """The open record, a new one if there is none."""
        if self.frame is None:
            number = self.count + 1
            self.frame = Frame(self._planned(number), epoch=self.epoch)
            self._samples_told = False
            self.frame.started_s = self._last_end
            self.frame.ended_s = self.now()
        return self.frame

    def merge(self, frame: Frame, *, closure: bool = False) -> None:
        """Everything seen since the last optimizer step goes into the frame."""
        pending, self.pending = self.pending, Pending()
        with self._guard("loss"):
            self._loss.take(frame, pending.logged)
        self._tell(self._merged, "merge", frame)
        if pending.wait_s is not None:
            frame.wait_s = (frame.wait_s or 0.0) + pending.wait_s
        samples = pending.samples_of(closure=closure)
        if pending.samples is None and self._samples_told:
            samples = 0  # these passes are over a batch whose size is in the frame, as it was told
        self._samples_told = self._samples_told or pending.samples is not None
        if samples:
            frame.fields["samples"] = samples + frame.fields.get("samples", 0)

    def _tell(self, probes: tuple[Probe, ...], moment: str, frame: Frame) -> None:
        with Quiet():
            for probe in probes:
                if not self._guard.is_off(probe.name):
                    with self._guard(probe.name):
                        getattr(probe, moment)(frame)

    def stepped(self, frame: Frame) -> None:
        """An optimizer of this record has stepped: what is computed from now on is newer."""
        frame.ended_s = self.now()
        self._sequence = _torch.sequence_number()
        self._fetched = False

    def enter_lane(self, optimizer: torch.optim.Optimizer, due: int) -> None:
        """The step that begins is a plain one, and so are all before step ``due``."""
        number = self.count + 1
        self._entered = number
        self.lane.enter(optimizer, number, due, self.epoch, self._last_end)
        pending, self.pending = self.pending, Pending()
        for name, _, value in pending.logged:
            self.lane.put_at_last({name: value})
        if pending.wait_s is not None or pending.samples is not None:
            self.lane.fetched(pending.wait_s or 0.0, pending.samples)

    def reopen(self, *, gradients: bool = False, sentinel: bool = False) -> Frame | None:
        """The lane ends, and its newest step is an open record: more of it is to be measured.

        ``gradients`` and ``sentinel`` as in its plan. None where the lane has no step.
        """
        newest = self._close_lane(keep=True)
        if newest is None:
            return None
        self.count, self.in_epoch = newest.first - 1, self.in_epoch - 1
        self.frame, logged = frame_of(newest, gradients=gradients, sentinel=sentinel)
        with self._guard("loss"):
            self._loss.take(self.frame, logged)
        self._logged_now = True
        return self.frame

    def _close_lane(self, *, keep: bool = False) -> Block | None:
        """The lane ends; with ``keep`` its newest step is given back, not handed over."""
        lane = self.lane
        if not lane.busy:
            return None
        self.count, self._last_end = lane.last, lane.end_s
        self.in_epoch += lane.last + 1 - self._entered
        self._sequence = _torch.sequence_number()
        block, ahead = lane.leave()
        wait_s, samples = lane.take_fetched()
        if wait_s is not None:
            self._fetched = True
            self.pending.wait_s = (self.pending.wait_s or 0.0) + wait_s
        if samples is not None:
            self.pending.samples = (self.pending.samples or 0) + samples
        self.pending.logged += [(name, "log", value) for name, value in ahead]
        newest = block.split() if keep and block is not None else None
        if block is not None and block.ends:
            self.hand_over(block)
        elif block is not None:
            self._watch_s += block.watch_s
        return newest

    def hand_over(self, block: Block) -> None:
        """A block of plain steps is complete."""
        with self._guard("transfer"):
            block.seal(self.transfers)
        self._emit(block)

    def close(self) -> None:
        """The open record is complete."""
        self._close_lane()
        frame, self.frame = self.frame, None
        if frame is None:
            return
        self._tell(self._closing, "closing", frame)
        self.count = frame.number
        self.in_epoch += 1
        self._previous = frozenset(frame.held)
        self._last_end = max(self._last_end, frame.ended_s)
        self.logs_loss, self._logged_now = self._logged_now, False
        if frame.foreign:
            frame.fields["foreign_optimizer"] = True
        frame.watch_s, self._watch_s = self._watch_s, 0.0
        with self._guard("transfer"):
            frame.seal(self.transfers)
        self._emit(frame)

    def close_if_told(self) -> int | None:
        """An evaluation follows: close the open record if its loss was logged, and all before it.

        Returns the number of a step that stays open because its loss may still be logged, None otherwise.
        """
        if self.lane.busy and not self.lane.has_loss:
            block = self.lane.hand_over()
            if block is not None:
                self.hand_over(block)
            return self.lane.last
        if self.frame is not None and not self.lane.busy and not _has_logged_loss(self.frame):
            return self.frame.number
        self.close()
        return None

    # ------------------------------------------------------------------ what the host says

    def log(self, entries: dict[str, torch.Tensor | float], newest: torch.Tensor | None) -> None:
        """Logged values go to the step that they belong to: the open one, unless a new one has begun.

        ``newest``: one of the values as the host gave it, still with its autograd graph, if there is one.
        """
        if self.lane.busy:
            self.lane.put(entries, newest)
            return
        self._logged_now = self._logged_now or "loss" in entries
        logged: list[Logged] = [(name, "log", value) for name, value in entries.items()]
        if self.frame is None or self._is_newer(newest):
            self.pending.logged += logged
        else:
            self._loss.take(self.frame, logged)

    def log_now(self, entries: dict[str, torch.Tensor | float]) -> None:
        """Logged values of the step that ``watch.step()`` is about to close."""
        if self.lane.busy:
            self.lane.put_at_last(entries)
            return
        self._logged_now = self._logged_now or "loss" in entries
        self.pending.logged += [(name, "log", value) for name, value in entries.items()]

    def log_last(self, entries: dict[str, torch.Tensor | float]) -> None:
        """Logged values of the step that was made last, whatever has been computed since."""
        if self.lane.busy or self.frame is None:
            self.log_now(entries)
            return
        self._logged_now = self._logged_now or "loss" in entries
        self._loss.take(self.frame, [(name, "log", value) for name, value in entries.items()])

    def _is_newer(self, value: torch.Tensor | None) -> bool:
        """Whether a value was computed after the last optimizer step, as far as autograd shows it."""
        if value is not None:
            return not _torch.older_than(value, self._sequence)
        if self._fetched:
            return True
        return _torch.sequence_number() > self._sequence + _SLACK

    def fetched(self, wait_s: float, samples: int | None) -> None:
        """A batch was fetched: whatever comes now belongs to a new step."""
        if self.lane.busy:
            self.lane.fetched(wait_s, samples)
            if self.lane.open:
                return
        self._fetched = True
        self.pending.wait_s = (self.pending.wait_s or 0.0) + wait_s
        if samples is not None:
            self.pending.samples = (self.pending.samples or 0) + samples

    def end_epoch(self) -> None:
        """The next step belongs to the next epoch."""
        self.epoch += 1
        self.in_epoch = 0
        self.restart_clock()


def _has_logged_loss(frame: Frame) -> bool:
    return any(name == "loss" and source == "log" for name, source, _ in frame.payloads.get("loss", ()))
