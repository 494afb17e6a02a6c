from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from torchwatch.results import plain


@dataclass(frozen=True)
class Result:
    values: object
    name: str = "x"


def test_dataclasses_arrays_and_mappings_become_json():
    result = Result({"a": np.arange(3), 2: (np.float32(0.5), np.bool_(True), None)})
    assert plain(result) == {"values": {"a": [0, 1, 2], "2": [0.5, True, None]}, "name": "x"}
    assert plain(Path("a/b")) == "a/b"
    assert plain({3}) == [3]


@given(arrays.arrays(np.float64, st.integers(0, 9), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_what_is_not_finite_is_null(values):
    said = orjson.loads(orjson.dumps(plain(Result(values))))["values"]
    assert said == [float(v) if np.isfinite(v) else None for v in values]


def test_whole_numbers_that_no_json_reader_takes_are_text():
    assert plain([2**63, 2**64, -(2**63) - 1, 7]) == [2**63, str(2**64), str(-(2**63) - 1), 7]
