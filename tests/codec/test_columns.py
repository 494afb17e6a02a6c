"""Columns that say the same in every entry take one entry, and come back to the bit."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest

from torchwatch.codec import MISSING
from torchwatch.codec.columns import column_from_json
from torchwatch.records import Blackbox, Step, decode, encode

NUMBERS = [0.0, -0.0, 0.1, 7.0, -3.0, 3.4028235e38, 1e-45, 16777216.0, 1e30, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", [np.float32(v) for v in NUMBERS] + [MISSING], ids=str)
def test_a_constant_column_is_written_once(value: np.float32) -> None:
    column = np.full(150, value)
    line = encode(Step(step=1, grad_nonfinite=column, activations={"a.b": column}))
    assert len(line) < 220
    back = decode(line)
    assert isinstance(back, Step)
    for read in (back.grad_nonfinite, (back.activations or {})["a.b"]):
        assert read is not None
        assert read.tobytes() == column.tobytes()


def test_whole_numbers_are_written_as_such() -> None:
    assert orjson.loads(encode(Step(grad_nonfinite=np.zeros(9, np.float32))))["grad_nonfinite"] == {
        "n": 9,
        "all": 0,
    }


@pytest.mark.parametrize("odd", [0, 75, 149])
def test_one_entry_that_differs_is_kept(odd: int) -> None:
    column = np.full(150, np.float32(0.5))
    column[odd] = -0.5
    back = decode(encode(Step(weight_norms=column)))
    assert isinstance(back, Step)
    assert back.weight_norms is not None
    assert back.weight_norms.tobytes() == column.tobytes()


def test_two_kinds_of_nan_are_not_one() -> None:
    column = np.full(9, np.float32(math.nan))
    column[4] = MISSING
    back = decode(encode(Step(weight_norms=column)))
    assert isinstance(back, Step)
    assert back.weight_norms is not None
    assert back.weight_norms.view(np.uint32).tolist() == column.view(np.uint32).tolist()


def test_a_map_of_any_content_keeps_its_lists() -> None:
    line = encode(Blackbox(steps=[{"grad_norms": np.zeros(9, np.float32)}]))
    assert orjson.loads(line)["steps"] == [{"grad_norms": [0.0] * 9}]


@pytest.mark.parametrize(
    "body",
    [{}, {"n": 3}, {"all": 1}, {"n": -1, "all": 0}, {"n": 1.0, "all": 0}, {"n": True, "all": 0},
     {"n": 10**12, "all": 0}, {"n": 3, "all": "x"}, {"n": 3, "all": [1]}, {"n": "3", "all": 1}],
)  # fmt: skip
def test_what_is_no_constant_column_is_a_value_error(body: object) -> None:
    with pytest.raises(ValueError):
        column_from_json(body)


def test_a_short_line_takes_little_memory_however_wide_its_column() -> None:
    assert column_from_json({"n": 1 << 17, "all": 0.5}).base.nbytes == 4
