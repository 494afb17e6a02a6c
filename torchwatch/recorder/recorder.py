"""The background thread: reads frames, writes records, runs the checks, tells the sinks.

The training thread only appends to a deque. Everything else happens here: reading device values, rounding,
encoding, writing, checking, printing. An alert is shown only after its ``os.write`` has returned.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torchwatch.check import Severity
from torchwatch.config import WatchConfig
from torchwatch.engine import Engine
from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.probe import Frame, Probe
from torchwatch.recorder.items import Item, Mark, is_evaluation, step_of
from torchwatch.recorder.memory import Memory
from torchwatch.records import (
    STEP_COLUMNS,
    Alert,
    End,
    Eval,
    Interval,
    Layout,
    Note,
    Record,
    RunHeader,
    Step,
    System,
    batch,
)
from torchwatch.runfile import RunWriter

_HINT_STEPS = 20
_LONGEST_LINE = 256
_SHORTEST_PAUSE_S = 0.01
_YIELD_S = 1e-5
_UNSEEN = "loss not seen in {steps} steps: call watch.log(loss=loss)"


class Sink(Protocol):
    """Where live records also go; called in the recorder thread, after the record is in the file."""

    def write(self, record: Record) -> None:
        """Take a record."""

    def close(self) -> None:
        """The run is over."""


@dataclass
class Outcome:
    """How the body ended."""

    status: str = "finished"
    error: str | None = None
    traceback: str | None = None


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
        memory: reads memory and CPU share (fields of ``System``).
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
        memory: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.writer, self.engine, self.config = writer, engine, config
        self.alerts: list[Alert] = []
        self.outbox: deque[Alert] = deque()
        self.critical = False
        self.health_score = 100
        self.dropped = 0
        self.lost = 0
        self._probes = {p.name: type(p) for p in probes}
        self._sinks = list(sinks)
        self._clock = clock
        self._memory = memory if memory is not None else Memory().read
        self._queue: deque[Item] = deque()
        self._buffer: list[Record] = [header]
        self._intervals = IntervalBuilder(config.interval_steps)
        self._wake = threading.Event()
        self._outcome: Outcome | None = None
        self._abandoned = False
        self._last_tick = clock()
        self._next_system = clock() + config.system_s
        self._step = 0
        self._step_s: float | None = None
        self._steps = 0
        self._epochs = 0
        self._samples: int | None = 0
        self._busy_s = self._watch_s = 0.0
        self._thread_s = 0.0
        self._dropped_said = 0
        self._unseen = 0
        self._said: set[str] = set()
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
        if waiting >= self.config.queue_steps and isinstance(item, Frame):
            self.dropped += 1
            if waiting >= 4 * self.config.queue_steps:
                self.lost += 1
                return
            item.drop_details()
        self._queue.append(item)

    def stop(self, outcome: Outcome) -> None:
        """Ask the thread to finish and wait for it, ``drain_s`` at the longest."""
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
        waiting = sum(isinstance(item, Frame) for item in tuple(self._queue))
        fast = waiting / elapsed > self.config.fast_steps_per_s
        steps: list[Step] = []
        for _ in range(len(self._queue)):  # what comes while this runs waits for the next tick
            item = self._queue[0]
            if self._abandoned:
                break
            if isinstance(item, (Frame, Mark)) and not _ready(item, wait=self._outcome is not None):
                break
            self._queue.popleft()
            if isinstance(item, Frame):
                steps.append(step_of(item, self._probes, self._say))
                self._yield()
                if len(steps) >= min(self._intervals.room, _LONGEST_LINE):
                    self._take_steps(steps, fast=fast)
                    self._flush()
                    steps = []
            else:
                self._take_steps(steps, fast=fast)
                steps = []
                self._take(item)
        self._take_steps(steps, fast=fast)
        self._system(now)
        self._flush()

    def _take(self, item: Item) -> None:
        if isinstance(item, Mark):
            self._take_mark(item)
        elif isinstance(item, Note):
            self._say(item.topic, item.message)
        elif isinstance(item, Layout):
            self._feed(dataclasses.replace(item, coverage={**item.coverage, "loss": self._loss_coverage()}))

    def _loss_coverage(self) -> str:
        return "not seen" if self._unseen > _HINT_STEPS else "ok"

    def _take_steps(self, steps: list[Step], *, fast: bool) -> None:
        if not steps:
            return
        for step in steps:
            self._count(step)
            self._intervals.add(_scalars(step))
        if fast and len(steps) > 1:
            self._feed(batch([s if _keeps_columns(s, s is steps[-1]) else _scalars(s) for s in steps]))
        else:
            for step in steps:
                self._feed(step)
        if self._intervals.room <= 0:
            self._close_interval("steps", steps[-1].time_s)

    def _count(self, step: Step) -> None:
        self._step, self._step_s = step.step, step.time_s
        self._steps += 1
        if self._samples is not None:
            self._samples = None if step.samples is None else self._samples + step.samples
        self._busy_s += step.step_time_s or 0.0
        self._watch_s += step.watch_time_s or 0.0
        self._unseen = self._unseen + 1 if step.loss is None else 0
        if self._unseen == _HINT_STEPS:
            self._say("loss", _UNSEEN.format(steps=_HINT_STEPS))

    def _close_interval(self, closed_by: str, time_s: float) -> None:
        thread_s = time.thread_time()
        spent, self._thread_s = thread_s - self._thread_s, thread_s
        dropped, self._dropped_said = self.dropped - self._dropped_said, self.dropped
        self._watch_s += spent
        memory = {k: v for k, v in self._memory().items() if k in _INTERVAL_FIELDS}
        self._feed(self._intervals.close(closed_by, time_s, recorder_s=spent, dropped=dropped, **memory))

    def _take_mark(self, mark: Mark) -> None:
        metrics, step = mark.metrics(), self._step
        time_s = round(mark.time_s, 6)
        if mark.kind == "eval":
            self._feed(Eval(step=step, epoch=mark.epoch, time_s=time_s, metrics=metrics))
            return
        if not self._intervals.empty:
            self._close_interval("epoch", time_s)
        evaluated = {k: v for k, v in metrics.items() if is_evaluation(k)}
        if evaluated:
            self._feed(Eval(step=step, epoch=mark.epoch, time_s=time_s, metrics=evaluated))
        self._epochs += 1
        self._feed(self._intervals.close_epoch(mark.epoch, step, time_s, metrics))

    def _system(self, now: float) -> None:
        if now < self._next_system:
            return
        self._next_system = now + self.config.system_s
        time_s = round(now, 6)
        since_s = None if self._step_s is None else round(max(now - self._step_s, 0.0), 6)
        self._feed(System(time_s=time_s, step=self._step, since_step_s=since_s, **self._memory()))

    def _finish(self) -> None:
        """The last interval, the checks' last look, the end record."""
        outcome = self._outcome or Outcome("interrupted")
        left = sum(isinstance(item, Frame) for item in tuple(self._queue))
        self.lost += left
        self.dropped += left
        self._queue.clear()
        if not self._intervals.empty:
            self._close_interval("end", round(self._clock(), 6))
        if self._steps == 0:
            self._say(
                "steps", "no optimizer step was seen: call watch.step() where the loop has no optimizer"
            )
        self._buffer += self.engine.finish()
        self._flush()
        issues = {s.word: sum(a.severity == s.word for a in self._worst().values()) for s in Severity}
        end = End(
            status=outcome.status,
            step=self._step,
            steps=self._steps,
            epochs=self._epochs,
            time_s=round(self._clock(), 6),
            samples=self._samples if self._steps else None,
            health_score=self.engine.health_score(),
            issues=issues,
            watch_share=tidy(self._watch_s / self._busy_s) if self._busy_s else None,
            complete=self.lost == 0 and self.writer.complete,
            dropped=self.dropped,
            lost_lines=self.writer.lost_lines,
            error=outcome.error,
            traceback=outcome.traceback,
        )
        self._buffer.append(end)
        self._flush()
        self.writer.close()
        for sink in self._sinks:
            self._to_sink(sink, sink.close)

    def _worst(self) -> dict[str, Alert]:
        order = {s.word: int(s) for s in Severity}
        worst: dict[str, Alert] = {}
        for alert in self.alerts:
            known = worst.get(alert.check)
            if known is None or order[alert.severity] > order[known.severity]:
                worst[alert.check] = alert
        return worst

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
            Note(step=self._step, time_s=round(self._clock(), 6), topic=topic, message=message)
        )

    def _flush(self) -> None:
        """One write; only then alerts are published and sinks told."""
        if self.writer.problem is not None:
            self._say("file", self.writer.problem)
        records, self._buffer = self._buffer, []
        if not records:
            return
        self.writer.write(records)
        for record in records:
            if isinstance(record, Alert):
                self._publish(record)
        self.health_score = self.engine.health_score()
        for sink in tuple(self._sinks):
            for record in records:
                self._to_sink(sink, lambda sink=sink, record=record: sink.write(record))  # type: ignore[misc]

    def _publish(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.outbox.append(alert)
        if alert.severity == Severity.CRITICAL.word and alert.state != "resolved":
            self.critical = True

    def _to_sink(self, sink: Sink, work: Callable[[], None]) -> None:
        if sink not in self._sinks:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a sink never brings the recording down
            self._sinks.remove(sink)
            name = type(sink).__name__
            self._say(name, f"{name} switched off: {type(error).__name__}: {error}")


_INTERVAL_FIELDS = frozenset(f.name for f in dataclasses.fields(Interval))


def _ready(item: Frame | Mark, *, wait: bool) -> bool:
    frame = item.frame if isinstance(item, Mark) else item
    if frame.ready():
        return True
    if wait:  # the run is over: nobody is held up
        frame.finish()
    return wait


def _scalars(step: Step) -> Step:
    without: dict[str, Any] = dict.fromkeys(STEP_COLUMNS)
    return dataclasses.replace(step, **without)


def _keeps_columns(step: Step, is_last: bool) -> bool:  # noqa: FBT001
    """On fast loops columns stay on sampled steps, on the last of a line, and where a norm is not finite."""
    norm = step.grad_norm
    return is_last or step.activations is not None or (norm is not None and not math.isfinite(norm))
