"""The `steps` line: small, exact, and unreadable only as a ValueError."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers_records import JSON, lines, same
from torchwatch.records import Step, StepColumns, Steps, batch, decode, encode, expand, rounded_line


def plain(count: int, first: int = 1, **fields: Any) -> Steps:
    """A line of a fast loop."""
    rng = np.random.default_rng(count)
    took = np.round(3e-4 * rng.lognormal(0, 0.2, count), 6)
    known: dict[str, Any] = {
        "step": list(range(first, first + count)),
        "epoch": [0] * count,
        "time_s": np.round(100 + np.cumsum(took), 6),
        "loss": 2.3 * rng.lognormal(0, 0.1, count),
        "loss_source": ["log"] * count,
        "lr": [[0.001]] * count,
        "step_time_s": took,
    }
    return rounded_line(Steps(**known | fields))


def body_of(line: Steps) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(encode(line))
    assert same(decode(encode(line)), line)
    return body


def test_what_is_the_same_at_every_step_is_written_once() -> None:
    body = body_of(plain(250, 4001, clipped=[False] * 250, samples=[32] * 250, grad_norm=np.zeros(250)))
    assert (body["step"], body["count"]) == (4001, 250)
    assert body["same"] == {
        "epoch": 0, "loss_source": "log", "lr": [0.001], "samples": 32, "grad_norm": 0.0, "clipped": False,
    }  # fmt: skip
    assert isinstance(body["time_s"], float)
    assert len(body["loss"]) == len(body["step_time_s"]) == 250


def test_a_fast_step_takes_less_than_60_bytes() -> None:
    rng = np.random.default_rng(0)
    line = plain(
        256,
        400_000,
        watch_time_s=4e-6 * rng.lognormal(0, 0.2, 256),
        grad_norm=rng.lognormal(0, 0.3, 256),
        update_ratio=1e-3 * rng.lognormal(0, 0.3, 256),
    )
    assert len(encode(line)) / 256 < 60


def test_what_few_steps_measured_is_written_by_place() -> None:
    seldom: list[float | None] = [None] * 40
    seldom[3], seldom[39] = 0.5, math.inf
    inputs: list[dict[str, Any] | None] = [None] * 40
    inputs[7] = {"batch": 32}
    body = body_of(plain(40, forward_s=seldom, inputs=inputs, metrics={"a.b": seldom}))
    assert body["forward_s"] == {"3": 0.5, "39": None}
    assert body["inputs"] == {"7": {"batch": 32}}
    assert body["metrics"] == {"a.b": {"3": 0.5, "39": None}}
    assert body["nonfinite"] == {"forward_s.39": "inf", "metrics.a~1b.39": "inf"}


def test_a_loss_that_is_nan_from_now_on_takes_one_word() -> None:
    loss = np.full(250, math.nan)
    assert body_of(plain(250, loss=loss))["nonfinite"] == {"same.loss": "nan"}
    loss[:100] = np.linspace(1, 2, 100)
    assert body_of(plain(250, loss=loss))["nonfinite"] == {"loss": "nan"}
    loss[200] = math.inf
    assert len(body_of(plain(250, loss=loss))["nonfinite"]) == 150


def test_times_with_a_pause_between_are_written_each() -> None:
    line = plain(50)
    times = np.array(line.time_s)
    times[20:] += 1.5
    assert len(body_of(plain(50, time_s=times))["time_s"]) == 50


def test_step_times_are_the_differences_of_the_ends_but_never_moved_by_more_than_a_microsecond() -> None:
    took = np.array([0.0003, 0.0003, 0.0003])
    ends = np.array([1.0, 1.000301, 1.0006])
    near = rounded_line(Steps(step=[1, 2, 3], time_s=ends, step_time_s=took))
    assert near.step_time_s is not None
    assert np.array(near.step_time_s).tolist() == [0.0003, 0.000301, 0.000299]
    far = rounded_line(Steps(step=[1, 2, 3], time_s=ends + np.array([0, 0, 1e-5]), step_time_s=took))
    assert far.step_time_s is not None
    assert np.array(far.step_time_s).tolist() == took.tolist()


def test_steps_that_do_not_follow_each_other_are_listed() -> None:
    line = rounded_line(Steps(step=[1, 2, 4], loss=[1.0, None, 2.0]))
    assert body_of(line)["step"] == [1, 2, 4]


def test_a_line_longer_than_any_that_is_written_reads_as_well() -> None:
    body = body_of(plain(5000))
    assert len(body["step"]) == len(body["epoch"]) == 5000


def test_numbers_of_the_loss_and_of_what_was_logged_keep_nine_digits() -> None:
    step = Step(
        step=1, loss=0.123456789123, grad_norm=0.123456789, update_ratio=0.0, time_s=1.23456789,
        watch_time_s=1.23456789e-5, metrics={"a": 0.123456789123},
    )  # fmt: skip
    (back,) = expand(batch([step]))
    assert (back.loss, back.grad_norm, back.update_ratio) == (0.123456789, 0.12346, 0.0)
    assert (back.time_s, back.watch_time_s, back.metrics) == (1.234568, 1.23e-5, {"a": 0.123456789})
    assert type(back.loss) is float


def test_columns_belong_to_their_step() -> None:
    column = np.float32([1, 2, 3, 4])
    line = plain(5, columns={"3": StepColumns(grad_norms=column)})
    steps = list(expand(body_and_back(line)))
    assert [s.grad_norms is not None for s in steps] == [False, False, False, True, False]


def body_and_back(line: Steps) -> Steps:
    back = decode(encode(line))
    assert isinstance(back, Steps)
    return back


def test_the_form_with_a_list_for_everything_still_reads() -> None:
    line = decode(
        b'{"kind":"steps","step":[2,3,4],"epoch":[0,0,0],"time_s":[0.06,0.07,0.08],"loss":[2.25,null,null],'
        b'"lr":[[0.1],[0.1],[0.1]],"metrics":{"a":[0.25,null,0.5]},"nonfinite":{"loss.2":"nan"}}'
    )
    assert isinstance(line, Steps)
    assert [s.metrics for s in expand(line)] == [{"a": 0.25}, None, {"a": 0.5}]
    assert [s.time_s for s in expand(line)] == [0.06, 0.07, 0.08]
    assert [s.loss for s in expand(line)][:2] == [2.25, None]


START: dict[str, Any] = {"kind": "steps", "step": 5, "count": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"count": None}, {"count": -1}, {"count": 1.5}, {"count": "3"}, {"count": 10**9}, {"step": None},
        {"step": 1.5}, {"step": "5"}, {"step": {}}, {"step": 2**70}, {"same": []}, {"same": 3},
        {"same": {"loss": "x"}}, {"same": {"lr": 0.1}}, {"same": {"lr": [None]}}, {"same": {"epoch": 0.5}},
        {"loss": [1, 2]}, {"loss": 3},
        {"loss": "abc"}, {"loss": {"3": 1}}, {"loss": {"x": 1}}, {"loss": {"-1": 1}}, {"loss": {"0": "x"}},
        {"loss": [1, 2, "x"]}, {"time_s": 1.0}, {"time_s": 1.0, "step_time_s": [0.1, None, 0.1]},
        {"time_s": True},
        {"time_s": [1, None, 2]}, {"time_s": {"1": 2}}, {"metrics": []}, {"metrics": {"a": 3}},
        {"metrics": {"a": [1]}}, {"columns": []}, {"columns": {"0": 3}}, {"nonfinite": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_line_is_a_value_error(change: dict[str, Any]) -> None:
    body = START | change
    with pytest.raises(ValueError):
        decode(json.dumps(body))


def test_what_a_short_line_unfolds_to_is_bounded() -> None:
    names = {f"m{i}": {"0": 1.0} for i in range(10_000)}
    with pytest.raises(ValueError, match="too many"):
        decode(json.dumps({"kind": "steps", "step": 1, "count": 4096, "metrics": names}))


@settings(deadline=None, max_examples=40)
@given(lines(), st.data())
def test_any_tampering_is_a_line_or_a_value_error(steps: list[Step], data: st.DataObject) -> None:
    body = orjson.loads(encode(batch(steps)))
    key = data.draw(st.sampled_from([*body, "count", "same", "time_s", "metrics", "nonfinite"]))
    if isinstance(body.get(key), dict) and body[key] and data.draw(st.booleans()):
        body[key][data.draw(st.sampled_from([*body[key]]))] = data.draw(JSON)
    else:
        body[key] = data.draw(JSON)
    assume(not (isinstance(body.get("count"), int) and body["count"] > 64))  # for the time it takes
    try:
        line = decode(json.dumps(body))
    except ValueError:
        return
    if isinstance(line, Steps):
        assert len(list(expand(line))) == len(line.step)
        assert same(decode(encode(line)), line)
