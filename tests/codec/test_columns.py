"""Columns that say the same in every entry take one entry, and come back to the bit."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers_records import same
from torchwatch.codec import MISSING, rounded
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


@pytest.mark.parametrize("common", [0.0, MISSING, 0.5], ids=["0", "missing", "0.5"])
@pytest.mark.parametrize("others", [[0], [149], [75], [0, 149], list(range(30)), list(range(0, 150, 2))])
def test_a_few_entries_that_differ_are_kept(common: float, others: list[int]) -> None:
    column = np.full(150, np.float32(common))
    column[others] = np.resize(np.float32([0.25, -0.0, math.nan, MISSING, math.inf, 1e-30, 7]), len(others))
    line = encode(Step(weight_norms=column))
    back = decode(line)
    assert isinstance(back, Step)
    assert back.weight_norms is not None
    assert back.weight_norms.view(np.uint32).tolist() == column.view(np.uint32).tolist()
    assert len(line) < 200 or len(others) > 1 or common == 0.5


@given(st.lists(st.floats(width=32) | st.floats(2**-30, 2**-7, width=32), min_size=4, max_size=30))
def test_numbers_written_short_are_the_same_numbers(values: list[float]) -> None:
    column = np.array(values, np.float32)
    for entries in (column, rounded(column)):
        back = decode(encode(Step(weight_norms=entries)))
        assert isinstance(back, Step)
        assert same(back.weight_norms, entries)


def test_small_and_whole_numbers_are_short() -> None:
    column = np.float32([0.00001234, 0.00002345, 0.00001111, 12, 1e-7, -0.00001234])
    assert b"[1234e-8,2345e-8,1111e-8,12,1e-7,-0.00001234]" in encode(Step(weight_norms=column))


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
     {"n": 10**12, "all": 0}, {"n": 3, "all": "x"}, {"n": 3, "all": [1]}, {"n": "3", "all": 1},
     {"n": 3, "all": 0, "but": []}, {"n": 3, "all": 0, "but": {"3": 1}}, {"n": 3, "all": 0, "but": {"x": 1}},
     {"n": 5000, "all": 0, "but": {"3": 1}}, {"n": 3, "all": 0, "but": {"1": "x"}}],
)  # fmt: skip
def test_what_is_no_constant_column_is_a_value_error(body: object) -> None:
    with pytest.raises(ValueError):
        column_from_json(body)


def test_a_short_line_takes_little_memory_however_wide_its_column() -> None:
    assert column_from_json({"n": 1 << 17, "all": 0.5}).base.nbytes == 4
