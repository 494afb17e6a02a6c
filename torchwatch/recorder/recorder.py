"""The background thread: reads frames, writes records, runs the checks, tells the sinks.

The training thread only appends to a deque. Everything else happens here: reading device values, rounding,
encoding, writing, checking, printing. An alert is shown only after its ``os.write`` has returned.

A few lines longer than a file should be: one queue is taken apart in one order, and that is one subject.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from torchwatch.budget import Budget, kind_of
from torchwatch.check import Severity
from torchwatch.config import WatchConfig
from torchwatch.engine import Engine
from torchwatch.intervals import IntervalBuilder
from torchwatch.probe import Block, Frame, Later, Probe
from torchwatch.recorder.accounts import Account
from torchwatch.recorder.blackbox import BlackboxBuffer
from torchwatch.recorder.early import EarlySteps
from torchwatch.recorder.instruments import Instruments
from torchwatch.recorder.items import (
    Item,
    Mark,
    Outcome,
    has_loss,
    is_evaluation,
    measured_kind,
    ready,
    step_of,
    steps_in,
    without_columns,
)
from torchwatch.recorder.lines import cut, length, line_of, line_of_pieces
from torchwatch.recorder.sinks import Sinks
from torchwatch.recorder.thinning import DiskBudget
from torchwatch.recorder.totals import Totals
from torchwatch.records import (
    Alert,
    Eval,
    Layout,
    Log,
    Note,
    Record,
    RunHeader,
    Step,
    Steps,
    System,
    expand,
    rounded_line,
)
from torchwatch.runfile import RunWriter
from torchwatch.schedule import Schedule
from torchwatch.sinks.sink import Sink

_HINT_STEPS = 20
_LONGEST_LINE = 1024
_SHORTEST_PAUSE_S = 0.01
_YIELD_S = 1e-5
_SINKS_UNTIL, _CLOSED_UNTIL = 0.6, 0.9  # of drain_s: sinks' deliveries before and after the end record
_UNSEEN = "loss not seen in {steps} steps: call watch.log(loss=loss)"


class Recorder:
    """Owns the queue, the run file, the engine and the sinks of one watcher.

    Args:
        writer: the run file.
        header: its first record.
        engine: the checks in force.
        config: queue bound, rates.
        probes: who decodes which payload of a frame.
        sinks: where records also go; one that raises is switched off and named.
        clock: seconds since the start of the run.
        instruments: memory, machine, GPUs, energy (default: those of this process).
        budget: told what recording costs; its schedule zooms in on warnings and is reported in intervals.
        growing: plain steps that the training thread still holds, see :class:`EarlySteps` (default: none).
    """

    def __init__(
        self,
        writer: RunWriter,
        header: RunHeader,
        engine: Engine,
        config: WatchConfig,
        probes: Iterable[Probe],
        sinks: Iterable[Sink],
        clock: Callable[[], float],
        instruments: Instruments | None = None,
        budget: Budget | None = None,
        growing: Callable[[], tuple[Block | None, float]] = lambda: (None, 0.0),
    ) -> None:
        self.writer, self.engine, self.config = writer, engine, config
        self.alerts: list[Alert] = []
        self.outbox: deque[Alert] = deque()
        self.critical = False
        self.health_score = 100
        self.dropped = 0
        self.lost = 0
        self._budget = budget if budget is not None else Budget(config, Schedule(config))
        self._blackbox = BlackboxBuffer(config.blackbox_steps)
        self._early = EarlySteps(growing)
        self._disk = DiskBudget(config.disk_full_bytes, config.disk_bytes_per_hour)
        self._probes = {p.name: type(p) for p in probes}
        self._sinks = Sinks(sinks)
        self._clock = clock
        self._instruments = instruments if instruments is not None else Instruments(config, clock)
        self._arithmetic: dict[str, Any] = {}
        self._queue: deque[Item] = deque()
        self._buffer: list[Record] = [header]
        self._intervals = IntervalBuilder(config.interval_steps)
        self._wake = threading.Event()
        self._outcome: Outcome | None = None
        self._asked_s: float | None = None
        self._abandoned = False
        self._last_tick = clock()
        self._next_system = clock() + config.system_s
        self._totals = Totals()
        self._account = Account(config.dense_steps)
        self._closed_s = self._ticked_cpu_s = 0.0
        self._dropped_said = self._zoomed_said = 0
        self._said: set[str] = set()
        self._bad = False
        self._thread = threading.Thread(target=self._run, name="torchwatch-recorder", daemon=True)

    # ------------------------------------------------------------------ the training side

    def start(self) -> None:
        """Write the header and start the thread."""
        self._feed(self._buffer[0])
        self._flush()
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item; never waits. Over the bound, detail is dropped, then whole steps, both counted."""
        waiting = len(self._queue)
        if isinstance(item, (Frame, Block)):
            self.dropped += item.lost  # no room for its values on the way from the device
        if waiting >= self.config.queue_steps and isinstance(item, Frame):
            self.dropped += 1
            if waiting >= 4 * self.config.queue_steps:
                self.lost += 1
                return
            item.drop_details()
        self._queue.append(item)

    def stop(self, outcome: Outcome) -> None:
        """Ask the thread to finish and wait for it, ``drain_s`` at the longest."""
        self._asked_s = time.monotonic()
        self._outcome = outcome
        self._wake.set()
        self._thread.join(self.config.drain_s)
        if self._thread.is_alive():
            self._abandoned = True
            self._thread.join(1.0)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        pause = self.config.flush_s
        while self._outcome is None:
            self._wake.wait(pause)
            started = time.perf_counter()
            self._guarded(self._tick)
            # On a loop that outruns the recorder, pause a little all the same: the training needs the GIL.
            pause = max(self.config.flush_s - (time.perf_counter() - started), _SHORTEST_PAUSE_S)
        self._guarded(self._tick)
        self._guarded(self._finish)
        self._guarded(self._instruments.close)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must live on; what went wrong is in the file
            self.lost += 1
            self._say("recorder", f"recorder failed: {type(error).__name__}: {error}")

    def _tick(self) -> None:
        """Everything that is queued becomes records; then one write."""
        now = self._clock()
        elapsed, self._last_tick = max(now - self._last_tick, 1e-9), now
        waiting = sum(steps_in(item) for item in tuple(self._queue))
        fast = waiting / elapsed > self.config.fast_steps_per_s
        idle = not self._queue
        pieces: list[Step | Steps] = []
        for _ in range(len(self._queue)):  # what comes while this runs waits for the next tick
            item = self._queue[0]
            if self._abandoned:
                break
            if isinstance(item, Layout) and len(self._queue) == 1 and self._outcome is None:
                break  # its step is about to follow, and says whether a loss was seen
            if not ready(item, wait=self._outcome is not None):
                break
            self._queue.popleft()
            if isinstance(item, Block):
                block = self._early.rest(item)
                pieces = pieces if block is None else self._take_block(pieces, block, fast=fast)
            elif isinstance(item, Frame):
                pieces = self._take_frame(pieces, item, fast=fast)
            else:
                self._take_pieces(pieces, fast=fast)
                pieces = []
                self._take(item)
        self._take_pieces(pieces, fast=fast)
        idle = not self._take_overdue(now) and idle
        cpu_s = self._ticked_cpu_s if idle else time.thread_time()
        self._system(now)
        if idle:
            self._flush()
        self._account.timely(time.thread_time() - cpu_s, self._instruments.loading_s())
        self._flush()
        self._ticked_cpu_s = time.thread_time()

    def _take_overdue(self, now: float) -> bool:
        """Take steps that the training thread has not handed over in time; whether there were any.

        What was queued before them comes first: the queue is looked at after them, and everything older than
        two steps that wait in the training thread has been queued by then.
        """
        block = self._early.take(now) if self._outcome is None else None
        if block is None or self._queue:
            return False
        self._early.took(block)
        self._take_pieces(self._take_block([], block, fast=True), fast=True)
        return True

    def _take_frame(self, pieces: list[Step | Steps], frame: Frame, *, fast: bool) -> list[Step | Steps]:
        started = time.thread_time()
        step, others = step_of(frame, self._probes, self._say)
        self._blackbox.add(step)
        pieces.append(step)
        self._budget.recorded(kind_of(frame.plan), time.thread_time() - started, 1)
        self._yield()
        urgent = frame.urgent or self._turns_bad(step.loss)
        if others or urgent or length(pieces) >= min(self._intervals.room, _LONGEST_LINE):
            self._take_pieces(pieces, fast=fast)
            for other in filter(self._disk.detail, others):
                self._feed(other)
            self._flush()
            return []
        return pieces

    def _take_block(self, pieces: list[Step | Steps], block: Block, *, fast: bool) -> list[Step | Steps]:
        started = time.thread_time()
        try:
            line = line_of(block)
        except Exception as error:  # noqa: BLE001 - what was logged cannot be read; the steps stay
            self._say("log", f"logged values could not be read: {type(error).__name__}: {error}")
            block.logged = []
            line = line_of(block)
        self._budget.recorded("plain", time.thread_time() - started, len(line.step))
        self._yield()
        bad = self._first_bad(line)
        while True:
            room = min(self._intervals.room, _LONGEST_LINE) - length(pieces)
            if bad is not None and bad < room:
                room = bad + 1  # a line ends where things go wrong: it is told of that very step
            elif len(line.step) < room:
                return [*pieces, line]
            part, rest = cut(line, room)
            self._take_pieces([*pieces, part], fast=fast)
            self._flush()
            if rest is None:
                return []
            pieces, line = [], rest
            if bad is not None:
                bad = self._first_bad(line) if bad < room else bad - room

    def _first_bad(self, line: Steps) -> int | None:
        """Place of the first loss that is not finite after one that was; None where there is none."""
        losses = () if line.loss is None else line.loss
        if isinstance(losses, np.ndarray) and not self._bad and np.isfinite(losses).all():
            return None
        return next((at for at, loss in enumerate(losses) if self._turns_bad(loss)), None)

    def _turns_bad(self, loss: float | None) -> bool:
        """Whether this loss is not finite and the one before it was; of each loss in its order."""
        if loss is None:
            return False
        before, self._bad = self._bad, not math.isfinite(loss)
        return self._bad and not before

    def _take(self, item: Item) -> None:
        if isinstance(item, Mark):
            self._take_mark(item)
        elif isinstance(item, Note):
            self._say(item.topic, item.message)
        elif isinstance(item, Later):
            self._feed(item.make(round(self._clock(), 6)))
        elif isinstance(item, Log):
            step, time_s = self._totals.step, round(self._clock(), 6)
            self._feed(dataclasses.replace(item, step=step, time_s=time_s))
        elif isinstance(item, Layout):
            self._take_layout(item)

    def _take_layout(self, layout: Layout) -> None:
        peak = layout.peak_flops_per_s
        self._arithmetic = {"flops_per_step": layout.flops_per_step, "peak_flops_per_s": peak}
        told = {**layout.coverage, **self._instruments.coverage(), "loss": self._loss_coverage()}
        self._feed(dataclasses.replace(layout, coverage=told))

    def _loss_coverage(self) -> str:
        if self._totals.without_loss > _HINT_STEPS:
            return "not seen"
        first = self._queue[0] if self._queue and not self._totals.steps else None
        seen = not isinstance(first, Frame) or has_loss(first)
        return "ok" if seen else "not seen in the first step"

    def _take_pieces(self, pieces: list[Step | Steps], *, fast: bool) -> None:
        if not pieces:
            return
        started = time.thread_time()
        last_s = self._feed_pieces(pieces, fast=fast)
        self._tell_budget(pieces, time.thread_time() - started)
        self._account.took(pieces)
        if self._totals.without_loss >= _HINT_STEPS:
            self._say("loss", _UNSEEN.format(steps=_HINT_STEPS))
        if self._intervals.full:
            self._close_interval("steps", last_s)

    def _tell_budget(self, pieces: list[Step | Steps], seconds: float) -> None:
        """What these steps cost in this thread, evenly: one pass of the checks is for all of them."""
        counts = Counter(measured_kind(p) for p in pieces if isinstance(p, Step))
        counts["plain"] += length(pieces) - counts.total()
        for kind, steps in counts.items():
            self._budget.recorded(kind, seconds * steps / length(pieces), 0)

    def _feed_pieces(self, pieces: list[Step | Steps], *, fast: bool) -> float:
        """Into totals and interval; file and checks, as the disk allows; returns when the last step ended."""
        if (fast or self._disk.tight) and length(pieces) > 1:
            self._feed_line(line_of_pieces(pieces))
            return self._totals.step_s or 0.0
        for piece in pieces:
            if isinstance(piece, Steps) and len(piece.step) > 1:
                self._feed_line(rounded_line(piece))  # a block of plain steps: one pass of the checks
                continue
            for step in expand(piece) if isinstance(piece, Steps) else (piece,):
                self._totals.add(step)
                self._intervals.add(without_columns(step))
                written = self._disk.step(step, self._budget.schedule.activations_every)
                if written is not None:
                    self._feed(written)
        return self._totals.step_s or 0.0

    def _feed_line(self, line: Steps) -> None:
        self._totals.add_all(line)
        self._intervals.add_all(line)
        kept = self._disk.line(line, self._budget.schedule.activations_every)
        if kept is not None:
            self._feed(kept)

    def _close_interval(self, closed_by: str, time_s: float) -> None:
        duration_s, self._closed_s = time_s - self._closed_s, time_s
        schedule = self._budget.schedule
        zoomed, self._zoomed_said = schedule.zoomed - self._zoomed_said, schedule.zoomed
        dropped, self._dropped_said = self.dropped - self._dropped_said, self.dropped
        self._feed(
            self._intervals.close(
                closed_by,
                time_s,
                dropped=dropped,
                gradients_every=schedule.gradients_every,
                activations_every=schedule.activations_every,
                sentinel=schedule.sentinel,
                zoomed_steps=zoomed,
                thinned=self._disk.thinned(),
                **self._arithmetic,
                **self._instruments.interval(),
                **self._account.close(duration_s, self._budget.calibration.factor),
            )
        )
        self._intervals.interval_steps = self._disk.interval_steps(self.config.interval_steps)

    def _take_mark(self, mark: Mark) -> None:
        metrics, step = mark.metrics(), self._totals.step if mark.step is None else mark.step
        time_s = round(mark.time_s, 6)
        if mark.kind == "eval":
            self._feed(Eval(step=step, epoch=mark.epoch, time_s=time_s, metrics=metrics))
            return
        if not self._intervals.empty:
            self._close_interval("epoch", time_s)
        evaluated = {k: v for k, v in metrics.items() if is_evaluation(k)}
        if evaluated:
            self._feed(Eval(step=step, epoch=mark.epoch, time_s=time_s, metrics=evaluated))
        self._totals.epochs += 1
        self._feed(self._intervals.close_epoch(mark.epoch, step, time_s, metrics))

    def _system(self, now: float) -> None:
        if now < self._next_system:
            return
        self._next_system = now + self.config.system_s
        totals = self._totals
        since_s = totals.since_step_s(now)
        told = self._instruments.system()
        self._feed(System(time_s=round(now, 6), step=totals.step, since_step_s=since_s, **told))
        for topic, problem in self._instruments.problems():
            self._say(topic, problem)

    def _last_words(self) -> None:
        """The last interval and the checks' last look; whatever fails here, the end record follows."""
        if not self._intervals.empty:
            self._close_interval("end", round(self._clock(), 6))
        if self._totals.steps == 0:
            self._say(
                "steps", "no optimizer step was seen: call watch.step() where the loop has no optimizer"
            )
        self._buffer += self.engine.finish()
        self._flush()

    def _finish(self) -> None:
        """The last interval, the checks' last look, the end record."""
        outcome = self._outcome or Outcome("interrupted")
        left = sum(steps_in(item) for item in tuple(self._queue))
        self.lost += left
        self.dropped += left
        self._queue.clear()
        self._guarded(self._last_words)
        if outcome.status == "crashed":
            self._write_blackbox(outcome.error or "an exception ended the body")
        end = self._totals.end(
            self.alerts,
            self.engine.health_score(),
            status=outcome.status,
            time_s=round(self._clock(), 6),
            complete=self.lost == 0 and self.writer.complete,
            dropped=self.dropped,
            zoomed_steps=self._budget.schedule.zoomed,
            lost_lines=self.writer.lost_lines,
            error=outcome.error,
            traceback=outcome.traceback,
            sinks=self._sinks.drain(self._left_s(_SINKS_UNTIL), self._say),
            **self._instruments.end(),
            **self._account.end(self._budget.calibration.factor),
        )
        self._buffer.append(end)
        self._flush()
        self.writer.close()
        self._sinks.close(self._left_s(_CLOSED_UNTIL), _say_late)

    def _left_s(self, share: float) -> float:
        """Seconds until that share of the time to drain is over."""
        asked_s = time.monotonic() if self._asked_s is None else self._asked_s
        return max(asked_s + share * self.config.drain_s - time.monotonic(), 0.0)

    # ------------------------------------------------------------------ out

    def _feed(self, record: Record) -> None:
        """A record for the file, followed by the alerts that it raises."""
        if record is not self._buffer[0] if self._buffer else True:
            self._buffer.append(record)
        self._yield()
        alerts = self.engine.feed(record)
        self._yield()
        for slug, message in self.engine.failed.items():
            self._say(slug, f"check {slug} switched off: {message}")
        self._buffer += alerts

    def _yield(self) -> None:
        """Let the training thread have the GIL: it would else wait for up to the switch interval of 5 ms."""
        if self._outcome is None:
            time.sleep(_YIELD_S)

    def _say(self, topic: str, message: str) -> None:
        """A note in the file, once per topic and message."""
        if message in self._said:
            return
        self._said.add(message)
        self._buffer.append(
            Note(step=self._totals.step, time_s=round(self._clock(), 6), topic=topic, message=message)
        )

    def _flush(self) -> None:
        """One write; only then alerts are published and sinks told."""
        if self.writer.problem is not None:
            self._say("file", self.writer.problem)
        records, self._buffer = self._buffer, []
        if not records:
            return
        self._disk.wrote(records, self.writer.write(records), self._clock())
        for record in records:
            if isinstance(record, Alert):
                self._publish(record)
        self.health_score = self.engine.health_score()
        self._sinks.write(records, self._say)

    def _publish(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.outbox.append(alert)
        if alert.state == "resolved" or alert.severity == Severity.INFO.word:
            return
        if alert.state == "opened":
            self._budget.schedule.request_zoom()
        if alert.severity == Severity.CRITICAL.word:
            self.critical = True
            if alert.state == "opened":
                self._write_blackbox(f"critical alert: {alert.check}")

    def _write_blackbox(self, reason: str) -> None:
        """Written with the next flush: the alert itself must not wait for it."""
        record = self._blackbox.record(reason, self._totals.step, round(self._clock(), 6))
        if record is not None:
            self._buffer.append(record)


def _say_late(topic: str, message: str) -> None:  # noqa: ARG001 - called as `_say` is
    """The file is closed: what a sink has to say now goes to the host's log."""
    logging.getLogger("torchwatch").warning(message)
