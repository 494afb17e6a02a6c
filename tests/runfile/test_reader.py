from __future__ import annotations

import gzip
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_records import same
from torchwatch.errors import NewerSchema, NotARunFile
from torchwatch.records import (
    KINDS,
    SCHEMA,
    Alert,
    End,
    Note,
    Record,
    RunHeader,
    Step,
    Steps,
    Unknown,
    decode,
    encode,
    expand,
    is_bad,
    is_missing,
)
from torchwatch.runfile import read_records, reader

EXAMPLE = Path(__file__).parents[1] / "data" / "schema-1.jsonl"

RECORDS: list[Record] = [
    RunHeader(run_id="r1", name="digits"),
    *(Step(step=i, loss=1 / i) for i in range(1, 6)),
]
LINES = [encode(r) for r in RECORDS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def test_records_come_back_in_order_header_first(path: Path) -> None:
    path.write_bytes(b"".join(LINES) + encode(End(steps=5)))
    got = read_records(str(path))
    assert got.header == RECORDS[0]
    assert got.end is None
    assert list(got) == [*RECORDS, End(steps=5)]
    assert (got.torn_lines, got.unknown_lines, got.end) == (0, 0, End(steps=5))
    assert list(got) == []


def test_leaving_early_closes_the_file(path: Path) -> None:
    path.write_bytes(b"".join(LINES))
    with read_records(path) as got:
        assert next(got) == RECORDS[0]
    assert list(got) == []
    for record in read_records(path):  # dropped half-way: a file left open would be an error here
        assert record == RECORDS[0]
        break


@pytest.mark.parametrize("cut", range(1, len(LINES[-1])))
def test_a_torn_last_line_is_passed_over_and_counted(path: Path, cut: int) -> None:
    whole = b"".join(LINES)
    path.write_bytes(whole[:-cut])
    got = read_records(path)
    if cut == 1:  # only the newline is missing
        assert list(got) == RECORDS
        assert got.torn_lines == 0
    else:
        assert list(got) == RECORDS[:-1]
        assert got.torn_lines == 1


@settings(deadline=None, max_examples=50)
@given(junk=st.binary(max_size=40).filter(lambda b: b.strip()), place=st.integers(1, 6))
def test_junk_between_lines_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int
) -> None:
    path = tmp_path_factory.mktemp("junk") / "run.jsonl"
    path.write_bytes(b"".join(LINES[:place]) + junk + b"\n" + b"".join(LINES[place:]))
    got = read_records(path)
    assert [r for r in got if not isinstance(r, Unknown)] == RECORDS
    assert got.torn_lines + got.unknown_lines <= junk.count(b"\n") + 1


def test_a_field_of_the_wrong_type_is_a_torn_line(path: Path) -> None:
    path.write_bytes(LINES[0] + b'{"kind":"step","step":"one"}\n' + LINES[1])
    got = read_records(path)
    assert list(got) == RECORDS[:2]
    assert got.torn_lines == 1


def test_windows_line_ends_blank_lines_and_a_byte_order_mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(line.strip() for line in LINES) + b"\r\n\r\n\n")
    got = read_records(path)
    assert list(got) == RECORDS
    assert got.torn_lines == 0


def test_a_hole_left_by_a_power_loss(path: Path) -> None:
    path.write_bytes(LINES[0] + b"\0" * 5000 + LINES[1] + LINES[2])
    got = read_records(path)
    assert list(got) == [RECORDS[0], RECORDS[2]]
    assert got.torn_lines == 1


def test_a_10_mb_line_reads(path: Path) -> None:
    note = Note(message="x" * 10_000_000)
    path.write_bytes(LINES[0] + encode(note) + LINES[1])
    assert list(read_records(path)) == [RECORDS[0], note, RECORDS[1]]


def test_a_line_beyond_all_measure_is_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST_LINE", 1000)
    path.write_bytes(LINES[0] + b"x" * 5500 + b"\n" + LINES[1] + b"y" * 1000)
    got = read_records(path)
    assert list(got) == RECORDS[:2]
    assert got.torn_lines == 2


def test_unknown_kinds_are_yielded_raw_and_counted(path: Path) -> None:
    path.write_bytes(LINES[0] + b'{"kind":"hologram","x":[1,null],"nonfinite":{"x.1":"inf"}}\n')
    got = read_records(path)
    assert list(got)[1] == Unknown(name="hologram", data={"x": [1, float("inf")]})
    assert (got.unknown_lines, got.torn_lines) == (1, 0)


def test_the_header_again_is_passed_over_and_another_run_ends_the_reading(path: Path) -> None:
    other = encode(RunHeader(run_id="r2"))
    path.write_bytes(b"".join(LINES[:3]) + LINES[0] + b"".join(LINES[3:]) + other + LINES[1])
    got = read_records(path)
    assert list(got) == RECORDS
    assert got.torn_lines == 0


