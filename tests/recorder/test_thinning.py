"""The disk budget: the file stays within its size, columns go first, and what went is said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers_replay import assert_live_equals_replay
from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig, Watcher
from torchwatch.recorder.thinning import DiskBudget
from torchwatch.records import (
    Alert,
    Attention,
    Blackbox,
    End,
    Histogram,
    Interval,
    Record,
    Step,
    StepColumns,
    Steps,
    System,
    encode,
    rounded_line,
)

HOUR = 3600.0


def column(width: int) -> np.ndarray:
    return np.random.default_rng(width).lognormal(size=width).astype(np.float32)


GRADIENTS = {"grad_norms": column(30)}
ALL = {**GRADIENTS, "activations": {name: column(40) for name in ("mean", "rms", "std")}}


def step(number: int, took_s: float, **fields: Any) -> Step:
    known = {"loss": 1 + 1 / number, "step_time_s": took_s, "lr": [0.1], "epoch": 0, **fields}
    return Step(step=number, time_s=round(number * took_s, 6), **known)


class Run:
    """A recorder with nothing around it: what is written, when, and how many bytes."""

    def __init__(self, full_bytes: int, bytes_per_hour: int) -> None:
        self.disk = DiskBudget(full_bytes, bytes_per_hour)
        self.written: list[Record] = []
        self.sizes: list[tuple[float, int]] = [(0.0, 0)]
        self.said: list[str] = []

    def write(self, time_s: float, *records: Record | None) -> None:
        kept = [r for r in records if r is not None]
        sizes = [len(encode(r)) for r in kept]
        self.disk.wrote(kept, sizes, time_s)
        self.written += kept
        self.sizes.append((time_s, self.sizes[-1][1] + sum(sizes)))

    def slow(self, first: int, last: int, took_s: float, *, sampled: int = 10, **fields: Any) -> None:
        """One line per step; every one has gradients, every tenth everything."""
        for number in range(first, last + 1):
            columns = ALL if number % sampled == 0 else GRADIENTS
            self.write(number * took_s, self.disk.step(step(number, took_s, **columns, **fields)))
            if number % 200 == 0:
                self.close(number * took_s)

    def fast(self, first: int, count: int, took_s: float, *, columns: bool = True) -> None:
        """One line per 250 steps."""
        for start in range(first, first + count, 250):
            numbers = list(range(start, start + 250))
            times = np.array(numbers) * took_s
            line = Steps(
                step=numbers, time_s=times, loss=1 + 1 / np.array(numbers, float), epoch=[0] * 250,
                step_time_s=np.full(250, took_s),
                columns={"249": StepColumns(**GRADIENTS)} if columns else None,
            )  # fmt: skip
            self.write(times[-1], self.disk.line(rounded_line(line)))
            steps = self.disk.interval_steps(250)
            if numbers[-1] % steps == 0:
                self.close(times[-1], steps)

    def close(self, time_s: float, steps: int = 200) -> None:
        told = self.disk.thinned()
        self.said += [told] if told else []
        self.write(time_s, Interval(steps=steps, loss_mean=1.0, loss_std=0.1, time_s=time_s, thinned=told))

    def steps(self) -> Iterator[Step | StepColumns]:
        for entry in self.written:
            if isinstance(entry, Step):
                yield entry
            elif isinstance(entry, Steps):
                yield from (entry.columns or {}).values()

    def numbers(self) -> list[int]:
        return [
            n for r in self.written if isinstance(r, (Step, Steps))
            for n in (r.step if isinstance(r, Steps) else [r.step])
        ]  # fmt: skip

    def stays_within(self, full: int, hourly: int) -> bool:
        """At every moment, from the one on at which something was left out."""
        begun = next(t for t, size in self.sizes if size >= 0.8 * full)
        return all(size <= full + hourly / HOUR * (t - begun) for t, size in self.sizes)


def test_below_the_first_size_everything_is_written() -> None:
    run = Run(10_000_000, 1_000_000)
    run.slow(1, 1000, 0.038)
    assert run.numbers() == list(range(1, 1001))
    assert all(s.grad_norms is not None for s in run.steps())
    assert (run.disk.tight, run.said) == (False, [])


def test_columns_go_first_and_complete_ones_stay_longest() -> None:
    full, hourly = 400_000, 20_000_000
    run = Run(full, hourly)
    run.slow(1, 8000, 0.038)
    assert run.disk.tight
    assert run.disk.every == 1
    assert run.numbers() == list(range(1, 8001))
    late = [s for s in run.steps() if isinstance(s, Step) and s.step > 4000]
    complete = sum(s.activations is not None for s in late)
    gradients = sum(s.grad_norms is not None for s in late) - complete
    assert 60 < complete < 400
    assert gradients < complete / 10
    assert run.stays_within(full, hourly)
    assert run.sizes[-1][1] > full + 0.8 * hourly / HOUR * (8000 * 0.038 - 100)


def test_where_scalars_do_not_fit_every_kth_step_is_written_and_some_columns() -> None:
    full, hourly = 300_000, 3_000_000
    run = Run(full, hourly)
    run.slow(1, 12_000, 0.038)
    assert run.disk.every > 1
    late = [s for s in run.steps() if isinstance(s, Step) and s.step > 6000]
    assert 0.05 < len(late) / 6000 < 0.6
    assert sum(s.activations is not None for s in late) > 3
    assert run.stays_within(full, hourly)


def test_fast_lines_are_thinned_step_by_step() -> None:
    full, hourly = 500_000, 4_000_000
    run = Run(full, hourly)
    run.fast(1, 250_000, 3e-4)
    assert run.disk.every > 1
    assert run.stays_within(full, hourly)
    gaps = np.diff([n for n in run.numbers() if n > 125_000])
    assert np.median(gaps) == run.disk.every
    assert run.disk.longer > 1
    lines = [r for r in run.written if isinstance(r, Steps) and r.columns]
    for line in lines:
        (place,) = line.columns or {}
        assert line.step[int(place)] % 250 == 0, "columns stay with their step"


def test_what_went_is_said_and_only_then() -> None:
    run = Run(100_000, 3_600_000)
    run.slow(1, 400, 0.038)
    run.said.clear()
    run.disk.every = 5
    run.disk._bank = 0.0
    for number in range(1001, 1011):
        run.disk.step(step(number, 0.038, **GRADIENTS))
    assert run.disk.thinned() == "written: columns of 0 of 10 measured steps, 2 of 10 steps"
    assert run.disk.thinned() is None
    run.disk.longer = 10
    assert run.disk.thinned() == "intervals 10 times as long"
    assert run.disk.interval_steps(200) == 2000


def tight(bank: float) -> DiskBudget:
    disk = DiskBudget(1_000_000, 3_600_000)
    disk.tight, disk.every, disk._bank = True, 1000, bank
    return disk


def test_steps_at_which_a_number_stops_being_finite_are_always_written() -> None:
    disk = tight(0.0)
    losses = [1.0, math.nan, math.nan, 1.0, math.inf, 1.0]
    kept = [disk.step(Step(step=i, loss=v)) for i, v in enumerate(losses, 1)]
    assert [s.step for s in kept if s] == [2, 5]
    norms = [1.0, 1.0, math.inf, math.nan]
    line = disk.line(Steps(step=[7, 8, 9, 10], loss=np.ones(4), grad_norm=np.array(norms)))
    assert line is not None
    assert line.step == [9]
    assert disk.line(Steps(step=[11, 12], grad_norm=np.array([math.nan, math.nan]))) is None
    named = Step(step=13, loss=math.nan, first_nonfinite={"where": "forward"})
    assert disk.step(named) is named


def test_what_a_warning_measured_may_draw_on_the_reserve() -> None:
    disk = tight(50_000.0)
    assert disk.step(Step(step=10, **ALL), 10) is None
    assert disk.step(Step(step=11, **GRADIENTS), 10) is None
    assert disk.step(Step(step=11, **ALL), 10) is not None
    columns = {"1": StepColumns(**ALL), "2": StepColumns(**ALL)}
    line = disk.line(Steps(step=[19, 20, 21], columns=columns), 10)
    assert line is not None
    assert (line.step, list(line.columns or {})) == ([21], ["0"])
    written = [n for n in range(32, 992) if disk.step(Step(step=n, **ALL), 1000)]
    assert written == list(range(32, 32 + len(written)))
    assert 10 < len(written) < 100


def test_a_step_keeps_its_scalars_when_its_columns_go() -> None:
    disk = tight(0.0)
    kept = disk.step(Step(step=1000, loss=2.0, **ALL))
    assert kept == Step(step=1000, loss=2.0)


def test_attention_and_histograms_are_thinned_as_columns_are_and_the_black_box_never() -> None:
    disk = tight(0.0)
    assert not disk.detail(Attention(data={"a": 1}))
    assert not disk.detail(Histogram(data={"a": 1}))
    assert disk.detail(Blackbox())
    assert disk.detail(Alert())
    assert disk.thinned() == "written: 0 of 1 attention records, 0 of 1 histograms"
    assert disk.thinned() is None


def test_below_the_first_size_all_detail_is_written_and_nothing_said() -> None:
    disk = DiskBudget(10_000_000, 0)
    assert all(
        disk.detail(kind(data={"a": [1.0] * 100})) for kind in (Attention, Histogram) for _ in range(50)
    )
    assert disk.thinned() is None


def test_detail_does_not_touch_the_reserve_that_a_warning_draws_on() -> None:
    """``tight(…)`` has a reserve of 120,000 bytes; a record counts as 4 KB until one was written."""
    assert not tight(120_000.0).detail(Histogram())
    disk = tight(120_000.0 + 3 * 4096)
    assert [disk.detail(Histogram()) for _ in range(5)] == [True, True, True, False, False]
    assert disk.step(Step(step=1001, **ALL), 10) is not None


def detail(kind: type[Attention | Histogram], number: int, size: int) -> Attention | Histogram:
    return kind(step=number, data={"all": column(size).tolist()})


@pytest.mark.parametrize("sizes", [(100, 100), (2000, 60), (60, 2000)])
def test_detail_is_written_as_far_as_there_is_room_and_never_costs_a_step_its_scalars(
    sizes: tuple[int, int],
) -> None:
    full, hourly, took_s = 300_000, 20_000_000, 0.038
    run = Run(full, hourly)
    for number in range(1, 6001):
        run.write(number * took_s, run.disk.step(step(number, took_s)))
        if number % 10 == 0:
            both = (detail(k, number, n) for k, n in zip((Attention, Histogram), sizes, strict=True))
            run.write(number * took_s, *(r for r in both if run.disk.detail(r)))
        if number % 200 == 0:
            run.close(number * took_s)
    steps = [r.step for r in run.written if isinstance(r, (Attention, Histogram))]
    assert run.disk.tight
    assert run.numbers() == list(range(1, 6001))
    assert 100 < len(steps) < 600, "of 1,200"
    assert len([number for number in steps if number > 3000]) > 100
    assert run.stays_within(full, hourly)
    said = run.said[-1]
    assert "attention records" in said
    assert "histograms" in said
    assert "columns" not in said


@pytest.mark.parametrize("sizes", [(60, 60, 60), (20, 600, 60), (400, 20, 20), (100, 800, 2)])
def test_columns_attention_and_histograms_get_equal_shares_or_all_they_ask_for(
    sizes: tuple[int, int, int],
) -> None:
    """Every step, one a second, is sampled and has one record of each; entries of them are given."""
    hourly, steps = 3_600_000, 1200
    run = Run(40_000, hourly)
    details = [detail(kind, 1, n) for kind, n in zip((Attention, Histogram), sizes[1:], strict=True)]
    columns = {"grad_norms": column(8), "activations": {"mean": column(sizes[0])}}
    asks = {"columns": len(encode(step(1, 1.0, **columns))) - len(encode(step(1, 1.0)))}
    asks |= {record.kind: len(encode(record)) for record in details}
    written = dict.fromkeys(asks, 0)
    for number in range(1, 3 * steps // 2 + 1):
        kept = run.disk.step(step(number, 1.0, **columns), 1)
        kept_details = [record for record in details if run.disk.detail(record)]
        run.write(float(number), kept, *kept_details)
        if number > steps // 2:
            written["columns"] += kept is not None and kept.activations is not None
            for record in kept_details:
                written[record.kind] += 1
    had = {kind: times * asks[kind] for kind, times in written.items()}
    largest = max(had.values())
    for kind, times in written.items():
        assert times > 0.9 * steps or had[kind] > 0.7 * largest, (kind, asks, written)
    assert sum(had.values()) > 0.6 * hourly / HOUR * steps
    (_, before), (_, after) = run.sizes[steps // 2], run.sizes[-1]
    assert after - before < 1.1 * hourly / HOUR * steps


def test_who_does_not_come_back_keeps_nobody_waiting() -> None:
    disk = tight(120_000.0 + 3000)
    assert not disk.detail(Histogram(data={"a": 1}))  # 4 KB, and it waits
    assert not disk.detail(Attention(data={"a": 1}))
    kept = [disk.step(Step(step=1000 * n, **ALL), 1000) for n in range(1, 120)]
    assert all(s is not None and s.activations is None for s in kept[1:90])  # the first had had nothing
    assert any(s is not None and s.activations is not None for s in kept[90:])


def test_a_black_box_is_paid_for_by_columns_not_by_scalars() -> None:
    run = Run(400_000, 20_000_000)
    run.slow(1, 6000, 0.038)
    data = [{"grad_norms": column(5000)}] * 2
    run.write(6000 * 0.038, Blackbox(steps=data))
    run.slow(6001, 7000, 0.038)
    assert run.numbers() == list(range(1, 7001))


@pytest.mark.parametrize(("full", "hourly"), [(0, 0), (0, 1000), (1000, 0)])
def test_no_size_at_all_leaves_single_steps(full: int, hourly: int) -> None:
    run = Run(full, hourly)
    run.slow(1, 2000, 0.038)
    run.fast(2001, 10_000, 0.001)
    run.write(100.0, System())
    assert len(run.numbers()) < 3000
    assert run.said


def test_a_recording_over_its_size_is_thinned_says_so_and_replays_the_same(tmp_path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch: Watcher) -> None:
        for _ in range(800):
            loss = model(torch.ones(4, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    config = WatchConfig(
        activations_every=2,
        disk_full_bytes=10_000,
        disk_bytes_per_hour=2_000_000,
        terminal=False,
        energy=False,
    )
    path = tmp_path / "run.jsonl"
    record(model, body, path, config)
    records = assert_live_equals_replay(path)
    thinned = [r.thinned for r in records if isinstance(r, Interval) and r.thinned]
    assert thinned
    written = [s.step for s in steps_of(records)]
    assert len(written) <= 800
    whole = sum(s.activations is not None for s in steps_of(records))
    assert whole < 400  # every second step had columns
    end = records[-1]
    assert isinstance(end, End)
    assert end.steps == sum(r.steps for r in records if isinstance(r, Interval)) == 800


def test_attention_and_histograms_of_a_recording_over_its_size(tmp_path) -> None:
    """Both are thinned, the intervals say so, and what is left can be read."""

    class Attending(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = torch.nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.attention(x, x, x)[0])

    model = Attending()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch: Watcher) -> None:
        for _ in range(160):
            loss = model(torch.ones(2, 5, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    config = WatchConfig(
        budget=None,
        activations_every=1,
        attention=True,
        histograms=True,
        interval_steps=40,
        disk_full_bytes=60_000,
        disk_bytes_per_hour=20_000_000,
        terminal=False,
        energy=False,
    )
    path = tmp_path / "run.jsonl"
    record(model, body, path, config)
    records = assert_live_equals_replay(path)
    assert all(s.loss is not None for s in steps_of(records))
    thinned = " ".join(r.thinned for r in records if isinstance(r, Interval) and r.thinned)
    for kind, words in ((Attention, "attention records"), (Histogram, "histograms")):
        kept = [r for r in records if isinstance(r, kind)]
        assert 0 < len(kept) < 160
        assert words in thinned
        assert all(r.data for r in kept)
