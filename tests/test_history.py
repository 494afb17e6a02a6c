"""What checks see: the same whatever way the steps came, against plain lists.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_checks import layout, records
from torchwatch.history import History
from torchwatch.history.columns import median_of_finite
from torchwatch.records import (
    Epoch,
    Eval,
    Interval,
    Log,
    Record,
    RunHeader,
    Step,
    StepColumns,
    Steps,
    System,
    batch,
    expand,
    is_missing,
    missing_column,
)


def history_of(*parts: Any) -> History:
    history = History()
    for part in parts:
        for record in part if isinstance(part, list) else [part]:
            history.add(record)
    return history


def steps_of(values: list[float | None], name: str = "loss", start: int = 1) -> list[Record]:
    return [Step(step=start + i, **{name: v}) for i, v in enumerate(values)]


# ------------------------------------------------------------------------------------------- series


def test_series_has_what_was_measured_with_its_steps():
    history = history_of(steps_of([1.0, None, math.nan, 4.0]))
    series = history.series("loss")
    assert series.steps.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(series.values, [1.0, math.nan, 4.0])
    assert history.series("loss", 2).steps.tolist() == [3, 4]
    assert history.series("loss", 0).values.size == 0
    assert history.series("grad_norm").values.size == 0
    assert (history.step, history.steps_seen) == (4, 4)


def test_lr_is_the_largest_of_the_groups_flags_are_numbers_metrics_have_a_prefix():
    history = history_of(Step(step=1, lr=[0.1, 0.3], clipped=True, metrics={"acc": 0.5, "none": None}))
    assert history.series("lr").values.tolist() == [0.3]
    assert history.series("clipped").values.tolist() == [1.0]
    assert history.series("metrics.acc").values.tolist() == [0.5]
    assert not history.seen("metrics.none")


def test_a_series_cannot_be_written_to():
    history = history_of(steps_of([1.0, 2.0]))
    with pytest.raises(ValueError, match="read-only"):
        history.series("loss").values[0] = 9.0


numbers = st.one_of(st.none(), st.floats(-1e9, 1e9), st.just(math.nan), st.just(math.inf))


Pairs = list[tuple[float | None, float | None]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), max_size=12), st.integers(0, 50)
)
def test_steps_lines_and_single_steps_make_the_same_history_as_a_plain_list(lines, last):
    same_history([pair for line in lines for pair in line], [len(line) for line in lines], last)


@pytest.mark.parametrize("seed", range(4))
def test_long_runs_in_steps_lines_and_in_single_steps_are_the_same_as_a_plain_list(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(7000, 2)).tolist()
    for i in rng.integers(0, 7000, 5 * 10**seed):
        values[i][rng.integers(2)] = (None, math.nan, math.inf)[rng.integers(3)]
    lengths = rng.integers(1, 2500, 40)
    lengths = lengths[np.cumsum(lengths) < 7000].tolist()
    same_history([tuple(v) for v in values], [*lengths, 7000 - sum(lengths)], last=100)


def same_history(plain: Pairs, lengths: list[int], last: int) -> None:
    steps = [
        Step(step=i, loss=a, grad_norm=b, lr=[0.1 * (1 + i // 50)], time_s=i / 10, epoch=i // 100)
        for i, (a, b) in enumerate(plain, start=1)
    ]
    cuts = np.cumsum([0, *lengths])
    lines = [batch(steps[a:b]) for a, b in pairwise(cuts)]
    batched = history_of(lines)
    steps = [step for line in lines for step in expand(line)]  # rounded
    plain = [(s.loss, s.grad_norm) for s in steps]
    single = history_of(steps)
    for history in (single, batched):
        for name, column in (("loss", [a for a, _ in plain]), ("grad_norm", [b for _, b in plain])):
            known = [(i, v) for i, v in enumerate(column, start=1) if v is not None]
            recent = [(i, v) for i, v in known if i > len(plain) - 2048]
            assert_series(history.series(name), recent)
            assert_series(history.series(name, last), recent[len(recent) - min(last, len(recent)) :])
            assert_series(history.first(name), known[:100])
            fine = [(i, v) for i, v in known if math.isfinite(v)]
            assert history.best(name) == min(fine, key=lambda pair: (pair[1], pair[0]), default=None)
        assert history.warm_up_end() == single.warm_up_end()
        assert history.lr_rises() == single.lr_rises()
        assert (history.step, history.epoch, history.time_s) == (single.step, single.epoch, single.time_s)
    np.testing.assert_array_equal(single.older("loss").values, batched.older("loss").values)
    np.testing.assert_array_equal(single.older("loss").steps, batched.older("loss").steps)


def assert_series(series, pairs):
    assert series.steps.tolist() == [i for i, _ in pairs]
    np.testing.assert_array_equal(series.values, [v for _, v in pairs])


@pytest.mark.parametrize("count", [2048, 2049, 2200, 10_000, 40_000])
def test_older_values_are_bucket_means_that_cover_all_steps_before_the_window(count):
    values = np.random.default_rng(0).normal(5, 1, count)
    values[3::7] = math.nan
    lines = [batch(steps_of(values[i : i + 250].tolist(), start=i + 1)) for i in range(0, count, 250)]
    older = history_of(lines).older("loss")
    before = values[: count - 2048]
    assert len(older.values) <= 129
    assert (np.diff(older.steps) > 0).all()
    if before.size:
        assert older.values.mean() == pytest.approx(np.nanmean(before), abs=0.3)
        assert 0 < older.steps[0] <= older.steps[-1] <= count - 2048
    else:
        assert not older.values.size


def test_a_bucket_holds_the_mean_of_its_finite_values():
    values = np.arange(1.0, 2048 + 64 + 1)
    values[3] = math.inf
    older = history_of([batch(steps_of(values.tolist()))]).older("loss")
    assert older.values.tolist() == [pytest.approx((np.arange(1, 65).sum() - 4) / 63)]
    assert older.steps.tolist() == [32]


@pytest.mark.parametrize(("count", "width"), [(128, 64), (128 * 64, 64), (129 * 64, 128), (300 * 64, 256)])
def test_buckets_are_of_one_width_that_doubles(count, width):
    values = np.arange(1.0, count + 2048 + 1).tolist()
    older = history_of([batch(steps_of(values))]).older("loss")
    before = values[:count]
    assert older.values.tolist() == [np.mean(before[a : a + width]) for a in range(0, count, width)]


def test_a_scalar_that_comes_late_has_no_old_values():
    history = history_of(steps_of([1.0] * 3000), steps_of([2.0] * 10, "grad_norm", start=3001))
    assert history.older("grad_norm").values.size == 0
    assert history.series("grad_norm").steps.tolist() == list(range(3001, 3011))
    assert history.first("grad_norm", 3).steps.tolist() == [3001, 3002, 3003]


def test_memory_does_not_grow_with_the_run_nor_with_the_number_of_metric_names():
    history = History()
    line = batch([Step(step=i, loss=1.0, grad_norm=2.0) for i in range(1, 251)])
    for _ in range(30):
        history.add(line)
    for i in range(300):
        history.add(Step(step=i, metrics={f"m{i}": 1.0}))
    tracemalloc.start()
    for i in range(120):
        history.add(line)
        history.add(Interval(index=i, last_step=i))
        history.add(Step(step=i, metrics={f"late{i}": 1.0}))
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200_000
    assert history.series("metrics.late3").values.size == 0


def test_all_values_of_a_line_of_any_length_are_taken():
    history = history_of(batch(steps_of([float(i) for i in range(1, 9001)])))
    assert history.series("loss").values.tolist() == [float(i) for i in range(9001 - 2048, 9001)]
    assert history.best() == (1, 1.0)


# ------------------------------------------------------------------------------------------ columns


def test_columns_keep_the_last_64_and_medians_per_interval():
    history = history_of(
        records(steps=300, columns={"grad_norms": lambda n: [n, None, 2.0]}, interval_steps=50)
    )
    columns = history.columns("grad_norms")
    assert columns.steps.tolist() == list(range(237, 301))
    assert columns.values[:, 0].tolist() == list(range(237, 301))
    assert is_missing(columns.values[:, 1]).all()
    medians = history.interval_columns("grad_norms")
    assert medians.steps.tolist() == [50, 100, 150, 200, 250, 300]
    assert medians.values[:, 0].tolist() == [25.5, 75.5, 125.5, 175.5, 225.5, 275.5]
    assert is_missing(medians.values[:, 1]).all()
    assert history.interval_columns("grad_norms", 2).steps.tolist() == [250, 300]


def test_columns_of_a_steps_line_belong_to_their_step():
    history = history_of(
        layout(["a"]),
        Steps(step=[7, 8, 9], columns={"2": StepColumns(weight_norms=np.float32([4.0])), "x": StepColumns()}),
    )
    assert history.columns("weight_norms").steps.tolist() == [9]
    assert history.seen("weight_norms")


def test_a_layout_with_other_parameters_forgets_columns_and_an_equal_one_does_not():
    history = history_of(records(steps=20, columns={"grad_norms": 1.0, "activations.rms": 2.0}))
    history.add(layout(optimizer="Adam"))
    assert len(history.columns("grad_norms").steps) == 20
    history.add(layout(["0", "1", "other"]))
    assert not history.columns("grad_norms").steps.size
    assert not history.interval_columns("activations.rms").steps.size
    assert history.seen("grad_norms")


def test_a_column_of_the_wrong_width_is_left_out():
    history = history_of(layout(["a", "b"]), Step(step=1, grad_norms=np.float32([1, 2, 3])))
    assert history.columns("grad_norms").values.shape == (0, 2)
    history.add(Step(step=2, grad_norms=np.float32([1, 2])))
    history.add(Step(step=3, grad_norms=np.float32([1])))
    assert history.columns("grad_norms").steps.tolist() == [2]


def test_a_column_in_which_nothing_was_measured_was_not_seen():
    history = history_of(layout(["a", "b"]), Step(step=1, grad_norms=missing_column(2)))
    assert not history.seen("grad_norms")


def test_the_first_value_of_each_entry_is_never_dropped():
    late = [1.0 if i >= 40 else None for i in range(300)]
    rows = [[5.0 + i, None if i < 2 else 7.0 + i, late[i]] for i in range(300)]
    history = History()
    for record in records(1.0, steps=300, columns={"grad_norms": rows}, interval_steps=50):
        history.add(record)
    assert history.first_column("grad_norms").tolist() == [5.0, 9.0, 1.0]
    assert is_missing(history.first_column("weight_norms")).tolist() == [True] * 3


def test_first_bad_is_where_the_present_stretch_of_bad_rows_began():
    rows = [[1.0, None], [math.nan, 1.0], [1.0, 2.0], [3.0, math.inf], *[[math.nan, math.nan]] * 200]
    history = history_of(records(steps=204, layers=["a", "b"], columns={"grad_norms": lambda n: rows[n - 1]}))
    found = history.first_bad("grad_norms")
    assert found is not None
    assert (found[0], found[1].tolist()) == (4, [3.0, math.inf])
    history.add(Step(step=205, grad_norms=np.float32([1, 2])))
    assert history.first_bad("grad_norms") is None
    assert history.first_bad("weight_norms") is None


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=3, max_size=3), min_size=1))
def test_median_of_finite_is_numpys_entry_by_entry(rows):
    values = np.stack([missing_column(3) for _ in rows])
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if value is not None:
                values[i, j] = value
    medians = median_of_finite(values)
    for j in range(3):
        column = values[:, j]
        fine = column[np.isfinite(column)].astype(np.float64)
        if fine.size:
            assert medians[j] == pytest.approx(np.median(fine), rel=1e-6, abs=1e-44)
        else:
            assert np.isnan(medians[j])
            assert is_missing(medians)[j] == is_missing(column).all()


# -------------------------------------------------------------------------------- the other records


def test_new_from_is_the_first_step_of_the_record_just_added():
    history = history_of(batch(steps_of([1.0, 2.0, 3.0])))
    assert history.new_from == 1
    history.add(Step(step=4))
    assert history.new_from == 4
    history.add(Interval(first_step=1, last_step=4, steps=4))
    assert history.new_from == 5


def test_what_was_seen():
    history = history_of(
        RunHeader(run_id="a", config={"declare": {"causal": True}}),
        Interval(last_step=5, rss_bytes=10),
        System(cpu_percent=3.0),
        Log(message="m"),
        Epoch(metrics={"train_accuracy": 0.5}),
    )
    for name in ("rss_bytes", "cpu_percent", "log", "train_accuracy"):
        assert history.seen(name), name
    for name in ("loss_mean", "val_loss", "loss", "cuda_allocated_bytes", "grad_norms"):
        assert not history.seen(name), name
    assert history.declared == {"causal": True}
    assert history.header.run_id == "a"


def test_interval_and_eval_series_leave_out_what_was_not_measured():
    history = history_of(
        Interval(last_step=10, loss_mean=1.0),
        Interval(last_step=20),
        Eval(step=20, metrics={"val_loss": 3.0, "val_acc": None}),
        Interval(last_step=30, loss_mean=math.nan),
        Eval(step=30, metrics={"val_loss": 2.0}),
    )
    assert history.interval_series("loss_mean").steps.tolist() == [10, 30]
    assert history.interval_series("no_such_field").steps.size == 0
    assert history.eval_series("val_loss").values.tolist() == [3.0, 2.0]
    assert history.eval_series("val_acc").values.size == 0
    history.add(Eval(step=40, metrics={"val_loss": 1.5}))
    assert history.eval_series("val_loss").values.tolist() == [3.0, 2.0, 1.5]
    assert history.best("val_loss") == (40, 1.5)


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ([{"val_loss": 1.0}], "val_loss"),
        ([{"eval_loss": 1.0}, {"valid_loss": 1.0}], "valid_loss"),
        ([{"val_accuracy": 1.0, "val_nll_Loss": 2.0}], "val_nll_Loss"),
        ([{"val_nll_loss": 1.0}, {"test_loss": 1.0}], "test_loss"),
        ([{"val_accuracy": 1.0}], None),
        ([], None),
    ],
)
def test_val_loss_name(metrics, name):
    history = history_of([Eval(metrics=m) for m in metrics])
    assert history.val_loss_name() == name
    assert history.seen("val_loss") == (name is not None)


def test_intervals_beyond_the_limit_are_thinned_from_the_old_end_and_the_first_stays():
    history = history_of([Interval(index=i, last_step=i) for i in range(20_000)])
    kept = [i.index for i in history.intervals]
    assert kept[0] == 0
    assert 2048 <= len(kept) <= 4096
    assert kept[-1000:] == list(range(19_000, 20_000))
    assert kept == sorted(kept)


@pytest.mark.parametrize("count", [100, 4096, 4097, 9000])
def test_series_over_intervals_and_evals_grow_as_a_plain_list_would(count):
    history = History()
    for i in range(1, count + 1):
        history.add(Interval(last_step=i, loss_mean=None if i % 5 == 0 else i / 2))
        history.add(Eval(step=i, metrics={"val_loss": i / 3} if i % 2 else {}))
        if i % 97 == 0 or i > count - 3:
            means, losses = history.interval_series("loss_mean"), history.eval_series("val_loss")
            assert_series(means, [(x.last_step, x.loss_mean) for x in history.intervals if x.loss_mean])
            assert_series(losses, [(x.step, x.step / 3) for x in history.evals if x.metrics])
    assert history.interval_series("closed_by").values.size == 0


def test_systems_and_logs_keep_the_last():
    history = history_of([System(step=i) for i in range(2000)], [Log(step=i) for i in range(2000)])
    assert [s.step for s in history.systems] == list(range(2000 - 1024, 2000))
    assert [log.step for log in history.logs] == list(range(2000 - 256, 2000))


def test_cached_is_computed_once_per_record():
    history, calls = History(), []
    for _ in range(2):
        assert history.cached("key", lambda: calls.append(1) or 42) == 42
    history.add(Step(step=1))
    history.cached("key", lambda: calls.append(1))
    assert len(calls) == 2


# -------------------------------------------------------------------------------------- learning rate


def rates(values: list[float], epoch_steps: int | None = None) -> History:
    return history_of(
        [
            Step(step=i, lr=[v], epoch=None if epoch_steps is None else (i - 1) // epoch_steps)
            for i, v in enumerate(values, start=1)
        ]
    )


@pytest.mark.parametrize(
    ("values", "epoch_steps", "end", "rises"),
    [
        ([0.1] * 500, None, 20, []),
        ([i / 100 for i in range(1, 101)] + [1.0] * 100, None, 100, []),
        ([i / 10 for i in range(1, 11)] + [1.0] * 100, None, 20, []),
        ([0.1] * 60 + [0.2] * 60 + [0.3] * 60 + [0.3] * 60, 60, 121, []),
        ([0.1] * 60 + [0.05] * 60 + [0.1] * 60, None, 20, [121]),
        ([0.1] * 60 + [0.05] * 60 + [0.053] * 60, None, 20, []),
        ([0.1] * 100 + [0.2] * 100, None, 20, [101]),
        ([0.1, 0.0] + [0.0] * 50 + [0.1], None, 20, [53]),
    ],
    ids=["constant", "linear", "short", "staircase", "restart", "nudge", "raise", "from-zero"],
)
def test_warm_up_and_rises(values, epoch_steps, end, rises):
    history = rates(values, epoch_steps)
    assert history.warm_up_end() == end
    assert history.lr_rises() == rises


def test_a_slow_climb_is_marked_at_every_tenth():
    climb = [0.1, 0.01] + [0.01 * 1.001**i for i in range(1, 2400)]
    marks = rates(climb).lr_rises()
    assert len(marks) == 24
    assert all(94 <= gap <= 97 for gap in np.diff(marks))


def test_at_most_64_rises_are_kept():
    saw = [0.1, 0.01] * 200
    marks = rates(saw).lr_rises()
    assert len(marks) == 64
    assert marks[-1] == 399
