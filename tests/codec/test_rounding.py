"""Rounding: few digits, never far, and done once for all."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.codec import MISSING, decimals, is_missing, rounded, significant

DIGITS = st.integers(1, 9)
finite = st.floats(allow_nan=False, allow_infinity=False)


def one(value: float, digits: int) -> float:
    return float(significant(np.array([value]), digits)[0])


def digits_of(value: float) -> int:
    return len(Decimal(repr(value)).normalize().as_tuple().digits)


@given(finite, DIGITS)
def test_a_rounded_number_has_few_digits_and_is_near(value: float, digits: int) -> None:
    short = one(value, digits)
    if short == value:  # nothing nearer; the largest double has no neighbour with few digits
        return
    assert digits_of(short) <= digits
    last = Decimal(1).scaleb(Decimal(value).adjusted() - digits + 1)
    assert abs(Decimal(short) - Decimal(value)) <= last * Decimal("0.500001") + Decimal("5e-324")


@given(finite, DIGITS)
def test_rounding_again_changes_nothing(value: float, digits: int) -> None:
    short = one(value, digits)
    assert one(short, digits) == short


@given(st.floats(1e-13, 1e13))
def test_nine_digits_of_a_tidied_number_are_its_own(value: float) -> None:
    tidy = float(f"{value:.9g}")
    assert one(tidy, 9) == tidy


def test_many_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=500) * 10.0 ** rng.integers(-30, 30, 500)
    values[::50] = [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 1e22, 1e-22, 1]
    together = significant(values, 5)
    alone = [one(v, 5) for v in values.tolist()]
    assert together.tobytes() == np.array(alone).tobytes()


@pytest.mark.parametrize("value", [0.0, -0.0, math.inf, -math.inf, math.nan])
def test_what_has_no_digits_keeps_its_bits(value: float) -> None:
    assert significant(np.array([value]), 5).tobytes() == np.array([value]).tobytes()


@given(st.floats(-1e9, 1e9))
def test_times_are_whole_microseconds(value: float) -> None:
    short = float(decimals(np.array([value]), 6)[0])
    assert abs(short - value) <= 0.5e-6 + 1e-15 * abs(value)
    assert short == round(short, 6)
    assert float(decimals(np.array([short]), 6)[0]) == short


@given(finite)
def test_no_time_is_too_long(value: float) -> None:
    assert math.isfinite(float(decimals(np.array([value]), 6)[0]))


@given(st.lists(st.floats(width=32) | st.just(None), max_size=20))
def test_columns_keep_zeros_and_what_is_no_number(values: list[float | None]) -> None:
    column = np.array([MISSING if v is None else v for v in values], np.float32)
    short = rounded(column)
    assert short.dtype == np.float32
    odd = ~np.isfinite(column) | (column == 0)
    assert np.array_equal(short.view(np.uint32)[odd], column.view(np.uint32)[odd])
    assert np.array_equal(is_missing(short), is_missing(column))
    fine = ~odd & (np.abs(column) >= np.finfo(np.float32).tiny)
    with np.errstate(over="ignore"):
        assert (np.abs(short[fine] / column[fine] - 1) <= 5.1e-4).all()
    assert rounded(short).tobytes() == short.tobytes()
    assert np.isfinite(short[np.isfinite(column)]).all()


def test_columns_have_four_digits() -> None:
    column = np.float32([123456.7, 0.00123456, 9.99996, 1e-38])
    assert [str(v) for v in rounded(column)] == ["123500.0", "0.001235", "10.0", "1e-38"]
