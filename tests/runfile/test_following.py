from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from torchwatch.errors import NewerSchema, NotARunFile
from torchwatch.records import End, Record, RunHeader, Step, encode
from torchwatch.runfile import RunWriter, follow, following

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = RunHeader(run_id="r1")
OTHER = RunHeader(run_id="r2")


def lines(*records: Record) -> bytes:
    return b"".join(map(encode, records))


def steps(*numbers: int) -> list[Step]:
    return [Step(step=i) for i in numbers]


def watched(path: Path, *events: Callable[[], object], **options: bool) -> list[Record | None]:
    """What a follower yields while one event happens at each of its pauses; it is stopped after the last."""
    happened = iter(events)
    over = False

    def sleep(seconds: float) -> None:
        nonlocal over
        assert seconds == 0.25
        event = next(happened, None)
        if event is None:
            over = True
        else:
            event()

    return list(follow(path, poll_s=0.25, sleep=sleep, stop=lambda: over, **options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_bytes(lines(HEADER, *steps(1)))
    return path


def appending(path: Path, data: bytes) -> Callable[[], object]:
    def append() -> None:
        with path.open("ab") as file:
            file.write(data)

    return append


def test_records_come_as_they_are_written(path: Path) -> None:
    got = watched(path, appending(path, lines(*steps(2, 3))), appending(path, lines(*steps(4))))
    assert got == [HEADER, *steps(1), None, *steps(2, 3), None, *steps(4), None]


def test_the_end_record_ends_it(path: Path) -> None:
    end = appending(path, lines(*steps(2), End()) + lines(*steps(9)))
    assert watched(path, end) == [HEADER, *steps(1), None, *steps(2), End()]


def test_it_goes_on_past_the_end_when_told(path: Path) -> None:
    got = watched(path, appending(path, lines(End())), appending(path, lines(*steps(2))), past_end=True)
    assert got == [HEADER, *steps(1), None, End(), None, *steps(2), None]


def test_an_incomplete_line_is_held_back(path: Path) -> None:
    line = lines(*steps(2))
    got = watched(path, *(appending(path, line[i : i + 1]) for i in range(len(line))))
    assert [r for r in got if r is not None] == [HEADER, *steps(1, 2)]
    assert got[-2:] == [*steps(2), None]


def test_torn_and_repeated_lines_are_passed_over(path: Path) -> None:
    more = appending(path, b'{"kind":"st\n\n' + lines(HEADER, *steps(2)))
    assert watched(path, more) == [HEADER, *steps(1), None, *steps(2), None]


def test_a_truncated_file_is_read_from_its_top(path: Path) -> None:
    got = watched(path, lambda: path.write_bytes(lines(HEADER)), appending(path, lines(*steps(5))))
    assert got == [HEADER, *steps(1), None, HEADER, None, *steps(5), None]


def test_a_file_emptied_first_is_read_from_its_top(path: Path) -> None:
    got = watched(path, lambda: path.write_bytes(b""), appending(path, lines(OTHER, *steps(7))))
    assert got == [HEADER, *steps(1), None, None, OTHER, *steps(7), None]


def test_a_replaced_file_is_read_from_its_top(path: Path, tmp_path: Path) -> None:
    def replace() -> None:
        (tmp_path / "new").write_bytes(lines(OTHER, *steps(1, 2, 3, 4)))
        os.replace(tmp_path / "new", path)  # noqa: PTH105 - Path.replace reads as if path were replaced

    assert watched(path, replace) == [HEADER, *steps(1), None, OTHER, *steps(1, 2, 3, 4), None]


def test_what_was_written_before_the_replacement_is_not_lost(path: Path, tmp_path: Path) -> None:
    def replace() -> None:
        appending(path, lines(*steps(2)))()
        path.rename(tmp_path / "old")
        path.write_bytes(lines(OTHER))

    assert watched(path, replace) == [HEADER, *steps(1), None, *steps(2), OTHER, None]


def test_a_deleted_file_is_waited_for(path: Path) -> None:
    got = watched(path, path.unlink, lambda: None, lambda: path.write_bytes(lines(HEADER, *steps(4))))
    assert got == [HEADER, *steps(1), None, None, None, HEADER, *steps(4), None]


def test_a_writer_and_a_follower_through_a_deletion(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "live.jsonl")
    writer.write([HEADER, *steps(1)])
    got = watched(
        writer.path,
        lambda: writer.write(steps(2)),
        writer.path.unlink,
        lambda: writer.write(steps(3)),
        lambda: writer.write([End()]),
    )
    writer.close()
    assert got == [
        HEADER, *steps(1), None, *steps(2), None, None, HEADER, *steps(3), None,
        End(complete=False, lost_lines=3),
    ]  # fmt: skip


def test_a_second_run_in_the_same_file_announces_itself(path: Path) -> None:
    got = watched(path, appending(path, lines(OTHER, *steps(1), OTHER)))
    assert got == [HEADER, *steps(1), None, OTHER, *steps(1), None]


def test_a_file_that_is_not_there_yet_is_waited_for_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "later.jsonl"
    with pytest.raises(NotARunFile, match="there is no file"):
        follow(path)
    whole = lines(HEADER, End())
    got = watched(
        path,
        lambda: path.write_bytes(b""),
        appending(path, whole[:20]),
        appending(path, whole[20:]),
        wait=True,
    )
    assert got == [None, None, None, HEADER, End()]


def test_an_empty_file_is_waited_for_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")
    with pytest.raises(NotARunFile, match="is empty"):
        follow(path)
    assert watched(path, appending(path, lines(HEADER)), wait=True) == [None, HEADER, None]


@pytest.mark.parametrize("wait", [False, True])
def test_what_is_no_run_file_is_refused(tmp_path: Path, wait: bool) -> None:
    foreign, newer = tmp_path / "foreign", tmp_path / "newer"
    foreign.write_bytes(b"hello\n")
    newer.write_bytes(lines(HEADER).replace(b'"schema":1', b'"schema":2'))
    with pytest.raises(NotARunFile, match="foreign is not a run file"):
        watched(foreign, wait=wait)
    with pytest.raises(NewerSchema, match="newer cannot be read"):
        watched(newer, wait=wait)
    with pytest.raises(NotARunFile, match="is a directory"):
        watched(tmp_path, wait=wait)


def test_a_compressed_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.gz"
    path.write_bytes(gzip.compress(lines(HEADER, *steps(1, 2))))
    assert watched(path) == [HEADER, *steps(1, 2)]


def test_a_line_beyond_all_measure_is_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LONGEST_LINE", 1000)
    more = (appending(path, b"x" * 900) for _ in range(3))
    got = watched(path, *more, appending(path, b"\n" + lines(*steps(2))))
    assert [r for r in got if r is not None] == [HEADER, *steps(1, 2)]


def test_leaving_early_closes_the_file(path: Path) -> None:
    records: Iterator[Record | None] = follow(path)
    assert next(records) == HEADER
    del records  # a file left open would be an error here