def test_gzip_is_told_by_content(path: Path) -> None:
    path.write_bytes(gzip.compress(b"".join(LINES[:3])) + gzip.compress(b"".join(LINES[3:])))
    got = read_records(path)
    assert list(got) == RECORDS
    assert got.torn_lines == 0


def test_gzip_that_is_cut_off_reads_up_to_there(path: Path) -> None:
    notes: list[Record] = [Note(step=i, message=os.urandom(300).hex()) for i in range(200)]
    packed = gzip.compress(b"".join(map(encode, [RECORDS[0], *notes])))
    path.write_bytes(packed[: len(packed) // 2])
    got = read_records(path)
    found = list(got)
    assert found == [RECORDS[0], *notes[: len(found) - 1]]
    assert len(found) > 60
    assert got.torn_lines == 1


def test_gzip_that_is_damaged_reads_up_to_there(path: Path) -> None:
    packed = bytearray(gzip.compress(b"".join(LINES)))
    packed[-6] ^= 0xFF  # the checksum
    path.write_bytes(packed)
    got = read_records(path)
    assert next(got) == RECORDS[0]
    list(got)
    assert got.torn_lines == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file"),
        ("directory", "is a directory"),
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        (b"\x7fELF\x02\x01\x00" * 100, "is not a run file"),
        (b"step,loss\n1,0.5\n", "is not a run file"),
        (b'{"a": 1}\n', "is not a run file"),
        (b'{"kind":"run"}\n', "schema None"),
        (LINES[0][:40], "is not a run file"),
        (LINES[0][:40] + b"\n" + LINES[1], "is not a run file"),
        (LINES[1] + LINES[0], "is not a run file"),
        (LINES[0].replace(b'"schema":1', b'"schema":NaN'), "is not a run file"),
        (LINES[0].replace(b'"pid":0', b'"pid":"x"'), "damaged"),
        (b"\x1f\x8b" + b"garbage" * 9, "is not a run file"),
        (gzip.compress(b"hello", mtime=0), "is not a run file"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_what_is_no_run_file_is_refused_in_one_sentence(
    path: Path, content: bytes | str | None, says: str
) -> None:
    if content == "directory":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(NotARunFile, match=says) as caught:
        read_records(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value), "what to do next"


def test_a_file_that_cannot_be_opened_is_refused(path: Path) -> None:
    path.write_bytes(LINES[0])
    with pytest.raises(NotARunFile, match="cannot be opened: Not a directory"):
        read_records(path / "run.jsonl")
    with pytest.raises(NotARunFile, match="cannot be opened"):
        read_records(str(path) + "\0")


def test_a_newer_schema_is_refused_naming_both(path: Path) -> None:
    path.write_bytes(LINES[0].replace(b'"schema":1', b'"schema":99') + LINES[1])
    with pytest.raises(NewerSchema, match=rf"run\.jsonl.*schema 99.*up to schema {SCHEMA}: upgrade"):
        read_records(path)


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(NotARunFile) as caught:
        read_records(tmp_path / "a\x1b[2J\nb")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_holds_one_line_at_a_time(path: Path) -> None:
    line = encode(Step(step=1, loss=0.5))
    with path.open("wb") as file:
        file.write(LINES[0])
        for _ in range(200):
            file.write(line * 100)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_records(path)) == 20_001
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_the_example_of_schema_1_reads_for_ever() -> None:
    got = read_records(EXAMPLE)
    records = list(got)
    assert (got.torn_lines, got.unknown_lines) == (0, 0)
    assert {r.kind for r in records} == set(KINDS) - {"histogram"}  # a kind that came later
    assert got.header.name == "digits"
    assert got.end is not None
    assert (got.end.status, got.end.health_score) == ("finished", 61)
    (alert,) = (r for r in records if isinstance(r, Alert))
    assert (alert.check, alert.layer, alert.root) == ("dead-units", "1", True)
    by_kind = {r.kind: r for r in records}
    assert got.header.hyperparameters["schedule"] == {"warm.up": math.inf, "steps": [10, None]}
    step, fast = by_kind["step"], by_kind["steps"]
    assert isinstance(step, Step)
    assert isinstance(fast, Steps)
    assert step.grad_norms is not None
    assert is_missing(step.grad_norms).tolist() == [False, False, False, True]
    assert np.array_equal(step.grad_norms[:3], np.array([1, 0.5, 0.1], np.float32))
    last = list(expand(fast))[-1]
    assert last.grad_norms is not None
    assert is_bad(last.grad_norms).tolist() == [True, True, False, False]
    assert (last.step, last.metrics, math.isnan(last.loss or 0)) == (4, {"accuracy": 0.5}, True)
    assert all(same(decode(encode(r)), r) for r in records)
