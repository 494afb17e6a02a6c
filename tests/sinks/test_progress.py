import math

import pytest

from tests.helpers_runs import alert, header, interval, steps, whole_run
from torchwatch.records import Eval, Record, Step, Steps, System, batch
from torchwatch.sinks.progress import Pace, Progress


def after(*records: Record) -> Progress:
    progress = Progress()
    for record in records:
        progress.feed(record)
    return progress


def test_whole_run_in_one_line() -> None:
    line = after(*whole_run()).line()
    assert line == (
        "step 100 · epoch 0 · loss 0.12 · 320 samples/s · RAM 512.0 MB · GPU 2.0 GB · 10.2 s · 1 warning"
        " · val_loss 0.5 · val_accuracy 0.9"
    )


def test_nothing_known_is_left_out() -> None:
    assert after(header()).line() == "step 0 · 0 ms"


def test_throughput_is_over_the_last_ten_seconds() -> None:
    slow, fast = (
        steps(1, 20, every_s=1.0),
        [Step(step=20 + i, time_s=20.0 + i * 0.1, samples=32) for i in range(1, 201)],
    )
    assert after(*slow).steps_per_s == pytest.approx(1.0)
    assert after(*slow, *fast).steps_per_s == pytest.approx(10.0, rel=0.02)


def test_steps_per_second_where_samples_are_not_known() -> None:
    assert "10 steps/s" in after(*steps(1, 50, samples=None)).line()


def test_batched_steps_count_like_single_ones() -> None:
    single = steps(1, 40)
    batched = [batch(single[i : i + 10]) for i in range(0, 40, 10)]
    one, other = after(*single), after(*batched)
    assert (other.step, other.epoch, other.loss, other.time_s) == (one.step, one.epoch, one.loss, one.time_s)
    assert other.samples_per_s == pytest.approx(320.0)
    assert one.samples_per_s == pytest.approx(320.0)


def test_loss_that_is_not_measured_keeps_the_last_and_nan_is_shown() -> None:
    assert after(Step(step=1, loss=0.5), Step(step=2, loss=None)).loss == 0.5
    assert "loss NaN" in after(Step(step=1, loss=math.nan)).line()


def test_empty_steps_line_changes_nothing() -> None:
    assert after(Step(step=3, time_s=1.0), Steps()).step == 3


def test_open_issues_are_counted() -> None:
    progress = after(alert(), alert(layer="b"), alert(layer="c", severity="critical"))
    assert progress.open == {"warning": 2, "critical": 1}
    assert progress.line().endswith("1 critical · 2 warnings")
    progress.feed(alert(state="updated", severity="critical"))
    progress.feed(alert(layer="c", state="resolved"))
    assert progress.open == {"warning": 1, "critical": 1}


def test_json_has_every_field() -> None:
    body = after(*whole_run()).as_json()
    assert body["kind"] == "status"
    assert body["step"] == 100
    assert body["cuda_bytes"] == 2_000_000_000
    assert body["metrics"] == {"val_loss": 0.5, "val_accuracy": 0.9}
    assert body["open"] == {"warning": 1}


def test_memory_from_interval_or_system() -> None:
    assert after(interval(100)).rss_bytes == 512_000_000
    assert after(interval(100), System(time_s=11.0, rss_bytes=600)).rss_bytes == 600


def test_header_begins_anew() -> None:
    assert after(*whole_run(), header(run_id="r2")).line() == "step 0 · 0 ms"


def test_validation_metrics_of_hostile_type_are_left_out() -> None:
    assert "val" not in after(Eval(metrics={"val_x": None, "train_y": 1.0})).line()


def test_pace_goes_by_the_time_of_the_run() -> None:
    pace, progress, due = Pace(5.0), Progress(), []
    for step in steps(1, 200):
        progress.feed(step)
        if pace.is_due(progress):
            due.append(step.step)
    assert due == [1, 51, 101, 151]
    assert not pace.is_due(progress)
