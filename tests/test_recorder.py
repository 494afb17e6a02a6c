"""The recorder thread: order of lines, batching, pressure, failures of sinks, probes and checks."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from torchwatch.check import Selection
from torchwatch.config import WatchConfig
from torchwatch.engine import Engine
from torchwatch.probe import Frame
from torchwatch.probes.loss import LossProbe
from torchwatch.recorder import Mark, Outcome, Recorder
from torchwatch.recorder.sinks import Sinks
from torchwatch.recorder.totals import Totals
from torchwatch.records import Alert, End, Layout, Note, Record, RunHeader, Step, Steps, System
from torchwatch.runfile import RunWriter, read_records
from torchwatch.schedule import unmeasured


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FewInstruments:
    """Instruments that read nothing."""

    def system(self) -> dict[str, Any]:
        return {"rss_bytes": 7, "cpu_percent": 1.0}

    interval = system

    def end(self) -> dict[str, Any]:
        return {}

    def coverage(self) -> dict[str, str]:
        return {}

    def problems(self) -> list[tuple[str, str]]:
        return []

    def loading_s(self) -> float:
        return 0.0

    def close(self) -> None:
        pass


class Collector:
    """A sink that keeps what it is given."""

    def __init__(self, path, fail_on: type[Record] | None = None) -> None:
        self.path, self.fail_on = path, fail_on
        self.seen: list[Record] = []
        self.closed = False
        self.in_file: list[bool] = []

    def write(self, record: Record) -> None:
        if self.fail_on is not None and isinstance(record, self.fail_on):
            raise OSError("endpoint gone")
        self.seen.append(record)
        self.in_file.append(record.kind in {r.kind for r in read_records(self.path)})

    def close(self) -> None:
        self.closed = True


class Setup:
    """A recorder whose ticks the test makes itself; its thread never starts."""

    def __init__(self, tmp_path, config: WatchConfig | None = None, **keywords: Any) -> None:
        self.clock = Clock()
        self.path = tmp_path / "run.jsonl"
        self.sink = keywords.pop("sink", None) or Collector(self.path)
        self.recorder = Recorder(
            RunWriter(self.path),
            RunHeader(run_id="x"),
            Engine(Selection(checks=())),
            config or WatchConfig(interval_steps=5, fast_steps_per_s=50, system_s=1000, queue_steps=4),
            [LossProbe()],
            [self.sink],
            self.clock,
            instruments=FewInstruments(),
        )
        self.recorder._feed(self.recorder._buffer[0])
        self.recorder._flush()

    def frame(self, number: int, loss: float = 1.0) -> Frame:
        frame = Frame(unmeasured(number), epoch=0)
        frame.started_s, frame.ended_s = self.clock.now, self.clock.now
        frame.put("loss", ("loss", "log", frame.defer(torch.tensor(loss))))
        return frame

    def steps(self, first: int, last: int, seconds_each: float) -> None:
        for number in range(first, last + 1):
            self.clock.now += seconds_each
            self.recorder.put(self.frame(number))

    def end(self) -> list[Record]:
        self.recorder._outcome = Outcome()
        self.recorder._tick()
        self.recorder._finish()
        return list(read_records(self.path))


def kinds(records: list[Record]) -> list[str]:
    return [r.kind for r in records]


def test_slow_steps_are_single_lines_and_intervals_follow_their_last_step(tmp_path) -> None:
    setup = Setup(tmp_path)
    setup.steps(1, 3, 0.1)
    setup.recorder._tick()
    setup.steps(4, 7, 0.1)
    assert kinds(setup.end()) == ["run", *["step"] * 5, "interval", *["step"] * 2, "interval", "end"]


def test_fast_steps_share_a_line_that_never_crosses_an_interval(tmp_path) -> None:
    setup = Setup(tmp_path)
    setup.steps(1, 4, 0.001)
    setup.recorder._tick()
    setup.steps(5, 8, 0.001)
    records = setup.end()
    assert kinds(records) == ["run", "steps", "step", "interval", "steps", "interval", "end"]
    assert [r.step for r in records if isinstance(r, (Steps, Step))] == [[1, 2, 3, 4], 5, [6, 7, 8]]


def test_marks_close_the_interval_and_keep_their_place(tmp_path) -> None:
    setup = Setup(tmp_path)
    setup.steps(1, 2, 0.1)
    mark = Frame(unmeasured(2))
    slot = mark.defer(torch.tensor([0.25, 0.75]))
    setup.recorder.put(Mark("epoch", mark, 0, 0.2, {"val_loss": slot, "train_acc": 0.9}))
    setup.steps(3, 3, 0.1)
    records = setup.end()
    assert kinds(records) == ["run", "step", "step", "interval", "eval", "epoch", "step", "interval", "end"]
    assert records[4].metrics == {"val_loss": 0.5}
    assert records[5].metrics == {"val_loss": 0.5, "train_acc": 0.9}


def test_under_pressure_detail_is_dropped_then_steps_and_both_are_counted(tmp_path) -> None:
    setup = Setup(tmp_path)
    for number in range(1, 21):
        frame = self_sampled(setup.frame(number))
        setup.recorder.put(frame)
    records = setup.end()
    end = records[-1]
    assert isinstance(end, End)
    assert end.steps == 16  # four times the queue's bound
    assert end.dropped == 16  # the first four kept everything
    assert not end.complete


def self_sampled(frame: Frame) -> Frame:
    frame.plan = frame.plan._replace(sampled=True)
    return frame


def test_a_sink_is_told_after_the_file_and_closed(tmp_path) -> None:
    setup = Setup(tmp_path)
    setup.steps(1, 2, 0.1)
    setup.end()
    assert all(setup.sink.in_file)
    assert setup.sink.closed


def test_a_failing_sink_is_switched_off_and_named(tmp_path) -> None:
    sink = Collector(tmp_path / "run.jsonl", fail_on=Step)
    setup = Setup(tmp_path, sink=sink)
    setup.steps(1, 3, 0.1)
    records = setup.end()
    notes = [r.message for r in records if isinstance(r, Note)]
    assert notes == ["Collector switched off: OSError: endpoint gone"]
    assert kinds(sink.seen) == ["run"]
    assert sum(isinstance(r, Step) for r in records) == 3


def test_a_probe_that_cannot_be_read_costs_its_values_only(tmp_path, monkeypatch) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(LossProbe, "decode", staticmethod(broken))
    setup = Setup(tmp_path)
    setup.steps(1, 3, 0.1)
    records = setup.end()
    assert [r.loss for r in records if isinstance(r, Step)] == [None] * 3
    assert [r.topic for r in records if isinstance(r, Note)] == ["loss"]


def test_a_recorder_failure_is_said_and_the_run_is_incomplete(tmp_path, monkeypatch) -> None:
    setup = Setup(tmp_path)
    setup.steps(1, 2, 0.1)
    monkeypatch.setattr(setup.recorder, "_take_pieces", lambda *_, **__: 1 / 0)
    setup.recorder._guarded(setup.recorder._tick)
    monkeypatch.undo()
    setup.steps(3, 3, 0.1)
    records = setup.end()
    assert any("recorder failed: ZeroDivisionError" in r.message for r in records if isinstance(r, Note))
    assert not records[-1].complete
    assert [r.step for r in records if isinstance(r, Step)] == [3]


def test_a_loss_that_is_never_seen_is_asked_for_once(tmp_path) -> None:
    setup = Setup(tmp_path, WatchConfig(queue_steps=1000, system_s=1000))
    for number in range(1, 60):
        setup.recorder.put(Frame(unmeasured(number), epoch=0))
    notes = [r.message for r in setup.end() if isinstance(r, Note)]
    assert notes == ["loss not seen in 20 steps: call watch.log(loss=loss)"]


@pytest.mark.parametrize(("seen", "coverage"), [(True, "ok"), (False, "not seen in the first step")])
def test_the_layout_says_whether_a_loss_was_seen(tmp_path, seen, coverage) -> None:
    setup = Setup(tmp_path)
    setup.recorder.put(Layout(step=1))
    setup.recorder._tick()
    setup.recorder.put(setup.frame(1) if seen else Frame(unmeasured(1), epoch=0))
    records = setup.end()
    assert kinds(records) == ["run", "layout", "step", "interval", "end"]
    assert records[1].coverage == {"loss": coverage}


def test_system_records_come_once_per_period(tmp_path) -> None:
    setup = Setup(tmp_path, WatchConfig(system_s=1.0))
    for _ in range(10):
        setup.clock.now += 0.25
        setup.recorder._tick()
    assert kinds(setup.end()).count("system") == 2


def test_system_records_say_how_long_ago_the_last_step_was(tmp_path) -> None:
    setup = Setup(tmp_path, WatchConfig(system_s=1.0))
    setup.clock.now = 1.0
    setup.recorder._tick()
    setup.steps(1, 2, 0.25)
    setup.clock.now += 2.5
    setup.recorder._tick()
    systems = [r for r in setup.end() if isinstance(r, System)]
    assert [(s.step, s.since_step_s) for s in systems] == [(0, None), (2, 2.5)]


def test_the_thread_drains_at_stop_and_gives_up_after_drain_s(tmp_path) -> None:
    setup = Setup(tmp_path, WatchConfig(drain_s=0.05, system_s=1000))
    gate = threading.Event()

    class Stuck(Collector):
        def write(self, record: Record) -> None:
            if isinstance(record, Step):
                gate.wait(10)

    setup.recorder._sinks = Sinks([Stuck(setup.path)])
    setup.recorder._thread.start()
    setup.steps(1, 2, 0.1)
    started = time.perf_counter()
    setup.recorder.stop(Outcome())
    assert time.perf_counter() - started < 5
    gate.set()
    setup.recorder._thread.join(10)
    assert kinds(list(read_records(setup.path)))[-1] == "end"


def test_no_steps_is_said(tmp_path) -> None:
    records = Setup(tmp_path).end()
    assert kinds(records) == ["run", "note", "end"]
    assert "no optimizer step was seen" in records[1].message
    assert records[2].health_score is None, "nothing was judged"


@pytest.mark.parametrize(("norm", "preclip", "clipped"), [(1.0, 1.0, False), (1.0, 4.0, True)])
def test_clipped_is_told_from_the_two_norms(tmp_path, norm, preclip, clipped) -> None:
    setup = Setup(tmp_path)
    frame = setup.frame(1)
    frame.fields |= {"grad_norm": norm, "grad_norm_preclip": preclip}
    setup.recorder.put(frame)
    step = next(r for r in setup.end() if isinstance(r, Step))
    assert step.clipped is clipped


def test_the_end_counts_each_check_once_at_its_worst() -> None:
    totals = Totals()
    totals.add(Step(step=7, time_s=2.0, samples=32, step_time_s=0.5, watch_time_s=0.1))
    totals.add(Step(step=8, time_s=3.0, samples=16, step_time_s=1.5, watch_time_s=0.1))
    severities = [("a", "info"), ("a", "critical"), ("a", "warning"), ("b", "info"), ("c", "warning")]
    end = totals.end([Alert(check=c, severity=s) for c, s in severities], 73)
    assert end.issues == {"info": 1, "warning": 1, "critical": 1}
    assert (end.step, end.steps, end.samples) == (8, 2, 48)
    assert end.health_score == 73


def test_samples_of_a_run_are_unknown_when_those_of_a_step_are() -> None:
    totals = Totals()
    totals.add(Step(step=1, samples=32))
    totals.add(Step(step=2))
    assert totals.end([], 100).samples is None
