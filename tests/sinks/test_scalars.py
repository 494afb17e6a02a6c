"""A run as rows of numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers_runs import alert, header, hostile_run, interval, steps, whole_run
from torchwatch.check import Severity
from torchwatch.engine import health_score
from torchwatch.records import Alert, End, Epoch, Eval, Step, Steps, System, batch
from torchwatch.sinks.scalars import Issues, Row, Scalars, latest


def rows(records, **options) -> list[Row]:
    scalars = Scalars(**options)
    return [row for record in records for row in scalars.feed(record)] + scalars.finish()


def test_a_whole_run() -> None:
    found = rows(whole_run())
    losses = {r.step: r.values["loss"] for r in found if "loss" in r.values}
    assert losses == {s.step: s.loss for s in steps(1, 100) if s.step in losses}
    assert sorted(losses) == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100], "one a second, and the last"
    judged = [(r.step, r.values) for r in found if "health_score" in r.values]
    zero = {"issues/info": 0, "issues/critical": 0}
    assert judged == [
        (1, {"health_score": 100, "issues/warning": 0, **zero}),
        (61, {"health_score": 93, "issues/warning": 1, **zero}),
    ]
    assert {"metric/val_loss": 0.5, "metric/val_accuracy": 0.9} in [r.values for r in found]
    assert any(r.values.get("system/cuda_allocated_bytes") == 2_000_000_000 for r in found)
    assert any(r.values.get("interval/loss_mean") == 0.5 for r in found)


def test_steps_and_times_never_go_back() -> None:
    found = rows(whole_run(), every_s=0.0)
    assert [r.step for r in found] == sorted(r.step for r in found)
    assert [r.time_s for r in found] == sorted(r.time_s for r in found)


def test_a_line_of_many_steps_is_one_row_with_the_latest_of_each() -> None:
    many = [
        Step(step=i, time_s=i / 100, loss=float(i) if i % 3 == 0 else None, lr=[0.1]) for i in range(1, 9)
    ]
    many[4] = Step(step=5, time_s=0.05, loss=None, lr=[0.1], metrics={"accuracy": 0.5})
    (first, *_) = rows([batch(many)])
    assert (first.step, first.time_s) == (8, 0.08)
    assert first.values == {"loss": 6.0, "lr": 0.1, "metric/accuracy": 0.5}
    assert rows([Steps()]) == []


def test_what_is_gathered_is_not_lost_between_rows() -> None:
    course = [Step(step=i, time_s=i * 0.3, metrics={f"m{i}": float(i)}) for i in range(1, 7)]
    names = {k for r in rows(course) for k in r.values if k.startswith("metric/")}
    assert names == {f"metric/m{i}" for i in range(1, 7)}


def test_several_groups_have_a_learning_rate_each() -> None:
    assert latest(Step(step=1, lr=[0.1, 0.2])) == {"lr/0": 0.1, "lr/1": 0.2}
    assert latest(batch([Step(step=1, lr=[0.1, 0.2]), Step(step=2)])) == {"lr/0": 0.1, "lr/1": 0.2}


def test_nan_is_a_number_and_none_is_not() -> None:
    values = latest(Step(step=1, loss=math.nan, grad_norm=None, metrics={"a": None, "b": math.inf}))
    assert list(values) == ["loss", "metric/b"]
    assert math.isnan(values["loss"])


def test_what_an_epoch_repeats_of_its_evaluation_comes_once() -> None:
    told = [Eval(step=5, metrics={"val_loss": 1.0}), Epoch(step=5, metrics={"val_loss": 1.0, "speed": 2.0})]
    metrics = [
        r.values for r in rows([*steps(1, 5), *told]) if any(k.startswith("metric/") for k in r.values)
    ]
    assert metrics == [{"metric/val_loss": 1.0}, {"metric/speed": 2.0}]


def test_gpus_have_a_folder_each() -> None:
    gpus = [{"index": 1, "name": "H", "utilization_percent": 50, "throttle": ["x"]}]
    found = rows([*steps(1, 1), System(time_s=1.0, step=1, gpus=gpus)])
    assert {"system/gpu1/utilization_percent": 50} in [
        {k: v for k, v in r.values.items() if "gpu" in k} for r in found
    ]


def test_damaged_and_hostile_records_make_no_other_rows() -> None:
    assert rows([header(), *hostile_run("\x1b[2J")])
    assert rows([interval(10), End()])[0].step == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from([None, "l"]),
            st.sampled_from(["opened", "updated", "resolved"]),
            st.sampled_from(["info", "warning", "critical"]),
        ),
        max_size=20,
    )
)
def test_the_score_is_the_engine_s(course) -> None:
    issues = Issues()
    for check, layer, state, severity in course:
        issues.feed(Alert(check=check, layer=layer, state=state, severity=severity))
    worst = {c: max(Severity[s.upper()] for d, _, _, s in course if d == c) for c, *_ in course}
    assert issues.health_score == health_score(worst.values())
    last = {(c, layer): (state, severity) for c, layer, state, severity in course}
    open_now = [severity for state, severity in last.values() if state != "resolved"]
    assert issues.open == {s.word: open_now.count(s.word) for s in Severity}


@pytest.mark.parametrize("word", ["", "fatal"])
def test_a_severity_that_is_none_counts_as_info(word: str) -> None:
    issues = Issues()
    issues.feed(alert(severity=word))
    assert issues.open["info"] == 1
