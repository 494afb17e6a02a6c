"""The fast lane: steps in a row in which nothing is measured but when they ended and what the host logged."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import torch

from torchwatch.probe import Block
from torchwatch.probes import _torch

_SLACK = 2
_LOOK = 3
_PLAIN_TYPES = (float, int)
_LONGEST = 1024
_MOST_LOGGED = 64 * _LONGEST
_PATIENCE, _LATEST_S = 4.0, 0.5
_SHORTEST_WAIT_S, _WAIT_FACTOR, _WAIT_GROWS = 5e-5, 5.0, 1.25
_JUMP, _FEWEST_LOSSES = 10.0, 8


class Lane:
    """Counts plain steps of the one optimizer that trains the model, at a few microseconds each.

    On sub-millisecond steps even one norm per parameter costs more than the budget, so that nearly all steps
    are plain; everything that a frame needs would cost a multiple of the step. A block of them goes to the
    recorder every 0.4 s. The newest step stays here, since its loss may be logged after it.

    Args:
        flush_s: how often the recorder looks; a pass of the checks over a block costs the same however long
            it is, so that blocks are handed over four times less often, but twice a second at least.

    Attributes:
        watch_s: what torchwatch took since the last block was handed over (seconds).
        longest_s: a call of ours that takes longer has been waiting for the interpreter or a core (seconds).
        strange: a loss was logged that is not finite, or ten times as large as all in the block before; see
            :meth:`take_strange`. Only where the host has the number: nothing is read from a device.
    """

    __slots__ = (
        "_block", "_fetched", "_flush_s", "_hand_over_s", "_highest", "_lost", "_optimizer", "_rates",
        "_samples", "_sequence", "_strange_at", "_wait_s", "due", "end_s", "last", "longest_s", "open",
        "stepping", "strange", "watch_s",
    )  # fmt: skip

    def __init__(self, flush_s: float) -> None:
        self._flush_s = max(flush_s, min(_PATIENCE * flush_s, _LATEST_S))
        self.open = self.stepping = False
        self.last = self.due = 0
        self.end_s = self.watch_s = self._hand_over_s = 0.0
        self.longest_s = _SHORTEST_WAIT_S
        self.strange = self._lost = False
        self._highest = math.inf
        self._strange_at = 0
        self._block: Block | None = None
        self._optimizer: weakref.ref[torch.optim.Optimizer] | None = None
        self._rates: list[Any] = []
        self._sequence = 0
        self._fetched = False
        self._wait_s: float | None = None
        self._samples: int | None = None

    def enter(
        self, optimizer: torch.optim.Optimizer, number: int, due: int, epoch: int, started_s: float
    ) -> None:
        """Step ``number`` begins to be a plain one, and so are the next until ``due`` (not included)."""
        self._optimizer = weakref.ref(optimizer)
        self.open = self.stepping = True
        self.last, self.due = number - 1, due
        self.end_s = started_s
        self._hand_over_s = started_s + self._flush_s
        self._sequence = _torch.sequence_number()
        self._block = Block(number, epoch, started_s)

    def serves(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a step of this optimizer is one of the lane's."""
        return self.open and self._optimizer is not None and self._optimizer() is optimizer

    @property
    def busy(self) -> bool:
        """Whether there are steps (or values for the step to come) that have not been handed over."""
        return self._block is not None

    def stop(self) -> None:
        """The next step is not plain. The newest one waits for values until :meth:`leave`."""
        self.open = False

    def stepped(self, now: float) -> bool:
        """The optimizer has stepped. True when something is to be done: it has :attr:`ended`, or is full."""
        self.stepping = False
        block = self._block
        if block is None:
            return True
        ends = block.ends
        at = len(ends)
        ends.append(now)
        optimizer = self._optimizer() if self._optimizer is not None else None
        groups = optimizer.param_groups if optimizer is not None else ()
        rates = [group["lr"] for group in groups]
        if rates != self._rates or not at:
            self._rates = rates
            block.rates.append((at, rates))
        if self._fetched:
            self._fetched = False
            if self._wait_s is not None or self._samples is not None:
                block.fetched.append((at, self._wait_s, self._samples))
                self._wait_s = self._samples = None
        self._sequence = _torch.sequence_number()
        self.last += 1
        self.end_s = now
        return now >= self._hand_over_s or self.last + 1 >= self.due or at >= _LONGEST

    @property
    def ended(self) -> bool:
        """Whether the next step is not plain any more."""
        return self._block is None or self.last + 1 >= self.due

    def growing(self) -> tuple[Block | None, float]:
        """What is not handed over yet, and what watching it took (seconds). The recorder only reads it."""
        return self._block, self.watch_s

    @property
    def awaits(self) -> bool:
        """Whether a batch was fetched since the newest step."""
        return self._fetched

    @property
    def has_loss(self) -> bool:
        """Whether the loss of the newest step was logged; also true where there is no step yet."""
        block = self._block
        if block is None or not block.ends:
            return True
        newest = len(block.ends) - 1
        return any(at == newest and name == "loss" for at, name, _ in block.logged)

    def restart(self, now: float) -> None:
        """What has passed since the newest step was not training: the next one begins now."""
        self.end_s = now
        if self._block is not None:
            self._block.restarts.append((len(self._block.ends), now))

    def waited(self) -> float:
        """What a call of ours counts for (seconds) that took longer than it does.

        The recorder held the interpreter, and is counted by its own CPU time, or another process held the
        core, as it does in the host's steps. Where calls do take that long, the limit soon grows to it.
        """
        counted, self.longest_s = self.longest_s, _WAIT_GROWS * self.longest_s
        return counted

    def _take_watched(self, block: Block) -> None:
        block.watch_s, self.watch_s = self.watch_s, 0.0
        losses = [v for _, name, v in block.logged if name == "loss" and type(v) is float]
        if losses:
            self._lost = not math.isfinite(losses[-1])
        if len(losses) >= _FEWEST_LOSSES:
            largest = _JUMP * max(map(abs, losses))
            self._highest = largest if 0 < largest < math.inf else math.inf
        if block.ends:
            self.longest_s = max(_SHORTEST_WAIT_S, _WAIT_FACTOR * block.watch_s / len(block.ends))

    def hand_over(self) -> Block | None:
        """All steps but the newest, whose values may still come."""
        block = self._block
        if block is None or len(block.ends) < 2:
            return None
        self._block = block.split()
        self._hand_over_s = self.end_s + self._flush_s
        self._take_watched(block)
        return block

    def leave(self) -> tuple[Block | None, list[tuple[str, Any]]]:
        """The lane ends: what is left of it, and values that were logged for the step after."""
        block, self._block = self._block, None
        self.open = self.stepping = False
        self._optimizer = None
        if block is None:
            return None, []
        steps = len(block.ends)
        ahead = [(name, value) for at, name, value in block.logged if at >= steps]
        block.logged = [entry for entry in block.logged if entry[0] < steps]
        block.restarts = [entry for entry in block.restarts if entry[0] < steps]
        self._take_watched(block)
        return (block if steps else None), ahead

    # ------------------------------------------------------------------ what the host says

    def fetched(self, wait_s: float, samples: int | None) -> None:
        """A batch was fetched: what comes now belongs to the next step."""
        self._fetched = True
        if not self.open:
            return  # the next step is not the lane's
        self._wait_s = (self._wait_s or 0.0) + wait_s
        if samples is not None:
            self._samples = (self._samples or 0) + samples

    def take_fetched(self) -> tuple[float | None, int | None]:
        """What was fetched for a step that the lane does not make."""
        told = self._wait_s, self._samples
        self._fetched, self._wait_s, self._samples = False, None, None
        return told

    def sampled(self, samples: int | None) -> None:
        """The newest step had so many samples; None: nothing is said about it."""
        if self._block is not None and self._block.ends and samples is not None:
            self._block.fetched.append((len(self._block.ends) - 1, None, samples))

    def log(self, values: Mapping[str, Any]) -> bool:
        """Take logged values if they are plain ones: scalar tensors or numbers. False: take another way."""
        block = self._block
        if block is None or len(block.logged) >= _MOST_LOGGED:
            return False
        newest: torch.Tensor | None = None
        taken = []
        for name, value in values.items():
            kind = type(value)
            if kind is torch.Tensor:
                if value.dim() or not value.is_floating_point():
                    return False
                newest = value
                taken.append((name, _torch.number_or_copy(value)))
            elif kind in _PLAIN_TYPES:
                taken.append((name, value if kind is float else float(value)))
            else:
                return False
        at = self._place(newest)
        highest = self._highest
        for name, value in taken:
            block.logged.append((at, name, value))
            if name == "loss" and type(value) is float and not -highest < value < highest:
                self._notice(at, value)
        return True

    def _notice(self, at: int, loss: float) -> None:
        """A loss is out of bounds: say so, of losses that are not finite once."""
        lost = not math.isfinite(loss)
        if not (lost and self._lost):
            self.strange, self._strange_at, self._lost = True, at, lost
            self._highest = math.inf if lost else _JUMP * abs(loss)

    def take_strange(self) -> tuple[bool, bool]:
        """Whether the strange loss is not finite, and whether it is of the step to come (else the newest)."""
        self.strange = False
        ahead = self._block is None or self._strange_at >= len(self._block.ends)
        return self._lost, ahead

    def put(self, entries: Mapping[str, torch.Tensor | float], newest: torch.Tensor | None) -> None:
        """Take values that are ours already; ``newest`` is one as the host gave it, if that was a tensor."""
        if self._block is not None:
            at = self._place(newest)
            self._block.logged += [(at, name, value) for name, value in entries.items()]

    def put_at_last(self, entries: Mapping[str, torch.Tensor | float]) -> None:
        """Take values of the newest step."""
        if self._block is not None:
            at = max(len(self._block.ends) - 1, 0)
            self._block.logged += [(at, name, value) for name, value in entries.items()]

    def _place(self, newest: torch.Tensor | None) -> int:
        at = len(self._block.ends) if self._block is not None else 0
        return at if not at or self._is_newer(newest) else at - 1

    def _is_newer(self, value: torch.Tensor | None) -> bool:
        """Whether a value was computed after the last step; see ``StepBuilder``."""
        if value is not None and value.requires_grad:
            return not _torch.older_than(value, self._sequence, _LOOK)
        if self._fetched:
            return True
        return _torch.sequence_number() > self._sequence + _SLACK
