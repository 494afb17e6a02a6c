"""The other ranks' files beside rank 0's: found late, read as they grow, waited for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers_runs import alert, header, steps, whole_run, write_run
from torchwatch.errors import NotARunFile
from torchwatch.records import Alert, End, Record, RunHeader, encode
from torchwatch.run import RankSummary, other_ranks, with_ranks
from torchwatch.runfile import follow, read_records

END = End("finished", step=3, steps=3, health_score=90)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def append(path: Path, *records: Record) -> None:
    with path.open("ab") as file:
        file.writelines(encode(record) for record in records)


def kinds(told: list[tuple[int, Record | None]], rank: int) -> list[str]:
    return [record.kind for r, record in told if r == rank and record is not None]


def write(folder: Path, rank: int, *records: Record, world: int = 3) -> Path:
    name = "run.jsonl" if rank == 0 else f"run.rank{rank}.jsonl"
    return write_run(folder / name, [header(rank=rank, world=world), *records])


def test_files_that_are_whole_are_read_one_after_the_other(tmp_path: Path) -> None:
    path = write(tmp_path, 0, *steps(1, 3), END)
    write(tmp_path, 1, *steps(1, 3), alert(), END)
    write(tmp_path, 2, *steps(1, 2))
    told = list(with_ranks(read_records(path), path, patience_s=0))
    assert [rank for rank, _ in told] == [0] * 5 + [1] * 6 + [2] * 3
    assert kinds(told, 1) == ["run", "step", "step", "step", "alert", "end"]
    assert kinds(told, 2) == ["run", "step", "step"]


@pytest.mark.parametrize("first", [{"rank": 1, "world": 3}, {"rank": 0, "world": 1}])
def test_only_rank_0_of_several_has_others(first: dict[str, int], tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.jsonl", [header(**first), END])
    write(tmp_path, 2, END)
    assert {rank for rank, _ in with_ranks(read_records(path), path)} == {0}


def scripted(path: Path, clock: Clock, events: list[Callable[[], object]]) -> Iterator[Record | None]:
    """Follow the file; at each pause the next event happens, and two seconds pass."""

    def sleep(_: float) -> None:
        clock.now += 2.0
        if events:
            events.pop(0)()

    return follow(path, sleep=sleep)


def test_a_rank_may_begin_later_and_end_later(tmp_path: Path) -> None:
    clock, path = Clock(), write(tmp_path, 0, *steps(1, 1), world=2)
    other = tmp_path / "run.rank1.jsonl"
    events: list[Callable[[], object]] = [
        lambda: write(tmp_path, 1, *steps(1, 1), world=2),
        lambda: append(other, alert()),
        lambda: append(path, END),
    ]
    late: list[Callable[[], object]] = [lambda: append(other, *steps(2, 3)), lambda: append(other, END)]

    def sleep(_: float) -> None:
        clock.now += 0.2
        if late:
            late.pop(0)()

    told = list(with_ranks(scripted(path, clock, events), path, sleep=sleep, clock=clock))
    assert kinds(told, 0) == ["run", "step", "end"]
    assert kinds(told, 1) == ["run", "step", "alert", "step", "step", "end"]
    places = [(rank, record.kind) for rank, record in told if isinstance(record, (Alert, End))]
    assert places == [(1, "alert"), (0, "end"), (1, "end")]


def test_a_rank_that_was_killed_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    clock, path = Clock(), write(tmp_path, 0, END)
    write(tmp_path, 1, *steps(1, 3))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    told = list(with_ranks(follow(path), path, patience_s=3.0, poll_s=0.5, sleep=sleep, clock=clock))
    assert len(pauses) == 6
    assert kinds(told, 1) == ["run", "step", "step", "step"]


def test_another_run_in_the_files_place_has_others_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, 0, END)
    write(tmp_path, 1, END)
    again = [header(world=1, run_id="second"), *steps(1, 1), END]
    records: list[Record | None] = [*read_records(path), None, *again]
    told = list(with_ranks(records, path, patience_s=0))
    assert kinds(told, 1) == ["run", "end"]
    headers = [record for rank, record in told if isinstance(record, RunHeader) and not rank]
    assert headers[-1].run_id == "second"


def test_summaries(tmp_path: Path) -> None:
    path = write(tmp_path, 0, END)
    first = write(tmp_path, 1, *whole_run()[1:])
    worse = [alert(severity="critical"), alert(severity="warning", state="updated")]
    second = write(tmp_path, 2, *steps(1, 3), *worse)
    assert other_ranks(path) == [
        RankSummary(1, str(first), "finished", 100, 93, {"dead-units": "warning"}),
        RankSummary(2, str(second), "unfinished", 3, None, {"dead-units": "critical"}),
    ]
    assert other_ranks(first) == []
    with pytest.raises(NotARunFile):
        other_ranks(tmp_path / "nothing.jsonl")
