"""Every kind of line, there and back, and whatever else a line may hold.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_records import JSON, UNKNOWNS, lines, records, same
from torchwatch.errors import NewerSchema, NotARunFile
from torchwatch.records import (
    KINDS,
    MISSING,
    SCHEMA,
    Alert,
    Eval,
    Layout,
    RunHeader,
    Step,
    StepColumns,
    Steps,
    Unknown,
    batch,
    decode,
    decode_header,
    encode,
    expand,
    is_bad,
    is_missing,
    missing_column,
)

if TYPE_CHECKING:
    from collections.abc import Callable

relaxed = settings(deadline=None, max_examples=25)


def strict(line: bytes) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"not strict JSON: {word}")

    return json.loads(line, parse_constant=refuse)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@relaxed
def test_every_record_survives_the_way_through_its_line(kind: str, data: st.DataObject) -> None:
    record = data.draw(records(kind))
    line = encode(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert strict(line)["kind"] == kind
    assert same(decode(line), record)


@given(UNKNOWNS.filter(lambda u: u.name not in KINDS))
@relaxed
def test_unknown_kinds_are_kept_as_they_are(record: Unknown) -> None:
    assert same(decode(encode(record)), record)


@given(lines())
@relaxed
def test_batched_steps_expand_to_themselves_but_for_rounding(steps: list[Step]) -> None:
    line = batch(steps)
    single = list(expand(line))
    assert len(single) == len(steps)
    for short, step in zip(single, steps, strict=True):
        for field in dataclasses.fields(Step):
            one, other = getattr(short, field.name), getattr(step, field.name)
            if field.name not in ROUNDED:
                assert same(one, other), field.name
            elif isinstance(one, float) and math.isfinite(other):
                assert abs(one - other) <= max(1e-4 * abs(other), 1.6e-6), field.name
            elif field.name != "metrics":
                assert same(one, other), field.name
    read = decode(encode(line))
    assert isinstance(read, Steps)
    assert same(list(expand(read)), single)
    assert same(batch(single), line), "rounding again changes nothing"


ROUNDED = frozenset(
    {"time_s", "loss", "step_time_s", "wait_time_s", "grad_norm", "grad_norm_preclip", "update_ratio"}
    | {"grad_scale", "watch_time_s", "forward_s", "backward_s", "optimizer_s", "metrics"}
)


def test_columns_round_trip_for_any_bits() -> None:
    bits = np.random.default_rng(7).integers(0, 2**32, 200_000, np.uint32)
    column = bits.view(np.float32)
    column = column[np.isfinite(column)]
    back = decode(encode(Step(grad_norms=column)))
    assert isinstance(back, Step)
    assert back.grad_norms is not None
    assert np.array_equal(back.grad_norms.view(np.uint32), column.view(np.uint32))


def test_columns_are_written_in_the_shortest_form() -> None:
    line = encode(Step(grad_norms=f32(0.1, 1e-7, 3.4028235e38)))
    assert b'"grad_norms":[0.1,1e-7,3.4028235e38]' in line.replace(b"e+", b"e")  # releases of orjson differ


def test_not_measured_is_told_from_measured_as_nan() -> None:
    column = f32(1, math.nan, math.inf, 0)
    column[3] = MISSING
    assert is_missing(column).tolist() == [False, False, False, True]
    assert is_bad(column).tolist() == [False, True, True, False]
    assert is_missing(missing_column(2)).all()
    body = strict(encode(Step(step=3, loss=-math.inf, grad_norms=column)))
    assert body["grad_norms"] == [1, None, None, None]
    assert body["nonfinite"] == {"loss": "-inf", "grad_norms.1": "nan", "grad_norms.2": "inf"}


def test_a_column_that_is_bad_throughout_takes_one_entry() -> None:
    step = Step(activations={"mean": f32(math.nan, math.nan), "a.b": f32(math.inf, 1)})
    body = strict(encode(step))
    assert body["nonfinite"] == {"activations.mean": "nan", "activations.a~1b.0": "inf"}
    assert same(decode(encode(step)), step)


def test_fields_not_measured_are_left_out_but_an_alert_keeps_every_key() -> None:
    assert strict(encode(Step(step=1))) == {"kind": "step", "step": 1, "time_s": 0.0}
    assert set(strict(encode(Alert()))) == {"kind", *(f.name for f in dataclasses.fields(Alert))}


class _Word(str, Enum):  # noqa: UP042 - a StrEnum would hide what is tried here
    A = "a"


class _Number(IntEnum):
    ONE = 1


class _Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class _HostileMap(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items either")


@dataclasses.dataclass
class _Inner:
    x: float
    y: None = None
    me: Any = None


def _circle() -> list[Any]:
    one: list[Any] = [1]
    one += [one, one, one]
    return one


def _circular_map() -> dict[str, Any]:
    one: dict[str, Any] = {}
    one |= {"a": one, "b": one, "c": one}
    return one


def _deep(wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(5000):
        value = wrap(value)
    return value


_inner = _Inner(math.inf)
_inner.me = _inner


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("\ud800x", "\\ud800x"),
        ({"\ud800": math.nan}, {"\\ud800": None}),
        (2**64 - 1, 2**64 - 1),
        (2**64, 2.0**64),
        (-(2**63) - 1, -(2.0**63)),
        (10**400, "1" + "0" * 400),
        (10**6000, "<int>"),
        ({1: {None: 2, (1, 2): 3, True: 4}}, {"1": {"None": 2, "(1, 2)": 3, "True": 4}}),
        ({1}, "{1}"),
        (b"\xff", "b'\\xff'"),
        (Path("a/b"), "a/b"),
        (1 + 2j, "(1+2j)"),
        (_Word.A, "a"),
        (_Number.ONE, 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([[0.5, math.nan]]), [[0.5, None]]),
        (np.array([0.5, 1e300]), [0.5, None]),
        (np.array([1.5], ">f8"), [1.5]),
        (np.array(3), 3),
        (np.array(["a", None], object), ["a", None]),
        (np.array([], np.float32), []),
        ((1, (2.5, None)), [1, [2.5, None]]),
        (_Inner(0.5), {"x": 0.5}),
        (_inner, {"x": None, "me": None}),
        (_Inner, "<class '"),
        (_Hostile(), "<_Hostile>"),
        (_HostileMap(a=1), "{'a': 1}"),
        ("y" * 5000, "y" * 5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_writing_never_fails(value: Any, written: Any) -> None:
    line = encode(RunHeader(hyperparameters={"v": value, "after": 1}))
    got = strict(line)["hyperparameters"]
    assert got["after"] == 1
    if value is _Inner:
        assert got["v"].startswith(written)
    elif value is _inner:
        assert got["v"]["x"] is None
        assert "_Inner" in got["v"]["me"]
    else:
        assert got["v"] == written
    assert isinstance(decode(line), RunHeader)


@pytest.mark.parametrize(
    "value",
    [
        _circle(),
        _circular_map(),
        {"a": _circle()},
        _deep(lambda v: [v]),
        _deep(lambda v: (v,)),
        _deep(lambda v: {"a": v}),
        list(range(3000)),
        set(range(3000)),
    ],
    ids=["circle", "circular map", "circle in a map", "lists", "tuples", "maps", "long list", "set"],
)
def test_circles_and_depths_are_cut(value: Any) -> None:
    line = encode(RunHeader(hyperparameters={"v": value}))
    assert len(line) < 300_000
    assert isinstance(decode(line), RunHeader)
    assert line.count(b"[") + line.count(b"{") < 60


def test_long_descriptions_are_cut() -> None:
    text = strict(encode(RunHeader(hyperparameters={"v": set(range(3000))})))["hyperparameters"]["v"]
    assert len(text) == 1000
    assert text.endswith("…")


def test_a_huge_metric_is_still_a_number() -> None:
    assert same(decode(encode(Eval(metrics={"perplexity": 10**30}))), Eval(metrics={"perplexity": 1e30}))


def test_any_number_will_do_where_it_means_the_same() -> None:
    assert decode(b'{"kind":"step","step":3.0,"loss":1,"metrics":{"ok":true}}') == Step(
        step=3, loss=1.0, metrics={"ok": 1.0}
    )


def test_unknown_fields_and_nulls_are_passed_over() -> None:
    assert decode(b'{"kind":"step","step":3,"time_s":null,"colour":"red"}') == Step(step=3)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"null", b"[]", b"3", b'"run"', b"{}", b"\x00\x00", b"\xff\xfe", b'{"kind":3}',
        b'{"kind":"step"} x', b'{"kind":"step","step":"3"}', b'{"kind":"step","step":3.5}',
        b'{"kind":"step","step":1e30}', b'{"kind":"step","step":18446744073709551615}',
        b'{"kind":"step","loss":"low"}', b'{"kind":"step","loss":NaN}', b'{"kind":"step","lr":0.1}',
        b'{"kind":"step","lr":[null]}', b'{"kind":"step","clipped":1}', b'{"kind":"step","metrics":[]}',
        b'{"kind":"step","metrics":{"a":"b"}}', b'{"kind":"step","loss_source":1}',
        b'{"kind":"step","grad_norms":"12"}', b'{"kind":"step","grad_norms":{"1":2}}',
        b'{"kind":"step","grad_norms":["1"]}', b'{"kind":"step","grad_norms":[[1]]}',
        b'{"kind":"step","grad_norms":[1,null,"x"]}', b'{"kind":"step","activations":{"mean":3}}',
        b'{"kind":"step","nonfinite":[]}', b'{"kind":"steps","step":[1,2],"loss":[1]}',
        b'{"kind":"steps","step":[1,null]}', b'{"kind":"steps","step":[1],"metrics":{"a":[]}}',
        b'{"kind":"steps","step":[1],"columns":{"0":3}}', b'{"kind":"layout","layers":[{}]}',
        b'{"kind":"layout","layers":[3]}', b'{"kind":"run","software":[]}',
        b'{"kind":"end","complete":"yes"}',
        b'{"kind":"layout","parameters":[{"name":"w","layer":0,"shape":[],"dtype":""}]}',
        (
            b'{"kind":"layout","layers":[{"name":"","type":"L"}],'
            b'"parameters":[{"name":"w","layer":0,"shape":[],"dtype":"","optimizer":0}]}'
        ),
        (
            b'{"kind":"layout","layers":[{"name":"","type":"L"}],"optimizers":[{"type":"SGD"}],'
            b'"parameters":[{"name":"w","layer":0,"shape":[],"dtype":"","optimizer":0,"group":0}]}'
        ),
        b"[" * 100_000, b'{"a":' * 2000,
    ],
    ids=lambda line: line[:50].decode("latin-1"),
)  # fmt: skip
def test_unreadable_lines_are_value_errors(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


@given(st.binary(max_size=60) | st.text(max_size=60))
@relaxed
def test_any_input_is_a_record_or_a_value_error(line: bytes | str) -> None:
    _read_through(line)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@relaxed
def test_any_tampering_is_a_record_or_a_value_error(kind: str, data: st.DataObject) -> None:
    body = orjson.loads(encode(data.draw(records(kind))))
    key = data.draw(
        st.sampled_from(sorted({*(f.name for f in dataclasses.fields(KINDS[kind])), "nonfinite"}))
    )
    body[key] = data.draw(JSON)
    _read_through(json.dumps(body).encode())


def _read_through(line: bytes | str) -> None:
    try:
        record = decode(line)
    except ValueError:
        return
    if isinstance(record, Steps):
        assert len(list(expand(record))) == len(record.step)
    assert same(decode(encode(record)), record)


@pytest.mark.parametrize(
    "path",
    [
        "loss",
        "nowhere",
        "metrics.a",
        "lr.7",
        "lr.x",
        "lr.0.1",
        "step",
        "",
        "..",
        "lr.99999999999",
        "lr." + "9" * 5000,
    ],
    ids=lambda path: path[:20],
)
def test_a_path_that_leads_nowhere_changes_nothing(path: str) -> None:
    body = {"kind": "step", "step": 1, "lr": [0.5], "nonfinite": {path: "nan", "time_s": 3, "epoch": "huge"}}
    back = decode(json.dumps(body))
    assert isinstance(back, Step)
    assert (back.step, back.lr, back.time_s) == (1, [0.5], 0.0)


def test_a_header_is_known_by_kind_and_schema() -> None:
    assert decode_header(encode(RunHeader(run_id="r"))).run_id == "r"
    for line in (
        b"",
        b"{}",
        b"\x89PNG",
        b"[1]",
        b'{"kind":"run"}',
        b'{"kind":"step","schema":1}',
        encode(Step()),
    ):
        with pytest.raises(NotARunFile):
            decode_header(line)
    for schema in ("0", "-1", "true", "1.5", '"1"', "null", "NaN"):
        with pytest.raises(NotARunFile):
            decode_header(f'{{"kind":"run","schema":{schema}}}')


def test_a_newer_schema_is_refused_even_when_its_fields_are_strange() -> None:
    with pytest.raises(NewerSchema, match=rf"schema 99.*schema {SCHEMA}"):
        decode_header(b'{"kind":"run","schema":99,"name":["not","text"]}')


def test_a_damaged_header_is_no_run_file() -> None:
    with pytest.raises(NotARunFile, match="damaged"):
        decode_header(b'{"kind":"run","schema":1,"name":["not","text"]}')


def test_every_kind_is_documented_and_listed_once() -> None:
    for kind, cls in KINDS.items():
        assert cls.kind == kind
        assert cls.__doc__
        assert not re.match(rf"{cls.__name__}\(", cls.__doc__), "a docstring, not the generated signature"
    assert StepColumns.__dataclass_fields__.keys() <= Step.__dataclass_fields__.keys()
    assert {f.name for f in dataclasses.fields(Steps)} - {"columns"} == {
        f.name for f in dataclasses.fields(Step)
    } - {f.name for f in dataclasses.fields(StepColumns)}
    assert Layout().layers == []
